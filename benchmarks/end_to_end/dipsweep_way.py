"""dipsweep on the same cells: `sweep.yaml`; what it found is written as the others write it.

python -m benchmarks.end_to_end.dipsweep_way strict|soft wsd|cosine OUT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.end_to_end.common import METRIC, seed, space


def definition(protect: str, schedule: str) -> dict[str, Any]:
    """Returns the sweep, on the cells of this size, under the way's schedule and protection."""
    whole: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("sweep.yaml").read_text(encoding="utf-8"))
    whole["seed"] = seed()
    whole["trainer"]["lr_scheduler_type"] = schedule
    whole["stopping"]["protect"] = protect
    whole["space"] = {{"lr": "learning_rate"}.get(name, name): {"grid": values} for name, values in space().items()}
    return whole


def main() -> None:
    protect, schedule, out = sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve()
    from cluster.cli.render import kept_checkpoint
    from cluster.run_sweep import run
    from sweeps import Sweep
    from sweeps.storage.factory import open_store

    results = run(Sweep(**definition(protect, schedule)), storage=out / "runs", cpus=len(os.sched_getaffinity(0)))
    found = []
    for trial in results.trials:
        config, whole = trial.config, trial.state == "completed"
        model = kept_checkpoint(open_store(results.path), trial.trial, "last").path if whole else None
        cell = {"data": config["data"], "replay": config["replay"], "lr": config["learning_rate"]}
        points = results.curves(METRIC).where(lambda p, id=trial.trial: p.trial == id)  # type: ignore[misc]
        last = max(points, key=lambda p: p.step)
        steps = int(config["steps"])
        found.append({**cell, "steps": steps, "reached": last.step, "score": last.value, "model": model})
    (out / "trials.json").write_text(json.dumps(found))
    (out / "steps_run").write_text(str(results.summary.costs.steps_run))


if __name__ == "__main__":
    main()
