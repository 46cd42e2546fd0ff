"""Ends an evaluation once it is clear that a checkpoint is out of the running
(`sweeps.controller.evaluation.early_stopping` says when that is).

A bet against "the mean is at least this" multiplies its wealth by what each item returns. If the claim is true, the wealth
ever reaches 1 / level with a chance of at most `level`, however often one looks (Ville's inequality; Waudby-Smith and
Ramdas 2024). So items are asked in blocks, the same ones in the same order for every checkpoint, and after each block one
may look; nothing is lost by looking.

What comes of it has the n and the standard error of the items that were asked. It leans to the bad side, since an
evaluation ends when it looks bad: over all evaluations of a score at a given distance from its bound by at most 0.3
standard errors (1,000 draws each, distances of 0 to 0.4), but the few that end early although they lie at the bound are 1 to
2 too low. Beyond two standard errors lay 4 to 11 % of all scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from evaluators.partial import PartialEvaluation, part, span
from evaluators.scores import Scores
from evaluators.tasks import Suite
from sweeps.config.eval_job import EarlyEnd, Question
from sweeps.errors import InputError
from sweeps.statistics import shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOOKS: Final = (0.125, 0.25, 0.5, 1.0)
"""Shares of each task's items after which one looks. They double, since each block waits for its longest reply."""
_BET_SIZES: Final = np.linspace(0.05, 0.95, 10)
"""Shares of the wealth that are bet side by side: large ones win soon where the mean is far from the line, small ones late
where it is near. Their mean is a fair bet too."""
_EDGE: Final = 0.05
"""Bets on a line nearer to 1 are no larger than those on 1 - _EDGE."""


class SequentialTest:
    """A bet against "the mean of these observations in [0, 1] is at least `line`".

    Observations are independent; where they come from several sources in turn, one of each in every round, the claim is
    about the mean over the sources (a product is largest where its factors are equal).
    """

    def __init__(self, line: float) -> None:
        self.line = line
        self._logs = np.zeros(len(_BET_SIZES))

    def update(self, values: Sequence[float] | NDArray[np.float64]) -> None:
        """Takes observations in."""
        room = max(1 - self.line, _EDGE)
        self._logs += np.log1p(np.outer(_BET_SIZES / room, self.line - np.asarray(values, dtype=float))).sum(axis=1)

    @property
    def wealth(self) -> float:
        """What 1 has become; 1 / level or more refutes the claim at that level."""
        return float(np.exp(np.minimum(self._logs, 700.0)).mean())


class StoppingHypothesis:
    """One question about a checkpoint, and the bet on its answer."""

    def __init__(self, question: Question, suite: Suite, base: Scores) -> None:
        self.question = question
        parts = suite.means.get(question.metric, (question.metric,))
        self.tasks = [(metric, task) for metric in parts for task in suite.tasks if metric in suite.metrics(task)]
        if not self.tasks:
            known = sorted({*suite.means, *(metric for task in suite.tasks for metric in suite.metrics(task))})
            raise InputError(
                f"suite {suite.name!r} does not measure {question.metric!r}; it measures: {', '.join(known)}"
            )
        self.samples = [suite.samples(task) for _, task in self.tasks]
        self.base = [
            shares(base.outcomes[metric], len(task.prompts), k)
            for (metric, task), k in zip(self.tasks, self.samples, strict=True)
        ]
        self.test = SequentialTest(float(self._placed(np.array(question.bound))))

    def _placed(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Puts a score, or a change of it, where [0, 1] is all it can be and low is bad."""
        value = (1 + value) / 2 if self.question.against_base else value
        return 1 - value if self.question.ceiling else value

    def update(self, block: PartialEvaluation, start: float, end: float) -> None:
        """Takes in how a block of items was answered: in each round one value of every task, each counting the same."""
        values = []
        for (metric, task), samples, base in zip(self.tasks, self.samples, self.base, strict=True):
            bits = np.array(block.right[metric], dtype=float).reshape(-1, samples).mean(axis=1)
            known = np.array(base[span(task, start, end)]) if self.question.against_base else 0.0
            values.append(self._placed(bits - known))
        rounds = min(map(len, values))
        if rounds:
            self.test.update(np.concatenate([_in_rounds(task, rounds) for task in values]))


def _in_rounds(values: NDArray[np.float64], rounds: int) -> NDArray[np.float64]:
    """Returns one value a round: of a task with more items than rounds the mean of neighbours."""
    if len(values) == rounds:
        return values
    return np.array([cut.mean() for cut in np.array_split(values, rounds)])


def evaluate_sequentially(
    ask: Callable[[Suite], PartialEvaluation], suite: Suite, early: EarlyEnd, base: Scores
) -> tuple[PartialEvaluation, dict[str, Any]]:
    """Asks a suite's items in blocks until one of the questions is clear, or all are asked.

    Args:
        ask: has a model answer a suite. base: the base model's scores on all of the suite.

    Returns:
        What was asked and answered, and what to say of an early end (`Scores.asked`); {} when all items were asked.

    Raises:
        InputError: the suite does not measure what a question is about.
    """
    hypotheses = [StoppingHypothesis(question, suite, base) for question in early.questions]
    asked, before = None, 0.0
    for look in LOOKS:
        block = ask(part(suite, before, look))
        asked = block if asked is None else asked.then(block, part(suite, 0.0, look))
        for hypothesis in hypotheses:
            hypothesis.update(block, before, look)
        clear = [
            hypothesis.question.answer
            for hypothesis in hypotheses
            if hypothesis.test.wealth >= len(hypotheses) / early.level
        ]
        if clear and look < 1:
            sizes = [sum(len(task.prompts) for task in tasks) for tasks in (asked.suite.tasks, suite.tasks)]
            return asked, {"items": sizes[0], "of": sizes[1], "clear": clear[0]}
        before = look
    assert asked is not None
    return asked, {}


def cache_key(early: EarlyEnd, base: Scores) -> dict[str, str]:
    """Returns what else decides scores that may come of fewer items: in a cache they are apart from those of all items."""
    answers = json.dumps([base.suite, dict(base.outcomes)], sort_keys=True)
    questions = json.dumps([early.level, LOOKS, early.questions])
    return {"early": questions, "base": hashlib.sha256(answers.encode()).hexdigest()}
