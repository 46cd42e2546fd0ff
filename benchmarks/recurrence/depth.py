"""Does iterating at test time bring back what SFT lost? tiny-r at its base, in its dip and at its end, at several recurrences.

    python -m benchmarks.recurrence.depth --out DIR [--seeds 3] [--items 100] [--processes 1] [--write docs/recurrent-depth.md]

SFT of tiny-r on verified long chains of thought, 20 % replay. Every checkpoint is scored at each number of recurrences on the
same items of suite `mini`; the dip is where transfer/score at the usual number is lowest. DIR/found.jsonl has a line a
checkpoint, written seed by seed; the tables are printed last, or put between the marks of a page. `--table` makes them again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.rl.starts import Kept
from evaluators.engines.huggingface import load
from evaluators.evaluate import score_model
from evaluators.stats import Estimate
from evaluators.suites.registry import load_suite
from evaluators.test_time import Variant
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.sweep_file.reference import between
from sweeps.config.trial import EvalSpec
from sweeps.statistics import compare, unpack
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


def run(out: Path, seed: int, items: int) -> list[Line]:
    """Trains once and scores every checkpoint."""
    torch.set_num_threads(1)
    checkpoints = sft(out / f"seed-{seed}", seed)
    return [{"seed": seed, "step": step, **scored(folder, items)} for step, folder in checkpoints.items()]


def scored(folder: Path, items: int) -> Line:
    """Scores a checkpoint at every number of recurrences; `outcomes` are those of the tasks behind each metric, packed."""
    suite, model = load_suite(EvalSpec("mini", items)), load(folder)
    line: Line = {"metrics": {}, "se": {}, "outcomes": {}}
    for depth in DEPTHS:
        found = score_model(model, suite if depth == USUAL else Variant(r=depth).of(suite))
        for metric in METRICS.values():
            name = name_at(metric, depth)
            line["metrics"][name], line["se"][name] = found.metrics[metric], found.se[metric]
            parts = found.parts.get(metric, (metric,))
            line["outcomes"][name] = [[found.outcomes[part], found.n[part]] for part in parts]
    return line


def mean(lines: Sequence[Line], name: str) -> Estimate:
    """The mean over seeds. Its error joins that of the items, which every seed was asked, and that of the seeds."""
    values = [line["metrics"][name] for line in lines]
    items = statistics.fmean(line["se"][name] ** 2 for line in lines)
    return Estimate(statistics.fmean(values), math.sqrt(items + between_seeds(values)))


def change(after: Sequence[Line], name: str, before: Sequence[Line], other: str) -> Estimate:
    """The mean over seeds of a metric less another one, seed by seed and item by item; its error joins items and seeds."""
    paired = compare(shares_of(before, other), shares_of(after, name))
    each = [a["metrics"][name] - b["metrics"][other] for a, b in zip(after, before, strict=True)]
    return Estimate(paired.difference, math.hypot(paired.se, math.sqrt(between_seeds(each))))


def between_seeds(values: Sequence[float]) -> float:
    """The variance of a mean over seeds; 0 for one seed, of which nothing is known."""
    return statistics.variance(values) / len(values) if len(values) > 1 else 0.0


def shares_of(lines: Sequence[Line], name: str) -> list[list[float]]:
    """Per task and item, the share of seeds that answered it right."""
    tasks = zip(*([unpack(*task) for task in line["outcomes"][name]] for line in lines), strict=True)
    return [[statistics.fmean(item) for item in zip(*seeds, strict=True)] for seeds in tasks]


def tables(lines: Sequence[Line]) -> str:
    """Returns what base, dip and end score at each number of recurrences, and what more or fewer of them bring back."""
    seeds = sorted({line["seed"] for line in lines})
    at = {(line["seed"], line["step"]): line for line in lines}
    dips = {seed: min(AT, key=lambda s: at[seed, s]["metrics"]["transfer/score"]) for seed in seeds}
    moments = {
        "base": [at[seed, 0] for seed in seeds],
        "dip": [at[seed, dips[seed]] for seed in seeds],
        "end": [at[seed, max(AT)] for seed in seeds],
    }
    rows = [["", "checkpoint", *(f"r={depth}" for depth in DEPTHS)], ["---"] * (2 + len(DEPTHS))]
    for label, metric in METRICS.items():
        for moment, found in moments.items():
            cells = ["{:.2f} ± {:.2f}".format(*mean(found, name_at(metric, depth))) for depth in DEPTHS]
            rows.append([label if moment == "base" else "", moment, *cells])
    others = [depth for depth in DEPTHS if depth != USUAL]
    more = [["", "lost by the dip, at r=4", *(f"brought back by r={d}" for d in others), "at the end, r=8 less r=4"]]
    more.append(["---"] * len(more[0]))
    base, dip, end = moments.values()
    for label, metric in METRICS.items():
        changes = [change(base, metric, dip, metric)]
        changes += [change(dip, name_at(metric, depth), dip, metric) for depth in others]
        changes.append(change(end, name_at(metric, 8), end, metric))
        more.append([label, *("{:+.2f} ± {:.2f}".format(*found) for found in changes)])
    where = ", ".join(f"seed {seed} at step {dips[seed]}" for seed in seeds)
    head = f"{len(seeds)} seeds of {max(AT)} steps; the dip: {where}. r=4 is the usual number.\n"
    return "\n".join([head, markdown(rows), "", "What iterating changes:", "", markdown(more)])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1, help="that share the seeds")
    parser.add_argument("--table", action="store_true", help="only make the tables of what DIR/found.jsonl has")
    parser.add_argument("--write", type=Path, help="a page that has the marks between which the tables stand")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    file = a.out / "found.jsonl"
    if not a.table:
        # a new interpreter each: torch does not outlive a fork
        with ProcessPoolExecutor(a.processes, get_context("spawn")) as pool, open(file, "w", encoding="utf-8") as found:
            for lines in pool.map(partial(run, a.out, items=a.items), range(a.seeds)):
                found.writelines(json.dumps(line) + "\n" for line in lines)
    text = tables([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()])
    print(text)
    if a.write:
        a.write.write_text(between(a.write.read_text(encoding="utf-8"), *MARKS, text), encoding="utf-8")


if __name__ == "__main__":
    main()
