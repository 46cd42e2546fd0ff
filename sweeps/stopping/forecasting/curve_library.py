"""The curve library: which ways a score may go during a fine-tune, before a sweep has any reports.

A library entry is a pair of movements in schedule fraction x in [0, 1], both 0 at x = 0: for a dip the fall-and-return
and the gain on top, for a collapse the fall and what comes back of it, and so on. How *far* each movement goes is not
in the library: it is a Gaussian coefficient, fitted in closed form for every entry (`posterior.py`). So a thousand
entries, which differ in timing and form only, cover what a hundred thousand sampled curves would.

Amplitudes are in units of the standard error of one evaluation, which makes the prior blind to the metric's unit. Where
a score is known to be a share of right answers the forecaster sizes the library in points instead (`Library.sized`): more
items make a report surer, not a dip deeper.
Timing: published troughs lie at 1.5-12 % of the budget and are made good after 2 to 24 times the trough step, median 4
(arXiv 2604.06628, appendix D; ten curves, one seed each). The ranges here are wider on purpose: ten curves are few.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NODES = 257  # of the time grid, at x = (i / 256)**2: dense where dips are

_GRID: Array = np.linspace(0.0, 1.0, NODES) ** 2
_FLOOR = 1e-9


@dataclass(frozen=True)
class Library:
    """M entries.

    Attributes:
        family: index into FAMILIES, [M].
        timing: schedule fraction at which the first movement is done, [M].
        first, second: the two movements on the time grid, [NODES, M].
        scale: amplitude unit in standard errors of one evaluation, [M].
        walk: how far the level wanders over the whole run beside its movements, in standard errors, [M].
        mean, sd: prior of the two coefficients in standard errors, [2, M].
        log_weight: log prior mass of each entry; the masses sum to 1, [M].
    """

    family: NDArray[np.int64]
    timing: Array
    first: Array
    second: Array
    scale: Array
    walk: Array
    mean: Array
    sd: Array
    log_weight: Array

    def __len__(self) -> int:
        return len(self.timing)

    def sized(self, factor: float) -> Library:
        """Returns the library with all movements `factor` times as large, in standard errors."""
        return replace(
            self, scale=factor * self.scale, walk=factor * self.walk, mean=factor * self.mean, sd=factor * self.sd
        )

    def at(self, x: float) -> Array:
        """Returns both movements at schedule fraction `x`, [2, M], linear between grid nodes."""
        place = math.sqrt(min(max(x, 0.0), 1.0)) * (NODES - 1)
        i = min(int(place), NODES - 2)
        lo, hi = _GRID[i], _GRID[i + 1]
        share = (min(max(x, 0.0), 1.0) - lo) / (hi - lo)
        return np.stack(
            [
                self.first[i] * (1 - share) + self.first[i + 1] * share,
                self.second[i] * (1 - share) + self.second[i + 1] * share,
            ]
        )


@dataclass(frozen=True)
class Family:
    """One way a curve can go: prior mass, entries, amplitude range, and how its movements are drawn from the unit cube."""

    name: str
    mass: float
    entries: int
    scale: tuple[float, float]
    mean: tuple[float, float]
    sd: tuple[float, float]
    shape: Callable[[Array], tuple[float, Array, Array]]
    walk: float = 0.06


def _between(u: float, low: float, high: float) -> float:
    return float(low * (high / low) ** u)


def _rise(tau: float, power: float = 1.0) -> Array:
    """Weibull growth 0 -> 1."""
    return np.asarray(1.0 - np.exp(-((_GRID / tau) ** power)))


def _step(at: float, width: float) -> Array:
    """Logistic step at `at`, 0 at x = 0."""
    s = 1.0 / (1.0 + np.exp(-np.clip((_GRID - at) / width, -60, 60)))
    return np.asarray(s - s[0])


def _steady(u: Array) -> tuple[float, Array, Array]:
    tau, power = _between(u[0], 0.03, 1.5), _between(u[1], 0.3, 3.0)
    g = (1.0 - (1.0 + _GRID / tau) ** -power) / (1.0 - (1.0 + 1.0 / tau) ** -power)
    return min(tau, 1.0), g, _GRID.copy()


def _dip(u: Array) -> tuple[float, Array, Array]:
    trough = _between(u[0], 0.01, 0.4)
    ratio = 1.25 + 2.75 * math.exp(0.9 * _normal(u[1]))  # back at base after this many trough times
    sharp = _between(u[2], 0.7, 4.0)
    z = np.maximum(_GRID / trough, _FLOOR)
    bump = np.exp(sharp * (np.log(z) + 1.0 - z))
    end = math.exp(sharp * (math.log(ratio) + 1.0 - ratio))
    bump = np.where(z > 1.0, bump ** min(math.log(0.08) / math.log(end), 3.0), bump)
    gain = _rise(_between(u[3], 0.15, 1.2), 1.0 + 2.0 * u[4])
    return trough, -bump, gain


def _collapse(u: Array) -> tuple[float, Array, Array]:
    trough = _between(u[0], 0.01, 0.45)
    back = 1.0 - np.exp(-np.maximum(_GRID - trough, 0.0) / _between(u[1], 0.15, 1.5))
    return trough, -_rise(trough * 0.6, _between(u[2], 1.0, 3.5)), back


def _overfit(u: Array) -> tuple[float, Array, Array]:
    peak = 0.08 + 0.62 * float(u[0])
    down = (np.maximum(_GRID - peak, 0.0) / (1.0 - peak)) ** _between(u[1], 0.6, 2.0)
    return peak, _rise(peak / 2.5, _between(u[2], 0.8, 2.0)), -down


def _plateau(u: Array) -> tuple[float, Array, Array]:
    tau = _between(u[0], 0.01, 0.2)
    return tau, _rise(tau), _GRID.copy()


def _drop(u: Array) -> tuple[float, Array, Array]:
    at = 0.02 + 0.93 * float(u[0])
    return at, _rise(_between(u[1], 0.05, 1.0)), -_step(at, _between(u[2], 0.006, 0.04))


def _wobble(u: Array) -> tuple[float, Array, Array]:
    """A steady run with a passing fall somewhere on its way."""
    at, width = 0.1 + 0.7 * float(u[0]), _between(u[1], 0.04, 0.3)
    z = np.abs(_GRID - at) / width
    return at, _rise(_between(u[2], 0.1, 1.2)), -np.exp(-0.5 * z**2)


def _wander(u: Array) -> tuple[float, Array, Array]:
    """No form at all: the level's own walk is the whole story. What no other family explains ends here."""
    none = np.zeros_like(_GRID)
    return 0.5, none, none


def _late(u: Array) -> tuple[float, Array, Array]:
    at = 0.15 + 0.75 * float(u[0])
    return 0.1, -_rise(_between(u[1], 0.02, 0.3)), _step(at, _between(u[2], 0.015, 0.12))


FAMILIES: tuple[Family, ...] = (
    Family("steady", 0.20, 128, (1.0, 24.0), (0.4, 0.0), (0.5, 0.2), _steady),
    Family("dip", 0.36, 384, (2.0, 48.0), (1.0, 0.4), (0.4, 0.6), _dip),
    Family("collapse", 0.20, 160, (2.0, 64.0), (1.0, 0.25), (0.4, 0.3), _collapse),
    Family("overfit", 0.08, 96, (1.5, 32.0), (0.6, 0.7), (0.4, 0.5), _overfit),
    Family("plateau", 0.06, 32, (1.0, 8.0), (0.0, 0.0), (0.6, 0.3), _plateau),
    Family("drop", 0.05, 96, (2.0, 64.0), (0.3, 1.0), (0.4, 0.5), _drop),
    Family("late", 0.05, 96, (2.0, 32.0), (0.3, 0.8), (0.4, 0.5), _late),
    Family("wobble", 0.05, 96, (2.0, 32.0), (0.4, 0.8), (0.4, 0.5), _wobble),
    Family("wander", 0.08, 24, (2.0, 48.0), (0.0, 0.0), (0.01, 0.01), _wander, walk=1.0),
)


def _normal(u: float) -> float:
    """Inverse normal CDF by the logistic approximation (error < 0.02 sd in the middle 98 %)."""
    u = min(max(u, 1e-4), 1 - 1e-4)
    return math.log(u / (1.0 - u)) / 1.702


def _cube(count: int, dims: int) -> Array:
    """Quasi-random points in the unit cube: the additive recurrence of the generalised golden ratio, [count, dims]."""
    root = 2.0
    for _ in range(40):
        root = (1.0 + root) ** (1.0 / (dims + 1))
    return np.asarray((0.5 + np.outer(np.arange(1, count + 1), root ** -np.arange(1.0, dims + 1))) % 1.0)


@lru_cache(maxsize=4)
def library() -> Library:
    """Returns the library; built once a process (about 30 ms)."""
    family, timing, first, second, scale, walk, mean, sd, log_weight = [], [], [], [], [], [], [], [], []
    total = sum(f.mass for f in FAMILIES)
    for index, f in enumerate(FAMILIES):
        for u in _cube(f.entries, 6):
            t, a, b = f.shape(u)
            s = _between(float(u[5]), *f.scale)
            family.append(index)
            timing.append(t)
            first.append(a - a[0])
            second.append(b - b[0])
            scale.append(s)
            walk.append(f.walk * s)
            mean.append([m * s for m in f.mean])
            sd.append([d * s for d in f.sd])
            log_weight.append(math.log(f.mass / f.entries / total))
    return Library(
        np.array(family),
        np.array(timing),
        np.array(first).T.copy(),
        np.array(second).T.copy(),
        np.array(scale),
        np.array(walk),
        np.array(mean).T.copy(),
        np.array(sd).T.copy(),
        np.array(log_weight),
    )
