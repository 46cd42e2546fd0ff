"""Records real small SFT runs as curves for the stopping benchmark.

    python -m benchmarks.stopping.record --out benchmarks/stopping/recorded.jsonl [--part 0/2]
    python -m benchmarks.stopping.record --more --out benchmarks/stopping/recorded_more.jsonl.gz

108 runs of the shipped tiny models, none stopped: 3 data tiers x 3 shares of replay x 3 learning rates (the highest one
overshoots or diverges), under cosine, constant and WSD schedules, on two model sizes. Each (model, schedule) pair is one
sweep of 27 trials. About 30 CPU-minutes in all; parts can run side by side and be joined with cat.

`--more`: ten sweeps of 294 runs under other settings: budgets of 100 to 400 steps on shared trunks (WSD and constant rate),
cosine, LoRA, three seeds a setting, learning rates up to divergence. About 75 CPU-minutes.

`--families`: ten sweeps of 240 runs on two families of tasks that are not the suite's (`benchmarks.stopping.families`), trained
on and evaluated from files as a user's own: every schedule, trunks, LoRA, seeds, rates up to divergence, and a tier of 48 rows
that is over-fitted. A sweep is run in pieces of one tier and one share of replay, 50 in all, so that many processes can share
the work; a part that was interrupted goes on where it was, given the same storage. About 55 CPU-minutes.

    python -m benchmarks.stopping.record --families --part 3/16 --storage runs --out families-3.jsonl.gz
    python -m benchmarks.stopping.record --join families-*.jsonl.gz --out benchmarks/stopping/recorded_families.jsonl.gz
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.stopping.families import CAP, ITEMS, write
from cluster.run_sweep import run
from sweeps import Sweep, grid
from sweeps.config.space import Axis
from sweeps.journal.rows import Row
from sweeps.journal.writer import read_rows
from sweeps.report.replay import read_rows as read_curves

KEPT = ("math/in_domain", "math/score", "transfer/score", "general/score", "safety/refusal", "safety/over_refusal",
        "length/mean", "length/truncated", "train/loss", "train/grad_norm")  # fmt: skip
STEPS = 320
RATES = {"tiny-s": (1e-3, 3e-3, 1.2e-2), "tiny-xs": (1e-3, 4e-3, 2e-2)}


def sweeps() -> list[Sweep]:
    """Four sweeps of 27 trials: two models, each under cosine and under one of constant and WSD."""
    out = []
    for model, other in (("tiny-s", "wsd"), ("tiny-xs", "constant")):
        for schedule in ("cosine", other):
            out.append(
                Sweep(
                    name=f"recorded-{model}-{schedule}",
                    space={
                        "model": grid(model),
                        "data": grid("verified-long-cot", "answer-only", "corrupted-cot"),
                        "replay": grid(0.0, 0.05, 0.2),
                        "learning_rate": grid(*RATES[model]),
                    },
                    objective={"metric": "general/score"},
                    trainer={"steps": STEPS, "lr_scheduler_type": schedule, "warmup_steps": 10.0,
                             "min_lr_rate": 0.1 if schedule == "cosine" else 0.0,
                             "batch_tokens": 1024, "max_length": 256, "adam_beta2": 0.98},
                    evaluation={"suite": "mini", "items": 100, "at": [5, 10, 20, 30, 40, 60, 80, 120, 160, 200, 240, 280, 320]},
                )
            )  # fmt: skip
    return out


_SHIPPED = ("verified-long-cot", "answer-only", "corrupted-cot")
_TIERS, _FEW = ("verified", "answer", "corrupted"), ("verified", "few")


class Recorded(NamedTuple):
    """A sweep of `more` or `families`: what differs between them. `trainer`: further settings."""

    name: str
    seed: int
    model: str
    replay: tuple[float, ...]
    rates: tuple[float, ...]
    steps: tuple[int, ...]
    schedule: str
    repeats: int = 1
    trainer: Mapping[str, int] = {}
    family: str = ""
    tiers: tuple[str, ...] = _SHIPPED

    def sweep(self, name: str, *, axes: Mapping[str, Axis], trainer: Mapping[str, float], **blocks: Any) -> Sweep:
        """Returns its definition: what all of them share, and further axes, settings and blocks."""
        shared = {"lr_scheduler_type": self.schedule, "warmup_steps": 10.0, "batch_tokens": 1024, "max_length": 256}
        rates, steps = grid(*self.rates), grid(*self.steps)
        return Sweep(
            name=name,
            seed=self.seed,
            space={"model": grid(self.model), **axes, "learning_rate": rates, "steps": steps},
            search={"algorithm": "grid", "repeats": self.repeats},
            trainer={**shared, "adam_beta2": 0.98, "precision": "fp32", **trainer, **self.trainer},
            **blocks,
        )


MORE = (
    Recorded(
        "s-wsd-trunks", 0, "tiny-s", (0.05, 0.2), (1.5e-3, 3e-3), (100, 200, 400), "wsd", 1, {"batch_tokens": 1536}
    ),
    Recorded("xs-wsd-trunks", 1, "tiny-xs", (0.05, 0.2), (2e-3, 6e-3), (100, 200, 400), "wsd"),
    Recorded("s-cosine-budgets", 1, "tiny-s", (0.0, 0.1), (1e-3, 6e-3), (150, 300), "cosine"),
    Recorded("xs-constant", 2, "tiny-xs", (0.0, 0.2), (1e-3, 3e-3, 1e-2), (300,), "constant"),
    Recorded("s-lora-cosine", 0, "tiny-s", (0.0, 0.2), (2e-3, 8e-3, 2e-2), (250,), "cosine", 1, {"lora_rank": 8}),
    Recorded("s-wsd-trunks-b", 2, "tiny-s", (0.0, 0.1), (1e-3, 5e-3), (120, 240, 360), "wsd"),
    Recorded("xs-cosine-b", 3, "tiny-xs", (0.02, 0.3), (1.5e-3, 5e-3, 1.5e-2), (250,), "cosine"),
    Recorded("s-wsd-seeds", 5, "tiny-s", (0.05,), (1.5e-3, 4e-3), (100, 200, 400), "wsd", 3),
    Recorded("xs-constant-trunks", 6, "tiny-xs", (0.05, 0.2), (1.5e-3, 5e-3), (100, 200, 400), "constant"),
    Recorded("s-cosine-seeds", 8, "tiny-s", (0.1,), (2e-3, 8e-3), (250,), "cosine", 3),
)


def more() -> list[Sweep]:
    """The sweeps of `MORE`."""
    out = []
    for s in MORE:
        decay = {} if s.schedule == "constant" else {"min_lr_rate": 0.0}
        axes = {"data": grid(*s.tiers), "replay": grid(*s.replay)}
        evaluation = {"suite": "mini", "items": 100, "backlog": 64}
        out.append(s.sweep(f"real-{s.name}", axes=axes, trainer=decay, evaluation=evaluation))
    return out


OF_FAMILIES = (
    Recorded("s-wsd-trunks", 0, "tiny-s", (0.05, 0.2), (1.5e-3, 4e-3), (100, 200, 400), "wsd", family="logic", tiers=_TIERS),
    Recorded("xs-wsd-trunks", 1, "tiny-xs", (0.05, 0.2), (2e-3, 6e-3), (100, 200, 400), "wsd", family="strings", tiers=_TIERS),
    Recorded("xs-wsd-seeds", 2, "tiny-xs", (0.1,), (2e-3, 6e-3), (120, 360), "wsd", 3, family="logic", tiers=_TIERS),
    Recorded("s-few-wsd", 3, "tiny-s", (0.0, 0.1), (1e-3, 5e-3), (100, 200, 400), "wsd", family="logic", tiers=_FEW),
    Recorded("s-few-cosine", 4, "tiny-s", (0.0, 0.1), (1e-3, 4e-3, 1.2e-2), (400,), "cosine", family="strings", tiers=_FEW),
    Recorded("xs-constant-trunks", 5, "tiny-xs", (0.0, 0.2), (1.5e-3, 5e-3), (150, 300), "constant", family="logic",
             tiers=_TIERS),
    Recorded("xs-cosine", 6, "tiny-xs", (0.02, 0.2), (1e-3, 4e-3, 2e-2), (300,), "cosine", family="logic", tiers=_TIERS),
    Recorded("s-cosine-seeds", 7, "tiny-s", (0.1,), (1.5e-3, 6e-3), (250,), "cosine", 3, family="strings", tiers=_TIERS),
    Recorded("xs-constant", 8, "tiny-xs", (0.05, 0.2), (1e-3, 4e-3, 2e-2), (300,), "constant", family="strings", tiers=_TIERS),
    Recorded("s-lora-cosine", 9, "tiny-s", (0.0, 0.2), (2e-3, 8e-3, 2e-2), (250,), "cosine", 1, {"lora_rank": 8},
             family="strings", tiers=_TIERS),
)  # fmt: skip


def families(folder: Path) -> list[tuple[str, Sweep]]:
    """The sweeps of `OF_FAMILIES` in pieces of one tier and one share of replay, with the name of the whole; long ones first.

    Trials do not depend on one another, and pieces share the seed that draws the items, so a piece's curves are the whole's.
    """
    write(folder)
    out = []
    for s in OF_FAMILIES:
        home = folder / s.family
        items = {"path": str(home / "items.jsonl"), "max_new_tokens": CAP}
        for tier, replay in itertools.product(s.tiers, s.replay):
            sweep = s.sweep(
                f"{s.family}-{s.name}-{tier}-{round(100 * replay)}",
                axes={},
                trainer={"replay": replay},
                tiers={tier: {"path": str(home / f"{tier}.jsonl")}},
                objective={"metric": "transfer/score"},
                evaluation={"files": [items], "items": ITEMS, "backlog": 64},
            )
            steps = sum(s.steps) * len(s.rates) * s.repeats
            out.append((steps, (f"{s.family}-{s.name}", sweep)))
    return [named for _, named in sorted(out, key=lambda o: -o[0])]


def slim(rows: Iterable[Row], sweep: str = "") -> list[Row]:
    """Keeps what a stop rule reads: trials and scores by role, to four digits; tasks and paths go.

    Args:
        sweep: what the sweep is called from here on; empty keeps its id.
    """
    kept = []
    for row in rows:
        if row.kind == "trial":
            kept.append(replace(row, parent="", fork_step=None, number=None, search=None))
        elif row.kind == "report":
            kept.append(
                replace(
                    row,
                    metrics={k: float(f"{v:.4g}") for k, v in row.metrics.items() if k in KEPT},
                    se={k: float(f"{v:.3g}") for k, v in row.se.items() if k in KEPT},
                    n={k: v for k, v in row.n.items() if k in KEPT},
                    cost={k: round(v, 2) for k, v in row.cost.items()},
                    progress={},
                    items={},
                    parts=None,
                )
            )
    return [replace(row.at(i), sweep=sweep or row.sweep) for i, row in enumerate(kept)]


def joined(parts: Iterable[Iterable[Row]]) -> list[Row]:
    """Returns the rows of all parts, sweep by sweep; of a base model's scores, which every piece has, the first."""
    by_sweep: dict[str, list[Row]] = {}
    seen: set[tuple[str, str]] = set()
    for row in itertools.chain.from_iterable(parts):
        if row.trial.startswith("base-"):
            if (row.sweep, row.trial) in seen:
                continue
            seen.add((row.sweep, row.trial))
        by_sweep.setdefault(row.sweep, []).append(row)
    return [row.at(i) for _, rows in sorted(by_sweep.items()) for i, row in enumerate(rows)]


def write_rows(rows: Iterable[Row], out: Path) -> None:
    """Writes rows as JSON lines, packed where the name ends in .gz: the same bytes for the same rows."""
    data = "".join(row.line() for row in rows).encode()
    out.write_bytes(gzip.compress(data, mtime=0) if out.suffix == ".gz" else data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--more", action="store_true", help="the ten sweeps under other settings")
    parser.add_argument("--families", action="store_true", help="the ten sweeps on other families of tasks")
    parser.add_argument("--join", type=Path, nargs="+", metavar="PART", help="write recorded parts into one file")
    parser.add_argument("--part", default="0/1", help="i/n: the i-th of n parts")
    parser.add_argument("--storage", type=Path, help="keep the sweeps here (they can then be resumed)")
    args = parser.parse_args()
    if args.join:
        write_rows(joined(read_curves(path) for path in sorted(args.join)), args.out)
        return
    part, parts = map(int, args.part.split("/"))
    opened = gzip.open if args.out.suffix == ".gz" else open
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temp, opened(args.out, "wt", encoding="utf-8") as out:
        storage = args.storage or Path(temp)
        if args.families:
            planned = families(storage / f"files-{part}")
        else:
            planned = [("", sweep) for sweep in (more() if args.more else sweeps())]
        for name, sweep in planned[part::parts]:
            results = run(
                sweep,
                storage=storage,
                backend="in-process",
                say=lambda line: (
                    print(f"{time.monotonic() - started:6.0f} s  {line}", flush=True) if "[" in line else None
                ),
            )
            out.writelines(row.line() for row in slim(read_rows(results.path), name))


if __name__ == "__main__":
    main()
