"""A sweep that promotes by odds, with stand-ins for training and scores, on a real local Ray, or in one process.

python -m tests.scenario.programs.promotion FOLDER ray|in-process
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

from cluster.run_sweep import run
from sweeps import Sweep, grid, loguniform
from sweeps.checkpoints.manifest import seal
from sweeps.config.eval_job import EvalJob
from sweeps.config.trial import Hooks, Saved, TrialSpec
from tests.support.fakes import FakeScores
from tests.support.programs import ends_like_a_command, say

PACE_S = 0.1
SWEEP = Sweep(
    name="promoted",
    space={"steps": grid(24, 48), "learning_rate": loguniform(1e-5, 1e-1)},
    search={"algorithm": "random", "trials": 20, "promote": True},
    stopping={"rule": "dip-aware", "top": 1},
    trainer={"lr_scheduler_type": "wsd", "warmup_steps": 2},
    evaluation={"at": {"every": 4}, "backlog": 100},
)


def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, rank: int = 0, world: int = 1) -> None:
    """Saves what the trial is; steps take so long that scores come between them."""
    for step in range(resume.step + 1 if resume else 1, trial.steps + 1):
        if hooks.stop_asked():
            return
        time.sleep(PACE_S)
        if step in trial.saves:
            hooks.report(step, {"train/loss": 1 / step}, progress={}, cost={"cpu_s": 0.1 * step})
            where = folder / f"step-{step:06d}"
            where.mkdir(parents=True, exist_ok=True)
            (where / "state").write_text(str(trial.config["learning_rate"]))
            hooks.saved(seal(where, step))


def score(job: EvalJob) -> FakeScores:
    """The best rate is 1e-3: what a run gains over the base falls with the distance from it."""
    if job.step == 0:
        return FakeScores({"transfer/score": 0.5}, {"transfer/score": 0.01}, {"transfer/score": 300})
    rate = float((Path(job.path) / "state").read_text())
    value = 0.5 + job.step / 48 * (0.3 - 0.2 * abs(math.log10(rate / 1e-3)))
    return FakeScores({"transfer/score": value}, {"transfer/score": 0.01}, {"transfer/score": 300})


if __name__ == "__main__":
    where = {"cpus": 2} if sys.argv[2] == "ray" else {"backend": "in-process"}
    with ends_like_a_command():
        run(SWEEP, storage=sys.argv[1], say=say, train=train, evaluate=score, **where)
