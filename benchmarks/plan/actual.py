"""A plan against what the sweep then took: device seconds of real sweeps, predicted without and with a probe.

    python -m benchmarks.plan.actual

Runs each sweep in this process, one after the other, in folders that are removed again (about five minutes on one core).
Device seconds are CPU seconds of training, scoring and start-up as the journal has them, so that other work on the machine
changes them little. Writes a table: predicted / actual, with the bounds that the plan itself gave.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.cli.plan_view import probed_speeds
from cluster.preflight.cost import speeds_for
from cluster.run import run
from sweeps import Sweep, grid, loguniform
from sweeps.config.plan import Plan
from sweeps.journal.rows import Row
from sweeps.journal.writer import read_rows
from sweeps.planning.estimate import estimate

TRAINER: dict[str, Any] = {
    "learning_rate": 3e-3, "batch_tokens": 1536, "max_length": 256, "lr_scheduler_type": "wsd", "warmup_steps": 5
}  # fmt: skip
TIERS = grid("verified-long-cot", "answer-only")


def sweeps() -> dict[str, Sweep]:
    """The sweeps by what they are an example of."""

    def made(name: str, space: dict[str, Any], **more: Any) -> Sweep:
        fields: dict[str, Any] = {"trainer": TRAINER, "evaluation": {"items": 30, "at": {"every": 40}}}
        return Sweep(**{"name": name, "space": space, **fields, **more})

    return {
        "grid": made("grid", {"data": TIERS, "replay": grid(0.0, 0.2), "steps": grid(80)}),
        "sampled": made(
            "sampled",
            {"data": TIERS, "learning_rate": loguniform(1e-3, 5e-3), "steps": grid(80)},
            search={"algorithm": "random", "trials_per_cell": 6},
        ),
        "shared budgets": made("budgets", {"data": TIERS, "steps": grid(50, 100, 200)}),
        "evaluation-heavy": made(
            "heavy", {"data": TIERS, "steps": grid(60)}, evaluation={"items": 100, "at": {"every": 10}}
        ),
        "mixed sizes": made("mixed", {"model": grid("tiny-xs", "tiny-s", "tiny-m"), "steps": grid(60)}),
        "long steps": made(
            "long", {"data": TIERS, "steps": grid(60)}, trainer={**TRAINER, "batch_tokens": 8192, "max_length": 512}
        ),
        "adapters": made("adapters", {"lora_rank": grid(4, 16), "steps": grid(80)}),
    }


def spent(rows: Sequence[Row]) -> float:
    """Device seconds in a journal: the last cumulative cost of each attempt, and every evaluation."""
    attempts: dict[tuple[str, int], float] = {}
    scoring = 0.0
    for row in rows:
        if row.kind == "report" and row.cost:
            attempts[row.trial, row.attempt] = sum(row.cost.values())
        elif row.kind == "eval" and row.cost:
            scoring += sum(row.cost.values())
    return sum(attempts.values()) + scoring


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of sweeps; default all")
    chosen = parser.parse_args().only
    print(
        f"{'sweep':18} {'actual':>8} {'unprobed':>9} {'ratio':>6} {'probed':>8} {'ratio':>6} {'bounds hold':>12} {'wall':>10}"
    )
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # imports are paid once in this process; on a cluster by every attempt
        first = Sweep(name="first", space={"steps": grid(2)}, trainer=TRAINER, evaluation={"items": 2, "at": [2]})
        run(first, storage=folder, backend="in-process", say=lambda line: None)
    for name, sweep in sweeps().items():
        if chosen and name not in chosen:
            continue
        plan = Plan(sweep)
        with tempfile.TemporaryDirectory() as folder:
            blind = estimate(plan, speeds_for(plan, gpu="H100"), in_process=True)
            probed = estimate(plan, probed_speeds(plan, gpu="H100"), [1.0], in_process=True)
            began = time.monotonic()
            run(sweep, storage=folder, backend="in-process", say=lambda line: None)
            wall = time.monotonic() - began
            actual = spent(read_rows(Path(folder) / sweep.id))
        one, two = blind.device_seconds, probed.device_seconds
        expected_wall = two.value  # in one process training and scoring take turns
        print(
            f"{name:18} {actual:7.1f}s {one.value:8.1f}s {one.value / actual:6.2f} {two.value:7.1f}s "
            f"{two.value / actual:6.2f} {two.low <= actual <= two.high!s:>12} {expected_wall / wall:10.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
