"""Ten thousand trials under the simulated clock: do time and memory per trial stay flat?

    python -m benchmarks.scale.clock [--trials 10000] [--reports 100] [--workers 64] [--rule dip-aware]

Curves fall and come back (`tests.support.fakes.dip_curve`) with noise of their own; one line per thousand trials that ended.
"""

from __future__ import annotations

import argparse
import random
import time

from benchmarks.scale.memory import rss_mib
from sweeps.config.objective import Goal
from sweeps.executors.simulated import Recording, simulate
from sweeps.journal.rows import ReportRow, Row, TrialRow
from sweeps.stopping.registry import make_rule
from tests.support.fakes import dip_curve


def recording(i: int, reports: int) -> Recording:
    """Returns trial `i`: its reports come every step of its budget."""
    rng, trial = random.Random(i), f"t{i:05d}"
    end = rng.uniform(0.3, 1.0)
    rows = tuple(
        ReportRow("s", trial, step=s, budget=reports,
            metrics={"transfer/score": dip_curve(s, reports, 0.4, end) + rng.gauss(0, 0.02)},
            se={"transfer/score": 0.02})
        for s in range(1, reports + 1)
    )  # fmt: skip
    base = ReportRow("s", trial, step=0, metrics={"transfer/score": 0.9}, se={"transfer/score": 0.01})
    return Recording(trial, TrialRow("s", trial, budget=reports), rows, (1.0,) * reports, (base,))


class Told:
    """Passes rows on to a rule, and prints a line per thousand ends."""

    def __init__(self, rule: object) -> None:
        self.rule, self.ends, self.rows = rule, 0, 0
        self.mark, self.cpu, self.marked = time.monotonic(), time.process_time(), 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.rule, name)

    def observe(self, row: Row) -> bool:
        self.rows += row.kind == "report"
        if row.kind == "end":
            self.ends += 1
            if self.ends % 1000 == 0:
                cpu, reports = time.process_time() - self.cpu, self.rows - self.marked
                each = f"{1e3 * cpu / 1000:7.2f} ms a trial  {1e6 * cpu / max(1, reports):7.1f} us a report"
                print(f"{self.ends:6d} trials  {each}  {rss_mib():6.0f} MiB", flush=True)
                self.cpu, self.marked = time.process_time(), self.rows
        return bool(self.rule.observe(row))  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--reports", type=int, default=100)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--rule", default="dip-aware")
    a = parser.parse_args()
    settings = {"trials": a.trials} if a.rule == "dip-aware" else {}
    rule = Told(make_rule(a.rule, Goal("transfer/score", top=3), **settings))
    recordings = [recording(i, a.reports) for i in range(a.trials)]
    print(f"{a.trials} trials drawn: {rss_mib():.0f} MiB")
    began = time.process_time()
    outcome = simulate(recordings, rule, workers=a.workers)  # type: ignore[arg-type]
    ended = [run.ended for run in outcome.runs.values()]
    print({s: ended.count(s) for s in sorted(set(ended))}, f"{rule.rows} reports, {time.process_time() - began:.0f} s of CPU,"
          f" saved {outcome.saved:.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
