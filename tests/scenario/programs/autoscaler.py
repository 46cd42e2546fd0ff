"""A sweep on a cluster that has no machines yet and an autoscaler that may add two; then a small one whose driver is killed.

RAY_ADDRESS=… python -m tests.scenario.programs.autoscaler FOLDER train|light          watches both, prints what it saw
RAY_ADDRESS=… python -m tests.scenario.programs.autoscaler FOLDER train|light TRIALS  is the driver of one
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.connect.environment import prepare

prepare()

import ray  # noqa: E402
from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL  # noqa: E402
from ray.autoscaler.v2.sdk import get_cluster_resource_state  # noqa: E402
from ray.autoscaler.v2.utils import is_autoscaler_v2  # noqa: E402
from ray.experimental.internal_kv import _internal_kv_get, internal_kv_get_gcs_client  # noqa: E402

from benchmarks.scale.light import drive_light  # noqa: E402
from cluster.connect.session import local_ray  # noqa: E402
from cluster.driver.loop import RayLoop  # noqa: E402
from cluster.resources.fair_share import start_fair_share_actor  # noqa: E402
from cluster.train.worker import drive_attempt  # noqa: E402
from sweeps import Sweep, grid  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.config.trial import Hooks, Saved, TrialSpec  # noqa: E402
from sweeps.controller.controller import SweepController  # noqa: E402
from sweeps.journal.writer import SweepJournal  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from tests.support.fakes import fake_evaluate  # noqa: E402
from tests.support.programs import say  # noqa: E402

LONGEST_S = 240.0  # whatever is waited for here comes sooner, or not at all


SECONDS = {4: 2, 1: 600}  # a trial takes, by how many there are


def definition(trials: int) -> Sweep:
    """Trials of a CPU each beside an evaluator of one. The cluster has at most four CPUs: of four the last is never asked for."""
    seconds = SECONDS[trials]
    return Sweep(
        name=f"grows-{trials}",
        models={"tiny-s": {"cpus_per_worker": 1.0}},
        space={"replay": grid(*(0.1 * i for i in range(trials)))},
        trainer={"steps": 10 * seconds},
        evaluation={"at": [10 * seconds], "cpus_per_worker": 1.0},
    )


def sleep(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, rank: int = 0, world: int = 1) -> None:
    """A training run that only takes its time."""
    for _ in range(trial.steps):
        time.sleep(0.1)
        if hooks.stop_asked():
            return
    where = folder / f"step-{trial.steps:06d}"
    where.mkdir(parents=True)
    (where / "state").write_text(f"{trial.config['replay']} {trial.steps}")
    hooks.saved(Saved(trial.steps, str(where)))


def drive(root: Path, how: Callable[..., None], trials: int) -> None:
    plan = Plan(definition(trials))
    with SweepJournal(root / plan.sweep_id) as journal, local_ray():
        controller = SweepController(plan, journal, NeverStop(plan.sweep.goal))
        RayLoop(controller, sleep, fake_evaluate, root, drive=how, shared=True, say=say).run()
        say(f"states {sorted(c.state for c in controller.history.trials())}")


def requested() -> list[dict[str, float]]:
    """Returns the bundles that Ray was told should exist, as its autoscaler sees them."""
    if not is_autoscaler_v2():
        return list(json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL) or "[]"))
    constraints = get_cluster_resource_state(internal_kv_get_gcs_client()).cluster_resource_constraints
    lots = [lot for constraint in constraints for lot in constraint.resource_requests]
    return [dict(lot.request.resources_bundle) for lot in lots for _ in range(lot.count)]


class Watch:
    """What was ever seen."""

    def __init__(self) -> None:
        self.most_nodes = self.most_bundles = 0

    def until(self, what: Callable[[int, int], bool]) -> float:
        """Waits until something holds of the number of nodes and of bundles asked for; returns how long that took."""
        since = time.monotonic()
        while True:
            nodes, bundles = sum(node["Alive"] for node in ray.nodes()), len(requested())
            self.most_nodes, self.most_bundles = max(nodes, self.most_nodes), max(bundles, self.most_bundles)
            if what(nodes, bundles) or time.monotonic() - since > LONGEST_S:
                return round(time.monotonic() - since, 1)
            time.sleep(0.3)


def watch(command: list[str]) -> dict[str, Any]:
    def started(trials: int) -> subprocess.Popen[str]:
        return subprocess.Popen([*command, str(trials)], stdout=subprocess.PIPE, text=True)

    seen, first = Watch(), started(4)
    seen.until(lambda nodes, bundles: first.poll() is not None)
    out, _ = first.communicate()
    saw = {"v2": is_autoscaler_v2(), "code": first.returncode, "said": out.splitlines(), **vars(seen)}
    saw["withdrawn_s"] = seen.until(lambda nodes, bundles: bundles == 0)
    saw["gone_s"] = seen.until(lambda nodes, bundles: nodes == 1)
    seen, second = Watch(), started(1)
    saw["came_s"] = seen.until(lambda nodes, bundles: nodes == 2)
    until = time.monotonic() + 15  # evaluator and trial fit that one: will there be another all the same?
    seen.until(lambda nodes, bundles: time.monotonic() > until)
    os.kill(second.pid, signal.SIGKILL)
    second.communicate()
    ray.kill(start_fair_share_actor(), no_restart=False)  # and nobody is left who remembers
    saw["small"] = dict(vars(seen))
    saw["expired_s"] = seen.until(lambda nodes, bundles: bundles == 0)
    saw["gone_too_s"] = seen.until(lambda nodes, bundles: nodes == 1)
    return saw | {"nodes": sum(node["Alive"] for node in ray.nodes()), "bundles": len(requested())}


if __name__ == "__main__":
    root, how = Path(sys.argv[1]), {"train": drive_attempt, "light": drive_light}[sys.argv[2]]
    if len(sys.argv) == 4:
        drive(root, how, int(sys.argv[3]))
    else:
        with local_ray():
            say(json.dumps(watch([sys.executable, "-m", "tests.scenario.programs.autoscaler", *sys.argv[1:3]])))
