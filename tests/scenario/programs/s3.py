"""A sweep in a bucket on a real local Ray, as a program of its own, so that a test can kill it.

python -m tests.scenario.programs.s3 URL      (the environment leads to the S3 server)
"""

from __future__ import annotations

import sys

from cluster.run_sweep import run
from sweeps import Sweep, grid
from tests.support.fakes import SealingTrainer, fake_evaluate
from tests.support.programs import ends_like_a_command, say

PACE_S = 0.3  # a step
SWEEP = Sweep(name="far", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 16, "learning_rate": 1e-3})


def main(url: str) -> None:
    with ends_like_a_command():
        run(SWEEP, storage=url, cpus=2, train=SealingTrainer(PACE_S), evaluate=fake_evaluate, say=say)


if __name__ == "__main__":
    main(sys.argv[1])
