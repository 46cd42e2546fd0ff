"""Plain Ray Tune with RuleScheduler on one slot, as a program of its own: prints where every scripted trial ended.

python -m tests.contract.rules.tune_program pause|stop
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from cluster.connect.environment import prepare

prepare()

from ray import tune  # noqa: E402
from ray.tune.search.basic_variant import BasicVariantGenerator  # noqa: E402

from cluster.connect.session import local_ray  # noqa: E402
from cluster.tune.rule_scheduler import RuleScheduler  # noqa: E402
from tests.contract.rules.test_adapters import BUDGET, METRIC, SE, curves  # noqa: E402


def train(config: dict[str, Any]) -> None:
    """Reports a scripted curve with a checkpoint each time; goes on from a checkpoint where there is one."""
    done, checkpoint = 0, tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            done = int(Path(folder, "step").read_text())
    for step in range(done + 20, BUDGET + 1, 20):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step").write_text(str(step))
            result = {
                "step": step,
                METRIC: config["curve"][step // 20 - 1],
                f"{METRIC}_se": SE,
                "which": config["which"],
            }
            tune.report(result, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> None:
    scheduler = RuleScheduler(METRIC, "max", top=2, pause=sys.argv[1] == "pause", trials=len(curves()), budget=BUDGET)
    search = BasicVariantGenerator()  # with max_concurrent a paused trial would keep new ones from starting
    search._uuid_prefix = ""  # ids 00000, 00001, ...: as in the simulator, since a trial's id shuffles its draws
    which = tune.grid_search(list(curves()))
    with local_ray(cpus=1), tempfile.TemporaryDirectory() as storage:
        tuner = tune.Tuner(
            train,
            param_space={"which": which, "curve": tune.sample_from(lambda spec: curves()[spec.config.which])},
            tune_config=tune.TuneConfig(scheduler=scheduler, search_alg=search),
            run_config=tune.RunConfig(storage_path=storage, name="scripted", verbose=0),
        )
        print(json.dumps({(r.metrics or {})["which"]: (r.metrics or {})["step"] for r in tuner.fit()}))


if __name__ == "__main__":
    main()
