"""What a score is worth: standard errors, comparisons on the same items, the smallest difference that shows."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
