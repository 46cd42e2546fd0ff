"""What a sweep looks for: a metric with its direction, how many of the best, and the constraints they have to meet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Constraint:
    """A metric that must not fall below (maximised) a floor: absolute, or relative to the base model's score.

    Exactly one of `at_least`, `at_most`, `relative_to_base` is set. `relative_to_base=-0.10` on a score means: no more
    than 0.10 (in the metric's own unit) below the base model.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    relative_to_base: float | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """What the sweep looks for: the best `top` trials by `metric` among those that meet the constraints."""

    metric: str
    maximize: bool = True
    top: int = 3
    constraints: tuple[Constraint, ...] = ()

    @property
    def sign(self) -> float:
        """+1 to maximise, -1 to minimise."""
        return 1.0 if self.maximize else -1.0
