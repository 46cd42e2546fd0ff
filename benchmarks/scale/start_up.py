"""What lies between two attempts: from the end of one to the first step of the next, with processes reused and without.

    python -m benchmarks.scale.start_up [--trials 6] [--steps 12] [--workers 1] [--model tiny-s] [--cpus 1] [--rounds 1]

Trials run one after the other on a real local Ray, each a few steps of real training, evaluated by a stand-in. Both
ways run in one process, one after the other: DIPSWEEP_REUSE_WORKERS=0 (every attempt brings up its own processes) and 1.
One JSON line a round and way: seconds from the end of an attempt to the first report of the next (median, worst), wall
seconds of the whole sweep, and CPU seconds of all its processes, Ray's own included. `start_s` and `start_cpu_s` are
medians of what attempts tell of themselves: wall clock from launch (where processes go on, from the end of the attempt before) to
the first step, and CPU seconds of the training process until then, interpreter and imports included where it is new.
`cluster_s` are the seconds before the first launch and after the last trial's end: Ray is imported, comes up, and ends.

    python -m benchmarks.scale.start_up --bare 5 [--model tiny-s]

measures that many new pythons that import torch and transformers, load the same model and take a step, and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from cluster.connect.environment import prepare

WAYS = {"cold": "0", "reused": "1"}
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def once(a: argparse.Namespace) -> dict[str, Any]:
    """Runs the sweep in this process; returns when attempts ended and when the next ones reported first."""
    begun = time.monotonic()
    prepare()
    from cluster.connect.session import local_ray
    from cluster.driver.loop import RayLoop
    from cluster.train.functions import train_model
    from sweeps import Sweep, grid
    from sweeps.config.plan import Plan
    from sweeps.controller.controller import SweepController
    from sweeps.journal.rows import Row
    from sweeps.journal.writer import SweepJournal
    from sweeps.stopping import NeverStop
    from tests.support.fakes import fake_evaluate

    source = {"path": a.path} if a.path else {}
    sweep = Sweep(
        name="start-up",
        models={a.model: {"workers": a.workers, **source}},
        space={"model": grid(a.model)},
        search={"repeats": a.trials},
        trainer={"steps": a.steps, "logging_steps": 1, "batch_tokens": 512, "max_length": 256},
        evaluation={"at": [a.steps]},
    )
    told: dict[str, dict[str, float]] = {}
    began: dict[str, float] = {}
    first: dict[str, float] = {}
    ended: dict[str, float] = {}

    def heard(row: Row) -> None:
        now = time.monotonic()
        if row.kind == "attempt":
            began[row.trial] = now
        elif row.kind == "report" and not row.suite and row.trial not in first:
            first[row.trial], told[row.trial] = now, dict(row.metrics)
        elif row.kind == "end" and row.trial not in ended:
            ended[row.trial] = now

    with tempfile.TemporaryDirectory() as root, local_ray(a.cpus):
        plan, up = Plan(sweep), time.monotonic()
        with SweepJournal(Path(root) / plan.sweep_id) as journal:
            RayLoop(
                SweepController(plan, journal, NeverStop(sweep.goal), subscribers=[heard]),
                train_model,
                fake_evaluate,
                root,
            ).run()
        wall = time.monotonic() - up
    over = time.monotonic()
    order = sorted(began, key=lambda t: began[t])
    gaps = [first[after] - ended[before] for before, after in itertools.pairwise(order)]
    later = [told[trial] for trial in order[1:]]

    def median(name: str) -> float:
        return round(statistics.median(metrics.get(name, 0.0) for metrics in later), 2)

    parts = ("process", "imports", "data", "model", "first_step")
    return {
        "start_s": median("perf/start_up_s"),
        "start_cpu_s": median("perf/start_up/cpu_s"),
        "parts_s": {part: median(f"perf/start_up/{part}_s") for part in parts},
        "trials": len(order),
        "first_cold_s": round(first[order[0]] - began[order[0]], 2),
        "gap_s": round(statistics.median(gaps), 2),
        "worst_gap_s": round(max(gaps), 2),
        "wall_s": round(wall, 1),
        "cluster_s": round(began[order[0]] - begun + over - max(ended.values()), 1),
    }


BARE = """
import sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForCausalLM, AutoTokenizer))
ids = torch.tensor([tokenizer("1 + 2 = 3; " * 200)["input_ids"][:512]])
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
started = time.process_time()
model(input_ids=ids, labels=ids).loss.backward()
optimizer.step()
print(started, time.process_time())
"""


def bare(model: str, path: str, times: int) -> dict[str, float]:
    """Returns the median CPU seconds of a bare python: to its first step, and to the end of that."""
    from trainers.model.files.builtin import builtin_folder

    found = []
    for _ in range(times):
        words = [sys.executable, "-c", BARE, path or str(builtin_folder(model))]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        found.append([float(seconds) for seconds in said.split()])
    before, after = (statistics.median(column) for column in zip(*found, strict=True))
    return {"cpu_s_to_first_step": round(before, 2), "cpu_s_after_it": round(after, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--model", default="tiny-s")
    parser.add_argument("--path", default="", help="a folder with the model's weights")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--bare", type=int, default=0, metavar="N")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.once:
        print(json.dumps(once(a)), flush=True)
        return
    if a.bare:
        print(json.dumps({"way": "bare", **bare(a.model, a.path, a.bare), "load": round(os.getloadavg()[0], 1)}))
        return
    for number in range(a.rounds):
        for way, value in WAYS.items():
            env = {**os.environ, "DIPSWEEP_REUSE_WORKERS": value}
            words = [sys.executable, "-m", "benchmarks.scale.start_up", *sys.argv[1:], "--once"]
            with CpuMeter() as cpu:
                done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            spent = {"cpu_s": round(cpu.seconds, 1), "load": round(os.getloadavg()[0], 1)}
            print(
                json.dumps({"way": way, "round": number, **json.loads(done.stdout.splitlines()[-1]), **spent}),
                flush=True,
            )


class CpuMeter:
    """Adds up the CPU seconds of every descendant of this process, Ray's own included, while the block runs.

    Looks four times a second, so that a process is counted up to a quarter of a second before its end: Ray's node manager ignores
    the end of its children, and what the system adds up for the parent of a process lacks them.
    """

    def __enter__(self) -> CpuMeter:
        # Ray's processes become ours when their parent ends.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._spent: dict[tuple[int, float], float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        return sum(self._spent.values())

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._over.wait(0.25):
            for process in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    self._spent[process.pid, process.create_time()] = times.user + times.system


if __name__ == "__main__":
    main()
