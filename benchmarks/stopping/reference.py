"""What could be known: the same rule with a world's own generator as its prior, and with the noise exactly as it is.

    python -m benchmarks.stopping.reference --worlds published broad shifted --sweeps 60 --first-seed 500

`CURVES` curves are drawn from the world; a trial's belief weighs them by their likelihood under the true noise (sampling
error, AR(1) wiggle, error of the base score). Ranking, bar, pausing and resuming are DipAware's. What it loses less at equal
saving is what a better prior could give; what it loses still is what scores with this noise do not tell. Finite: the
deepest dips at the least noise have few neighbours among the drawn curves, so it is no strict bound.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from benchmarks.stopping.measure import fare, line, summary
from benchmarks.stopping.worlds import WORLDS, generate, goal
from sweeps.config.objective import Goal
from sweeps.executors.simulated import simulate
from sweeps.journal.history import Curve, Point
from sweeps.stopping.dip_aware import DipAware
from sweeps.stopping.forecasting.curve_library import Array
from sweeps.stopping.forecasting.forecast import Forecast, histogram
from sweeps.stopping.forecasting.forecasts import CurveForecaster, TrialForecast

CURVES, REPORTS = 6000, 32
WIGGLE, MEMORY, BASE = 0.5, 0.6, 0.5  # of the generator, in standard errors of one report


class Drawn(NamedTuple):
    """Curves drawn from a world, laid out as the forecaster expects a library; `curves` is [REPORTS + 1, CURVES]."""

    family: np.ndarray
    timing: Array
    log_weight: Array
    curves: Array


@lru_cache
def drawn(world: str) -> Drawn:
    """Draws the curves of a world, once."""
    w, rng = WORLDS[world], np.random.default_rng([77, len(world)])
    names, x = list(w.families), np.arange(REPORTS + 1) / REPORTS
    share = np.array(list(w.families.values())) / sum(w.families.values())
    family = rng.choice(len(names), CURVES, p=share)
    curves = np.array([w.draw(names[f], x, rng, rng.uniform(*w.center)) for f in family])
    timed = np.isin(family, [i for i, n in enumerate(names) if n in ("dip", "collapse")])
    timing = np.where(timed, np.maximum(curves.argmin(1), 1) / REPORTS, 0.1)
    return Drawn(family, timing, np.full(CURVES, -np.log(CURVES)), curves.T.copy())


@lru_cache
def covariances() -> tuple[Array, Array, Array]:
    """Covariance of reports, that of the wiggle, and the inverse Cholesky factor of the first."""
    t = np.arange(REPORTS)
    push = np.where(t[:, None] >= t, MEMORY ** (t[:, None] - t).clip(0) * 0.8 * WIGGLE, 0.0)
    wiggle = push @ push.T
    reports = np.eye(REPORTS) + wiggle + BASE**2
    return reports, wiggle, np.linalg.inv(np.linalg.cholesky(reports))


class ExactBelief:
    """Weights of the drawn curves for one trial; the same three methods as `posterior.Belief`."""

    def __init__(self, world: str, unit: float, end: float) -> None:
        self.curves, self.heavy = drawn(world).curves / unit, WORLDS[world].heavy
        self.last, self.seen = round(end * REPORTS), 0
        self.misses = np.zeros((REPORTS, CURVES))
        self.log_likelihood = np.zeros(CURVES)

    def update(self, x: float, value: float, sd: float) -> None:
        self.misses[self.seen] = value - self.curves[self.seen + 1]
        self.seen += 1
        surprise = covariances()[2][self.seen - 1, : self.seen] @ self.misses[: self.seen]
        self.log_likelihood -= 2.5 * np.log1p(surprise**2 / 4) if self.heavy else 0.5 * surprise**2

    def weights(self, log_prior: Array) -> Array:
        logs = self.log_likelihood + log_prior
        w = np.exp(logs - logs.max())
        return np.asarray(w / w.sum())

    def forecast(self, weights: Array) -> Forecast:
        reports, wiggle, _ = covariances()
        n, end = self.seen, self.last - 1
        shared = wiggle[end, :n] + BASE**2
        pull = np.linalg.solve(reports[:n, :n], shared)
        var = max(wiggle[end, end] + BASE**2 - shared @ pull, 1e-6)
        keep = np.flatnonzero(weights > 1e-7)
        mean = self.curves[self.last, keep] + pull @ self.misses[:n, keep]
        return histogram(mean, np.full(len(keep), var**0.5), weights[keep])


class ExactForecaster(CurveForecaster):
    """The forecaster with the world's own curves for a library."""

    def __init__(self, world: str, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.world, self.library = world, drawn(world)  # type: ignore[assignment]

    def _size(self, point: Point) -> None:
        """Drawn curves have the world's own sizes."""

    def _begin(self, curve: Curve, suite: str, row: int) -> TrialForecast:
        forecast = super()._begin(curve, suite, row)
        forecast.belief = ExactBelief(self.world, self.unit, forecast.budget / forecast.horizon)  # type: ignore[assignment]
        return forecast


class Reference(DipAware):
    """DipAware (`protect: soft`) that knows the world."""

    def __init__(self, world: str, goal: Goal, risk: float) -> None:
        super().__init__(goal, protect="soft", risk=risk)
        self.ranking.forecaster = ExactForecaster(world, goal.metric, goal.sign, self.history, patience=4.0, cap=0.5)


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    p.add_argument("--sweeps", type=int, default=60)
    p.add_argument("--first-seed", type=int, default=500)
    p.add_argument("--risks", nargs="+", type=float, default=[0.005, 0.02, 0.05, 0.1])
    a = p.parse_args(argv)
    for world in a.worlds:
        for risk in a.risks:
            fares = []
            for seed in range(a.first_seed, a.first_seed + a.sweeps):
                sweep, began = generate(world, seed), time.process_time()
                outcome = simulate(sweep.recordings, Reference(world, goal(), risk), shared=sweep.shared)
                fares.append(fare(sweep, outcome, 3, time.process_time() - began))
            print(line(f"{world}, its own prior, risk={risk}", summary(fares, 32)), flush=True)


if __name__ == "__main__":
    main()
