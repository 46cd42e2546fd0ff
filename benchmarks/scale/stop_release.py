"""From a stop to all resources free, stop by stop, on a real local Ray with fake GPUs.

    python -m benchmarks.scale.stop_release [--stops 50] [--train] [--dashboard] [--beside]

Every trial takes the whole machine and goes silent after its first report, at which the rule stops it; so the next one
cannot start before everything is back. Without `--train` an attempt is without Ray Train and holds fake GPUs; with it, it
is Ray Train with two real workers on CPUs (for GPUs, real or not, Train asks for NCCL).
`--beside` starts a second Ray on the same machine first (two of them once made Ray Train's clean-up leak every group).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster.connect.environment import prepare

prepare()

from benchmarks.scale.light import drive_light  # noqa: E402
from cluster.connect.session import local_ray  # noqa: E402
from cluster.driver.loop import RayLoop  # noqa: E402
from cluster.train.worker import drive_attempt  # noqa: E402
from sweeps import Sweep, uniform  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.config.trial import Hooks, Saved, TrialSpec  # noqa: E402
from sweeps.controller.controller import SweepController  # noqa: E402
from sweeps.journal.writer import MemoryJournal  # noqa: E402
from tests.support.fakes import StopAtOnce, fake_evaluate  # noqa: E402
from tests.support.release import Release  # noqa: E402


def silent(
    trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, rank: int = 0, world: int = 1
) -> None:
    """Reports once and is never heard of again: no stop flag is looked at."""
    if rank == 0:
        hooks.report(1, {"train/loss": 0.5}, progress={}, cost={})
    time.sleep(10_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--dashboard", action="store_true")
    parser.add_argument("--beside", action="store_true")
    parser.add_argument("--idle", action="store_true", help="only be the second Ray")
    a = parser.parse_args()
    if a.idle:
        with local_ray(1):
            print("up", flush=True)
            sys.stdin.read()
        return
    if not a.beside:
        measure(a)
        return
    command = [sys.executable, "-m", "benchmarks.scale.stop_release", "--idle"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        measure(a)
        other.stdin.close()


def measure(a: argparse.Namespace) -> None:
    sweep = Sweep(
        name="stops",
        models={"tiny-s": {"workers": 2, **({"cpus_per_worker": 2.0} if a.train else {"gpus_per_worker": 1.0})}},
        space={"replay": uniform(0.0, 1.0)},
        search={"algorithm": "random", "trials": a.stops},
        trainer={"steps": 8},
    )
    plan = Plan(sweep)
    with tempfile.TemporaryDirectory() as root, local_ray(4, gpus=2, dashboard=a.dashboard):
        watch = Release("CPU", 4.0) if a.train else Release("GPU", 2.0)
        controller = SweepController(plan, MemoryJournal(), StopAtOnce(sweep.goal), subscribers=[watch.heard])
        drive = drive_attempt if a.train else drive_light
        RayLoop(controller, silent, fake_evaluate, Path(root), drive=drive).run()
        freed = sorted(watch.settled())
    print(json.dumps({
        "train": a.train, "dashboard": a.dashboard, "beside_another_ray": a.beside,
        "stops": len(watch.stops), "freed": len(watch.freed), "within_5_s": sum(s <= 5 for s in freed),
        "median_s": round(freed[len(freed) // 2], 2), "worst_s": round(freed[-1], 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
