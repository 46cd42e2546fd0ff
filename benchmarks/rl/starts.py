"""Does readiness predict what RL reaches? GRPO by TRL from three checkpoints of one SFT run.

    python -m benchmarks.end_to_end --setup                a virtual environment with TRL, once
    python -m benchmarks.rl.starts --out DIR [--steps 30] [--seeds 2] [--at 5 40 320]

SFT of tiny-s on verified long chains of thought, 20 % replay; checkpoints before, in and after its dip. Each is exported as
`dipsweep export --for trl` writes it and trained by `trl grpo` on the tier's own prompts. Before and after, the checkpoint is
scored on items of the SFT task that are in neither. DIR/found.jsonl has a line a start and seed, as each ends; the
table of docs/ready-for-rl.md is printed last (`--table` prints it again).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from evaluators.evaluate import evaluate
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.trial import EvalSpec, Saved
from trainers.export import export
from trainers.export_rl import RlSettings, rl_prompts, write_rl
from trainers.loop import train

METRICS = ("math/in_domain", "transfer/score", "general/score")
TAIL = ",avg=8,t=1"


class Kept:
    """Hooks of a run that only keeps its checkpoints."""

    def __init__(self) -> None:
        self.checkpoints: dict[int, Path] = {}

    def report(self, step: int, metrics: Any, *, progress: Any, cost: Any) -> None:
        pass

    def saved(self, checkpoint: Saved) -> None:
        self.checkpoints[checkpoint.step] = Path(checkpoint.path)

    def stop_asked(self) -> bool:
        return False


def sft(out: Path, at: list[int]) -> dict[int, Path]:
    """Trains once; returns the checkpoints by step."""
    trainer = {
        "steps": max(at), "learning_rate": 3e-3, "lr_scheduler_type": "cosine", "warmup_steps": 10.0, "min_lr_rate": 0.1,
        "replay": 0.2, "batch_tokens": 1536, "max_length": 256, "adam_beta2": 0.98, "precision": "fp32",
    }  # fmt: skip
    sweep = Sweep(name="rl", space={"data": grid("verified-long-cot")}, trainer=trainer, evaluation={"at": at})
    (trial,), kept = Plan(sweep).known_trials(), Kept()
    train(trial, kept, folder=out)
    return {step: kept.checkpoints[step] for step in at}


def scored(folder: Path, items: int) -> dict[str, float]:
    """Scores a model greedily and by eight samples an item, on items that SFT and RL have not seen."""
    found = evaluate(folder, EvalSpec("mini", items, ("@8,t=1",)), seed=1)
    out = {metric: found.metrics[metric] for metric in METRICS}
    out |= {f"{metric} se": found.se[metric] for metric in METRICS}
    ready = ("score", "mixed", "distinct", "self_bleu", "entropy")
    out |= {f"ready/{name}": found.metrics[f"ready/{name}{TAIL}"] for name in ready}
    out |= {"ready/score se": found.se[f"ready/score{TAIL}"]}
    return out | {"pass@1": found.metrics[f"math/in_domain{TAIL}"], "pass@8": found.metrics["math/in_domain@8,t=1"]}


def grpo(start: Path, out: Path, python: Path, steps: int, seed: int) -> Path:
    """Runs `trl grpo` from a checkpoint; returns the folder of the model that it reached."""
    from sweeps.config.trial import TierSource

    export(start, out / "model")
    config = write_rl("trl", out, rl_prompts("verified-long-cot", TierSource()), RlSettings(3e-3, 48, seed))
    words = [python, "-m", "trl.scripts.grpo", "--config", config.name, "--max_steps", str(steps), "--use_cpu", "true",
             "--bf16", "false", "--save_strategy", "no", "--seed", str(seed)]  # fmt: skip
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with open(out / "log", "w", encoding="utf-8") as log:
        subprocess.run(
            [str(word) for word in words], cwd=out, env=env, stdout=log, stderr=subprocess.STDOUT, check=True
        )
    return out / "out"


def table(lines: list[dict[str, Any]]) -> str:
    """Returns the starts with their readiness, and what GRPO reached from each, a column a seed."""
    before = {line["sft_step"]: line["before"] for line in lines if "before" in line}
    after = {(line["sft_step"], line["seed"]): line["after"] for line in lines if "after" in line}
    seeds = sorted({seed for _, seed in after})
    shown = [
        "ready/score",
        "ready/mixed",
        "ready/distinct",
        "ready/self_bleu",
        "ready/entropy",
        "pass@1",
        "pass@8",
        METRICS[0],
    ]
    heads = ["start, SFT step", *shown, *(f"after GRPO, seed {seed}" for seed in seeds)]
    rows = [heads, ["---"] * len(heads)]
    for step, b in before.items():
        numbers = [f"{b[name]:.2f}" + (f" ± {b[f'{name} se']:.2f}" if f"{name} se" in b else "") for name in shown]
        reached = [after.get((step, seed)) for seed in seeds]
        rows.append(
            [str(step), *numbers, *(f"{r[METRICS[0]]:.2f} ± {r[f'{METRICS[0]} se']:.2f}" if r else "" for r in reached)]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=Path.home() / ".cache" / "dipsweep" / "trl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--at", type=int, nargs="+", default=[5, 40, 320])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--items", type=int, default=150)
    parser.add_argument("--table", action="store_true", help="only print what DIR/found.jsonl has")
    a = parser.parse_args()
    out = a.out.resolve()
    file = out / "found.jsonl"
    if not a.table:
        starts = sft(out / "sft", sorted(a.at))
        with open(file, "w", encoding="utf-8") as found:
            for step, folder in starts.items():
                print(json.dumps({"sft_step": step, "before": scored(folder, a.items)}), file=found, flush=True)
            for seed in range(a.seeds):
                for step, folder in starts.items():
                    reached = grpo(folder, out / f"from-{step}-seed-{seed}", a.venv / "bin" / "python", a.steps, seed)
                    line = {"sft_step": step, "seed": seed, "after": scored(reached, a.items)}
                    print(json.dumps(line), file=found, flush=True)
    print(table([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]))


if __name__ == "__main__":
    main()
