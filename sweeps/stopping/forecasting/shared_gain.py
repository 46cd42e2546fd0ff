"""What the runs of a sweep still gain together: learnt from all of them, and drawn once for all.

A forecast of one curve can be wrong in a way that it shares with all others: the learning rate's decay lifts every run, a
loss falls further than the library foresaw, recoveries take longer. So the schedule is cut into intervals, and in each the
mean of the forecast's own revisions is learnt: a forecaster without error of this kind would revise by nothing on average.
Every run that has passed an interval tells of it, whether it finished, was paused, or has a longer budget.

Before any run has passed an interval its gain is wide, and the same for all: in one possible outcome of the sweep all runs get
one draw of it. Contemporaries therefore compare as if it were not there, while a run that has finished stands at its
true distance from one that has the gain still before it.

Runs differ in what they gain, however sure the forecast of each was: `own_variance` stands beside what a forecast said of its own
error. Without it the few runs that were surest would speak for all, and one that finished early would settle what is left to
gain. How far revisions scatter around their mean, against both, is learnt with it (`spread`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from sweeps.stopping.forecasting.curve_library import Array

KNOTS: Array = np.array([0.0, 0.03, 0.06, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
INTERVALS = len(KNOTS) - 1
WIDTHS: Array = np.diff(KNOTS)
DECAY_AT = 0.8  # schedule time at which a decay of the learning rate begins, wherever its schedule has it


class Prior(NamedTuple):
    """What is held of shared gains before a sweep, in the sweep's own spread.

    Attributes:
        sd: of the gain over the whole schedule. decay_mean, decay_sd: of what the decay of the learning rate adds.
        own, decay_own: of what one run gains beside all others, over the whole schedule, and in its decay.
        doubt: revisions that the prior of the spread counts for. wide: spread before anything was seen. least: no spread
            is taken to be smaller, since early revisions of runs that still look alike say little of the end. common: revisions
            that the prior counts for against the spread of all intervals together. early: changes are as large in the first
            5 % of a run as from 20 to 47 %, and not in proportion to time.
    """

    sd: float = 0.15
    decay_mean: float = 0.1
    decay_sd: float = 0.4
    own: float = 0.15
    decay_own: float = 0.1
    doubt: float = 6.0
    wide: float = 1.0
    least: float = 1.0
    early: bool = False
    common: float = 1e9


class Revision(NamedTuple):
    """A change while a run passed an interval: how much, the variance that is expected of it, and the interval's `share` of an
    observation: one that spans three intervals counts once in all."""

    interval: int
    change: float
    variance: float
    share: float = 1.0


def schedule_time(x: float, decay_start: float | None) -> float:
    """Returns where a run is on the common time axis, [0, 1]: a decay always takes the last fifth of it."""
    x = min(max(x, 0.0), 1.0)
    if decay_start is None or decay_start <= 0.0:
        return x
    if x < decay_start:
        return DECAY_AT * x / decay_start
    return DECAY_AT + (1.0 - DECAY_AT) * (x - decay_start) / max(1.0 - decay_start, 1e-9)


def ahead(now: float, end: float = 1.0) -> Array:
    """Returns the share of every interval that lies between `now` and `end`, [INTERVALS]."""
    low, high = np.maximum(KNOTS[:-1], now), np.minimum(KNOTS[1:], end)
    return np.asarray(np.maximum(high - low, 0.0) / WIDTHS)


class SharedGain:
    """Gain and spread of every interval, for runs of one kind.

    Args:
        decays: the learning rate falls at the end of the schedule.
        draws: possible outcomes of the sweep.
        prior: see `Prior`.

    Attributes:
        version: changes whenever what is believed does.
        own_variance: of what one run gains beside all others, per interval, in the square of the sweep's spread.
    """

    def __init__(self, decays: bool, draws: int, prior: Prior | None = None) -> None:
        prior = prior or Prior()
        widths = WIDTHS
        pace = np.diff(np.log1p(KNOTS / 0.05) / math.log(21.0)) if prior.early else widths  # sums to 1
        self.prior_variance, self.own_variance = prior.sd**2 * pace, prior.own**2 * pace
        self.prior_mean = np.zeros(INTERVALS)
        if decays:
            tail = np.where(KNOTS[:-1] >= DECAY_AT - 1e-9, widths / (1.0 - DECAY_AT), 0.0)
            self.prior_mean = prior.decay_mean * tail
            self.prior_variance = self.prior_variance + prior.decay_sd**2 * tail**2 / (tail**2).sum()
            self.own_variance = self.own_variance + prior.decay_own**2 * tail
        self.prior = prior
        self.count, self.weight, self.sum, self.squares = (np.zeros(INTERVALS) for _ in range(4))
        self.version = 0
        self._normal = _columns(draws)
        self._drawn: tuple[tuple[int, float], Array, Array] | None = None

    def add(self, revision: Revision) -> None:
        """Takes in a revision."""
        k, variance = revision.interval, revision.variance
        self.count[k] += revision.share
        self.weight[k] += 1.0 / variance
        self.sum[k] += revision.change / variance
        self.squares[k] += revision.change**2 / variance
        self.version += 1

    def join(self, other: SharedGain) -> None:
        """Takes in all that another has been told."""
        self.count += other.count
        self.weight += other.weight
        self.sum += other.sum
        self.squares += other.squares
        self.version += 1

    def tell_again(self, revisions: Sequence[Revision]) -> None:
        """Forgets all revisions but these. Taking one back by subtraction would leave the rounding of whatever was far larger."""
        told = np.array(revisions or np.zeros((0, len(Revision._fields))), dtype=np.float64)
        interval, change, variance, share = told.T
        for sums, of in (
            (self.count, share),
            (self.weight, 1.0 / variance),
            (self.sum, change / variance),
            (self.squares, change**2 / variance),
        ):
            sums[:] = np.bincount(interval.astype(np.intp), of, minlength=INTERVALS)
        self.version += 1

    def learnt(self, unit: float) -> tuple[Array, Array, Array]:
        """Returns mean and standard deviation of every interval's gain, and its spread; `unit` is the sweep's spread."""
        tau = self.prior_variance * unit**2
        mean0 = self.prior_mean * unit
        spread = np.full(INTERVALS, self.prior.wide)
        for _ in range(2):
            precision = 1.0 / tau + self.weight / spread
            mean = (mean0 / tau + self.sum / spread) / precision
            left = self.squares - 2 * mean * self.sum + mean**2 * self.weight
            left = np.maximum(left, 0.0)
            common = (self.prior.common * self.prior.wide + left.sum()) / (self.prior.common + self.count.sum())
            spread = (self.prior.doubt * common + left) / (self.prior.doubt + self.count)
            spread = np.maximum(spread, self.prior.least)
        return mean, np.sqrt(1.0 / precision), spread

    def outcomes(self, unit: float) -> tuple[Array, Array]:
        """Returns every interval's gain in every possible outcome, [INTERVALS, draws], and its spread, [INTERVALS]."""
        if self._drawn is None or self._drawn[0] != (self.version, unit):
            mean, sd, spread = self.learnt(unit)
            self._drawn = (self.version, unit), mean[:, None] + sd[:, None] * self._normal, spread
        return self._drawn[1:]


def normal_quantiles(count: int) -> Array:
    """Returns `count` equally likely standard normal numbers, ascending."""
    return np.array([NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)])


@lru_cache(maxsize=4)
def _columns(draws: int) -> Array:
    """Returns standard normal numbers, [INTERVALS, draws]: every row evenly spread, in an order of its own."""
    even = normal_quantiles(draws)
    return np.stack([even[np.random.default_rng([7, k]).permutation(draws)] for k in range(INTERVALS)])
