"""A suite's items, or the first ones of each task, with what was answered to them and whether it was right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evaluators.decoding import Reply
from evaluators.scores import Answered
from evaluators.tasks import EvalTask, Judge, Suite


@dataclass(frozen=True, slots=True)
class PartialEvaluation:
    """What one model answered.

    Attributes:
        suite: what was asked of it.
        drawn, read: per task of the suite, its replies as tokens and as text, the samples of an item in a row.
        opened: per task, whether the prompt of an item itself opened a thought.
        right: per metric of the tasks, reply by reply.
    """

    suite: Suite
    drawn: Sequence[Sequence[Reply]]
    read: Sequence[Sequence[Answered]]
    opened: Sequence[Sequence[bool]]
    right: Mapping[str, Sequence[float]]

    def then(self, more: PartialEvaluation, suite: Suite) -> PartialEvaluation:
        """Returns this and what was asked after it: together they are `suite`."""
        return replace(
            self,
            suite=suite,
            drawn=[[*a, *b] for a, b in zip(self.drawn, more.drawn, strict=True)],
            read=[[*a, *b] for a, b in zip(self.read, more.read, strict=True)],
            opened=[[*a, *b] for a, b in zip(self.opened, more.opened, strict=True)],
            right={metric: [*bits, *more.right[metric]] for metric, bits in self.right.items()},
        )


def part(suite: Suite, start: float, end: float) -> Suite:
    """Returns a suite with the items of each task between two shares of it, 0 to 1; its replies are drawn for themselves."""
    how = replace(suite.decoding, seed=suite.decoding.seed + round(1000 * start))
    return replace(suite, tasks=tuple(_part(task, span(task, start, end)) for task in suite.tasks), decoding=how)


def span(task: EvalTask, start: float, end: float) -> slice:
    """Returns which items of a task lie between two shares of it; of a small one more are taken, never fewer."""
    return slice(*(math.ceil(share * len(task.prompts)) for share in (start, end)))


def _part(task: EvalTask, items: slice) -> EvalTask:
    first = items.start

    def shifted(judge: Judge) -> Judge:
        return lambda i, answer: judge(first + i, answer)

    judges = {metric: shifted(judge) for metric, judge in task.judges.items()}
    return replace(task, prompts=task.prompts[items], targets=task.targets[items], judges=judges)
