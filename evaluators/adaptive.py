"""Stops an evaluation once its decision is clear: is this score above a line, or below it?

A bet against "the score is on this side of the line" multiplies its stake by what each item returns. If the claim is
true, the stake ever reaches 1 / level with a chance of at most `level`, however often one looks (Ville's inequality;
Waudby-Smith and Ramdas 2024). So items may be asked until one of the two claims is refuted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

import numpy as np

from evaluators.evaluate import Loaded, score_model
from evaluators.suites import EvalTask, Judge, Suite
from sweeps.errors import InputError
from sweeps.paired import unpack

Side = Literal["above", "below"]
_BETS: Final = np.linspace(0.05, 0.95, 10)
"""Shares of the stake that are bet side by side: large ones win soon where the score is far from the line, small ones
late where it is near. Their mean is a fair bet too."""


@dataclass
class LineTest:
    """Is the mean of observations in [0, 1] above or below `line`? Wrong with a chance of at most `level`.

    Feed it one observation at a time; `side` stays None until it is clear, and never changes afterwards.
    """

    line: float
    level: float = 0.05
    seen: int = 0
    side: Side | None = None
    _logs: dict[Side, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.line < 1 or not 0 < self.level < 1:
            raise InputError(f"line test: line {self.line} and level {self.level} must lie strictly between 0 and 1")
        self._logs = {"above": np.zeros(len(_BETS)), "below": np.zeros(len(_BETS))}

    def add(self, value: float) -> Side | None:
        """Takes an observation in; returns the side if it is clear by now."""
        assert 0 <= value <= 1, value
        if self.side is None:
            self.seen += 1
            self._logs["above"] += np.log1p(_BETS / self.line * (value - self.line))
            self._logs["below"] += np.log1p(_BETS / (1 - self.line) * (self.line - value))
            for side, logs in self._logs.items():
                if np.exp(logs).mean() >= 2 / self.level:  # half of the error to either side
                    self.side = side
        return self.side


class Decided(NamedTuple):
    """What came out: the side (None when all items were asked and it is still open), the score of what was asked, and
    how many replies were asked for and saved."""

    side: Side | None
    score: float
    asked: int
    saved: int
    cpu_s: float


def decide(loaded: Loaded, suite: Suite, metric: str, line: float, *, level: float = 0.05, chunk: int = 10) -> Decided:
    """Asks a metric's items in chunks until it is clear on which side of `line` the score lies.

    Every task of the metric counts the same: one observation is the mean outcome of one item of each task.

    Args:
        metric: of a task, or a mean of the suite. chunk: items of each task between two looks.

    Raises:
        InputError: the suite does not measure `metric`.
    """
    started = time.process_time()
    parts = suite.means.get(metric, (metric,))
    tasks = [task for part in parts for task in suite.tasks if part in task.judges]
    if not tasks:
        known = sorted({*suite.means, *(name for task in suite.tasks for name in task.judges)})
        raise InputError(f"suite {suite.name!r} does not measure {metric!r}; it measures: {', '.join(known)}")
    rounds = min(len(task.prompts) for task in tasks)
    test, seen = LineTest(line, level), []
    for start in range(0, rounds, chunk):
        for value in _observations(loaded, suite, tasks, parts, slice(start, min(start + chunk, rounds))):
            seen.append(value)
            test.add(value)
        if test.side is not None:
            break
    asked = len(seen) * len(tasks)
    total = sum(len(task.prompts) for task in tasks)
    return Decided(test.side, sum(seen) / len(seen), asked, total - asked, time.process_time() - started)


def _observations(
    loaded: Loaded, suite: Suite, tasks: list[EvalTask], parts: Iterable[str], items: slice
) -> list[float]:
    asked = replace(suite, tasks=tuple(part_of(task, items) for task in tasks), means={})
    outcomes = score_model(loaded, asked).outcomes
    size, samples = items.stop - items.start, suite.decoding.samples
    per_task = [np.array(unpack(outcomes[part], size * samples)).reshape(size, samples).mean(1) for part in parts]
    values: list[float] = np.mean(per_task, axis=0).tolist()
    return values


def part_of(task: EvalTask, items: slice) -> EvalTask:
    """Returns a task with some of its items only."""
    first = items.start or 0

    def shifted(judge: Judge) -> Judge:
        return lambda i, answer: judge(first + i, answer)

    judges = {metric: shifted(judge) for metric, judge in task.judges.items()}
    return replace(task, prompts=task.prompts[items], targets=task.targets[items], judges=judges)
