"""DipAware in plain Ray Tune: your own training function, our scheduler, nothing else of dipsweep.

    python examples/plain_ray_tune.py

Nine scripted runs stand in for fine-tuning: some rise, some dip and recover, some collapse. Each reports its score
with the score's standard error, and a checkpoint, so that a trial may be paused and go on where it was.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

BUDGET = 640  # optimizer steps of a run
BASE = 0.40  # the base model's score, measured once
SE = 0.012


def score(kind: str, seed: int, step: int) -> float:
    """What an evaluation of the run after `step` steps would give."""
    import random

    x = step / BUDGET
    fall = 0.0 if kind == "rise" else -(0.10 + 0.02 * (seed % 3)) * min(x / 0.06, 1.0)
    back = {"rise": 0.05, "dip": 0.24, "collapse": 0.01}[kind] * (1 - math.exp(-4 * max(x - 0.06, 0.0)))
    return BASE + fall + back + random.Random(f"{kind}-{seed}-{step}").gauss(0.0, SE)


def train(config: dict[str, Any]) -> None:
    """Trains, evaluates every 40 steps, reports with a checkpoint; resumes from a checkpoint where there is one."""
    from ray import tune

    done = 0
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            done = json.loads(Path(folder, "state.json").read_text())["step"]
    for step in range(done + 40, config["steps"] + 1, 40):
        result = {"step": step, "transfer": score(config["kind"], config["seed"], step), "transfer_se": SE}
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state.json").write_text(json.dumps({"step": step}))
            tune.report(result, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> None:
    """Runs the sweep on two CPUs of this machine and prints how each trial ended."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import ray
    from ray import tune

    from cluster.tune.rule_scheduler import RuleScheduler

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    scheduler = RuleScheduler("transfer", "max", top=2, pause=True, base={"": {"transfer": BASE, "transfer_se": 0.006}})
    space = {
        "kind": tune.grid_search(["rise", "dip", "collapse"]),
        "seed": tune.grid_search([0, 1, 2]),
        "steps": BUDGET,
    }
    with tempfile.TemporaryDirectory() as storage:
        run = tune.RunConfig(storage_path=storage, name="plain", verbose=0)
        results = tune.Tuner(
            train,
            param_space=space,
            tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=True),
            run_config=run,
        ).fit()
        for result in results:
            last, config = result.metrics or {}, result.config or {}
            ended = "ran to its budget" if last["step"] == BUDGET else f"given up at step {last['step']}"
            print(f"{config['kind']:9s} seed {config['seed']}: {last['transfer']:.3f}, {ended}")
    for curve in scheduler.rule.history.trials():
        if curve.reason:
            print(f"{curve.trial}: {curve.reason}")
    ray.shutdown()


if __name__ == "__main__":
    main()
