"""A thousand torch-free trials through the real Tune loop, with our search, schedulers, controller and journal.

    python -m benchmarks.scale.load [--trials 1000] [--reports 100] [--gpus 64] [--rule dip-aware] [--every 0.1]

Attempts are threads of the driver behind Tune's controller (`light.ThreadActors`); reports, flags and evaluations go
through real Ray actors. Prints one line per hundred trials: wall time, the driver's memory, and what its main thread
spent per report. At the end: how long a STOP took from its row in the journal to the attempt that sees it.
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from cluster.connect.environment import prepare

prepare()

import ray  # noqa: E402
from ray.tune.execution import tune_controller  # noqa: E402

from benchmarks.scale.light import ThreadActors  # noqa: E402
from benchmarks.scale.memory import rss_mib  # noqa: E402
from cluster.connect.session import local_ray  # noqa: E402
from cluster.driver.loop import RayLoop  # noqa: E402
from cluster.mailbox import AttemptExited  # noqa: E402
from cluster.train.start_up import StartUp  # noqa: E402
from cluster.train.worker import RayHooks, attempt_of  # noqa: E402
from sweeps import Sweep, grid, loguniform  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.config.trial import Saved  # noqa: E402
from sweeps.controller.controller import SweepController  # noqa: E402
from sweeps.journal.rows import Row  # noqa: E402
from tests.support.fakes import FakeScores, dip_curve  # noqa: E402


def definition(trials: int, reports: int, rule: str) -> Sweep:
    """Returns the sweep: random search over two axes, one score at the end beside the trainer's own reports."""
    return Sweep(
        name="load",
        space={"data": grid("verified-long-cot", "answer-only"), "learning_rate": loguniform(1e-5, 1e-2)},
        search={"algorithm": "random", "trials": trials},
        stopping={"rule": rule},
        trainer={"steps": reports},
        models={"tiny-s": {"gpus_per_worker": 1.0}},
        evaluation={"at": [reports], "workers": 2},
    )


def score(job: Any) -> FakeScores:
    """Every checkpoint is worth the same: this benchmark is not about scores."""
    return FakeScores(
        {"transfer/score": 0.9 if job.step == 0 else 0.6}, {"transfer/score": 0.02}, {"transfer/score": 300}
    )


class Load:
    """Plays attempts, and takes the time of what the driver's main thread does."""

    def __init__(self, loop: RayLoop, folder: Path, every: float) -> None:
        self.loop, self.folder, self.every = loop, folder, every
        self.verdicts: dict[tuple[str, int], float] = {}
        self.latency: list[float] = []
        self.reports = self.ended = 0
        self.busy = 0.0
        self.began = self.mark = time.monotonic()
        self.last_reports, self.last_busy = 0, 0.0
        self.stop_time = 0.0

    def heard(self, row: Row) -> None:
        if row.kind == "verdict" and row.action != "CONTINUE":
            self.verdicts[row.trial, row.attempt] = time.monotonic()
        elif row.kind == "report" and not row.suite:
            self.reports += 1
        elif row.kind == "end" and row.of == "scoring":
            self.ended += 1
            if self.ended % 100 == 0:
                self.line()

    def line(self) -> None:
        now = time.monotonic()
        gc.collect()
        reports, busy = self.reports - self.last_reports, self.busy - self.last_busy
        print(f"{self.ended:6d} trials  {self.reports:7d} reports  {(now - self.mark) / 100:6.3f} s a trial  "
              f"{1e3 * busy / max(1, reports):6.2f} ms a report  {rss_mib():6.0f} MiB", flush=True)  # fmt: skip
        self.mark, self.last_reports, self.last_busy = time.monotonic(), self.reports, self.busy

    def timed(self, function: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*args, **named)
            finally:
                self.busy += time.thread_time() - start

        return call

    def attempt(self, config: dict[str, Any]) -> None:
        launch = config["launch"]
        spec, rng = launch.spec, random.Random(launch.spec.id)
        hooks = RayHooks(self.loop.control, attempt_of(launch), 0, StartUp(time.time()))
        end = rng.uniform(0.4, 1.0)
        for step in range(launch.resume.step + 1 if launch.resume else 1, spec.steps + 1):
            if hooks.stop_asked():
                told = self.verdicts.get((spec.id, launch.attempt))
                if told is not None:
                    self.latency.append(time.monotonic() - told)
                break
            value = dip_curve(step, spec.steps, 0.4, end) + rng.gauss(0, 0.02)
            hooks.report(step, {"train/loss": 1 / step, "transfer/score": value}, progress={}, cost={"gpu_s": step})
            if step % 10 == 0 or step == spec.steps:  # a trial that was paused goes on from there
                hooks.saved(Saved(step, str(self.folder), "sha256:0"))
            time.sleep(self.every)
        ray.get(self.loop.control.send.remote(AttemptExited(attempt_of(launch))))

    def free(self) -> dict[str, dict[str, float]]:
        """Eight GPUs a node, less what is in use: the threads reserve nothing at Ray."""
        nodes = {f"n{i}": {"CPU": 64.0, "GPU": 8.0} for i in range(self.gpus // 8)}
        for attempt in self.loop.live.values():
            for node, count in attempt.placed.items():
                nodes[node]["GPU"] -= count
        return nodes

    gpus = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--reports", type=int, default=100)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--rule", default="dip-aware")
    parser.add_argument("--every", type=float, default=0.1, help="seconds between two reports of a trial")
    a = parser.parse_args()
    from cluster.run_sweep import stop_rule
    from sweeps.journal.writer import SweepJournal

    sweep = definition(a.trials, a.reports, a.rule)
    with tempfile.TemporaryDirectory() as root, local_ray(64, gpus=a.gpus):
        folder = Path(root) / Plan(sweep).sweep_id
        heard: list[Any] = [lambda row: None]
        with SweepJournal(folder) as journal:
            controller = SweepController(
                Plan(sweep), journal, stop_rule(sweep), subscribers=[lambda row: heard[0](row)]
            )
            loop = RayLoop(controller, None, score, Path(root))
            load = Load(loop, folder, a.every)
            load.gpus, heard[0] = a.gpus, load.heard
            ThreadActors.attempt = staticmethod(load.attempt)
            tune_controller.RayActorManager = ThreadActors
            loop.placement.free = load.free
            loop.placement.any_gone = lambda nodes: False
            loop.poll, loop.next_launch = load.timed(loop.poll), load.timed(loop.next_launch)
            begin = time.thread_time()
            loop.run()
            whole = time.thread_time() - begin
    states: dict[str, int] = {}
    for curve in controller.history.trials():
        states[curve.state] = states.get(curve.state, 0) + 1
    print(
        f"{states}; {load.reports} reports in {time.monotonic() - load.began:.0f} s on {a.gpus} fake GPUs, rule {a.rule}"
    )
    print(f"main thread per report: {1e3 * load.busy / load.reports:.2f} ms in our loop, "
          f"{1e3 * whole / load.reports:.2f} ms with Tune's own")  # fmt: skip
    if load.latency:
        late = sorted(load.latency)
        print(f"STOP or PAUSE, journal to attempt: median {late[len(late) // 2]:.3f} s, worst {late[-1]:.3f} s "
              f"of {len(late)} (an attempt looks every {a.every} s)")  # fmt: skip


if __name__ == "__main__":
    main()
