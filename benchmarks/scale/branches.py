"""A whole sweep of budgets on shared trunks, scored, with processes reused and without: wall-clock, CPU, and the same results.

    python -m benchmarks.scale.branches [--budgets 100 200 400] [--tiers 3] [--replay 2] [--rates 2] [--cpus 2] [--backlog 8]

The default is 36 trials. One JSON line per way; the last line has the ratios, and how many scores, ends of trials, and
digests of checkpoints' weights are the same to the bit. A score is only in one where the evaluators skipped a spare
checkpoint that a later one had overtaken: that depends on time, and a `--backlog` above the number of checkpoints leaves
none out. Both ways run one after the other, as programs of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.scale.start_up import WAYS, CpuMeter

TIERS = ("verified-long-cot", "answer-only", "corrupted-cot")


def once(a: argparse.Namespace) -> None:
    """Runs the sweep in this process."""
    from cluster.run_sweep import run
    from sweeps import Sweep, grid

    sweep = Sweep(
        name="branches",
        models={a.model: {}},
        space={
            "model": grid(a.model),
            "data": grid(*TIERS[: a.tiers]),
            "replay": grid(*(0.0, 0.1)[: a.replay]),
            "learning_rate": grid(*(3e-3, 1e-3)[: a.rates]),
            "steps": grid(*a.budgets),
        },
        trainer={"lr_scheduler_type": "wsd", "batch_tokens": 1024, "max_length": 256},
        evaluation={"items": a.items, "backlog": a.backlog},
    )
    run(sweep, storage=a.once, cpus=a.cpus)


def results(root: Path) -> dict[str, dict[str, Any]]:
    """Returns every score, where each trial ended, and the digest of every checkpoint's weights, by trial and step."""
    from sweeps.journal.writer import read_rows, sweeps_in

    out: dict[str, dict[str, Any]] = {"scores": {}, "ends": {}, "checkpoints": {}}
    for row in read_rows(next(iter(sweeps_in(root)))):
        if row.kind == "report" and row.suite:
            out["scores"][f"{row.trial} {row.step}"] = [dict(row.metrics), dict(row.invalid), dict(row.items)]
        elif row.kind == "end" and row.trial and row.of == "scoring":
            out["ends"][row.trial] = [row.status, row.step]
        elif row.kind == "commit" and not row.dropped and not row.damaged:
            out["checkpoints"][f"{row.trial} {row.step}"] = row.checkpoint
    return out


def compared(cold: dict[str, Any], reused: dict[str, Any]) -> dict[str, Any]:
    """Returns how many values are the same in both, differ, and are in one only, with the first three that differ."""
    both = cold.keys() & reused.keys()
    differ = sorted(key for key in both if cold[key] != reused[key])
    return {
        "same": len(both) - len(differ),
        "differ": len(differ),
        "only_in_one": len(cold.keys() ^ reused.keys()),
        "first": {key: [cold[key], reused[key]] for key in differ[:3]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--tiers", type=int, default=3)
    parser.add_argument("--replay", type=int, default=2)
    parser.add_argument("--rates", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--items", type=int, default=20, help="questions of a task")
    parser.add_argument(
        "--backlog", type=int, default=8, help="checkpoints that wait for a score before one is left out"
    )
    parser.add_argument("--model", default="tiny-s")
    parser.add_argument("--once", default="", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.once:
        once(a)
        return
    found: dict[str, dict[str, Any]] = {}
    for way, value in WAYS.items():
        with tempfile.TemporaryDirectory() as root:
            began = time.monotonic()
            words = [sys.executable, "-m", "benchmarks.scale.branches", *sys.argv[1:], "--once", root]
            env = {**os.environ, "DIPSWEEP_REUSE_WORKERS": value}
            with CpuMeter() as cpu:
                done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            wall = time.monotonic() - began
            found[way] = {"wall_s": wall, "cpu_s": cpu.seconds, **results(Path(root))}
        shown = {k: round(found[way][k], 1) for k in ("wall_s", "cpu_s")}
        print(json.dumps({"way": way, **shown, "load": round(os.getloadavg()[0], 1)}), flush=True)
    cold, warm = found["cold"], found["reused"]
    ratios = {f"{what}_ratio": round(warm[what] / cold[what], 3) for what in ("wall_s", "cpu_s")}
    print(
        json.dumps({**ratios, **{what: compared(cold[what], warm[what]) for what in ("scores", "ends", "checkpoints")}})
    )


if __name__ == "__main__":
    main()
