"""Two trials and an evaluator of half a GPU each on a real Ray of two fake GPUs, as a program of its own.

python -m tests.scenario.programs.shares FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from cluster.connect.environment import prepare

prepare()

from ray.cluster_utils import Cluster  # noqa: E402

from benchmarks.scale.light import drive_light  # noqa: E402
from cluster.connect.session import local_ray  # noqa: E402
from cluster.driver.loop import RayLoop  # noqa: E402
from sweeps import Sweep, grid  # noqa: E402
from sweeps.config.eval_job import EvalJob  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.config.trial import Hooks, Saved, TrialSpec  # noqa: E402
from sweeps.controller.controller import SweepController  # noqa: E402
from sweeps.journal.writer import SweepJournal  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from tests.support.fakes import FakeScores, FakeTrainer, Paced, fake_evaluate  # noqa: E402

PACE_S, SCORE_S = 0.25, 4.0
SWEEP = Sweep(
    name="shares",
    models={"tiny-s": {"gpus_per_worker": 0.5, "cpus_per_worker": 0.5}},
    space={"replay": grid(0.1, 0.2)},
    trainer={"steps": 16, "learning_rate": 1e-3},
    evaluation={"at": [16], "gpus_per_worker": 0.5},
)


class OnGpu(Paced):
    """Hooks of a trainer that says its wall clock, as the one that ships does on a GPU."""

    def __init__(self, hooks: Hooks) -> None:
        super().__init__(hooks, PACE_S)
        self.began = time.perf_counter()
        self.report = self.timed  # type: ignore[assignment]

    def timed(
        self, step: int, metrics: dict[str, float], *, progress: dict[str, float], cost: dict[str, float]
    ) -> None:
        """Says the time since it began, as its cost and beside that."""
        took = time.perf_counter() - self.began
        self.hooks.report(step, metrics, progress={"seconds": took}, cost={"gpu_s": took})


def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None:
    """Trains slowly."""
    FakeTrainer()(trial, OnGpu(hooks), folder=folder, resume=resume)


def evaluate(job: EvalJob) -> FakeScores:
    """Scores that took a known time of a GPU."""
    return FakeScores(fake_evaluate(job).metrics, cost={"cpu_s": 0.1, "gpu_s": SCORE_S})


def main(root: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 2, "include_dashboard": False})
    plan = Plan(SWEEP)
    with SweepJournal(root / plan.sweep_id) as journal, local_ray(address=cluster.address):
        controller = SweepController(plan, journal, NeverStop(SWEEP.goal))
        RayLoop(controller, train, evaluate, root, drive=drive_light).run()  # Ray Train would look for a real GPU
        costs = controller.state.costs
    cluster.shutdown()
    print(json.dumps({"training": costs.training, "scoring": costs.scoring}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
