"""Is P(top k) right? What the rule believed at every report of runs that nobody stopped, against how they ended.

    python -m benchmarks.stopping.calibration --worlds published broad shifted --sweeps 40

One line for trials judged before all of the sweep's trials had a forecast, one for after: rivals that are not known yet
do not count, so early odds are too high. Neighbouring reports of one trial are not independent.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from benchmarks.stopping.measure import HELD_OUT
from benchmarks.stopping.worlds import WORLDS, generate, goal
from sweeps.executors.simulated import simulate
from sweeps.stopping.base import Action, Verdict
from sweeps.stopping.dip_aware import MIN_REPORTS, DipAware

EDGES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.15, 0.5, 1.001)


class Onlooker(DipAware):
    """Stops nothing and keeps (trial, P, trials with a forecast) of every report."""

    name = "onlooker"

    def decide(self, trial: str) -> Verdict:
        forecasts = self.ranking.forecaster.trials
        forecast = forecasts.get(trial)
        if forecast is not None and forecast.reports >= MIN_REPORTS and forecast.last < forecast.budget:
            top_k = self.ranking.probability(forecast)
            if top_k is not None:
                self.seen.append((trial, top_k.p, len(forecasts)))
        return Verdict(Action.CONTINUE, "an onlooker stops nothing")

    @property
    def seen(self) -> list[tuple[str, float, int]]:
        return self.__dict__.setdefault("_seen", [])


def beliefs(world: str, seeds: Sequence[int], trials: int = 32, top: int = 3) -> np.ndarray:
    """Returns for every report: P, whether the trial truly ended in the top k, whether all trials were known; [n, 3]."""
    out = []
    for seed in seeds:
        sweep = generate(world, seed, trials=trials)
        rule, winners = Onlooker(goal(top)), set(sweep.winners(top))
        simulate(sweep.recordings, rule, shared=sweep.shared)
        out += [(p, t in winners, known == trials) for t, p, known in rule.seen]
    return np.array(out, dtype=float)


def table(found: np.ndarray) -> str:
    """Returns mean P -> share that ended in the top k (reports), bin by bin."""
    cells = []
    for low, high in pairwise(EDGES):
        inside = found[(found[:, 0] >= low) & (found[:, 0] < high)]
        cells.append(f"{inside[:, 0].mean():.3f} -> {inside[:, 1].mean():.3f} ({len(inside)})" if len(inside) else "-")
    return " | ".join(cells)


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    p.add_argument("--sweeps", type=int, default=40)
    p.add_argument("--first-seed", type=int, default=HELD_OUT)
    a = p.parse_args(argv)
    for world in a.worlds:
        found = beliefs(world, range(a.first_seed, a.first_seed + a.sweeps))
        print(f"| {world}, some trials unknown | {table(found[found[:, 2] == 0])} |")
        print(f"| {world}, all trials known | {table(found[found[:, 2] == 1])} |", flush=True)


if __name__ == "__main__":
    main()
