"""A driver without Ray, as a program of its own, to be stopped, overtaken and woken by tests.

python -m tests.chaos.driver_program STORAGE LEASE_S [GATE]      (a path or s3://…; waits at step 8 until GATE exists)
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.trial import Hooks, Saved, TrialSpec
from sweeps.controller.controller import SweepController
from sweeps.executors.local import InProcess
from sweeps.journal.writer import SweepJournal
from sweeps.stopping import NeverStop
from sweeps.storage.factory import open_store
from tests.support.fakes import FakeTrainer, Paced, fake_evaluate
from tests.support.programs import ends_like_a_command, say

SWEEP = Sweep(name="drivers", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 16, "learning_rate": 1e-3})


def main(storage: str, lease_s: float, gate: str = "") -> None:
    plan, root = Plan(SWEEP), open_store(storage)
    files = root.local() or Path(tempfile.mkdtemp())

    def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None:
        class Gated(Paced):
            step = resume.step if resume else 0

            def saved(self, checkpoint: Saved) -> None:
                super().saved(checkpoint)
                self.step = checkpoint.step

            def stop_asked(self) -> bool:
                while gate and self.step >= 8 and not Path(gate).exists():
                    time.sleep(0.1)
                return super().stop_asked()

        FakeTrainer()(trial, Gated(hooks), folder=folder, resume=resume)

    with ends_like_a_command(), SweepJournal(root / plan.sweep_id, lease_s=lease_s, say=say) as journal:
        controller = SweepController(plan, journal, NeverStop(SWEEP.goal))
        InProcess(controller, train, fake_evaluate, str(files)).run()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), *sys.argv[3:])
