"""A sweep in a bucket on a real local Ray, as a program of its own, so that a test can kill it.

python -m tests.scenario.s3_program URL      (the environment leads to the S3 server)
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from cluster.run import run
from sweeps import DipsweepError, Sweep, grid
from sweeps.manifest import seal
from sweeps.trial import Hooks, Saved, TrialSpec
from tests.fakes import FakeTrainer, fake_evaluate

SWEEP = Sweep(name="far", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 16, "lr": 1e-3})


def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, rank: int = 0, world: int = 1) -> None:
    """FakeTrainer at a human pace, with checkpoints that have a manifest; a resumed one must find its state at hand."""
    if resume is not None:
        assert (Path(resume.path) / "state").read_text().endswith(" 16")
    FakeTrainer()(trial, _Sealing(hooks), folder=folder, resume=resume)


class _Sealing:
    def __init__(self, hooks: Hooks) -> None:
        self.hooks, self.report = hooks, hooks.report

    def saved(self, checkpoint: Saved) -> None:
        self.hooks.saved(seal(Path(checkpoint.path), checkpoint.step))

    def stop_asked(self) -> bool:
        time.sleep(0.3)
        return self.hooks.stop_asked()


def main(url: str) -> None:
    try:
        run(SWEEP, storage=url, cpus=2, train=train, evaluate=fake_evaluate, say=lambda line: print(line, flush=True))
    except DipsweepError as e:
        print(e, file=sys.stderr)
        raise SystemExit(e.exit_code) from None


if __name__ == "__main__":
    main(sys.argv[1])
