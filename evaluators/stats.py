"""What a score is worth: standard errors of shares and means, avg@k and pass@k. Comparisons are in `sweeps.statistics`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


def share_error(right: int, n: int) -> float:
    """Returns the standard error of a share of `right` items in `n`; see `score_error`."""
    return _error(right, right, n)


def score_error(values: Sequence[float]) -> float:
    """Returns the standard error of the mean of scores in [0, 1].

    One score of 0 and one of 1 are added for the spread (of right and wrong that is Laplace's (right + 1) / (n + 2)): 100
    right answers of 100 do not prove a score of exactly 1.0 with no error at all, which the plain formula would say.
    """
    return _error(sum(values), sum(v * v for v in values), len(values))


def _error(total: float, squares: float, n: int) -> float:
    mean = (total + 1) / (n + 2)
    return math.sqrt(max(0.0, (squares + 1) / (n + 2) - mean * mean) / n)


def mean_error(errors: Sequence[float]) -> float:
    """Returns the standard error of a mean over independent tasks with these errors."""
    return math.sqrt(sum(e * e for e in errors)) / len(errors)


def sample_error(values: Sequence[float]) -> float:
    """Returns the standard error of the mean of `values`; 0.0 for fewer than two."""
    n = len(values)
    if n < 2:
        return 0.0
    mean = sum(values) / n
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)


class Estimate(NamedTuple):
    """A mean and its standard error."""

    value: float
    se: float


def avg_at_k(right: Sequence[float], k: int) -> Estimate:
    """Mean share of right answers over k samples an item; items, not samples, are the independent units."""
    shares = [r / k for r in right]
    return Estimate(sum(shares) / len(shares), score_error(shares))


def pass_at_k(right: Sequence[int], samples: int, k: int) -> Estimate:
    """Chance that at least one of k samples is right, unbiased from `samples` >= k of them (Chen et al. 2021).

    Raises:
        ValueError: fewer samples than k.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples an item, got {samples}")
    chances = [1 - math.comb(samples - r, k) / math.comb(samples, k) for r in right]
    return Estimate(sum(chances) / len(chances), score_error(chances))
