"""What one curve did: fell and came back, fell for good, never fell, fell late — with the numbers that say so.

The definitions, once for the report, its JSON and its figures (`y` is the score, turned so that more is better; `b` is
the base model's):

- A step is *really below* the base when `b - y` is more than `noise_limit(m, p)` standard errors of that difference and at
  least 5 % of `b`. m is the number of steps looked at: the lowest of fifteen noisy scores lies 2 standard errors low by
  luck in about 30 % of flat curves, so the limit grows with m. p is the sweep's own error level (`inference.Level`).
- It is *recovered* at the first later step that is back at 90 % of the base and has regained half of what was lost (for
  a fall of 20 % or more the first implies the second).
- The items are the same for base and trial, so errors are treated as independent to the safe side: a paired test would
  see smaller differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

from sweeps.text_enum import TextEnum

MIN_POINTS = 3  # scored steps after step 0; with two, every noisy curve "falls" or "rises"
MIN_FALL = 0.05  # of the base: smaller falls are real with many items, and nobody would act on them
BACK_AT = 0.90  # of the base
LATE = 0.5  # share of the steps run: a fall that begins there or after is a late decline, not a dip


class Shape(TextEnum):
    """What a curve did, in one word."""

    RECOVERED = "dip-and-recover"
    # Fell, and was not back at its last score; whether it would have come back later is not known.
    NOT_BACK = "not-back"
    NO_DIP = "no-dip"
    LATE_DECLINE = "late-decline"
    TOO_FEW = "not-enough-points"


class Measured(NamedTuple):
    """One score: its step, value, standard error in the score's own unit, and the items behind it."""

    step: int
    value: float
    se: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric of one trial against its base model.

    Attributes:
        base: the score at step 0. trough: the low of the dip, or the lowest score where there was none.
        depth: base minus trough, positive when the score got worse. depth_relative: the same as a share of the base.
        depth_se: standard error of the depth. beyond_2se: whether the depth is more than two of them; None without
            standard errors. `shape` asks for more (see the module's first lines).
        fell_at: first step that is really below the base. recovered_at: None when it did not recover.
        change, change_se: last score minus base score, and its standard error.
        sign: +1 where more is better, -1 where less is.
        limit: standard errors beyond which one difference is called real in this sweep.
    """

    metric: str
    shape: Shape
    sign: float = 1.0
    base: Measured | None = None
    trough: Measured | None = None
    final: Measured | None = None
    depth: float | None = None
    depth_relative: float | None = None
    depth_se: float | None = None
    beyond_2se: bool | None = None
    fell_at: int | None = None
    recovered_at: int | None = None
    change: float | None = None
    change_se: float | None = None
    limit: float = 2.0

    @property
    def held(self) -> bool | None:
        """Whether the last score is not really worse than the base; None when unknown."""
        if self.change is None or self.change_se is None:
            return None
        return self.sign * self.change >= -self.limit * self.change_se

    @property
    def rose(self) -> bool | None:
        """Whether the last score is really better than the base; None when unknown."""
        if self.change is None or self.change_se is None:
            return None
        return self.sign * self.change > self.limit * self.change_se


def noise_limit(looks: int, level: float = 0.05) -> float:
    """Standard errors that the lowest of `looks` scores must fall to be more than luck, two-sided, over all looks."""
    return NormalDist().inv_cdf((1 + (1 - level) ** (1 / max(looks, 1))) / 2)


def error_of(point: Measured) -> float | None:
    """Standard error of a score; where it is 0, as of a share of 0 or 1, that of half an item; None when unknown.

    None too when it is 0 and the items are not known: a score without any error is one whose error was not measured.
    """
    if point.se is None or point.se > 0:
        return point.se
    return 0.5 / point.n if point.n else None


def difference_se(a: Measured, b: Measured) -> float | None:
    """Standard error of a difference of two independent scores; None when either is unknown."""
    ours, theirs = error_of(a), error_of(b)
    return None if ours is None or theirs is None else math.hypot(ours, theirs)


def read_shape(
    metric: str, points: Sequence[Measured], base: Measured | None, *, sign: float = 1.0, level: float = 0.05
) -> Reading:
    """Returns what a curve did.

    Args:
        points: scores after step 0 in order of step. base: the score at step 0.
        sign: -1 for a metric of which less is better.
        level: p-value up to which a difference is called real.
    """
    if not points:
        return Reading(metric, Shape.TOO_FEW, sign, base)
    final = points[-1]
    if base is None:
        return Reading(metric, Shape.TOO_FEW, sign, final=final)
    curve = _Curve(points, base, sign, level)
    trough, recovered_at = curve.dip()
    depth = sign * (base.value - trough.value)
    depth_se = difference_se(base, trough)
    return Reading(
        metric=metric,
        shape=curve.shape(trough, recovered_at) if len(points) >= MIN_POINTS else Shape.TOO_FEW,
        sign=sign,
        base=base,
        trough=trough,
        final=final,
        depth=depth,
        depth_relative=depth / abs(base.value) if base.value else None,
        depth_se=depth_se,
        beyond_2se=None if depth_se is None else depth > 2 * depth_se,
        fell_at=curve.falls[0].step if curve.falls else None,
        recovered_at=recovered_at,
        change=final.value - base.value,
        change_se=difference_se(base, final),
        limit=noise_limit(1, level),
    )


class _Curve:
    """A curve and its base, turned so that more is better."""

    def __init__(self, points: Sequence[Measured], base: Measured, sign: float, level: float) -> None:
        self.points, self.base, self.sign = points, base, sign
        self.level = sign * base.value
        self.limit = noise_limit(len(points), level)
        self.slack = noise_limit(1, level)
        self.falls = [p for p in points if self._really_below(self.base, p, self.limit)]
        self._best_after = self._highest_after()

    def _highest_after(self) -> dict[int, float]:
        """The best score after each step: most falls are seen not to have come back without a search."""
        found, best = {}, -math.inf
        for p in reversed(self.points):
            found[p.step] = best
            best = max(best, self._y(p))
        return found

    def dip(self) -> tuple[Measured, int | None]:
        """Returns (low, first step back): the lowest real fall that came back, else the lowest score and None.

        Taking the lowest *recovered* fall keeps the dip of a run that came back and then declined below it.
        """
        for low in sorted(self.falls, key=self._y):
            if (step := self._back(low)) is not None:
                return low, step
        return min(self.points, key=self._y), None

    def shape(self, low: Measured, recovered_at: int | None) -> Shape:
        final = self.points[-1]
        if not self.falls:
            return Shape.LATE_DECLINE if self._declined() else Shape.NO_DIP
        if recovered_at is not None:
            slack = self.slack * (final.se or 0.0)
            return Shape.RECOVERED if self._y(final) >= self._back_level(low) - slack else Shape.LATE_DECLINE
        return Shape.LATE_DECLINE if self.falls[0].step >= LATE * final.step else Shape.NOT_BACK

    def _declined(self) -> bool:
        """Whether the last score is really below the best one, though not below the base."""
        best = max(self.points, key=self._y)
        return self._really_below(best, self.points[-1], self.limit, floor=1 - BACK_AT)

    def _really_below(self, high: Measured, low: Measured, limit: float, floor: float = MIN_FALL) -> bool:
        fall = self._y(high) - self._y(low)
        return fall > 0 and fall >= floor * abs(high.value) and fall > limit * (difference_se(high, low) or 0.0)

    def _back(self, low: Measured) -> int | None:
        level = self._back_level(low)
        if self._best_after[low.step] < level:
            return None
        return next((p.step for p in self.points if p.step > low.step and self._y(p) >= level), None)

    def _back_level(self, low: Measured) -> float:
        half = self.level - (self.level - self._y(low)) / 2
        return max(self.level - (1 - BACK_AT) * abs(self.level), half)

    def _y(self, point: Measured) -> float:
        return self.sign * point.value
