"""An elastic trial of two workers on a Ray of three nodes: one is drained under it, then one dies; one is left.

python -m tests.scenario.programs.nodes FOLDER [light]      (light: without Ray Train, the trial's driver trains)
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.connect.environment import prepare

prepare()

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.core.generated import autoscaler_pb2  # noqa: E402

from benchmarks.scale.light import drive_light  # noqa: E402
from cluster.connect.session import local_ray  # noqa: E402
from cluster.driver.loop import RayLoop  # noqa: E402
from cluster.train.worker import drive_attempt  # noqa: E402
from sweeps import Sweep  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.config.trial import Hooks, Saved, TrialSpec  # noqa: E402
from sweeps.controller.controller import SweepController  # noqa: E402
from sweeps.journal.rows import Row  # noqa: E402
from sweeps.journal.writer import SweepJournal  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from tests.support.fakes import fake_evaluate  # noqa: E402

SWEEP = Sweep(
    name="nodes",
    models={"tiny-s": {"workers": [1, 2]}},
    trainer={"steps": 64, "learning_rate": 1e-3},
    limits={"retries": 0},
)
WAITS = {"attempt-1": 9, "attempt-2": 17}


def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, rank: int = 0, world: int = 1) -> None:
    """Saves at every snapshot, and once more when it is asked to leave. Attempt 1 waits for that before step 9, and
    attempt 2 before step 17 for the end of its node."""
    for step in range(resume.step + 1 if resume else 1, trial.steps + 1):
        asked = False
        deadline = time.monotonic() + (600 if WAITS.get(folder.name) == step else 0)
        while not (asked := hooks.stop_asked()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if asked or step in trial.snapshots:
            done = step - 1 if asked else step
            if rank == 0:
                save(trial, hooks, folder, done, world)
            if asked:
                return


def save(trial: TrialSpec, hooks: Hooks, folder: Path, step: int, world: int) -> None:
    hooks.report(step, {"train/loss": 1 / step}, progress={"workers": world}, cost={})
    where = folder / f"step-{step:06d}"
    where.mkdir(parents=True, exist_ok=True)
    (where / "state").write_text(f"{trial.config['replay']} {trial.steps}")
    hooks.saved(Saved(step, str(where)))


class Machines:
    """A head without CPUs and nodes of one CPU each; takes them away as the journal grows."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(3)]
        self.loop: RayLoop | None = None
        self.seen: set[int] = set()

    def heard(self, row: Row) -> None:
        if row.kind == "commit" and row.step in (8, 16) and row.step not in self.seen:
            self.seen.add(row.step)
            assert self.loop is not None
            (attempt,) = self.loop.live.values()
            node = next(n for n in self.nodes if n.node_id in attempt.nodes)
            act = self.drain if row.step == 8 else self.kill
            threading.Thread(target=act, args=(node,), daemon=True).start()

    def drain(self, node: Any) -> None:
        """Tells Ray, as a spot notice would, that a node of the trial is taken away in a minute."""
        self.nodes.remove(node)
        address = self.cluster.address
        gcs: Any = ray._raylet.GcsClient(address=address)
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        gcs.drain_node(node.node_id, reason, "spot", (time.time_ns() // 1_000_000) + 60_000)

    def kill(self, node: Any) -> None:
        """Lets another one die without a word."""
        self.cluster.remove_node(node, allow_graceful=False)


def main(root: Path, drive: Callable[..., None]) -> None:
    machines, plan = Machines(), Plan(SWEEP)
    with SweepJournal(root / plan.sweep_id) as journal, local_ray(address=machines.cluster.address):
        controller = SweepController(plan, journal, NeverStop(SWEEP.goal), subscribers=[machines.heard])
        machines.loop = loop = RayLoop(controller, train, fake_evaluate, root, drive=drive)
        loop.placement.backfill.elastic_wait_s = 2.0
        loop.run()
        time.sleep(1)
        print(json.dumps({"cpus": [ray.cluster_resources().get("CPU"), ray.available_resources().get("CPU")]}))
    machines.cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), drive_light if sys.argv[2:] == ["light"] else drive_attempt)
