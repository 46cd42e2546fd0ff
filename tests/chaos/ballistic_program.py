"""One trial at a time on a real local Ray, in a bucket or a folder, at a pace at which processes can be shot.

python -m tests.chaos.ballistic_program STORAGE      (run again it goes on; the environment leads to the S3 server)
"""

from __future__ import annotations

import sys

from cluster.run import run
from sweeps import DipsweepError, Sweep, grid
from tests.fakes import SealingTrainer, fake_evaluate

STEPS = 16
PACE_S = 0.4  # a step; time enough to score a checkpoint before the next one
SWEEP = Sweep(
    name="ballistic",
    space={"replay": grid(0.1, 0.0, 0.2, 0.02)},
    trainer={"steps": STEPS, "lr": 1e-3},
    stopping={"rule": "asha", "grace": 4, "reduction": 2.0, "top": 1},
    limits={"retries": 100},
)
TRAIN = SealingTrainer(PACE_S)


def main(storage: str) -> None:
    try:
        run(
            SWEEP,
            storage=storage,
            cpus=1,
            train=TRAIN,
            evaluate=fake_evaluate,
            say=lambda line: print(line, flush=True),
        )
    except DipsweepError as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        raise SystemExit(e.exit_code) from None


if __name__ == "__main__":
    main(sys.argv[1])
