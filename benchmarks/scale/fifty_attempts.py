"""Fifty attempts in one process: is memory after the last what it was after the first, and does the pace hold?

    python -m benchmarks.scale.fifty_attempts [--attempts 50] [--model tiny-s] [--steps 4]

Runs the training process's own loop (`cluster.train.worker.run_attempts`) against a real control actor, each attempt
another trial of real training. Prints one JSON line: resident memory after the first, tenth and last attempt in MiB,
and the median seconds of the first and the last ten attempts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.scale.memory import rss_mib
from cluster.connect.environment import prepare

prepare()

import ray  # noqa: E402

from cluster.connect.session import local_ray  # noqa: E402
from cluster.mailbox import AttemptExited, AttemptId, start_control_actor  # noqa: E402
from cluster.train.functions import train_model  # noqa: E402
from cluster.train.worker import run_attempts  # noqa: E402
from sweeps import Sweep, grid  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.controller.launch import Launch  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=50)
    parser.add_argument("--model", default="tiny-s")
    parser.add_argument("--steps", type=int, default=4)
    a = parser.parse_args()
    rates = [1e-3 * (1 + i / 1000) for i in range(a.attempts)]
    sweep = Sweep(
        name="fifty",
        models={a.model: {}},
        space={"model": grid(a.model), "learning_rate": grid(*rates)},
        trainer={"steps": a.steps, "batch_tokens": 512, "max_length": 256},
    )
    launches = [Launch(spec, 1) for spec in Plan(sweep).known_trials()]
    memory, ends = list[float](), [time.monotonic()]

    def assign() -> None:
        """What the driver does: after each attempt, the next."""
        waiting = iter(launches[1:])
        while len(memory) < a.attempts:
            for message in ray.get(control.receive_all.remote()):
                if isinstance(message, AttemptExited):
                    assert message.reusable
                    memory.append(rss_mib())
                    ends.append(time.monotonic())
                    following = next(waiting, None)
                    ray.get(control.assign.remote(AttemptId(*message.attempt), following))
            time.sleep(0.02)

    with tempfile.TemporaryDirectory() as root, local_ray(1):
        control = start_control_actor("fifty")
        thread = threading.Thread(target=assign, daemon=True)
        thread.start()
        config = {"launch": launches[0], "launched": time.time(), "storage": root, "reuse": True}
        run_attempts(config, control, train_model)
        thread.join()
        assert len(list(Path(root).rglob("manifest.json"))) >= a.attempts
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    result = {
        "attempts": a.attempts,
        "mib_after_first": round(memory[0]),
        "mib_after_tenth": round(memory[9]),
        "mib_after_last": round(memory[-1]),
        "growth": round(memory[-1] / memory[0] - 1, 3),
        "seconds_first_ten": round(statistics.median(seconds[1:11]), 2),
        "seconds_last_ten": round(statistics.median(seconds[-10:]), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
