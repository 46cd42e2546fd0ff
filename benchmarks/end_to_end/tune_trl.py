"""Ray Tune and TRL: one function trainable a trial, as the documentation of both shows it.

python -m benchmarks.end_to_end.tune_trl grid|grid-reused|asha|asha-late wsd|cosine OUT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from benchmarks.end_to_end.common import METRIC, name_of, sft, space


def fit(config: dict[str, Any]) -> None:
    cell = {name: config[name] for name in space()}

    def report(step: int, score: float) -> bool:
        tune.report({"step": step, METRIC: score})
        return True

    sft(cell, config["schedule"], str(Path(config["out"]) / "models" / name_of(cell)), report)


def scheduler(way: str, longest: int) -> TrialScheduler | None:
    """ASHA with a grace period that a user without knowledge of the dip would take, and with one behind it."""
    if way.startswith("grid"):
        return None
    grace, reduction = (longest // 16, 4) if way == "asha" else (longest // 4, 2)
    return ASHAScheduler(time_attr="step", max_t=longest, grace_period=grace, reduction_factor=reduction)


def main() -> None:
    way, schedule, out = sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve()
    ray.init(num_cpus=len(os.sched_getaffinity(0)))
    axes = {name: tune.grid_search(values) for name, values in space().items()}
    tuner = tune.Tuner(
        tune.with_resources(fit, {"cpu": 1}),
        param_space={**axes, "schedule": schedule, "out": str(out)},
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            scheduler=scheduler(way, max(space()["steps"])),
            reuse_actors=way == "grid-reused",
        ),
        run_config=tune.RunConfig(storage_path=str(out / "tune"), verbose=0),
    )
    found = []
    for result in tuner.fit():
        if result.error:
            raise result.error
        cell = {name: result.config[name] for name in space()}
        found.append({**cell, "reached": result.metrics["step"], "score": result.metrics[METRIC]})
    (out / "trials.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
