"""What counts as a score, and how far one report of it can be trusted where nobody said.

A rule meets scores of any scale: shares, percent, losses, returns of -1e6, rounded, constant, or far from finite. The unit in
which it thinks is the standard error of one report. Where none is given it is estimated from how rough the curves of the
sweep are, and never below a floor of the scores' own scale: a curve without a bend, or scores rounded to two digits, are no
measurements without error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sweeps.journal.history import Curve

LARGEST = 1e100
"""A score further from 0 than this counts as not finite: its squares and differences are not."""
SMALLEST = 1e-100
"""Scores that differ by less than this are equal: the squares of their differences are 0."""
FLOOR = 0.002
"""Least noise of a report, as a share of the middle 90 % of all scores of the sweep."""
RESOLUTION = 1e-9
"""Least noise of a report, as a share of the largest score: two scores that differ by less are equal."""
MOST_ROUNDED = 0.02
"""Rounding counts as noise up to this share of the scores' range: a handful of levels are not yet a rounding."""
_ROUGH_QUANTILE, _ROUGH_NORMAL = 0.4, 1.284  # |N(0, 6)|, a second difference of unit noise, has this 40 % quantile


def as_number(value: Any) -> float | None:
    """Returns a Python, NumPy or torch number, or an array of one number, as a float; None for anything else.

    A bool is no number.
    """
    if isinstance(value, (bool, np.bool_, str, bytes)):
        return None
    if not isinstance(value, (int, float)) and callable(item := getattr(value, "item", None)):
        try:
            value = item()
        except (ValueError, RuntimeError, TypeError):  # an array of more than one number
            return None
        if isinstance(value, bool):
            return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return None


def as_step(value: Any) -> int | None:
    """Returns a whole number of any numeric type as an int; None for anything else."""
    number = as_number(value)
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else None


def usable(value: float) -> bool:
    """True for a score that can be calculated with."""
    return -LARGEST <= value <= LARGEST


def standard_error(value: float | None) -> float:
    """Returns a reported standard error, 0.0 where there is none that can be used (absent, 0, negative, not finite)."""
    return value if value is not None and 0.0 < value <= LARGEST else 0.0


def noise_floor(values: Sequence[float]) -> float:
    """Returns the least noise that a report of scores like these has; above 0, whatever the scores are.

    Scores that come in steps (two digits, 1 of 50 items) are as uncertain as rounding makes them.
    """
    if not values:
        return SMALLEST
    known = np.unique(np.asarray(values, dtype=np.float64))
    low, high = np.quantile(known, (0.05, 0.95))
    largest = float(np.abs(known).max())
    gaps = np.diff(known)
    gaps = gaps[gaps > max(RESOLUTION * largest, SMALLEST)]
    rounding = (
        min(float(gaps.min()) / math.sqrt(12.0), MOST_ROUNDED * float(known[-1] - known[0])) if gaps.size else 0.0
    )
    return max(FLOOR * float(high - low), RESOLUTION * largest, rounding, SMALLEST)


def estimate(curves: Iterable[Curve], metric: str) -> float:
    """Returns the noise of one report of `metric`: from second differences of all curves, not below the floor.

    A low quantile is used, since a steep curve has second differences of its own.
    """
    values, bends = [], []
    for curve in curves:
        scores = [v for v in curve.values(metric) if usable(v)]
        values += scores
        bends += [abs(c - 2 * b + a) for a, b, c in zip(scores, scores[1:], scores[2:], strict=False)]
    rough = float(np.quantile(bends, _ROUGH_QUANTILE)) / _ROUGH_NORMAL if bends else 0.0
    return max(rough, noise_floor(values))
