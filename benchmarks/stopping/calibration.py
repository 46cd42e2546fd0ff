"""Is P(top k) right? What the rule believed at every report of runs that nobody stopped, against how they ended.

    python -m benchmarks.stopping.calibration --worlds published broad shifted --sweeps 20
    python -m benchmarks.stopping.calibration benchmarks/stopping/recorded.jsonl --metric transfer/score --draws 2 --map

One line for trials judged before all of the sweep's trials had a forecast, one for after: rivals that are not known yet
do not count, so early odds are too high. Neighbouring reports of one trial are not independent. Sweeps are named by their
first word here (`recorded`, `algoperf`, ...): a source.

`--map` fits what P is worth, log-odds on log-odds, to all sweeps but one and says how much better the left one's ends are
foretold by it (nats a report; above 0 the map helps).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.stopping.measure import HELD_OUT
from benchmarks.stopping.sources import Source, drawn, sources
from benchmarks.stopping.worlds import WORLDS, generate, goal
from sweeps.config.objective import Goal
from sweeps.executors.simulated import Recording, simulate
from sweeps.journal.rows import Row
from sweeps.report.replay import read_rows, winners
from sweeps.stopping.base import Action, Verdict
from sweeps.stopping.dip_aware import MIN_REPORTS, DipAware

LEAST = 1e-4  # odds below this count as this
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


Beliefs = NDArray[np.float64]
"""For every report: P, whether the trial ended in the top k, whether all trials had a forecast; [n, 3]."""


def generated(world: str, seeds: Sequence[int], trials: int = 32, top: int = 3) -> list[Beliefs]:
    """Returns what was believed in each sweep of a world; winners are those in truth."""
    out = []
    for seed in seeds:
        sweep = generate(world, seed, trials=trials)
        out.append(_beliefs(goal(top), sweep.recordings, sweep.shared, set(sweep.winners(top))))
    return out


def recorded(source: Source, draws: int, size: int) -> list[Beliefs]:
    """Returns what was believed in each draw of a recorded sweep; winners are those as reported, all ties included."""
    out = []
    for seed in range(draws):
        part = drawn(source, seed, size)
        won = set(winners(part.ends, part.goal.top))
        out.append(_beliefs(part.goal, part.recordings, part.shared, won))
    return out


def _beliefs(wanted: Goal, recordings: Sequence[Recording], shared: Sequence[Row], won: set[str]) -> Beliefs:
    rule = Onlooker(wanted)
    simulate(recordings, rule, shared=shared)
    return np.array([(p, t in won, known == len(recordings)) for t, p, known in rule.seen], dtype=float).reshape(-1, 3)


def table(found: Beliefs) -> str:
    """Returns mean P -> share that ended in the top k (reports), bin by bin."""
    cells = []
    for low, high in pairwise(EDGES):
        inside = found[(found[:, 0] >= low) & (found[:, 0] < high)]
        cells.append(f"{inside[:, 0].mean():.3f} -> {inside[:, 1].mean():.3f} ({len(inside)})" if len(inside) else "-")
    return " | ".join(cells)


def fitted(found: Beliefs) -> tuple[float, float]:
    """Returns shift and slope of the log-odds that make P what it was worth, by Newton's method; (0, 1) would be P itself.

    A little is held against a slope far from 1, which two sweeps alone would else give.
    """
    x, y = _log_odds(found[:, 0]), found[:, 1]
    held = np.array([1.0, 25.0])  # precision of the prior around (0, 1)
    at = np.array([0.0, 1.0])
    for _ in range(30):
        p = 1.0 / (1.0 + np.exp(-(at[0] + at[1] * x)))
        basis = np.stack([np.ones_like(x), x])
        slope = basis @ (y - p) - held * (at - (0.0, 1.0))
        step = np.linalg.solve((basis * p * (1.0 - p)) @ basis.T + np.diag(held), slope)
        at = at + step
        if np.abs(step).max() < 1e-8:
            break
    return float(at[0]), float(at[1])


def gain(found: Beliefs, shift: float, slope: float) -> float:
    """Returns by how many nats a report the map foretells the ends better than P does."""
    x, y = _log_odds(found[:, 0]), found[:, 1]
    return float(np.mean(_log_likelihood(shift + slope * x, y) - _log_likelihood(x, y)))


def _log_odds(p: NDArray[np.float64]) -> NDArray[np.float64]:
    p = np.clip(p, LEAST, 1.0 - LEAST)
    return np.asarray(np.log(p / (1.0 - p)))


def _log_likelihood(z: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(y * z - np.logaddexp(0.0, z))


def show(name: str, sweeps: Sequence[Beliefs]) -> None:
    """Prints the two lines of a source."""
    found = np.concatenate(sweeps)
    for what, all_known in (("some trials unknown", 0), ("all trials known", 1)):
        print(f"| {name}, {what} | {table(found[found[:, 2] == all_known])} |", flush=True)


def left_out(sources_of: Mapping[str, Sequence[Beliefs]]) -> None:
    """Prints, for each sweep, the map that all others give and what it gains there."""
    gains = []
    for name, own in sources_of.items():
        others = [b for other, sweeps in sources_of.items() if other != name for b in sweeps]
        shift, slope = fitted(np.concatenate(others))
        gains.append(gain(np.concatenate(own), shift, slope))
        print(f"{name:44.44s} log-odds {shift:+.2f} + {slope:.2f} x, gains {gains[-1]:+.4f} nats a report")
    error, better = np.std(gains) / max(len(gains) - 1, 1) ** 0.5, np.mean(np.array(gains) > 0)
    print(f"all: {np.mean(gains):+.4f} +- {error:.4f} nats a report, better in {better:.0%} of the sweeps")


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("curves", nargs="*")
    p.add_argument("--metric", default="")
    p.add_argument("--draws", type=int, default=2)
    p.add_argument("--size", type=int, default=0, help="trials of a sub-sweep; 0 takes all")
    p.add_argument("--map", action="store_true", help="what a map of P would gain in sweeps that it was not fitted to")
    p.add_argument("--worlds", nargs="*", default=[], choices=list(WORLDS))
    p.add_argument("--sweeps", type=int, default=20)
    p.add_argument("--first-seed", type=int, default=HELD_OUT)
    a = p.parse_args(argv)
    found = {
        source.name: recorded(source, a.draws, a.size)
        for path in a.curves
        for source in sources(read_rows(path), a.metric)
    }
    by_source: dict[str, list[Beliefs]] = {}
    for name, sweeps in found.items():
        by_source.setdefault(name.split("-")[0], []).extend(sweeps)
    for world in a.worlds:
        by_source[world] = generated(world, range(a.first_seed, a.first_seed + a.sweeps))
    for name, sweeps in by_source.items():
        show(name, sweeps)
    if a.map and len(found) > 1:
        left_out(found)


if __name__ == "__main__":
    main()
