"""A sweep with stand-ins on a real local Ray, as a program of its own, so that a test can kill it.

python -m tests.scenario.programs.stand_ins stops|sweep|failures|deaf FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from cluster.connect.environment import prepare

prepare()

import ray  # noqa: E402

import cluster.driver.loop  # noqa: E402
from cluster.connect.session import local_ray  # noqa: E402
from cluster.driver.loop import RayLoop  # noqa: E402
from sweeps import Sweep, grid  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.config.trial import Hooks, Saved, TrialSpec  # noqa: E402
from sweeps.controller.controller import SweepController  # noqa: E402
from sweeps.journal.writer import SweepJournal  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from tests.support.fakes import FakeTrainer, Paced, StopAtOnce, fake_evaluate  # noqa: E402
from tests.support.programs import ends_like_a_command  # noqa: E402
from tests.support.release import Release  # noqa: E402

CPUS = 2
SWEEPS = {
    # two workers each, so a trial takes the whole machine: the next one cannot start before all of it is back
    "stops": Sweep(
        name="stops",
        space={"replay": grid(0.0, 0.1, 0.2)},
        trainer={"steps": 8, "learning_rate": 1e-3},
        models={"tiny-s": {"workers": 2}},
    ),
    # a trainer faster than any evaluator comes up: all its checkpoints wait, and none is left out
    "sweep": Sweep(
        name="sweep",
        space={"replay": grid(0.0, 0.1, 0.2)},
        trainer={"steps": 16, "learning_rate": 2e-3},
        evaluation={"backlog": 100},
    ),
    "deaf": Sweep(name="deaf", space={"replay": grid(0.0)}, trainer={"steps": 8, "learning_rate": 1e-3}),
    "failures": Sweep(name="failures", space={"learning_rate": grid(666.0, 667.0, 999.0, 1e-3)}, trainer={"steps": 8}),
}


def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, rank: int = 0, world: int = 1) -> None:
    """FakeTrainer at a human pace. lr 999: its process dies in the first attempt; `stops`, `deaf`: silent after step 2."""
    if trial.sweep.startswith(("stops", "deaf")):
        if rank == 0:
            hooks.report(2, {"train/loss": 0.5}, progress={}, cost={})
        time.sleep(1000)
    if rank == 0:
        FakeTrainer()(trial, _Mortal(hooks, trial, folder), folder=folder, resume=resume)


class _Mortal(Paced):
    """Its process dies once, right after its first attempt has saved step 4, where the learning rate is 999."""

    def __init__(self, hooks: Hooks, trial: TrialSpec, folder: Path) -> None:
        super().__init__(hooks, pace_s=0.2 if trial.config["learning_rate"] == 2e-3 else 0.0)
        self.doomed = trial.config["learning_rate"] == 999 and folder.name == "attempt-1"

    def saved(self, checkpoint: Saved) -> None:
        super().saved(checkpoint)
        if self.doomed and checkpoint.step == 4:
            os._exit(9)


def main(mode: str, root: Path) -> None:
    sweep = SWEEPS[mode]
    plan = Plan(sweep)
    rule = StopAtOnce(sweep.goal) if mode == "stops" else NeverStop(sweep.goal)
    if mode == "deaf":
        cluster.driver.loop.WIND_DOWN_S = float("inf")  # whoever does not listen is waited for until the second Ctrl-C
    with SweepJournal(root / plan.sweep_id) as journal, local_ray(CPUS):
        cpus = Release("CPU", CPUS)
        controller = SweepController(plan, journal, rule, subscribers=[cpus.heard])
        with ends_like_a_command():
            RayLoop(controller, train, fake_evaluate, root).run()
        time.sleep(1)
        print(json.dumps({"freed_s": cpus.settled(), "free_at_end": ray.available_resources().get("CPU")}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
