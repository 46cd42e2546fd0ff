"""A sweep of one trial on a real local Ray whose evaluators break in every way, as a program of its own.

python -m tests.scenario.programs.evaluators FOLDER
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

from cluster.connect.environment import prepare

prepare()

from cluster.connect.session import local_ray  # noqa: E402
from cluster.driver.loop import RayLoop  # noqa: E402
from sweeps import Sweep, grid  # noqa: E402
from sweeps.config.eval_job import EvalJob  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.controller.controller import SweepController  # noqa: E402
from sweeps.journal.writer import SweepJournal  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from tests.scenario.programs.stand_ins import train  # noqa: E402
from tests.support.fakes import FakeScores, fake_evaluate  # noqa: E402

SWEEP = Sweep(
    name="faults", space={"replay": grid(0.1)}, trainer={"steps": 16, "learning_rate": 1e-3},
    evaluation={"workers": 2, "timeout_s": 20.0},
)  # fmt: skip
RAISES, HANGS, WAITS = 2, 4, 8
"""Steps whose first evaluation raises, never returns, and waits to be killed (its pid stands in `pid`)."""


def faulty(job: EvalJob, root: Path) -> FakeScores:
    """`fake_evaluate` with a fault in the first try of three steps."""
    tried = root / f"tried-{job.step}"
    first = not tried.exists()
    tried.touch()
    if first and job.step == RAISES:
        raise RuntimeError("judge is out")
    if first and job.step == HANGS:
        time.sleep(1000)
    if first and job.step == WAITS:
        (root / "pid.aside").write_text(str(os.getpid()))
        (root / "pid.aside").rename(root / "pid")
        time.sleep(1000)
    return fake_evaluate(job)


def main(root: Path) -> None:
    plan = Plan(SWEEP)
    with SweepJournal(root / plan.sweep_id) as journal, local_ray(2):
        controller = SweepController(plan, journal, NeverStop(SWEEP.goal))
        RayLoop(controller, train, partial(faulty, root=root), root).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
