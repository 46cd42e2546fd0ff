"""What `dipsweep resume` costs before the first trial goes on: reading the log, and coming to know everything again.

python -m benchmarks.storage.resume [--rows 100000] [--trials 250]

The sweep is made up and in the middle of its trials; a fourth of its rows are scores with nine metrics, the others what a
trainer and a driver say. CPU seconds, the best of three.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps import Sweep, uniform
from sweeps.config.plan import Plan
from sweeps.controller.controller import SweepController
from sweeps.controller.searcher import make_searcher
from sweeps.journal.history import History
from sweeps.journal.rows import AttemptRow, CommitRow, EvalRow, ReportRow, Row, SweepRow, TrialRow
from sweeps.journal.vocabulary import EvalStatus
from sweeps.journal.writer import MemoryJournal, SweepJournal
from sweeps.stopping.registry import make_rule

NAMES = [f"{role}/score" for role in ("math", "transfer", "general", "safety")]
NAMES += ["math/in_domain", "general/gcd", "general/sorting", "length/mean", "safety/refusal"]
RULES = ("none", "median", "asha", "hyperband", "dip-aware")
STEPS = 640


def definition(trials: int) -> Sweep:
    return Sweep(name="bench", space={"replay": uniform(0, 1)}, search={"algorithm": "random", "trials": trials},
                 trainer={"steps": STEPS})  # fmt: skip


def write(home: Path, trials: int, rows: int) -> None:
    """Writes the log of a sweep whose trials were all started and have all come equally far."""
    plan = Plan(definition(trials))
    searcher, snapshots = make_searcher(plan), rows // trials // 4
    with SweepJournal(home) as journal, journal.batch():
        journal.append(SweepRow(plan.sweep_id, trials=plan.total))
        for _ in range(trials):
            suggestion = searcher.ask()
            assert suggestion is not None
            spec = plan.trial(suggestion.config)
            asked = {"number": suggestion.number, "search": dict(suggestion.state)}
            journal.append(TrialRow(plan.sweep_id, spec.id, budget=STEPS, config=spec.config, **asked))
            journal.append(AttemptRow(plan.sweep_id, spec.id, 1, 0, budget=STEPS, workers=1))
            for i in range(1, snapshots + 1):
                for row in snapshot(plan.sweep_id, spec.id, i, i * STEPS // snapshots):
                    journal.append(row)


def snapshot(sweep: str, trial: str, i: int, step: int) -> list[Row]:
    """What one snapshot leaves in the log."""
    where = {"path": f"trials/{trial}/attempt-1/step-{step:06d}"}
    trained = {"train/loss": 1 / step, "train/grad_norm": 0.3, "perf/tokens_per_s": 1000.0}
    return [
        ReportRow(sweep, trial, 1, step, budget=STEPS, metrics=trained, cost={"cpu_s": float(step)},
            progress={"tokens": 10 * step, "label_tokens": 4 * step, "rows": step}),
        CommitRow(sweep, trial, 1, step, checkpoint="sha256:" + "0" * 64, **where),
        ReportRow(sweep, trial, 1, step, metrics=dict.fromkeys(NAMES, i % 97 / 97), se=dict.fromkeys(NAMES, 0.018),
            n=dict.fromkeys(NAMES, 300), suite="mini@3f2e1a"),
        EvalRow(sweep, trial, 1, step, suite="mini@3f2e1a", cost={"cpu_s": 3.0}, status=EvalStatus.DONE),
    ]  # fmt: skip


def best(act: Callable[[], Any], times: int = 3) -> float:
    """Returns the least CPU seconds of several tries."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        act()
        spent.append(time.process_time() - start)
    return round(min(spent), 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--trials", type=int, default=250)
    a = parser.parse_args()
    sweep = definition(a.trials)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / sweep.id
        write(home, a.trials, a.rows)
        with SweepJournal(home) as journal:
            rows = journal.rows()
        out: dict[str, Any] = {"rows": len(rows), "open the journal": best(lambda: SweepJournal(home).close())}
        out["curves"] = best(lambda: History(rows))
        for rule in RULES:
            out[f"controller, {rule}"] = best(
                lambda rule=rule: SweepController(Plan(sweep), MemoryJournal(rows), make_rule(rule, sweep.goal))
            )
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
