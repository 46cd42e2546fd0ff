"""What ending evaluations early saves: every checkpoint of two real runs, asked in full and until it is clear.

    OMP_NUM_THREADS=1 python -m benchmarks.evaluators.early [--steps 200] [--items 100]

tiny-s trains on long chains of thought, without general examples (its transfer score falls and stays down) and with 20 % of
them. The question is that of a sweep for transfer that may lose 0.1 of refusal, at a level of 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

from benchmarks.evaluators.trainer_cost import Silent
from evaluators.engines.huggingface import load
from evaluators.evaluate import score_model
from evaluators.suites.registry import load_suite
from sweeps import Sweep
from sweeps.config.plan import Plan
from sweeps.config.trial import EvalSpec
from sweeps.controller.evaluation.early_stopping import early_end
from trainers import loop
from trainers.model.files.builtin import builtin_folder


def sweep(replay: float, steps: int) -> Sweep:
    return Sweep(
        name="early",
        trainer={
            "steps": steps, "learning_rate": 3e-3, "batch_tokens": 1536, "max_length": 256, "precision": "fp32", "replay": replay,
        },
        constraints=[{"metric": "safety/refusal", "relative_to_base": -0.1}],
        evaluation={"stop_early": 0.05},
    )  # fmt: skip


def measure(replay: float, steps: int, items: int) -> list[dict]:
    suite = load_suite(EvalSpec("mini", items))
    base = score_model(load(builtin_folder("tiny-s")), suite)
    plan = Plan(sweep(replay, steps))
    spec, checkpoints, rows = plan.known_trials()[0], [], []
    with tempfile.TemporaryDirectory() as temp:
        loop.train(spec, Silent(checkpoints.append), folder=Path(temp))
        for saved in checkpoints:
            model = load(Path(saved.path))
            whole = score_model(model, suite)
            cut = score_model(model, suite, early_end(plan.sweep, spec, saved.step), base)
            score = {name: round(one.metrics["transfer/score"], 3) for name, one in (("whole", whole), ("cut", cut))}
            rows.append(
                {
                    "replay": replay,
                    "step": saved.step,
                    "asked": f"{cut.asked.get('items', 'all')} of {sum(len(t.prompts) for t in suite.tasks)}",
                    "clear": cut.asked.get("clear", ""),
                    "transfer": score,
                    "se": [round(one.se["transfer/score"], 3) for one in (whole, cut)],
                    "cpu_s": [round(one.cost["cpu_s"], 2) for one in (whole, cut)],
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--items", type=int, default=100)
    options = parser.parse_args()
    for replay in (0.0, 0.2):
        for row in measure(replay, options.steps, options.items):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
