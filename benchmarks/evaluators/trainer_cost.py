"""What a snapshot costs the trainer: CPU-seconds of writing it and handing it over, against those of the steps between.

    OMP_NUM_THREADS=1 python -m benchmarks.evaluators.trainer_cost [--models tiny-s tiny-m small]
        [--steps 400] [--rounds 3] [--no-ray]
    OMP_NUM_THREADS=1 python -m benchmarks.evaluators.trainer_cost --sharing [--seconds 20]

Each model trains on its built-in tier, batches of 1,536 tokens, with the grid of `evaluation.at: log`; the share is that of
its 13 snapshots in a budget of 400 steps (`--steps 400` runs all of them, fewer steps measure the same costs sooner). A
snapshot is the whole checkpoint: weights, Adam's moments, tokenizer, manifest. It is handed over to the control actor of a
real local Ray. `small` is a Qwen3 of 4.2M parameters with random weights. The median round counts.

`--sharing` trains one model while 0 to 3 evaluators score another without pause, on however many cores there are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

from benchmarks.trainer.shapes import CPU
from sweeps import Sweep
from sweeps.config.plan import Plan, snapshot_steps
from sweeps.config.trial import TrialSpec
from trainers import loop
from trainers.model.files.builtin import builtin_folder

BUDGET = 400
SCORE_FOR_EVER = """
from evaluators.evaluate import evaluate
from trainers.model.files.builtin import builtin_folder
while True:
    evaluate(builtin_folder("tiny-s"))
"""


class Silent:
    """Hooks that lead nowhere, or for checkpoints to a control actor."""

    def __init__(self, hand_over=None) -> None:
        self.hand_over = hand_over

    def report(self, step, metrics, *, progress, cost): ...

    def saved(self, checkpoint):
        if self.hand_over is not None:
            self.hand_over(checkpoint)

    def stop_asked(self):
        return False


class Stopwatch(Silent):
    """Lets a run train for some seconds of wall time, counted from when it has warmed up; asked once before each step."""

    WARM_UP = 10

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.asked = seconds, 0
        self.wall = self.cpu = 0.0

    def stop_asked(self):
        self.asked += 1
        if self.asked == self.WARM_UP:
            self.begun = _clocks()
        if self.asked > self.WARM_UP:
            self.wall, self.cpu = (now - then for now, then in zip(_clocks(), self.begun, strict=True))
        return self.wall >= self.seconds

    @property
    def steps(self) -> int:
        return self.asked - self.WARM_UP


def _clocks() -> tuple[float, float]:
    return time.monotonic(), time.process_time()


def trial(model: str, steps: int, root: Path) -> TrialSpec:
    """The one trial of a sweep like the example's; `small` is made on the spot."""
    models = {}
    if model in CPU:
        folder = root / model
        shutil.copytree(builtin_folder("tiny-s"), folder)
        CPU[model].network("sdpa").save_pretrained(folder)
        models = {model: {"path": str(folder)}}
    trainer = {
        "steps": steps,
        "learning_rate": 1e-3,
        "batch_tokens": 1536,
        "max_length": 256,
        "precision": "fp32",
        "replay": 0.15,
    }
    space = {"model": {"grid": [model]}}
    return Plan(Sweep(name="cost", models=models, space=space, trainer=trainer)).known_trials()[0]


class Cost:
    """CPU-seconds of one run: those inside `_save`, and all others after the first step."""

    def __init__(self) -> None:
        self.saves: list[float] = []
        self.total = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        save, run = loop._Run._save, loop._Run.to_the_end

        def timed_save(this):
            start = time.process_time()
            save(this)
            self.saves.append(time.process_time() - start)

        def timed_run(this):
            start = time.process_time()
            run(this)
            self.total += time.process_time() - start

        loop._Run._save, loop._Run.to_the_end = timed_save, timed_run
        try:
            yield
        finally:
            loop._Run._save, loop._Run.to_the_end = save, run


def measure(model: str, steps: int, rounds: int, hand_over) -> dict:
    with tempfile.TemporaryDirectory() as temp:
        spec = trial(model, steps, Path(temp))
        costs = []
        for number in range(rounds):
            cost = Cost()
            with cost.measured():
                loop.train(spec, Silent(hand_over), folder=Path(temp) / f"attempt-{number}")
            costs.append(cost)
        saved = sorted((Path(temp) / "attempt-0").glob("step-*"))[-1]
        size = sum(file.stat().st_size for file in saved.iterdir())
    per_save = statistics.median(sum(c.saves) / len(c.saves) for c in costs)
    per_step = statistics.median((c.total - sum(c.saves)) / steps for c in costs)
    shares = [_share(sum(c.saves) / len(c.saves), (c.total - sum(c.saves)) / steps) for c in costs]
    return {
        "model": model,
        "checkpoint_mb": round(size / 1e6, 2),
        "steps": steps,
        "snapshots": len(costs[0].saves),
        "snapshot_cpu_ms": round(1e3 * per_save, 2),
        "step_cpu_ms": round(1e3 * per_step, 2),
        "share_of_steps_percent": round(100 * statistics.median(shares), 2),
        "rounds_percent": [round(100 * share, 2) for share in shares],
    }


def _share(per_save: float, per_step: float) -> float:
    return len(snapshot_steps("log", BUDGET)) * per_save / (BUDGET * per_step)


@contextmanager
def control() -> Iterator[object]:
    """The way that a checkpoint's news takes on Ray; yields what a worker calls."""
    from cluster.connect.environment import prepare

    prepare()
    from cluster.connect.session import local_ray
    from cluster.mailbox import AttemptId, start_control_actor
    from cluster.train.start_up import StartUp
    from cluster.train.worker import RayHooks

    with local_ray(1):
        hooks = RayHooks(start_control_actor(), AttemptId("t-cost", 1), 0, StartUp(time.time()))
        yield hooks.saved


def sharing(seconds: float) -> list[dict]:
    """Steps a trainer makes in a given wall time beside 0 to 3 evaluators that never pause."""
    out = []
    for evaluators in (0, 1, 2, 3):
        scoring = [subprocess.Popen([sys.executable, "-c", SCORE_FOR_EVER]) for _ in range(evaluators)]
        try:
            time.sleep(15 if evaluators else 0)  # until they score
            with tempfile.TemporaryDirectory() as temp:
                watch = Stopwatch(seconds)
                loop.train(trial("tiny-s", 100_000, Path(temp)), watch, folder=Path(temp) / "a")
        finally:
            for process in scoring:
                process.kill()
                process.wait()
        cores = len(os.sched_getaffinity(0))
        out.append(
            {
                "cores": cores,
                "evaluators": evaluators,
                "trainer_cpu_share": round(watch.cpu / watch.wall, 2),
                "step_cpu_ms": round(1e3 * watch.cpu / watch.steps, 2),
                "steps_per_s": round(watch.steps / watch.wall, 1),
                "load": round(os.getloadavg()[0], 1),
            }
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-xs", "tiny-s", "tiny-m", "small"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-ray", action="store_true", help="leave the hand-over out")
    parser.add_argument("--sharing", action="store_true")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    if options.sharing:
        for row in sharing(options.seconds):
            print(json.dumps(row), flush=True)
        return
    with nullcontext() if options.no_ray else control() as hand_over:
        for model in options.models:
            print(json.dumps(measure(model, options.steps, options.rounds, hand_over)), flush=True)


if __name__ == "__main__":
    main()
