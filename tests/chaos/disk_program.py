"""A sweep on a Ray of its own whose checkpoints do not fit on its disk: `python -m tests.chaos.disk_program FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cluster.run_sweep import run
from sweeps.config.trial import Hooks, Saved, TrialSpec
from tests.chaos.test_disk_full import SWEEP, heavy
from tests.support.fakes import fake_evaluate
from tests.support.programs import ends_like_a_command, say


def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, rank: int = 0, **world: Any) -> None:
    if rank == 0:
        heavy(300)(trial, hooks, folder=folder, resume=resume)


if __name__ == "__main__":
    with ends_like_a_command():
        run(SWEEP, storage=sys.argv[1], cpus=2, train=train, evaluate=fake_evaluate, say=say)
