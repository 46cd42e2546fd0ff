"""Are forecasts as sure as they say? How many finals the 10-90 % span held, per source.

    python -m benchmarks.stopping.coverage benchmarks/stopping/recorded.jsonl --metric transfer/score
    python -m benchmarks.stopping.coverage --worlds published broad shifted --sweeps 20

Nobody is stopped. Every report from 25 to 50 % of a run's budget counts once three runs of the sweep have finished; neighbouring
reports of one run are not independent. A recorded final is what was reported at the budget, a generated one is the truth.
`below` and `above` are the shares of finals under and over the span.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.stopping.measure import HELD_OUT
from benchmarks.stopping.sources import drawn, sources
from benchmarks.stopping.worlds import WORLDS, generate, goal
from sweeps.config.objective import Goal
from sweeps.executors.simulated import Recording, simulate
from sweeps.journal.rows import EndRow, Row
from sweeps.report.replay import read_rows
from sweeps.stopping.base import Action, Verdict
from sweeps.stopping.dip_aware import DipAware

FROM, TO, FINISHED = 0.25, 0.5, 3


class Onlooker(DipAware):
    """Stops nothing and keeps (trial, 10 %, 90 %) of every report that counts; signed so that larger is better."""

    name = "onlooker"

    def __init__(self, goal: Goal) -> None:
        super().__init__(goal)
        self.spans: list[tuple[str, float, float]] = []
        self.finished = 0

    def observe(self, row: Row) -> bool:
        self.finished += isinstance(row, EndRow)
        return super().observe(row)

    def decide(self, trial: str) -> Verdict:
        forecast = self.ranking.forecaster.trials.get(trial)
        if forecast is not None and self.finished >= FINISHED and FROM <= forecast.last / forecast.budget <= TO:
            self.ranking.forecaster.follow()
            low, _, high = self.ranking.forecaster.span(forecast)
            self.spans.append((trial, float(low), float(high)))
        return Verdict(Action.CONTINUE, "an onlooker stops nothing")


def misses(
    recordings: Sequence[Recording], shared: Sequence[Row], wanted: Goal, ends: Mapping[str, float]
) -> np.ndarray:
    """Returns -1 for every forecast whose final fell below its span, 1 for above, 0 for inside."""
    rule = Onlooker(wanted)
    simulate(recordings, rule, shared=shared)
    return np.array([(ends[t] > high) - float(ends[t] < low) for t, low, high in rule.spans if t in ends])


def line(name: str, found: np.ndarray) -> str:
    below, held, above = ((found == side).mean() if len(found) else float("nan") for side in (-1, 0, 1))
    return f"{name:60.60s} held {held:6.1%}  below {below:6.1%}  above {above:6.1%}  n={len(found)}"


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("curves", nargs="*")
    p.add_argument("--metric", default="")
    p.add_argument("--draws", type=int, default=4)
    p.add_argument("--size", type=int, default=0, help="trials of a sub-sweep; 0 takes all")
    p.add_argument("--worlds", nargs="*", default=[], choices=list(WORLDS))
    p.add_argument("--sweeps", type=int, default=20)
    p.add_argument("--first-seed", type=int, default=HELD_OUT)
    a = p.parse_args(argv)
    for path in a.curves:
        for source in sources(read_rows(path), a.metric):
            parts = [drawn(source, seed, a.size) for seed in range(a.draws)]
            found = [misses(s.recordings, s.shared, s.goal, s.ends) for s in parts]
            print(line(f"{source.name} {source.schedule} {source.goal.metric}", np.concatenate(found)), flush=True)
    for world in a.worlds:
        made = [generate(world, seed) for seed in range(a.first_seed, a.first_seed + a.sweeps)]
        found = [misses(s.recordings, s.shared, goal(), s.truth) for s in made]
        print(line(f"generated: {world}", np.concatenate(found)), flush=True)


if __name__ == "__main__":
    main()
