"""Sweeps on a real local Ray whose trainers may be followed by another attempt in the same process.

python -m tests.scenario.programs.reuse branches|faults|mixed|two|second FOLDER

Prints one JSON line: what each trial reported first, in order of their starts, and what is free at the end.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from pathlib import Path

from cluster.connect.environment import prepare

prepare()

import ray  # noqa: E402

from benchmarks.scale.light import drive_light  # noqa: E402
from cluster.connect.session import local_ray  # noqa: E402
from cluster.driver.loop import RayLoop  # noqa: E402
from cluster.train.functions import train_model  # noqa: E402
from cluster.train.worker import drive_attempt  # noqa: E402
from sweeps import Sweep, grid  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.config.trial import Hooks, Saved, TrialSpec  # noqa: E402
from sweeps.controller.controller import SweepController  # noqa: E402
from sweeps.journal.rows import Row  # noqa: E402
from sweeps.journal.writer import SweepJournal  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from tests.support.fakes import FakeTrainer, fake_evaluate  # noqa: E402

TRAINER = {"learning_rate": 3e-3, "lr_scheduler_type": "wsd", "warmup_steps": 2, "batch_tokens": 256, "max_length": 128}
BRANCHES = Sweep(
    name="branches",
    models={"tiny-xs": {}},
    space={"model": grid("tiny-xs"), "steps": grid(6, 9, 12), "learning_rate": grid(3e-3, 1e-3)},
    trainer={**TRAINER, "logging_steps": 1},
    evaluation={"at": [4]},
)
SWEEPS = {
    "branches": BRANCHES,
    "two": BRANCHES.model_copy(update={"name": "two", "models": BRANCHES.models}),
    "faults": Sweep(name="faults", space={"replay": grid(0.0, 0.1, 0.2, 0.3, 0.4)}, trainer={"steps": 4}),
    "second": Sweep(
        name="second",
        models={"pair": {"path": "unused", "workers": 2}},
        space={"model": grid("pair"), "replay": grid(0.0, 0.1, 0.2)},
        trainer={"steps": 4},
    ),
    "mixed": Sweep(
        name="mixed",
        models={"small": {"path": "unused"}, "large": {"path": "unused", "workers": 2}},
        space={"model": grid("small", "large"), "replay": grid(0.0, 0.1, 0.2, 0.3)},
        trainer={"steps": 8},
    ),
}


def train_dirty(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, **rank: int) -> None:
    """Leaves behind whatever it can. Replay 0.1 raises; 0.3 leaves a thread that goes on."""
    import torch

    found = {
        "perf/pid": os.getpid(),
        "perf/dirt": float("LEFT_BEHIND" in os.environ)
        + float(torch.get_default_dtype() is torch.float64)
        + float(os.getcwd() == "/"),
        "perf/torch_random": float(torch.rand(())),
        "perf/random": random.random(),
    }
    os.environ["LEFT_BEHIND"] = "1"
    torch.set_default_dtype(torch.float64)
    os.chdir("/")
    hooks.stop_asked()
    hooks.report(1, {"train/loss": 1.0, **found}, progress={}, cost={})
    if trial.config["replay"] == 0.1:
        raise RuntimeError("this one is broken")
    if trial.config["replay"] == 0.3:
        threading.Thread(target=time.sleep, args=(30,), name="straggler").start()
    FakeTrainer()(trial, hooks, folder=folder, resume=resume)


def train_slowly(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, **rank: int) -> None:
    """Half a second, then as `FakeTrainer`."""
    hooks.stop_asked()
    hooks.report(1, {"train/loss": 1.0, "perf/pid": os.getpid()}, progress={}, cost={})
    time.sleep(0.5)
    FakeTrainer()(trial, hooks, folder=folder, resume=resume)


def train_as_two(
    trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, rank: int = 0, world: int = 1
) -> None:
    """The second process leaves a thread at replay 0.1."""
    hooks.stop_asked()
    hooks.report(1, {"train/loss": 1.0, "perf/pid": os.getpid()}, progress={}, cost={})
    if rank == 1 and trial.config["replay"] == 0.1:
        threading.Thread(target=time.sleep, args=(30,), name="straggler", daemon=True).start()
    if rank == 0:
        FakeTrainer()(trial, hooks, folder=folder, resume=resume)


for _function in (train_dirty, train_slowly, train_as_two):
    _function.reuse = True  # type: ignore[attr-defined]
TRAINERS = {
    "branches": train_model,
    "two": train_model,
    "faults": train_dirty,
    "mixed": train_slowly,
    "second": train_as_two,
}


def main(mode: str, root: Path) -> None:
    sweep, cpus = SWEEPS[mode], 1 if mode in ("branches", "faults") else 2
    if mode == "two":
        sweep = Sweep(**{**sweep.to_json(), "models": {"tiny-xs": {"workers": 2}}})
    plan, first = Plan(sweep), dict[str, dict[str, float]]()

    def heard(row: Row) -> None:
        if row.kind == "attempt":
            first.setdefault(row.trial, {})
        elif row.kind == "report" and not row.suite and not first[row.trial]:
            first[row.trial] = dict(row.metrics)

    with SweepJournal(root / plan.sweep_id) as journal, local_ray(cpus):
        controller = SweepController(plan, journal, NeverStop(sweep.goal), subscribers=[heard])
        drive = drive_light if mode == "mixed" else drive_attempt
        RayLoop(controller, TRAINERS[mode], fake_evaluate, root, drive=drive).run()
        for _ in range(50):
            if (free := ray.available_resources().get("CPU")) == cpus:
                break
            time.sleep(0.1)
    print(json.dumps({"first": first, "free_at_end": free}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
