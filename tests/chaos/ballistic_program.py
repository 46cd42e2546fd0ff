"""One trial at a time on a real local Ray, in a bucket or a folder, at a pace at which processes can be shot.

python -m tests.chaos.ballistic_program STORAGE      (run again it goes on; the environment leads to the S3 server)

It has one slot: a trial goes on from a checkpoint only when that has its scores, and one that was shot goes on before the
next one starts. So rows come in the same order whoever is shot when, and the same verdicts must follow.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cluster.connect.environment import prepare
from cluster.run_sweep import run
from sweeps import Sweep, grid
from sweeps.config.trial import Hooks, Saved, TrialSpec
from sweeps.journal.reader import LogReader
from sweeps.output import keep_running_without_output
from sweeps.storage.base import FOREVER
from sweeps.storage.factory import open_store
from tests.support.fakes import Paced, SealingTrainer, fake_evaluate
from tests.support.programs import ends_like_a_command, say

PACE_S = 0.4  # a step
SWEEP = Sweep(
    name="ballistic",
    space={"replay": grid(0.1, 0.0, 0.2, 0.02)},
    trainer={"steps": 16, "learning_rate": 1e-3},
    stopping={"rule": "asha", "grace": 4, "reduction": 2.5, "top": 1},  # rungs at 4 and 10: none at the very end
    limits={"retries": 100},
)


class InStep(SealingTrainer):
    """A trainer that waits for the scores of each of its checkpoints, as they come to stand in the sweep's log."""

    reuse = True  # where DIPSWEEP_REUSE_WORKERS does not say otherwise

    def __init__(self, storage: str) -> None:
        super().__init__(PACE_S)
        self.storage = storage

    def __call__(
        self, trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, rank: int = 0, world: int = 1
    ) -> None:
        log = LogReader(open_store(f"{self.storage}/{SWEEP.id}", patience_s=FOREVER))
        waiting = _Waiting(hooks, log, trial.id, resume.step if resume else 0)
        super().__call__(trial, waiting, folder=folder, resume=resume)
        waiting.stop_asked()


class _Waiting(Paced):
    def __init__(self, hooks: Hooks, log: LogReader, trial: str, step: int) -> None:
        super().__init__(hooks, PACE_S)
        self.log, self.trial, self.step = log, trial, step

    def saved(self, checkpoint: Saved) -> None:
        self.step = checkpoint.step
        super().saved(checkpoint)

    def stop_asked(self) -> bool:
        while not super().stop_asked():
            if self.step == 0 or self._scored():
                return False
        return True

    def _scored(self) -> bool:
        mine = [r for r in self.log.rows() if (r.trial, r.step) == (self.trial, self.step)]
        return any(r.suite if r.kind == "report" else r.kind == "eval" and r.given_up for r in mine)


def main(storage: str) -> None:
    prepare()
    keep_running_without_output()
    import cluster.driver.failures

    cluster.driver.failures.NODE_NEWS_S = 0.0  # no node is lost here: who was shot does not wait for that news
    with ends_like_a_command():
        run(SWEEP, storage=storage, cpus=1, train=InStep(storage), evaluate=fake_evaluate, say=say)


if __name__ == "__main__":
    main(sys.argv[1])
