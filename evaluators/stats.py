"""What a score is worth: standard errors, comparisons on the same items, the smallest difference that shows.

Two checkpoints answer the same items, so they are compared item by item: only items on which they differ say anything,
and the test needs no assumption on how hard the items are (McNemar 1947; over several tasks, each counting the same,
its exact sign-flip form).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Outcomes = Sequence[bool]


def share_error(right: int, n: int) -> float:
    """Returns the standard error of a share of `right` items in `n`.

    Laplace's (right + 1) / (n + 2) stands in for the share: 100 right answers of 100 do not prove a score of exactly
    1.0 with no error at all, which the plain binomial formula would say.
    """
    p = (right + 1) / (n + 2)
    return math.sqrt(p * (1 - p) / n)


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


class Paired(NamedTuple):
    """Checkpoint minus base on the same items: the difference of the scores, its standard error, items gained and
    lost, and the two-sided p-value of "no difference"."""

    difference: float
    se: float
    gained: int
    lost: int
    p: float

    def differs(self, level: float = 0.05, looks: int = 1) -> bool:
        """Says "different"; wrong at most at `level` over this many comparisons together (Bonferroni)."""
        return self.p <= level / looks


def compare(base: Sequence[Outcomes], later: Sequence[Outcomes]) -> Paired:
    """Compares two checkpoints on the same items of one or more tasks, each task counting the same.

    Args:
        base, later: per task, right or wrong per item; equal shapes.

    Raises:
        ValueError: the shapes differ, or there are no items.
    """
    shapes = [[len(task) for task in side] for side in (base, later)]
    if shapes[0] != shapes[1] or not shapes[0] or min(shapes[0]) < 1:
        raise ValueError(f"paired comparison needs the same items on both sides, came {shapes[0]} and {shapes[1]}")
    gained = [sum(b > a for a, b in zip(*pair, strict=True)) for pair in zip(base, later, strict=True)]
    lost = [sum(b < a for a, b in zip(*pair, strict=True)) for pair in zip(base, later, strict=True)]
    counts = list(zip(gained, lost, shapes[0], strict=True))
    difference = sum((g - x) / n for g, x, n in counts) / len(counts)
    errors = [_change_error(g, x, n) for g, x, n in counts]
    p = _sign_flip_p(difference * len(counts), [(g + x, n) for g, x, n in counts])
    return Paired(difference, mean_error(errors), sum(gained), sum(lost), p)


def _change_error(gained: int, lost: int, n: int) -> float:
    """Standard error of (gained - lost) / n; half an item is added to each, so that no change is no proof of none."""
    up, down = (gained + 0.5) / (n + 1), (lost + 0.5) / (n + 1)
    return math.sqrt((up + down - (up - down) ** 2) / n)


def _sign_flip_p(observed: float, discordant: Sequence[tuple[int, int]]) -> float:
    """P(|sum of +-1/n over the discordant items| >= |observed|) when every sign is a fair coin; exact.

    Args:
        discordant: per task, (items on which the two sides differ, items).
    """
    flips: Counter[int] = Counter()
    for count, n in discordant:
        flips[n] += count
    values, weights = np.zeros(1), np.ones(1)
    for n, count in flips.items():
        values, weights = _add_fair_coins(values, weights, count, n)
    return float(min(1.0, weights[np.abs(values) >= abs(observed) - 1e-8].sum()))


def _add_fair_coins(
    values: NDArray[np.float64], weights: NDArray[np.float64], count: int, n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Adds `count` coins worth +-1/n; sums that agree to 1e-9 are merged."""
    heads = np.arange(count + 1)
    logs = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(count + 1)]
    chances = np.exp(np.array(logs) - count * math.log(2))
    sums = np.add.outer(values, (2 * heads - count) / n).ravel()
    products = np.multiply.outer(weights, chances).ravel()
    distinct, place = np.unique(np.round(sums, 9), return_inverse=True)
    return distinct.astype(np.float64), np.bincount(place, products).astype(np.float64)


def detectable(se: float, *, level: float = 0.05, power: float = 0.8) -> float:
    """Returns the smallest true difference that a two-sided test at `level` finds with this `power`.

    Args:
        se: standard error of the difference: of `compare`, or sqrt(se1^2 + se2^2) for different items.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)) * se


class Estimate(NamedTuple):
    """A mean and its standard error."""

    value: float
    se: float


def avg_at_k(right: Sequence[int], k: int) -> Estimate:
    """Mean share of right answers over k samples an item; items, not samples, are the independent units."""
    shares = [r / k for r in right]
    return Estimate(sum(shares) / len(shares), sample_error(shares))


def pass_at_k(right: Sequence[int], samples: int, k: int) -> Estimate:
    """Chance that at least one of k samples is right, unbiased from `samples` >= k of them (Chen et al. 2021).

    Raises:
        ValueError: fewer samples than k.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples an item, came {samples}")
    chances = [1 - math.comb(samples - r, k) / math.comb(samples, k) for r in right]
    return Estimate(sum(chances) / len(chances), sample_error(chances))
