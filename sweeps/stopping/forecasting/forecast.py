"""What one curve's reports say about its end: a mixture of linear-Gaussian models, one for each library entry.

For an entry with movements f(x), g(x) the score at schedule fraction x, in standard errors from the base model, is

    score(x) = level(x) + a f(x) + b g(x) + noise

where a, b are Gaussian and level(x) starts at the base model's score and wanders (a random walk in log time): the
walk is what the library's forms leave unsaid, and it keeps a forecast from being surer than its forms deserve. One
report is one step of a Kalman filter, for all entries at once; the entries' weights are their marginal likelihoods.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sweeps.stopping.forecasting.curve_library import Array, Library


@dataclass(frozen=True, slots=True)
class Noise:
    """How far reports are to be believed.

    Attributes:
        inflate: a report's standard error is taken this much larger: checkpoints differ by more than sampling.
        walk: the level's wander over the whole run, in standard errors. walk_scale: multiplies each entry's own.
        temper: exponent of each report's likelihood; below 1 because neighbouring checkpoints err together.
        outlier: a report's squared surprise counts at most this much.
    """

    inflate: float = 1.15
    walk: float = 0.7
    walk_scale: float = 1.0
    temper: float = 0.5
    outlier: float = 25.0


BINS = 512  # of a forecast's histogram
FINEST = 1e12  # a bin as far from 0 as this many of its own widths can be told from its neighbours
# A normal distribution as seven points, out to 3 sd: rare ends are what pruning is about.
NORMAL_AT: Array = np.arange(-3.0, 4.0)
NORMAL_MASS: Array = np.array([0.0062, 0.0606, 0.2417, 0.3830, 0.2417, 0.0606, 0.0062])


class Forecast(NamedTuple):
    """The final score's distribution as a histogram: bins of `width` from `low`, and the mass below each edge.

    In standard errors of one report, from the base score. `mean` and `sd` are the distribution's own.
    """

    low: float
    width: float
    below: Array
    mean: float
    sd: float

    def span(self) -> Array:
        """Returns the 10 %, 50 % and 90 % quantiles."""
        return self.quantiles(np.array([0.1, 0.5, 0.9]))

    def quantiles(self, u: Array) -> Array:
        """Returns quantiles of the final score at probabilities `u`."""
        i = self.below.searchsorted(u) - 1
        inside = (u - self.below[i]) / np.maximum(self.below[i + 1] - self.below[i], 1e-300)
        return np.asarray(self.low + (i + inside) * self.width)


class Forecasts:
    """Many trials' forecasts in one table, in the metric's own unit, for questions to all of them at once.

    Attributes:
        mean: of every trial's forecast, [rows].
    """

    def __init__(self) -> None:
        self.low, self.width, self.mean = np.zeros(32), np.ones(32), np.zeros(32)
        self.below = np.zeros((32, BINS + 2))

    def put(self, row: int, forecast: Forecast, base: float, unit: float) -> None:
        """Sets a trial's forecast, which is in `unit`s from `base`."""
        while row >= len(self.low):
            self.low, self.width, self.mean, self.below = (
                np.concatenate([a, a]) for a in (self.low, self.width, self.mean, self.below)
            )
        self.low[row], self.width[row] = base + unit * forecast.low, unit * forecast.width
        self.mean[row] = base + unit * forecast.mean
        self.below[row] = forecast.below

    def above(self, rows: np.ndarray, thresholds: Array) -> Array:
        """Returns the probability that the final score of each row exceeds each of its thresholds, [rows, thresholds]."""
        at = view_of(rows)
        low, width = self.low[at, None], self.width[at, None]
        place = np.minimum(np.maximum((thresholds - low) / width, 0.0), BINS + 0.999)
        i = place.astype(np.int64)
        edge = i + rows[:, None] * self.below.shape[1]
        below = self.below.ravel()  # a view
        lower = below.take(edge)
        odds = 1.0 - (lower + (place - i) * (below.take(edge + 1) - lower))
        return np.asarray(np.minimum(np.maximum(odds, 0.0), 1.0))


def view_of(rows: np.ndarray) -> np.ndarray | slice:
    """Returns what selects `rows` of a table: a slice for a single row, which costs NumPy no copy."""
    return slice(int(rows[0]), int(rows[0]) + 1) if len(rows) == 1 else rows


def warped(x: float) -> float:
    """Log time on [0, 1]: the level wanders as much in the first 5 % of a run as from 20 % to 47 %."""
    return math.log1p(x / 0.05) / math.log(21.0)


class Gains:
    """What a report does to every entry. It depends on when reports came and how sure they were, not on the scores.

    So trials that report at the same steps share one chain of these (`GainCache`), which makes a sweep five times
    cheaper to follow than its trials one by one.

    Attributes:
        cov: covariance of level and coefficients after the report, [3, 3, M].
        basis, gain: regressors and Kalman gain at the report, [3, M]; total: variance of its surprise, [M].
        ends: by where a budget ends, regressors there and standard deviation of the final score.
    """

    def __init__(self, serial: int, x: float, cov: Array, basis: Array, gain: Array, total: Array) -> None:
        self.serial, self.x, self.cov, self.basis, self.gain, self.total = serial, x, cov, basis, gain, total
        self.log_total = np.log(total)
        self.ends: dict[float, tuple[Array, Array]] = {}


class GainCache:
    """Makes and keeps Gains; at most `LIMIT` (about 50 MB) before it starts over."""

    LIMIT = 400

    def __init__(self, entries: Library, noise: Noise) -> None:
        self.entries, self.noise = entries, noise
        self.walk = noise.walk**2 + (noise.walk_scale * entries.walk) ** 2
        self.known: dict[tuple[object, ...], Gains] = {}
        self.serial = 0

    def basis(self, x: float) -> Array:
        """Returns the regressors at `x`, [3, M]."""
        movements = self.entries.at(x)
        return np.concatenate([np.ones((1, movements.shape[1])), movements])

    def root(self, base_sd: float) -> Gains:
        """Returns the state before any report."""
        key = ("root", base_sd)
        if key not in self.known:
            m = len(self.entries)
            cov = np.zeros((3, 3, m))
            cov[0, 0] = base_sd**2
            cov[1, 1], cov[2, 2] = self.entries.sd**2
            basis = self.basis(0.0)
            self._keep(key, Gains(self.serial, 0.0, cov, basis, np.zeros_like(basis), np.ones(m)))
        return self.known[key]

    def after(self, before: Gains, x: float, sd: float) -> Gains:
        """Returns what a report at `x` with standard error `sd` does after `before`."""
        key = (before.serial, x, sd)
        found = self.known.get(key)
        if found is None:
            h = self.basis(x)
            cov = before.cov.copy()
            cov[0, 0] += self.walk * max(0.0, warped(x) - warped(before.x))
            ph = np.einsum("ijm,jm->im", cov, h)
            total = np.einsum("im,im->m", h, ph) + (self.noise.inflate * sd) ** 2
            gain = ph / total
            cov -= gain[:, None] * ph[None]
            found = self._keep(key, Gains(self.serial, max(before.x, x), cov, h, gain, total))
        return found

    def _keep(self, key: tuple[object, ...], gains: Gains) -> Gains:
        if len(self.known) >= self.LIMIT:
            self.known.clear()
        self.known[key] = gains
        self.serial += 1
        return gains

    def end(self, gains: Gains, x: float) -> tuple[Array, Array]:
        """Returns regressors at the end of the budget, `x`, and the final score's standard deviation, for every entry."""
        if x not in gains.ends:
            h = self.basis(x)
            var = np.einsum("im,ijm,jm->m", h, gains.cov, h) + self.walk * max(0.0, warped(x) - warped(gains.x))
            gains.ends[x] = h, np.sqrt(np.maximum(var, 1e-12))
        return gains.ends[x]


class Belief:
    """The mixture for one curve.

    Args:
        cache: the gains, shared by all curves of a sweep.
        base_sd: standard error of the base score (in standard errors of one report); large when there is none.
        end: schedule fraction at which the budget ends: below 1 for a trial that is cut short of the sweep's longest.
    """

    def __init__(self, cache: GainCache, base_sd: float, end: float = 1.0) -> None:
        self.cache, self.end = cache, end
        self.gains = cache.root(quarter_octave(base_sd))
        entries = cache.entries
        self.mean = np.zeros_like(self.gains.basis)
        self.mean[1:3] = entries.mean
        self.log_likelihood = np.zeros(len(entries))

    def update(self, x: float, value: float, sd: float) -> None:
        """Takes in a report at schedule fraction `x`: `value` and `sd` in standard errors, from the base score."""
        noise = self.cache.noise
        g = self.gains = self.cache.after(self.gains, x, quarter_octave(sd))
        surprise = value - np.add.reduce(g.basis * self.mean)
        squared = np.minimum(surprise * surprise / g.total, noise.outlier)
        self.log_likelihood -= 0.5 * noise.temper * (squared + g.log_total)
        self.mean += g.gain * surprise

    def weights(self, log_prior: Array) -> Array:
        """Returns the entries' posterior weights, summing to 1, [M]."""
        logs = self.log_likelihood + log_prior
        w = np.exp(logs - logs.max())
        return np.asarray(w / w.sum())

    def forecast(self, weights: Array) -> Forecast:
        """Returns the distribution of the score at the end of the budget, without evaluation noise."""
        h, end_sd = self.cache.end(self.gains, self.end)
        (keep,) = (weights > 1e-6).nonzero()
        return histogram(np.add.reduce(h * self.mean)[keep], end_sd[keep], weights[keep])

    def best_to_come(self, weights: Array) -> Forecast:
        """Returns the distribution of the highest score from now to the end of the budget, without evaluation noise.

        Of every entry `PATHS` paths at up to `LOOKS` times: coefficients and walk are drawn by points with the mean and variance
        of a normal distribution; what is unsure of the level alone, whatever the coefficients, moves a whole path, and stays
        a normal distribution.
        """
        g, keep = self.gains, np.flatnonzero(weights > 1e-5)
        times = looks(max(g.x, _FIRST_LOOK), self.end)
        (mean, a, b), c = self.mean[:, keep], g.cov[:, :, keep]
        a_sd = np.sqrt(np.maximum(c[1, 1], 1e-12))
        b_by_a = c[1, 2] / a_sd
        b_sd = np.sqrt(np.maximum(c[2, 2] - b_by_a**2, 1e-12))
        level_by_a = c[0, 1] / a_sd
        level_by_b = (c[0, 2] - level_by_a * b_by_a) / b_sd
        rest = np.sqrt(np.maximum(c[0, 0] - level_by_a**2 - level_by_b**2, 1e-12))
        for_a, for_b, steps = _PATH_POINTS[:, 0, None], _PATH_POINTS[:, 1, None], _PATH_POINTS[:, 2:]
        level = mean + level_by_a * for_a + level_by_b * for_b  # [PATHS, kept]
        a, b = a + a_sd * for_a, b + b_by_a * for_a + b_sd * for_b
        walk, before, highest = np.sqrt(self.cache.walk[keep]), warped(g.x), np.full(level.shape, -np.inf)
        for k, x in enumerate(times):
            level = level + walk * math.sqrt(max(warped(x) - before, 0.0)) * steps[:, k, None]
            before = warped(x)
            _, f, h = self.cache.basis(x)[:, keep]
            highest = np.maximum(highest, level + a * f + b * h)
        share = np.tile(weights[keep] / len(highest), len(highest))
        return histogram(highest.ravel(), np.tile(rest, len(highest)), share)


LOOKS, PATHS = 6, 16
_FIRST_LOOK = 1 / 64  # no checkpoint comes before this share of a run: `sweeps.config.plan.snapshot_steps`


def _path_points() -> Array:
    """Returns PATHS points in 2 + LOOKS dimensions with mean 0 and the identity for covariance: plus and minus the columns of an
    orthogonal matrix."""
    square, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((PATHS // 2, PATHS // 2)))
    half = math.sqrt(PATHS / 2) * square[:, : 2 + LOOKS]
    return np.concatenate([half, -half])


_PATH_POINTS: Array = _path_points()


def looks(now: float, end: float) -> list[float]:
    """Returns the schedule fractions after `now` at which a run is looked at, the last one being `end`: at most LOOKS."""
    ratio = max(math.sqrt(2.0), (end / now) ** (1 / LOOKS)) if end > now else 2.0
    times = [end]
    while len(times) < LOOKS and times[-1] / ratio > now * 1.01:
        times.append(times[-1] / ratio)
    return times[::-1]


def histogram(mean: Array, sd: Array, weights: Array) -> Forecast:
    """Returns a mixture of normal distributions as a histogram."""
    reach = 3.0 * sd
    low, high = float((mean - reach).min()), float((mean + reach).max())
    width = (high - low) / BINS * (1.0 + 1e-9) + 1e-9
    at = NORMAL_AT[:, None] * (sd / width)
    at += (mean - low) / width
    if max(-low, high) > FINEST * width:  # rounding may put a point beyond the last bin
        np.minimum(np.maximum(at, 0.0, out=at), BINS, out=at)
    mass = np.bincount(at.astype(np.intp).ravel(), (NORMAL_MASS[:, None] * weights).ravel(), minlength=BINS + 1)
    below = np.zeros(BINS + 2)
    np.cumsum(mass / mass.sum(), out=below[1:])
    share = weights / weights.sum()
    middle = float(share @ mean)
    apart = mean - middle
    variance = float(share @ (sd * sd + apart * apart))
    return Forecast(low, width, below, middle, math.sqrt(variance))


def quarter_octave(sd: float) -> float:
    """Rounds a standard error to a power of 2 ** (1/4), so that equal chains of reports are recognised."""
    return float(2.0 ** (round(4.0 * math.log2(sd)) / 4.0))
