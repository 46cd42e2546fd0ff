"""A driver that exports one recorded sweep's numbers through Ray's own exporter until its input closes."""

from __future__ import annotations

import sys

import ray

from cluster.observe.exporter import Exporter
from cluster.observe.metrics import SweepMetrics
from sweeps import Sweep
from sweeps.journal.codec import parse
from sweeps.journal.rows import Row

SWEEP = Sweep(name="shown", space={"data": {"grid": ["answer-only", "verified-long-cot"]}})


def rows() -> list[Row]:
    """A small sweep: a trial pruned, one running, one completed, with every kind of number that a trial has."""
    scores = {"transfer/score": 0.4, "safety/refusal": 0.9, "length/mean": 300.0}
    perf = {"perf/tokens_per_s": 5000.0, "perf/mfu": 0.41}
    plain = [
        {"kind": "trial", "trial": "t-1", "budget": 100, "number": 0},
        {"kind": "trial", "trial": "t-2", "budget": 100, "number": 1},
        {"kind": "attempt", "trial": "t-1", "attempt": 1, "step": 0},
        {"kind": "attempt", "trial": "t-2", "attempt": 1, "step": 0},
        {"kind": "report", "trial": "t-1", "attempt": 1, "step": 40, "metrics": perf, "cost": {"gpu_s": 3600.0, "cpu_s": 7200.0}},
        {"kind": "report", "trial": "t-1", "attempt": 1, "step": 40, "metrics": scores, "suite": "mini"},
        {"kind": "eval", "trial": "t-1", "attempt": 1, "step": 40, "cost": {"gpu_s": 36.0}, "status": "done"},
        {"kind": "verdict", "trial": "t-1", "attempt": 1, "step": 40, "action": "STOP", "phase": "collapse", "reason": "x"},
        {"kind": "end", "trial": "t-1", "attempt": 1, "step": 40, "of": "scoring", "status": "pruned"},
        {"kind": "report", "trial": "t-2", "attempt": 1, "step": 50, "metrics": {**scores, **perf}, "suite": "mini"},
        {"kind": "verdict", "trial": "t-2", "attempt": 1, "step": 50, "action": "CONTINUE", "phase": "dip", "reason": "x"},
        {"kind": "trial", "trial": "t-3", "budget": 100, "by": "ana"},
        {"kind": "attempt", "trial": "t-3", "attempt": 1, "step": 0},
        {"kind": "report", "trial": "t-3", "attempt": 1, "step": 100, "metrics": scores, "suite": "mini"},
        {"kind": "end", "trial": "t-3", "attempt": 1, "step": 100, "of": "scoring", "status": "completed"},
    ]  # fmt: skip
    return [parse({"sweep": SWEEP.id, "seq": n, **row}) for n, row in enumerate(plain)]


def main() -> None:
    ray.init(address=sys.argv[1], log_to_driver=False)
    exporter = Exporter(SweepMetrics(SWEEP), lambda: {"trials": 1, "evaluations": 3})
    for row in rows():
        exporter.take(row)
    import threading

    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    while not over.wait(1.0):
        exporter.push()


if __name__ == "__main__":
    main()
