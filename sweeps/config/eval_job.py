"""The job of an evaluator: a checkpoint to score, and when that may end before all items are evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sweeps.config.trial import EvalSpec


class Question(NamedTuple):
    """A checkpoint is out when `metric` is clearly below `bound` (above it where `ceiling`).

    `against_base` bounds are changes from the base's score on the same items.
    """

    metric: str
    bound: float = 0.0
    against_base: bool = True
    ceiling: bool = False

    @property
    def answer(self) -> str:
        """What is clear once it is."""
        side = "above" if self.ceiling else "below"
        base = "its base" + (f" {self.bound:+g}" if self.bound else "")
        return f"{self.metric} is {side} {base if self.against_base else f'{self.bound:g}'}"


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """Ends an evaluation when one of the questions is clear, wrongly with a chance of at most `level` for all together.

    `base` is the source of the base model, whose answers to the same items are compared with.
    """

    level: float
    questions: tuple[Question, ...]
    base: str


@dataclass(frozen=True, slots=True)
class EvalJob:
    """A checkpoint to be scored. At step 0 of `base-<model>` `path` is the model's own source.

    `order` is the journal's number of the checkpoint's row, so that older ones come first; `tries` counts from 1; `early` says
    when it may end before all items are asked; `digest` is that of the checkpoint's weights, "" where it is not known.
    """

    trial: str
    attempt: int
    step: int
    path: str
    model: str
    evaluation: EvalSpec
    tries: int = 1
    order: int = -1
    early: EarlyEnd | None = None
    digest: str = ""

    @property
    def key(self) -> tuple[str, int, str]:
        """What makes it this job: two attempts may save the same step in two places."""
        return (self.trial, self.step, self.path)
