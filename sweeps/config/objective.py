"""A sweep's objective: a metric with its direction, how many of the best trials, and the constraints they have to meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from sweeps.errors import InputError

At = Literal["end", "best"]
"""What a trial is worth: the score at its last step, or that of its best checkpoint."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A metric that must not fall below (maximised) a floor: absolute, or relative to the base model's score.

    Exactly one of `at_least`, `at_most`, `relative_to_base` is set. `relative_to_base=-0.10` on a score means: no more
    than 0.10 (in the metric's own unit) below the base model.

    Raises:
        InputError: none of the three is set, or several are.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    relative_to_base: float | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.at_least, self.at_most, self.relative_to_base) if v is not None]
        if len(given) != 1:
            raise InputError(
                f"constraint on {self.metric} sets {len(given)} limits; set one of at_least, at_most, relative_to_base"
            )


@dataclass(frozen=True, slots=True)
class Goal:
    """The objective: the best `top` trials by `metric` among those that meet the constraints.

    With `at` "best" a trial stands for its best checkpoint, which it keeps when it is given up later.

    Raises:
        InputError: `top` is no whole number of at least 1, or `at` is unknown.
    """

    metric: str
    maximize: bool = True
    top: int = 3
    constraints: tuple[Constraint, ...] = ()
    at: At = "end"

    def __post_init__(self) -> None:
        top: Any = self.top
        if isinstance(top, bool) or not isinstance(top, Integral) or int(top) < 1:
            raise InputError(f"top is {top!r}; expected a whole number of at least 1")
        if self.at not in get_args(At):
            raise InputError(f"at is {self.at!r}; expected {' or '.join(get_args(At))}")

    @property
    def sign(self) -> float:
        """+1 to maximise, -1 to minimise."""
        return 1.0 if self.maximize else -1.0


def is_met(c: Constraint, value: float | None, base: float | None) -> bool | None:
    """Whether a score meets a constraint, or None where a number that decides it is not known."""
    if c.at_least is not None:
        return None if value is None else value >= c.at_least
    if c.at_most is not None:
        return None if value is None else value <= c.at_most
    return None if value is None or base is None else value >= base + (c.relative_to_base or 0.0)


def all_met(constraints: Sequence[Constraint], scores: Mapping[str, float], base: Mapping[str, float]) -> bool | None:
    """Whether scores meet all constraints, as `combined` says; `base` holds the scores of the base model."""
    return combined(is_met(c, scores.get(c.metric), base.get(c.metric)) for c in constraints)


def combined(met: Iterable[bool | None]) -> bool | None:
    """Of several constraints: False where one is not met, else None where that is not known of one, else True."""
    known = tuple(met)
    if False in known:
        return False
    return None if None in known else True
