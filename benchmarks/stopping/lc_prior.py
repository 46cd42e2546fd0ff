"""A rival that extrapolates every curve by itself: what LC-PFN approximates, as a stop rule for benchmarks.

LC-PFN (Adriaensen et al. 2023) is a network trained to give the posterior under a prior over learning curves: weighted sums of
a power law, a slow logarithm and a Janoschek growth curve that stay in [0, 1] and end above their start, with noise of one size
per curve (after Domhan et al. 2015). Neither its package nor that of ifBO ships the network's weights. The posterior needs no
network: `CURVES` curves drawn from that prior are weighted by how well they fit the reports, and a curve's noise is summed over.
With few reports that is the posterior; with many the best of the drawn curves fit less closely than the best of all would, and
the noise is taken larger for it.

The rule is predictive termination (Domhan et al. 2015): a trial is paused where the odds are below `p` that its last report
will be above the k-th best of the others. `mark` says what is taken of these: where they stand at present, or where their own
posteriors expect them to end. Paused trials come back when their odds rise. As a user of LC-PFN would, a run's time is counted
in hundredths of its budget; shares are taken as they are (1 minus them where less is better); any other score goes through the
logistic function, so that the middle 90 % of all scores that the sweep has shown lie between -1 and 1 before it.

    python -m benchmarks.stopping.measure --worlds published --sweeps 10 --rules lc-prior:p=0.05,least=4,mark=expected
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sweeps.config.objective import Goal
from sweeps.errors import InputError
from sweeps.journal.rows import ReportRow, Row
from sweeps.stopping.base import Action, StopRule, Verdict
from sweeps.stopping.baselines import _Scores
from sweeps.stopping.forecasting.forecasts import upper_tail
from sweeps.stopping.registry import parse_rule

Array = NDArray[np.float64]
Mark = Literal["present", "expected"]

CURVES: Final = 20_000
TIMES: Final = 100  # a run's budget on the prior's own time axis, which starts at 1
BINS: Final = 200  # of a final score in [0, 1]
LOG_SDS: Array = np.linspace(-7.0, -1.0, 9)  # of a report's noise; the prior of its logarithm is normal, -4 +- 1
NEGLIGIBLE: Final = 25.0  # a curve whose log weight lies this far below the largest is left out
MOVED: Final = 0.1  # the scale is taken anew when an edge of the scores has moved by this share of their range
AGAIN: Final = 1.5  # odds at which a paused trial comes back, in multiples of `p`: a resume costs something


def draw(count: int, seed: int) -> Array:
    """Returns curves of the prior without noise, [count, TIMES]."""
    rng, kept = np.random.default_rng(seed), list[Array]()
    x = np.arange(1.0, TIMES + 1.0)
    coarse = np.array([0, 1, 4, 19, TIMES - 1])
    while sum(map(len, kept)) < count:
        drawn = _Parameters(rng, 20_000)
        few = drawn.at(x[coarse])
        may = ((few >= 0.0) & (few <= 1.0)).all(1) & (few[:, -1] > few[:, 0])
        curves = drawn.at(x, may)
        kept.append(curves[((curves >= 0.0) & (curves <= 1.0)).all(1)])
    return np.concatenate(kept)[:count]


class _Parameters:
    """Parameters of `count` curves as Adriaensen et al. give their distributions."""

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        def uniform(low: float, high: float) -> Array:
            return rng.uniform(low, high, (count, 1))

        def log_normal(mean: float, sd: float) -> Array:
            return rng.lognormal(mean, sd, (count, 1))

        self.shares = rng.uniform(0.0, 1.0, (count, 3))
        self.power = uniform(0.0, 1.25), uniform(-0.6, 0.6), log_normal(0.0, 2.0)  # end, fall, rate
        self.slow = uniform(0.0, 1.0), uniform(-0.5, 0.5)  # end, fall
        self.growth = uniform(0.0, 1.0), uniform(0.0, 2.0), log_normal(-2.0, 1.0), log_normal(0.0, 0.5)

    def at(self, x: Array, which: NDArray[np.bool_] | None = None) -> Array:
        """Returns the curves at times `x`, [curves, len(x)]."""
        some = slice(None) if which is None else which
        (c, a, alpha), (e, f) = ([v[some] for v in part] for part in (self.power, self.slow))
        end, start, k, delta = (v[some] for v in self.growth)
        first, second, third = (self.shares[some, i : i + 1] for i in range(3))
        power = c - a * x**-alpha
        slow = e - f / np.log(x + 1.0)
        growth = end - (end - start) * np.exp(-k * x**delta)
        return np.asarray(first * power + second * slow + third * growth)


@lru_cache(maxsize=1)
def _prior() -> tuple[Array, NDArray[np.int64]]:
    """Returns the curves as [TIMES, CURVES], and the bin of every end for every size of noise, [sizes, CURVES]."""
    curves = draw(CURVES, 2015).T.copy()
    end = np.minimum((curves[-1] * BINS).astype(np.int64), BINS - 1)
    return curves, np.arange(len(LOG_SDS))[:, None] * BINS + end


@lru_cache(maxsize=512)
def _at(time: float) -> Array:
    """Returns all curves at one time, linear between whole times."""
    curves, _ = _prior()
    i = min(int(time), TIMES - 1)
    share = time - i
    return curves[i - 1] if not share else np.asarray((1.0 - share) * curves[i - 1] + share * curves[i])


@lru_cache(maxsize=8192)
def posterior(times: tuple[float, ...], scores: tuple[float, ...]) -> Array:
    """Returns the mass of every pair of noise and end of the curve, [sizes, BINS], given reports in [0, 1].

    Args:
        times: of the reports, from 1 to TIMES.
    """
    ends = _prior()[1]
    squares = _squares(times, scores)
    logs = -0.5 * (LOG_SDS + 4.0) ** 2 - len(times) * LOG_SDS
    halves = 0.5 * np.exp(-2.0 * LOG_SDS)
    most = float((logs - halves * squares.min()).max())
    (near,) = (squares < ((logs - most + NEGLIGIBLE) / halves).max()).nonzero()
    weights = np.exp(logs[:, None] - most - halves[:, None] * squares[near])
    mass = np.bincount(ends[:, near].ravel(), weights.ravel(), minlength=len(LOG_SDS) * BINS)
    return np.asarray((mass / mass.sum()).reshape(len(LOG_SDS), BINS))


@lru_cache(maxsize=256)
def _squares(times: tuple[float, ...], scores: tuple[float, ...]) -> Array:
    """Returns every curve's sum of squared misses: those of all reports but the last are mostly known."""
    if not times:
        return np.zeros(CURVES)
    miss = _at(times[-1]) - scores[-1]
    return np.asarray(_squares(times[:-1], scores[:-1]) + miss * miss)


_CENTRES: Array = (np.arange(BINS) + 0.5) / BINS


def probability_above(mass: Array, mark: float) -> float:
    """Returns the probability that the last report lies above `mark`."""
    held = mass > 1e-9
    sd = np.broadcast_to(np.exp(LOG_SDS)[:, None], mass.shape)[held]
    z = (mark - np.broadcast_to(_CENTRES, mass.shape)[held]) / sd
    return float(mass[held] @ upper_tail(z))


class LcPrior(_Scores):
    """Predictive termination by extrapolated curves.

    Args:
        p: odds of ending above the mark below which a trial is paused.
        least: reports that a trial has at least before it is judged.
        mark: whether the others count as they stand (`present`) or as they are expected to end.
    """

    name = "lc-prior"

    def __init__(self, goal: Goal, p: float = 0.05, least: int = 4, mark: Mark = "present") -> None:
        super().__init__(goal)
        if mark not in get_args(Mark):
            raise InputError(f"mark is {mark!r}; expected present or expected")
        self.p, self.least, self.mark = p, int(least), mark
        self.seen: list[float] = []  # every finite score, larger is better
        self.edges = 0.0, 0.0
        self.shares = True
        self.known: dict[
            str, tuple[object, Array, float]
        ] = {}  # what each trial's posterior is of, it, and the end it expects

    def observe(self, row: Row) -> bool:
        fresh = super().observe(row)
        if fresh and isinstance(row, ReportRow) and row.step:
            score = row.metrics.get(self.goal.metric)
            if score is not None and math.isfinite(score):
                self.seen.append(self.goal.sign * score)
                self.shares = self.shares and 0.0 <= score <= 1.0
                self._scale()
        return fresh

    def _scale(self) -> None:
        low, high = np.quantile(self.seen, (0.05, 0.95)).tolist()
        if max(abs(low - self.edges[0]), abs(high - self.edges[1])) > MOVED * (self.edges[1] - self.edges[0]):
            self.edges = low, high

    def scaled(self, score: float) -> float:
        """Returns a score, of which larger is better, as the prior has it: in [0, 1]."""
        if self.shares:
            return score if self.goal.maximize else 1.0 + score
        low, high = self.edges
        z = 2.0 * (score - low) / (high - low) - 1.0 if high > low else 0.0
        return 1.0 / (1.0 + math.exp(-min(max(z, -500.0), 500.0)))

    def ends(self, trial: str) -> Array | None:
        """Returns a trial's posterior; None before its first finite score."""
        finite = {s: v for s, v in sorted(self.scores.get(trial, {}).items()) if math.isfinite(v)}
        if not finite:
            return None
        curve = self.history.curves[trial]
        budget = max(curve.budget or int(curve.config.get("steps") or 0), max(finite))
        state = len(finite), budget, self.shares, self.edges
        if trial not in self.known or self.known[trial][0] != state:
            times = tuple(max(TIMES * s / budget, 1.0) for s in finite)
            mass = posterior(times, tuple(map(self.scaled, finite.values())))
            self.known[trial] = state, mass, float(mass.sum(0) @ _CENTRES)
        return self.known[trial][1]

    def _worth(self, trial: str) -> float:
        """Returns what a rival counts as, scaled."""
        if self.mark == "present":
            score = self.latest(trial)[1]
            return self.scaled(score) if math.isfinite(score) else -math.inf
        return -math.inf if self.ends(trial) is None else self.known[trial][2]

    def odds(self, trial: str) -> tuple[float, float] | None:
        """Returns the odds that a trial ends above its mark, and the mark; None where that cannot be said yet."""
        others = sorted((self._worth(t) for t in self.scores if t != trial), reverse=True)
        if len(others) < self.goal.top or len(self.scores.get(trial, ())) < self.least:
            return None
        mass, mark = self.ends(trial), others[self.goal.top - 1]
        return None if mass is None or not math.isfinite(mark) else (probability_above(mass, mark), mark)

    def decide(self, trial: str) -> Verdict:
        if gone := self.lost(trial):
            return gone
        known = self.odds(trial)
        if known is None:
            return Verdict(Action.CONTINUE, f"fewer than {self.least} reports, or than {self.goal.top} rivals")
        odds, mark = known
        said = f"ends above {mark:.3g}, scaled, with odds of {odds:.2g} ({self.p:g} needed)"
        return Verdict(Action.PAUSE if odds < self.p else Action.CONTINUE, said, evidence={"odds": odds})

    def choose_trial_to_resume(self, paused: Sequence[str]) -> str | None:
        best, chosen = AGAIN * self.p, None
        for trial in paused:
            known = self.odds(trial)
            if known is not None and known[0] >= best:
                best, chosen = known[0], trial
        return chosen


def rule_of(text: str, goal: Goal) -> StopRule:
    """Returns the rule that `text` describes, as `parse_rule` does; `lc-prior` is one more here."""
    name, _, rest = text.partition(":")
    if name != LcPrior.name:
        return parse_rule(text, goal)
    settings: dict[str, Any] = dict(part.split("=") for part in rest.split(",") if part)
    return LcPrior(goal, **{key: value if key == "mark" else float(value) for key, value in settings.items()})


SETTINGS: Final = (*(f"lc-prior:p={p},least=4,mark={mark}" for mark in get_args(Mark) for p in (0.05, 0.1, 0.2)),)
"""What `benchmarks.stopping.sources` compares with."""
