"""Two sweeps of unequal weight on one Ray of four fake GPUs, each with a driver of its own.

python -m tests.scenario.two_sweeps_program FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from cluster.environment import prepare

prepare()

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from benchmarks.scale.light import drive_light  # noqa: E402
from benchmarks.scale.mixes_ray import sleep  # noqa: E402
from cluster.arbiter import start_arbiter  # noqa: E402
from cluster.loop import RayLoop, local_ray  # noqa: E402
from sweeps import Sweep, uniform  # noqa: E402
from sweeps.director import Director  # noqa: E402
from sweeps.journal import SweepJournal  # noqa: E402
from sweeps.plan import Plan  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from tests.fakes import fake_evaluate  # noqa: E402

WEIGHTS = {"heavy": 3.0, "light": 1.0}
GPUS = 4


def definition(name: str) -> Sweep:
    return Sweep(
        name=name,
        models={"tiny-s": {"gpus_per_worker": 1.0, "cpus_per_worker": 0.01}},
        space={"replay": uniform(0.0, 1.0)},
        search={"algorithm": "random", "trials": 9 if name == "heavy" else 5},
        trainer={"steps": 60},
        evaluation={"at": [60]},
        limits={"weight": WEIGHTS[name]},
    )


def drive(name: str, root: Path) -> None:
    plan = Plan(definition(name))
    with SweepJournal(root / plan.sweep_id) as journal, local_ray():
        director = Director(plan, journal, NeverStop(plan.sweep.goal))
        RayLoop(director, sleep, fake_evaluate, root, drive=drive_light, shared=True).run()
        print(json.dumps({"sweep": name, "states": [c.state for c in director.history.trials()]}))


def watch(root: Path) -> None:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": GPUS, "include_dashboard": False}
    )
    held: list[dict[str, float]] = []
    with local_ray(address=cluster.address):
        arbiter, env = start_arbiter(), {**os.environ, "RAY_ADDRESS": cluster.address}
        command = [sys.executable, "-m", "tests.scenario.two_sweeps_program", str(root)]
        drivers = [subprocess.Popen([*command, name], env=env) for name in WEIGHTS]
        killed = False
        while any(d.poll() is None for d in drivers):
            standing = ray.get(arbiter.standing.remote())
            if len(standing) == 2 and all(p["wants"] for p in standing.values()):
                held.append({n.split("-")[0]: p["held"].get("GPU", 0.0) for n, p in standing.items()})
            if len(held) == 40 and not killed:  # it comes back empty, and hears everything again
                ray.kill(arbiter, no_restart=False)
                killed = True
            time.sleep(0.2)
        both = [h for h in held if sum(h.values()) >= GPUS]
        means = {name: sum(h[name] for h in both) / max(1, len(both)) for name in WEIGHTS}
        print(
            json.dumps(
                {"codes": [d.returncode for d in drivers], "samples": len(both), "held": means, "killed": killed}
            )
        )
    cluster.shutdown()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        drive(sys.argv[2], Path(sys.argv[1]))
    else:
        watch(Path(sys.argv[1]))
