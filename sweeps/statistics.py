"""Two checkpoints on the same items: the difference, how sure it is, and the smallest one that could have been seen.

Only items on which the two differ say anything, and the test needs no assumption on how hard the items are (McNemar
1947; over several tasks, each counting the same, its exact sign-flip form). Outcomes travel packed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Outcomes = Sequence[float]
"""Per item the share of its replies that are right: 0 or 1 for one reply an item."""
EXACT: Final = 200_000
"""Distinct sums of the sign-flip test beyond which the normal approximation stands in: hundreds of items by then."""


class Paired(NamedTuple):
    """Checkpoint minus base on the same items: the difference of the scores, its standard error, items gained and
    lost, the two-sided p-value of "no difference", and the items."""

    difference: float
    se: float
    gained: int
    lost: int
    p: float
    items: int

    def differs(self, level: float = 0.05, looks: int = 1) -> bool:
        """Says "different"; wrong at most at `level` over this many comparisons together (Bonferroni)."""
        return self.p <= level / looks


def compare(base: Sequence[Outcomes], later: Sequence[Outcomes]) -> Paired:
    """Compares two checkpoints on the same items of one or more tasks, each task counting the same.

    Args:
        base, later: per task, the share of right replies of each item; equal shapes.

    Raises:
        ValueError: the shapes differ, or there are no items.
    """
    shapes = [[len(task) for task in side] for side in (base, later)]
    if shapes[0] != shapes[1] or not shapes[0] or min(shapes[0]) < 1:
        raise ValueError(f"paired comparison needs the same items on both sides, got {shapes[0]} and {shapes[1]}")
    changes = [[float(b) - float(a) for a, b in zip(*pair, strict=True)] for pair in zip(base, later, strict=True)]
    difference = sum(sum(task) / len(task) for task in changes) / len(changes)
    errors = [_change_error(task) for task in changes]
    flips = Counter(round(abs(change) / len(task), 12) for task in changes for change in task if change)
    return Paired(
        difference,
        math.sqrt(sum(error * error for error in errors)) / len(errors),
        gained=sum(change > 0 for task in changes for change in task),
        lost=sum(change < 0 for task in changes for change in task),
        p=_sign_flip_p(difference * len(changes), flips),
        items=sum(shapes[0]),
    )


def _change_error(changes: Sequence[float]) -> float:
    """Standard error of a mean change; half an item gained and half a one lost are added, so that no change at all is no
    proof of none."""
    n = len(changes)
    squares, mean = (sum(c * c for c in changes) + 1) / (n + 1), sum(changes) / (n + 1)
    return math.sqrt((squares - mean * mean) / n)


def _sign_flip_p(observed: float, flips: Mapping[float, int]) -> float:
    """P(|sum of +-weight over the items that differ| >= |observed|) when every sign is a fair coin.

    Args:
        flips: weight of an item to how many items have it.
    """
    import numpy as np

    values, weights = np.zeros(1), np.ones(1)
    for worth, count in flips.items():
        if len(values) * (count + 1) > EXACT:
            spread = math.sqrt(sum(n * w * w for w, n in flips.items()))
            return 2 * NormalDist().cdf(-abs(observed) / spread)
        values, weights = _add_fair_coins(values, weights, count, worth)
    return float(min(1.0, weights[np.abs(values) >= abs(observed) - 1e-8].sum()))


def _add_fair_coins(
    values: NDArray[np.float64], weights: NDArray[np.float64], count: int, worth: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Adds `count` coins of +-`worth`; sums that agree to 1e-9 are merged."""
    import numpy as np

    heads = np.arange(count + 1)
    logs = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(count + 1)]
    chances = np.exp(np.array(logs) - count * math.log(2))
    sums = np.add.outer(values, (2 * heads - count) * worth).ravel()
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


class PathPoint(NamedTuple):
    """A checkpoint's score (more is better) with its standard error, None where it came without."""

    step: int
    value: float
    se: float | None


class PathBest(NamedTuple):
    """The checkpoint with the highest score of a run, and what it is worth less its luck; `se` is None where it is unknown."""

    step: int
    value: float
    se: float | None


_WANDERS: Final = (0.0, *(2.0**k for k in range(-10, 14)))
"""Variance of a path in one e-fold of steps, in squared standard errors of a score: what `wander` chooses from."""


def wander(paths: Sequence[Sequence[PathPoint]]) -> float:
    """Returns how far scores without their noise move along a run: the variance in one e-fold of steps, by maximum likelihood.

    Args:
        paths: runs alike, each in order of step. Scores without a standard error say nothing here.
    """
    import numpy as np

    known = [[(p.step, p.value, p.se) for p in path if p.se] for path in paths]
    known = [path for path in known if len(path) > 1]
    if not known:
        return 0.0
    unit = float(np.median([se for path in known for _, _, se in path])) ** 2
    return max((q * unit for q in _WANDERS), key=lambda q: sum(_path_likelihood(path, q) for path in known))


def _path_likelihood(path: Sequence[tuple[int, float, float]], wandering: float) -> float:
    """Log likelihood of a run's scores after the first: a random walk in the logarithm of the step, seen with noise."""
    (before, level, se), *rest = path
    variance, found = se * se, 0.0
    for step, value, error in rest:
        variance += wandering * math.log(step / before)
        total, surprise = variance + error * error, value - level
        found -= 0.5 * (math.log(total) + surprise * surprise / total)
        gain = variance / total
        level, variance, before = level + gain * surprise, variance * (1.0 - gain), step
    return found


def best_of_path(path: Sequence[PathPoint], wandering: float) -> PathBest:
    """Returns the checkpoint of the highest score, and what it is worth: the highest of many noisy scores was lucky as well.

    Its expected score given all scores of its run, which are taken as a random walk in the logarithm of the step (`wander`)
    seen with their known errors. An expectation given all that was seen needs no further correction for a choice that was made
    by it (Dawid 1994, "Selection paradoxes of Bayesian inference"). Errors that neighbours share, such as those of the same
    items, are taken as independent here, which corrects too much: where outcomes were kept, items held out say it exactly.

    Raises:
        ValueError: no scores.
    """
    import numpy as np

    best = max(path, key=lambda p: p.value)
    errors = [p.se for p in path if p.se]
    if not errors:
        return PathBest(best.step, best.value, None)
    usual = float(np.median(errors))
    u = np.log([p.step for p in path])
    walk = wandering * (np.minimum.outer(u, u) - u[0])
    y = np.array([p.value for p in path])
    seen = np.linalg.inv(walk + np.diag([(p.se or usual) ** 2 for p in path]))
    weight, at = float(seen.sum()), path.index(best)
    middle = float((seen @ y).sum()) / weight
    own = seen @ walk[at]
    variance = walk[at, at] - walk[at] @ own + (1.0 - own.sum()) ** 2 / weight
    return PathBest(best.step, middle + float(own @ (y - middle)), math.sqrt(max(float(variance), 0.0)))


GRADED: Final = "q"
"""Begins packed outcomes that are not all right or wrong: four hexadecimal digits a reply, in steps of 1/65,535."""
_STEPS: Final = 0xFFFF


def pack(outcomes: Iterable[float]) -> str:
    """Writes outcomes in [0, 1] as text, the first reply first: four replies a hexadecimal digit where each is right or
    wrong, else `GRADED` and four digits a reply."""
    values = [float(value) for value in outcomes]
    if any(value not in (0.0, 1.0) for value in values):
        return GRADED + "".join(f"{round(value * _STEPS):04x}" for value in values)
    text = "".join("1" if value else "0" for value in values)
    text += "0" * (-len(text) % 4)
    return "".join(f"{int(text[i : i + 4], 2):x}" for i in range(0, len(text), 4))


def packed_replies(packed: str) -> int | None:
    """Returns for how many replies there is room in packed outcomes; None for text that is none."""
    graded = packed.startswith(GRADED)
    digits = packed.removeprefix(GRADED)
    if set(digits) - set("0123456789abcdef") or (graded and len(digits) % 4):
        return None
    return len(digits) // 4 if graded else 4 * len(digits)


def unpack(packed: str, n: int) -> list[float]:
    """Reads `n` outcomes back."""
    if packed.startswith(GRADED):
        return [int(packed[i : i + 4], 16) / _STEPS for i in range(1, 1 + 4 * n, 4)]
    return [float(bit) for digit in packed for bit in f"{int(digit, 16):04b}"][:n]


def shares(packed: str, items: int, samples: int = 1) -> list[float]:
    """Returns per item the mean outcome of its replies, its samples standing in a row."""
    values = unpack(packed, items * samples)
    return [sum(values[i : i + samples]) / samples for i in range(0, len(values), samples)]
