"""Does iterating at test time bring back what SFT lost? tiny-r at its base, in its dip and at its end, at several recurrences.

    python -m benchmarks.recurrence.depth --out DIR [--seeds 3] [--items 100] [--write docs/recurrent-depth.md]

SFT of tiny-r on verified long chains of thought, 20 % replay. Every checkpoint is scored at each number of recurrences on the
same items of suite `mini`; the dip is where transfer/score at the usual number is lowest. DIR/found.jsonl has a line a
checkpoint, as each is scored; the tables are printed last, or put between the marks of a page. `--table` makes them again.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.rl.starts import Kept
from evaluators.evaluate import evaluate
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.sweep_file.reference import between
from sweeps.config.trial import EvalSpec
from trainers.loop import train
from trainers.model.files.builtin import builtin_folder

METRICS: Final = {
    "the SFT task": "math/in_domain", "mathematics": "math/score", "transfer": "transfer/score", "general": "general/score",
}  # fmt: skip
USUAL: Final = 4
DEPTHS: Final = (1, 2, USUAL, 8)
AT: Final = (5, 10, 20, 40, 80, 160, 320)
MARKS: Final = ("<!-- python -m benchmarks.recurrence.depth -->", "<!-- end of the tables -->")
Line = dict[str, Any]


def name_at(metric: str, depth: int) -> str:
    """Returns the name of a metric at a number of recurrences."""
    return metric if depth == USUAL else f"{metric},r={depth}"


def sft(out: Path, seed: int) -> dict[int, Path]:
    """Trains once; returns the checkpoints by step, the base as step 0."""
    trainer = {
        "steps": max(AT), "learning_rate": 3e-3, "lr_scheduler_type": "cosine", "warmup_steps": 10.0, "min_lr_rate": 0.1,
        "replay": 0.2, "batch_tokens": 1536, "max_length": 256, "adam_beta2": 0.98, "precision": "fp32",
    }  # fmt: skip
    space = {"model": grid("tiny-r"), "data": grid("verified-long-cot")}
    sweep = Sweep(name="depth", space=space, trainer=trainer, evaluation={"at": list(AT)}, seed=seed)
    (trial,), kept = Plan(sweep).known_trials(), Kept()
    train(trial, kept, folder=out)
    return {0: builtin_folder("tiny-r")} | {step: kept.checkpoints[step] for step in AT}


def scored(folder: Path, items: int) -> Line:
    """Scores a checkpoint at every number of recurrences."""
    variants = tuple(f"r={depth}" for depth in DEPTHS if depth != USUAL)
    found = evaluate(folder, EvalSpec("mini", items, variants))
    names = [name_at(metric, depth) for metric in METRICS.values() for depth in DEPTHS]
    return {"metrics": {n: found.metrics[n] for n in names}, "se": {n: found.se[n] for n in names}}


def tables(lines: Sequence[Line]) -> str:
    """Returns what base, dip and end score at each number of recurrences, and what more or fewer of them bring back."""
    seeds = sorted({line["seed"] for line in lines})
    at = {(line["seed"], line["step"]): line for line in lines}
    dips = {seed: min(AT, key=lambda s: at[seed, s]["metrics"]["transfer/score"]) for seed in seeds}
    moments = {
        "base": dict.fromkeys(seeds, 0), "dip": dips, "end": dict.fromkeys(seeds, max(AT)),
    }  # fmt: skip

    def mean(metric: str, moment: str, depth: int) -> tuple[float, float]:
        """The mean over seeds, and its standard error over items (of the base, which is one model, that of one seed)."""
        found = [at[seed, moments[moment][seed]] for seed in seeds]
        name, count = name_at(metric, depth), len(seeds)
        error = math.sqrt(sum(f["se"][name] ** 2 for f in found)) / count
        return sum(f["metrics"][name] for f in found) / count, error * (math.sqrt(count) if moment == "base" else 1)

    rows = [["", "checkpoint", *(f"r={depth}" for depth in DEPTHS)], ["---"] * (2 + len(DEPTHS))]
    for label, metric in METRICS.items():
        for moment in moments:
            cells = ["{:.2f} ± {:.2f}".format(*mean(metric, moment, depth)) for depth in DEPTHS]
            rows.append([label if moment == "base" else "", moment, *cells])
    more = [
        ["", "lost by the dip, at r=4", *(f"brought back by r={d}" for d in DEPTHS if d != USUAL)],
        ["---"] * (1 + len(DEPTHS)),
    ]
    for label, metric in METRICS.items():
        dip = mean(metric, "dip", USUAL)
        cells = [difference(mean(metric, "base", USUAL), dip)]
        cells += [difference(mean(metric, "dip", depth), dip) for depth in DEPTHS if depth != USUAL]
        more.append([label, *cells])
    where = ", ".join(f"seed {seed} at step {dips[seed]}" for seed in seeds)
    head = f"{len(seeds)} seeds of {max(AT)} steps; the dip: {where}. r=4 is the usual number.\n"
    return "\n".join([head, markdown(rows), "", "What iterating changes in the dip:", "", markdown(more)])


def difference(a: tuple[float, float], b: tuple[float, float]) -> str:
    """Returns a - b with its standard error, as if the items were different ones: they are the same, so it is too large."""
    return f"{a[0] - b[0]:+.2f} ± {math.hypot(a[1], b[1]):.2f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--table", action="store_true", help="only make the tables of what DIR/found.jsonl has")
    parser.add_argument("--write", type=Path, help="a page that has the marks between which the tables stand")
    a = parser.parse_args()
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    file = a.out / "found.jsonl"
    if not a.table:
        with open(file, "w", encoding="utf-8") as found:
            for seed in range(a.seeds):
                for step, folder in sft(a.out / f"seed-{seed}", seed).items():
                    print(json.dumps({"seed": seed, "step": step, **scored(folder, a.items)}), file=found, flush=True)
    text = tables([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()])
    print(text)
    if a.write:
        a.write.write_text(between(a.write.read_text(encoding="utf-8"), *MARKS, text), encoding="utf-8")


if __name__ == "__main__":
    main()
