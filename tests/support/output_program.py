"""A sweep in-process with stand-ins, ended as `dipsweep run` ends: `python -m tests.support.output_program FOLDER PACE_S`."""

from __future__ import annotations

import sys
from pathlib import Path

from cluster.launch import main_of
from cluster.run_sweep import run
from sweeps import Sweep, grid
from sweeps.config.trial import Hooks, Saved, TrialSpec
from sweeps.output import keep_running_without_output
from tests.support.fakes import FakeTrainer, Paced, fake_evaluate
from tests.support.programs import say

SWEEP = Sweep(name="out", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 16, "learning_rate": 1e-3})


def main(root: Path, pace_s: float) -> None:
    keep_running_without_output()

    def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None:
        FakeTrainer()(trial, Paced(hooks, pace_s), folder=folder, resume=resume)

    def speak(line: str) -> None:
        say(line)
        print("a library's warning", file=sys.stderr, flush=True)

    run(SWEEP, storage=root, backend="in-process", train=train, evaluate=fake_evaluate, say=speak)


if __name__ == "__main__":
    main_of(lambda: main(Path(sys.argv[1]), float(sys.argv[2])))
