"""Mixed sizes on a real local Ray with fake GPUs: real groups, real processes, training that only sleeps.

    python -m benchmarks.scale.mixes_ray [--mixes 3] [--seed 0] [--trials 20] [--gpus 8] [--seconds 12] [--reuse]

One JSON line a mix, and one of all together.
`in_line` is the share of the GPUs held from the first start until the last trial leaves the line,
`of_bound` the shortest time that any packing could take over the time from the first start to the last end; each is
followed by what `mixes.run` makes of the same trials in the same order by arithmetic, where starting costs nothing. `peak` and
`free_at_end` are Ray's own word. Attempts are without Ray Train (`light.drive_light`).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.connect.environment import prepare

prepare()

import ray  # noqa: E402

from benchmarks.scale import mixes  # noqa: E402
from benchmarks.scale.light import drive_light  # noqa: E402
from cluster.connect.session import local_ray  # noqa: E402
from cluster.driver.loop import RayLoop  # noqa: E402
from cluster.resources.bundles import Attempt  # noqa: E402
from sweeps import Sweep, choice, uniform  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.config.trial import Hooks, Saved, TrialSpec  # noqa: E402
from sweeps.controller.controller import SweepController  # noqa: E402
from sweeps.controller.launch import Launch  # noqa: E402
from sweeps.failures import Failure  # noqa: E402
from sweeps.journal.writer import MemoryJournal  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from tests.support.fakes import fake_evaluate  # noqa: E402


def definition(trials: int, seed: int, seconds: float) -> Sweep:
    """Returns a sweep of trials of mixed sizes, one step a tenth of a second."""
    steps = [max(1, round(10 * seconds * share)) for share in (0.5, 1.0, 1.5)]
    return Sweep(
        name="mix",
        seed=seed,
        models={
            f"of-{n}": {"path": "unused", "workers": n, "gpus_per_worker": 1.0, "cpus_per_worker": 0.01}
            for n in mixes.SIZES
        },
        space={
            "model": choice(*(f"of-{n}" for n in mixes.SIZES)),
            "steps": choice(*steps),
            "replay": uniform(0.0, 1.0),
        },
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


class Timed(RayLoop):
    """The run loop, with a note of when each trial came to the head of the queue, was started, and had exited."""

    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.headed: dict[str, float] = {}
        self.held: dict[str, tuple[float, float, int]] = {}  # start, end, workers

    def next_launch(self) -> Launch | None:
        if head := self.controller.next_trials():
            self.headed.setdefault(head[0].id, time.monotonic())
        return super().next_launch()

    def _exited(self, attempt: Attempt, failure: Failure | None) -> None:
        self.held[attempt.launch.spec.id] = (attempt.since, time.monotonic(), attempt.launch.workers)
        super()._exited(attempt, failure)


class Peak:
    """The most GPUs that Ray ever said were reserved, looked at ten times a second."""

    def __init__(self, gpus: int) -> None:
        self.gpus, self.most, self.done = gpus, 0.0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self.done.wait(0.1):
            self.most = max(self.most, self.gpus - ray.available_resources().get("GPU", 0.0))


def run_mix(seed: int, trials: int, gpus: int, seconds: float) -> dict[str, Any]:
    """Runs one mix in the Ray that is up; prints and returns what came of it."""
    plan, peak = Plan(definition(trials, seed, seconds)), Peak(gpus)
    controller = SweepController(plan, MemoryJournal(), NeverStop(plan.sweep.goal))
    with tempfile.TemporaryDirectory() as root:
        loop = Timed(controller, sleep, fake_evaluate, Path(root), drive=drive_light)
        loop.run()
    time.sleep(1)
    peak.done.set()
    states = [curve.state for curve in controller.history.trials()]
    found = {
        "seed": seed,
        "load": round(os.getloadavg()[0], 1),
        "sizes": sorted(workers for _, _, workers in loop.held.values()),
        "states": {s: states.count(s) for s in sorted(set(states))},
        "peak": peak.most,
        "free_at_end": ray.available_resources().get("GPU", 0.0),
        **packed(loop, float(gpus)),
    }
    print(json.dumps(found), flush=True)
    return found


def packed(loop: Timed, gpus: float) -> dict[str, object]:
    """Returns how well the trials of a mix were packed and how long they waited, beside the same by arithmetic."""
    began = min(start for start, _, _ in loop.held.values())
    jobs = [mixes.Job(curve.trial, n, end - start, end - start)
            for curve in loop.controller.history.trials() for start, end, n in [loop.held[curve.trial]]]  # fmt: skip
    real = mixes.Result({t: start - began for t, (start, _, _) in loop.held.items()},
                        {t: at - began for t, at in loop.headed.items()},
                        max(end for _, end, _ in loop.held.values()) - began)  # fmt: skip
    ideal, limits = mixes.run(jobs, {"n0": gpus}), mixes.fair(jobs, {"n0": gpus})
    longest, bound = max(job.seconds for job in jobs), mixes.bound(jobs, gpus)
    return {
        "makespan_s": round(real.makespan, 1),
        "longest_run_s": round(longest, 1),
        "in_line": round(mixes.fullness(jobs, real, gpus), 3),
        "in_line_by_arithmetic": round(mixes.fullness(jobs, ideal, gpus), 3),
        "of_bound": round(bound / real.makespan, 3),
        "of_bound_by_arithmetic": round(bound / ideal.makespan, 3),
        "later_than_fair": sum(real.starts[t] > limits[t] for t in limits),
        "longest_wait_at_the_head": round(max(real.starts[t] - at for t, at in real.headed.items()) / longest, 2),
    }


def summary(mixes: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Returns what all mixes together promise: every trial completed, none later than its bound, nothing held at the end."""
    return {
        "mixes": len(mixes),
        "trials": sum(sum(mix["states"].values()) for mix in mixes),
        "completed": sum(mix["states"].get("completed", 0) for mix in mixes),
        "later_than_fair": sum(mix["later_than_fair"] for mix in mixes),
        "peak": max(mix["peak"] for mix in mixes),
        "least_free_at_end": min(mix["free_at_end"] for mix in mixes),
        "longest_wait_at_the_head": max(mix["longest_wait_at_the_head"] for mix in mixes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mixes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the first mix")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=12.0, help="a trial in the middle")
    parser.add_argument(
        "--reuse", action="store_true", help="processes go from trial to trial where the shape is the same"
    )
    a = parser.parse_args()
    sleep.reuse = a.reuse  # type: ignore[attr-defined]
    with local_ray(8, gpus=a.gpus):
        found = [run_mix(seed, a.trials, a.gpus, a.seconds) for seed in range(a.seed, a.seed + a.mixes)]
    print(json.dumps(summary(found)))


if __name__ == "__main__":
    main()
