"""From "run" to the first training step on a warm local Ray: ours against bare Tune + Train doing the same.

    python -m benchmarks.scale.first_step [--repeats 5] [--workers 1]

Both start one trial of one worker group whose first step writes the time into a file, and end. The two take turns, so
that a busy machine is busy for both.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from cluster.environment import prepare

prepare()

import ray  # noqa: E402
import ray.train  # noqa: E402
from ray import tune  # noqa: E402

from cluster.loop import RayLoop, local_ray  # noqa: E402
from sweeps import Sweep  # noqa: E402
from sweeps.director import Director  # noqa: E402
from sweeps.journal import MemoryJournal  # noqa: E402
from sweeps.plan import Plan  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from sweeps.trial import Hooks, Saved, TrialSpec  # noqa: E402
from tests.fakes import fake_evaluate  # noqa: E402


def first(folder: Path) -> None:
    """Notes when the first step was taken."""
    (folder / "first").write_text(str(time.time()))


def ours(root: Path, workers: int) -> None:
    def train(
        trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, rank: int = 0, world: int = 1
    ) -> None:
        if rank == 0:
            first(root)
            where = folder / "step-000001"
            where.mkdir(parents=True)
            (where / "state").write_text("0.1 1")
            hooks.saved(Saved(1, str(where)))

    sweep = Sweep(name="first", models={"tiny-s": {"workers": workers}}, trainer={"steps": 1})
    director = Director(Plan(sweep), MemoryJournal(), NeverStop(sweep.goal))
    RayLoop(director, train, fake_evaluate, root).run()


def bare(root: Path, workers: int) -> None:
    def worker(config: dict[str, Any]) -> None:
        if ray.train.get_context().get_world_rank() == 0:
            first(root)
        ray.train.report({"loss": 0.5})

    def drive(config: dict[str, Any]) -> None:
        from ray.train.torch import TorchTrainer
        from ray.tune.integration.ray_train import TuneReportCallback

        TorchTrainer(
            worker,
            scaling_config=ray.train.ScalingConfig(num_workers=workers),
            run_config=ray.train.RunConfig(name="bare", storage_path=str(root), callbacks=[TuneReportCallback()]),
        ).fit()

    tune.Tuner(
        tune.with_resources(drive, {"cpu": 0.1}),
        run_config=tune.RunConfig(name="tune", storage_path=str(root), verbose=0),
    ).fit()


def timed(run: Callable[[Path, int], None], workers: int) -> float:
    """Returns the seconds from the call to the first step."""
    with tempfile.TemporaryDirectory() as root:
        began = time.time()
        run(Path(root), workers)
        return float((Path(root) / "first").read_text()) - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    a = parser.parse_args()
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    with local_ray(4, dashboard=True):  # bare Train frees its group through the dashboard
        for turn in range(a.repeats + 1):
            for name, run in (("ours", ours), ("bare", bare)) if turn % 2 else (("bare", bare), ("ours", ours)):
                seconds = timed(run, a.workers)
                if turn:  # the first of each warms the file cache
                    times[name].append(seconds)
                print(f"{name} {seconds:.1f} s{'' if turn else ' (warm-up)'}", flush=True)
    ratio = median(times["ours"]) / median(times["bare"])
    print(
        f"median of {a.repeats}: ours {median(times['ours']):.1f} s, bare {median(times['bare']):.1f} s, {ratio:.2f} x"
    )


if __name__ == "__main__":
    main()
