"""Mixed sizes on a real local Ray with fake GPUs: real groups, real processes, training that only sleeps.

    python -m benchmarks.scale.mixes_ray [--mixes 3] [--trials 20] [--gpus 8] [--seconds 4]

One JSON line a mix: how the trials ended, the most GPUs ever reserved, the mean share reserved while trials waited, and
what was free at the end. Attempts are without Ray Train (`light.drive_light`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

from cluster.environment import prepare

prepare()

import ray  # noqa: E402

from benchmarks.scale.light import drive_light  # noqa: E402
from cluster.loop import RayLoop, local_ray  # noqa: E402
from sweeps import Sweep, choice, uniform  # noqa: E402
from sweeps.director import Director  # noqa: E402
from sweeps.journal import MemoryJournal  # noqa: E402
from sweeps.plan import Plan  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from sweeps.trial import Hooks, Saved, TrialSpec  # noqa: E402
from tests.fakes import fake_evaluate  # noqa: E402

SIZES = (1, 2, 4, 8)


def definition(trials: int, seed: int, seconds: float) -> Sweep:
    """Returns a sweep of trials of mixed sizes, one step a tenth of a second."""
    steps = [max(1, round(10 * seconds * share)) for share in (0.5, 1.0, 1.5)]
    return Sweep(
        name="mix",
        seed=seed,
        models={
            f"of-{n}": {"path": "unused", "workers": n, "gpus_per_worker": 1.0, "cpus_per_worker": 0.01} for n in SIZES
        },
        space={"model": choice(*(f"of-{n}" for n in SIZES)), "steps": choice(*steps), "replay": uniform(0.0, 1.0)},
        search={"algorithm": "random", "trials": trials},
        evaluation={"at": [steps[-1]]},
        limits={"retries": 0},
    )


def sleep(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None:
    """A training run that only takes its time."""
    for step in range(1, trial.steps + 1):
        time.sleep(0.1)
        if hooks.stop_asked():
            return
        if step % 5 == 0:
            hooks.report(step, {"train/loss": 1 / step}, progress={}, cost={})
    where = folder / f"step-{trial.steps:06d}"
    where.mkdir(parents=True)
    (where / "state").write_text(f"{trial.config['replay']} {trial.steps}")
    hooks.saved(Saved(trial.steps, str(where)))


class GpuWatch:
    """Samples how many GPUs are reserved while trials wait."""

    def __init__(self, gpus: int, director: Director) -> None:
        self.gpus, self.director = gpus, director
        self.used: list[float] = []
        self.peak = 0.0
        self.done = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self.done.wait(0.1):
            used = self.gpus - ray.available_resources().get("GPU", 0.0)
            self.peak = max(self.peak, used)
            if not self.director._exhausted or self.director._waiting:
                self.used.append(used / self.gpus)


def run_mix(seed: int, trials: int, gpus: int, seconds: float) -> dict[str, object]:
    """Runs one mix in the Ray that is up; returns what came of it."""
    plan = Plan(definition(trials, seed, seconds))
    director = Director(plan, MemoryJournal(), NeverStop(plan.sweep.goal))
    watch, began = GpuWatch(gpus, director), time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        loop = RayLoop(director, sleep, fake_evaluate, Path(root), drive=drive_light)
        loop.run()
    wall = time.monotonic() - began
    time.sleep(1)
    watch.done.set()
    states = [curve.state for curve in director.history.trials()]
    return {
        "seed": seed,
        "sizes": sorted(director.plan.trial(c.config).model.workers for c in director.history.trials()),
        "states": {s: states.count(s) for s in sorted(set(states))},
        "peak": watch.peak,
        "reserved": round(sum(watch.used) / max(1, len(watch.used)), 3),
        "wall_s": round(wall, 1),
        "free_at_end": ray.available_resources().get("GPU", 0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mixes", type=int, default=3)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    a = parser.parse_args()
    with local_ray(8, gpus=a.gpus):
        for seed in range(a.mixes):
            print(json.dumps(run_mix(seed, a.trials, a.gpus, a.seconds)), flush=True)


if __name__ == "__main__":
    main()
