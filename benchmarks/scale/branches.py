"""A whole sweep of budgets on shared trunks, scored, with processes reused and without: wall-clock, CPU, and the same scores.

    python -m benchmarks.scale.branches [--budgets 100 200 400] [--tiers 3] [--replay 2] [--rates 2] [--cpus 2]

The default is 36 trials. One JSON line per way; the last line has the ratios, how many scores are the same to the bit, and
those that are not. A score is only in one where the evaluators skipped a spare checkpoint that a later one had overtaken
(`evaluation.backlog`): that depends on time. Both ways run one after the other, as programs of their own.
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
    from cluster.run import run
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
        evaluation={"items": a.items},
    )
    run(sweep, storage=a.once, cpus=a.cpus)


def scores(root: Path) -> dict[str, Any]:
    """Returns every score and where each trial ended, by trial."""
    from sweeps.journal.writer import read_rows, sweeps_in

    out: dict[str, Any] = {}
    for row in read_rows(next(iter(sweeps_in(root)))):
        if row.kind == "report" and row.suite:
            out[f"{row.trial} {row.step}"] = dict(row.metrics)
        elif row.kind == "end" and row.trial and row.of == "scoring":
            out[row.trial] = [row.status, row.step]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--tiers", type=int, default=3)
    parser.add_argument("--replay", type=int, default=2)
    parser.add_argument("--rates", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--items", type=int, default=20, help="questions of a task")
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
            found[way] = {"wall_s": wall, "cpu_s": cpu.seconds, "scores": scores(Path(root))}
        shown = {k: round(v, 1) for k, v in found[way].items() if k != "scores"}
        print(json.dumps({"way": way, **shown, "load": round(os.getloadavg()[0], 1)}), flush=True)
    cold, warm = found["cold"], found["reused"]
    ratios = {f"{what}_ratio": round(warm[what] / cold[what], 3) for what in ("wall_s", "cpu_s")}
    theirs, ours = cold["scores"], warm["scores"]
    differ = {key: [theirs[key], ours[key]] for key in theirs.keys() & ours.keys() if theirs[key] != ours[key]}
    counts = {"same": len(theirs.keys() & ours.keys()) - len(differ), "only_in_one": len(theirs.keys() ^ ours.keys())}
    print(json.dumps({**ratios, **counts, "differ": dict(sorted(differ.items())[:3]), "differing": len(differ)}))


if __name__ == "__main__":
    main()
