"""Two sweeps of unequal weight on one Ray of four fake GPUs, each with a driver of its own; their fair_share is shot.

python -m tests.scenario.programs.two_sweeps FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cluster.connect.environment import prepare

prepare()

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from benchmarks.scale.light import drive_light  # noqa: E402
from benchmarks.scale.mixes_ray import Timed, sleep  # noqa: E402
from cluster.connect.session import local_ray  # noqa: E402
from cluster.resources.fair_share import start_fair_share_actor  # noqa: E402
from sweeps import Sweep, uniform  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.controller.controller import SweepController  # noqa: E402
from sweeps.journal.writer import SweepJournal  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from tests.support.fakes import fake_evaluate  # noqa: E402

WEIGHTS = {"heavy": 3.0, "light": 1.0}
TRIALS = {"heavy": 15, "light": 6}
GPUS = 4


def definition(name: str) -> Sweep:
    return Sweep(
        name=name,
        models={"tiny-s": {"gpus_per_worker": 1.0, "cpus_per_worker": 0.01}},
        space={"replay": uniform(0.0, 1.0)},
        search={"algorithm": "random", "trials": TRIALS[name]},
        trainer={"steps": 60},
        evaluation={"at": [60]},
        limits={"weight": WEIGHTS[name]},
    )


def drive(name: str, root: Path) -> None:
    plan = Plan(definition(name))
    with SweepJournal(root / plan.sweep_id) as journal, local_ray():
        controller = SweepController(plan, journal, NeverStop(plan.sweep.goal))
        loop = Timed(controller, sleep, fake_evaluate, root, drive=drive_light, shared=True)
        loop.run()
        states = [c.state for c in controller.history.trials()]
        print(json.dumps({"sweep": name, "states": states, "runs": [run[:2] for run in loop.held.values()]}))


def watch(root: Path) -> None:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": GPUS, "include_dashboard": False}
    )
    with local_ray(address=cluster.address):
        fair_share, env = start_fair_share_actor(), {**os.environ, "RAY_ADDRESS": cluster.address}
        command = [sys.executable, "-m", "tests.scenario.programs.two_sweeps", str(root)]
        drivers = [subprocess.Popen([*command, name], env=env, stdout=subprocess.PIPE, text=True) for name in WEIGHTS]
        until_both_hold(fair_share)
        time.sleep(10)
        ray.kill(fair_share, no_restart=False)  # it comes back empty, and hears everything again
        said = [driver.communicate()[0] for driver in drivers]
    cluster.shutdown()
    sweeps = [json.loads(line) for text in said for line in text.splitlines() if line.startswith("{")]
    print(json.dumps({"codes": [d.returncode for d in drivers], "sweeps": sweeps, **shares(sweeps)}))


def until_both_hold(fair_share: Any) -> None:
    """Waits until each of the two holds something and wants more."""
    while True:
        usage = ray.get(fair_share.usage.remote())
        if len(usage) == 2 and all(p["held"] and p["pending"] for p in usage.values()):
            return
        time.sleep(0.2)


def shares(sweeps: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what each sweep had of the GPU seconds used while both had trials to start, and how many seconds that was."""
    runs = {s["sweep"]: s["runs"] for s in sweeps}
    begin = max(min(start for start, _ in each) for each in runs.values())
    end = min(max(start for start, _ in each) for each in runs.values())
    used = {n: sum(max(0.0, min(b, end) - max(a, begin)) for a, b in each) for n, each in runs.items()}
    return {"share": {n: round(u / sum(used.values()), 3) for n, u in used.items()}, "seconds": round(end - begin, 1),
            "used": round(sum(used.values()) / (GPUS * (end - begin)), 3)}  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) == 3:
        drive(sys.argv[2], Path(sys.argv[1]))
    else:
        watch(Path(sys.argv[1]))
