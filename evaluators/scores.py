"""What an evaluation gives: the scores of one checkpoint, and a reply split into thought and answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one checkpoint on one suite.

    Attributes:
        metrics: `role/name` to a share in [0, 1] (roles, tasks), or tokens (`length/mean`, `length/<role>`).
        se: standard errors, in the metric's own unit. n: items behind each metric.
        suite: the suite's version. items_digest: sha256 of its items; outcomes of equal digests can be paired.
        outcomes: per task metric, one bit a reply (`pack`), the samples of an item in a row.
        parts: per role metric, the task metrics that it is the mean of.
        cost: `cpu_s` of the process, and `gpu_s`, its wall clock, where it sees a GPU, whatever it reserved of that.
        asked: of an evaluation that ended early (`evaluators.early_stopping`): `items` asked, `of` how many, and what is `clear`;
            `n`, `se` and `outcomes` are those of the items that were asked, the first ones of each task.
        cached: looked up, not measured now.
    """

    metrics: Mapping[str, float]
    se: Mapping[str, float]
    n: Mapping[str, int]
    suite: str
    items_digest: str
    outcomes: Mapping[str, str]
    cost: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply as text: thought, answer (None when the thought never ended), length in tokens, cut off by the cap?

    `entropy` as in `evaluators.decoding.Reply`.
    """

    thought: str
    answer: str | None
    tokens: int
    truncated: bool
    entropy: float | None = None
