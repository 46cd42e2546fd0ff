"""Does readiness predict what RL reaches? GRPO by TRL from three checkpoints of each of a few SFT runs.

    python -m benchmarks.end_to_end --setup                a virtual environment with TRL, once
    python -m benchmarks.rl.starts --out DIR [--steps 30] [--sft-seeds 0 1] [--seeds 0 1 2] [--at 5 40 320]

SFT of tiny-s on verified long chains of thought, 20 % replay; checkpoints before, in and after its dip. Each is exported as
`dipsweep export --for trl` writes it and trained by `trl grpo` on the tier's own prompts. Before and after, the checkpoint is
scored on items of the SFT task that are in neither. DIR/found.jsonl has a line a start and seed, as each ends, and what it
has is not run again; the tables are printed last, or put between the marks of a page. `--table` makes them again:

    python -m benchmarks.rl.starts --out benchmarks/rl --table --write docs/ready-for-rl.md
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from evaluators.evaluate import evaluate
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.sweep_file.reference import between
from sweeps.config.trial import EvalSpec, Saved
from trainers.export import export
from trainers.export_rl import RlSettings, rl_prompts, write_rl
from trainers.loop import train

TASK: Final = "math/in_domain"
METRICS: Final = (TASK, "transfer/score", "general/score")
TAIL: Final = ",avg=8,t=1"
SHOWN: Final = (
    "ready/score", "ready/mixed", "ready/distinct", "ready/self_bleu", "ready/entropy", "pass@1", "pass@8", TASK,
)  # fmt: skip
MARKS: Final = ("<!-- python -m benchmarks.rl.starts -->", "<!-- end of the tables -->")
Line = dict[str, Any]
Rows = list[list[str]]


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


def sft(out: Path, at: list[int], seed: int) -> dict[int, Path]:
    """Trains once; returns the checkpoints by step."""
    trainer = {
        "steps": max(at), "learning_rate": 3e-3, "lr_scheduler_type": "cosine", "warmup_steps": 10.0, "min_lr_rate": 0.1,
        "replay": 0.2, "batch_tokens": 1536, "max_length": 256, "adam_beta2": 0.98, "precision": "fp32",
    }  # fmt: skip
    sweep = Sweep(
        name="rl", space={"data": grid("verified-long-cot")}, trainer=trainer, evaluation={"at": at}, seed=seed
    )
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
    config = write_rl("trl", out, rl_prompts("verified-long-cot", TierSource()).prompts, RlSettings(3e-3, 48, seed))
    words = [python, "-m", "trl.scripts.grpo", "--config", config.name, "--max_steps", str(steps), "--use_cpu", "true",
             "--bf16", "false", "--save_strategy", "no", "--seed", str(seed),
             "--per_device_train_batch_size", "128", "--gradient_accumulation_steps", "1"]  # fmt: skip
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with open(out / "log", "w", encoding="utf-8") as log:
        subprocess.run(
            [str(word) for word in words], cwd=out, env=env, stdout=log, stderr=subprocess.STDOUT, check=True
        )
    return out / "out"


def table(lines: list[Line]) -> str:
    """Returns the starts with their readiness and what GRPO reached from each, a column a seed of RL; and what they say of it."""
    before = {(line["sft_seed"], line["sft_step"]): line["before"] for line in lines if "before" in line}
    after = {(line["sft_seed"], line["sft_step"], line["seed"]): line["after"] for line in lines if "after" in line}
    seeds = sorted({seed for _, _, seed in after})
    heads = ["SFT seed", "start, SFT step", *SHOWN, *(f"after GRPO, seed {seed}" for seed in seeds)]
    rows = [heads, ["---"] * len(heads)]
    for (sft_seed, step), b in sorted(before.items()):
        numbers = [f"{b[name]:.2f}" + (f" ± {b[f'{name} se']:.2f}" if f"{name} se" in b else "") for name in SHOWN]
        reached = [after.get((sft_seed, step, seed)) for seed in seeds]
        cells = [f"{r[TASK]:.2f} ± {r[f'{TASK} se']:.2f}" if r else "" for r in reached]
        rows.append([str(sft_seed), str(step), *numbers, *cells])
    return "\n".join([markdown(rows), "", markdown(agreement(before, after))])


def agreement(
    before: dict[tuple[int, int], dict[str, float]], after: dict[tuple[int, int, int], dict[str, float]]
) -> Rows:
    """How each measure of a start ranks the starts of its SFT run, against what GRPO reached and gained: Kendall's tau, a column
    an SFT seed. With three starts there are three pairs, so a tau is one of -1, -1/3, 1/3 and 1."""
    runs = sorted({sft_seed for sft_seed, _ in before})
    rows: Rows = [
        [
            "Kendall's tau over the starts",
            *(f"reached, SFT seed {r}" for r in runs),
            *(f"gained, SFT seed {r}" for r in runs),
        ]
    ]
    rows.append(["---"] * len(rows[0]))
    for name in SHOWN:
        cells: dict[str, list[str]] = {"reached": [], "gained": []}
        for run in runs:
            found = []
            for (sft_seed, step), b in before.items():
                ends = [r[TASK] for (s, at, _), r in after.items() if (s, at) == (sft_seed, step)]
                if sft_seed == run and ends:
                    mean = sum(ends) / len(ends)
                    found.append((b[name], mean, mean - b[TASK]))
            for kind, column in (("reached", 1), ("gained", 2)):
                cells[kind].append(kendall([(row[0], row[column]) for row in found]))
        rows.append([name, *cells["reached"], *cells["gained"]])
    return rows


def kendall(pairs: Sequence[tuple[float, float]]) -> str:
    """Kendall's tau-a: pairs in the same order less pairs in the other, of all; a tie is neither."""
    signs = [(a - c) * (b - d) for (a, b), (c, d) in itertools.combinations(pairs, 2)]
    if not signs:
        return ""
    return f"{sum((x > 0) - (x < 0) for x in signs) / len(signs):+.2f}"


def markdown(rows: Rows) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def found_in(file: Path) -> list[Line]:
    """What DIR/found.jsonl has; a line without an SFT seed is of seed 0."""
    if not file.exists():
        return []
    return [{"sft_seed": 0, **json.loads(line)} for line in file.read_text(encoding="utf-8").splitlines()]


def missing(a: argparse.Namespace, out: Path, file: Path) -> Iterator[Line]:
    """Runs what DIR/found.jsonl does not have yet, and yields its lines as each ends."""
    known = {(line["sft_seed"], line["sft_step"], line.get("seed")) for line in found_in(file)}
    for sft_seed in a.sft_seeds:
        starts = [(sft_seed, step) for step in sorted(a.at)]
        if all((*start, seed) in known for start in starts for seed in (None, *a.seeds)):
            continue
        folders = sft(out / f"sft-{sft_seed}", sorted(a.at), sft_seed)
        for seed in (None, *a.seeds):
            for _, step in starts:
                if (sft_seed, step, seed) in known:
                    continue
                line: Line = {"sft_seed": sft_seed, "sft_step": step}
                if seed is None:
                    yield line | {"before": scored(folders[step], a.items)}
                else:
                    into = out / f"from-{sft_seed}-{step}-seed-{seed}"
                    shutil.rmtree(into, ignore_errors=True)  # of a run that was broken off
                    reached = grpo(folders[step], into, a.venv / "bin" / "python", a.steps, seed)
                    yield line | {"seed": seed, "after": scored(reached, a.items)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=Path.home() / ".cache" / "dipsweep" / "trl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--at", type=int, nargs="+", default=[5, 40, 320])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--sft-seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of GRPO")
    parser.add_argument("--items", type=int, default=150)
    parser.add_argument("--table", action="store_true", help="only make the tables of what DIR/found.jsonl has")
    parser.add_argument("--write", type=Path, help="a page that has the marks between which the tables stand")
    a = parser.parse_args()
    out = a.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    file = out / "found.jsonl"
    if not a.table:
        for line in missing(a, out, file):
            with open(file, "a", encoding="utf-8") as found:
                print(json.dumps(line), file=found)
    text = table(found_in(file))
    print(text)
    if a.write:
        a.write.write_text(between(a.write.read_text(encoding="utf-8"), *MARKS, text), encoding="utf-8")


if __name__ == "__main__":
    main()
