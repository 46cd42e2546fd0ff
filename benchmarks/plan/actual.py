"""A plan against what the sweep then took: device seconds of real sweeps, predicted without and with a probe.

    python -m benchmarks.plan.actual [--ray] [--only NAME …]

Runs each sweep by `dipsweep run --in-process`, one after the other, in folders that are removed again (about six minutes on one
core); with --ray also a grid and an elastic sweep on a Ray of two CPUs (two minutes more). Plans and sweeps have a new process
each, as a user's have: one that has trained before trains faster.
Device seconds are CPU seconds of training and scoring as the journal has them, so that other work on the machine changes them
little; on Ray also the seconds in which new processes held their CPUs before. Wall-clock times are those of a quiet machine only.
A line before each says what of its device seconds was training, scores and starts, as planned after the probe and as it was;
of a sweep on Ray also when its first trial was launched, and its last one had ended.
Writes a table: predicted / actual, with the bounds
that the plan itself gave, and in the end how many are within what a plan promises.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cluster.cli.probe import probed_speeds
from cluster.preflight.cost import speeds_for
from sweeps import Sweep, grid, loguniform
from sweeps.config.plan import Plan
from sweeps.journal.rows import EvalRow, ReportRow, Row
from sweeps.journal.state import SweepState, device_seconds
from sweeps.journal.writer import read_rows
from sweeps.planning.estimate import Estimate, Range, estimate

TRAINER: dict[str, Any] = {
    "learning_rate": 3e-3, "batch_tokens": 1536, "max_length": 256, "lr_scheduler_type": "wsd", "warmup_steps": 5
}  # fmt: skip
FEWEST = 6
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


def on_ray() -> dict[str, Sweep]:
    """The sweeps that need a Ray of two CPUs, by what they are an example of."""

    def made(name: str, space: dict[str, Any], **more: Any) -> Sweep:
        fields: dict[str, Any] = {"trainer": TRAINER, "evaluation": {"items": 30, "at": {"every": 40}}}
        return Sweep(**{"name": name, "space": space, **fields, **more})

    elastic = {"tiny-s": {"workers": [1, 2]}}
    return {
        "ray: grid": made("ray-grid", {"data": TIERS, "replay": grid(0.0, 0.2), "steps": grid(80)}),
        "ray: elastic": made("ray-elastic", {"data": TIERS, "steps": grid(80)}, models=elastic),
    }


class Spent(NamedTuple):
    """Device seconds in a journal: the last cumulative cost of each attempt, every evaluation, and what lies before attempts."""

    training: float
    scoring: float
    starts: float

    @property
    def total(self) -> float:
        return self.training + self.scoring + self.starts

    def __str__(self) -> str:
        return f"training {self.training:.1f}, scores {self.scoring:.1f}, starts {self.starts:.1f}"


def spent(rows: Sequence[Row]) -> Spent:
    """Returns the device seconds in a journal."""
    attempts: dict[tuple[str, int], float] = {}
    scoring = 0.0
    for row in rows:
        if isinstance(row, ReportRow) and row.cost:
            attempts[row.trial, row.attempt] = device_seconds(row.cost)
        elif isinstance(row, EvalRow) and row.cost:
            scoring += device_seconds(row.cost)
    return Spent(sum(attempts.values()), scoring, SweepState(rows).start_ups.read().before_training)


def planned(whole: Estimate) -> Spent:
    """Returns the same as a plan has it; it counts as start what of an attempt's cost is imports."""
    models = whole.models
    return Spent(
        sum(m.training.value for m in models),
        sum(m.evaluation.value + m.base.value for m in models),
        sum(m.start_up.value for m in models),
    )


def run_by_command(sweep: Sweep, folder: str, *where: str) -> list[tuple[float, str]]:
    """Runs a sweep by the command in a process of its own; returns its lines, each with the seconds until it came.

    A process in which a probe has trained has seen packs of every length, and trains faster than a new one.
    """
    file = Path(folder) / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep.to_json(), sort_keys=False), encoding="utf-8")
    words = [sys.executable, "-m", "cluster.cli.main", "run", str(file), "--storage", folder, *where]
    began, lines = time.monotonic(), list[tuple[float, str]]()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lines.extend((time.monotonic() - began, line) for line in process.stdout)
    if process.returncode:
        sys.exit(f"{sweep.name} ended with {process.returncode}")
    return lines


class Told(NamedTuple):
    """One sweep: device seconds as they were, and predicted without and with a probe; predicted wall-clock time over actual."""

    name: str
    actual: float
    blind: Range
    probed: Range
    wall: float

    def __str__(self) -> str:
        held = self.probed.low <= self.actual <= self.probed.high
        return (
            f"{self.name:18} {self.actual:7.1f}s {self.blind.value:8.1f}s {self.blind.value / self.actual:6.2f} "
            f"{self.probed.value:7.1f}s {self.probed.value / self.actual:6.2f} {held!s:>12} {self.wall:10.2f}"
        )


def estimates(sweep: Sweep, *, ray: bool) -> tuple[Estimate, Estimate]:
    """Plans a sweep without and with a probe."""
    plan, nodes = Plan(sweep), [2.0] if ray else [1.0]
    blind = estimate(plan, speeds_for(plan, gpu="H100"), nodes, in_process=not ray)
    return blind, estimate(plan, probed_speeds(plan, gpu="H100", alone=not ray), nodes, in_process=not ray)


def compare(name: str, sweep: Sweep, *, ray: bool) -> Told:
    """Plans a sweep, and runs it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        blind, probed = pool.submit(estimates, sweep, ray=ray).result()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        lines = run_by_command(sweep, folder, *(("--cpus", "2") if ray else ("--in-process",)))
        wall = time.monotonic() - began
        actual = spent(read_rows(Path(folder) / sweep.id))
    starts, ends = ([at for at, line in lines if word in line] for word in (" starts", " completed at step"))
    if ray:
        print(f"{name}: {wall:.1f} s, first launch after {starts[0]:.1f}, last trial ended after {ends[-1]:.1f}")
    else:
        wall = ends[-1] - starts[0]  # imports are no part of a plan for one process
    print(f"{name}: planned {planned(probed)}; was {actual}", flush=True)
    # In one process training and scoring take turns.
    expected = probed.wall.value if ray and probed.wall is not None else probed.device_seconds.value
    return Told(name, actual.total, blind.device_seconds, probed.device_seconds, expected / wall)


def within(values: Sequence[float], share: float) -> str:
    """How many ratios are within a share of 1, either way, and whether that reaches the bar: all of at least `FEWEST` sweeps."""
    good = sum(1 / (1 + share) <= v <= 1 + share for v in values)
    reached = (
        "reached"
        if good == len(values) >= FEWEST
        else "missed"
        if good < len(values)
        else f"open below {FEWEST} sweeps"
    )
    return f"{good} of {len(values)} within {share:.0%}: the bar is {reached}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of sweeps; default all")
    parser.add_argument("--ray", action="store_true", help="also those on Ray")
    chosen = parser.parse_args()
    print(
        f"{'sweep':18} {'actual':>8} {'unprobed':>9} {'ratio':>6} {'probed':>8} {'ratio':>6} {'bounds hold':>12} {'wall':>10}"
    )
    told = []
    for name, sweep in {**sweeps(), **(on_ray() if chosen.ray else {})}.items():
        if not chosen.only or name in chosen.only:
            told.append(compare(name, sweep, ray=name.startswith("ray: ")))
            print(told[-1], flush=True)
    print(f"\nprobed: {within([t.probed.value / t.actual for t in told], 0.15)}")
    print(f"unprobed: {within([t.blind.value / t.actual for t in told], 0.4)}")
    print(f"wall clock: {within([t.wall for t in told], 0.25)}")


if __name__ == "__main__":
    main()
