"""How long the rule thinks: CPU milliseconds of taking in a report, deciding, and choosing whom to resume.

python -m benchmarks.stopping.speed --trials 256
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.stopping.worlds import generate, goal
from sweeps.executors.simulated import simulate
from sweeps.journal.rows import Row
from sweeps.stopping.base import Verdict
from sweeps.stopping.dip_aware import DipAware


class Timed(DipAware):
    """DipAware with a stopwatch."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.took: dict[str, list[float]] = {"observe a report": [], "decide": [], "choose whom to resume": []}

    def _timed(self, what: str, call: Callable[..., Any], *args: Any) -> Any:
        began = time.process_time()
        given = call(*args)
        self.took[what].append(1e3 * (time.process_time() - began))
        return given

    def observe(self, row: Row) -> bool:
        if row.kind != "report":
            return super().observe(row)
        return bool(self._timed("observe a report", super().observe, row))

    def decide(self, trial: str) -> Verdict:
        verdict: Verdict = self._timed("decide", super().decide, trial)
        return verdict

    def choose_trial_to_resume(self, paused: Sequence[str]) -> str | None:
        chosen: str | None = self._timed("choose whom to resume", super().choose_trial_to_resume, paused)
        return chosen


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trials", type=int, default=256)
    p.add_argument("--workers", type=int, default=32)
    p.add_argument("--seed", type=int, default=500)
    a = p.parse_args(argv)
    sweep, rule = generate("published", a.seed, trials=a.trials), Timed(goal())
    began = time.process_time()
    simulate(sweep.recordings, rule, workers=a.workers, shared=sweep.shared)
    print(f"{a.trials} trials: {a.trials / (time.process_time() - began):.0f} trials per CPU second")
    for what, took in rule.took.items():
        times = np.array(took)
        print(f"{what}: mean {times.mean():.2f} ms, p99 {np.quantile(times, 0.99):.2f} ms, n = {len(times)}")


if __name__ == "__main__":
    main()
