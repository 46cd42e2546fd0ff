"""CPU seconds and bytes of a report of 1,000 trials with 100 reports of 8 metrics each.

    python -m benchmarks.report.speed

Prints CPU seconds of the analysis, the page and the JSON, and their sizes. Reading the journal is not in it (docs/scale.md).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sweeps.config.trial import trial_id
from sweeps.journal.rows import AttemptRow, EndRow, ReportRow, Row, SweepRow, TrialRow, base_trial
from sweeps.journal.vocabulary import EndOf, EndStatus
from sweeps.report import render_html, summarize

SHARES = ("math/in_domain", "math/score", "transfer/score", "general/score", "safety/refusal", "safety/over_refusal")
ITEMS, STEPS = 200, 1000
T = TypeVar("T")


def scores(values: Mapping[str, float]) -> dict[str, Any]:
    judged = [m for m in values if m in SHARES]
    errors = {m: math.sqrt(max(values[m] * (1 - values[m]), 0.25 / ITEMS) / ITEMS) for m in judged}
    return {"metrics": values, "se": errors, "n": dict.fromkeys(judged, ITEMS), "suite": "s@1"}


def journal(trials: int, reports: int, seed: int = 0) -> list[Row]:
    """A sweep over two listed axes and a sampled one; three in ten trials are pruned at 30 %."""
    draw = random.Random(seed)
    space = {
        "data": {"grid": ["a", "b", "c"]},
        "replay": {"grid": [0.0, 0.05, 0.1, 0.2]},
        "learning_rate": {"loguniform": [1e-5, 1e-3]},
    }
    spec = {"name": "speed", "space": space, "objective": {"metric": "transfer/score"}, "stopping": {"top": 3}}
    rows: list[Row] = [SweepRow("speed", name="speed", spec=spec, trials=trials)]
    rows.append(
        ReportRow("speed", base_trial("m"), 0, 0, **scores(dict.fromkeys(SHARES, 0.8) | {"length/mean": 100.0}))
    )
    for i in range(trials):
        config = {
            "model": "m", "data": "abc"[i % 3], "replay": space["replay"]["grid"][i // 3 % 4], "steps": STEPS, "seed": 0,
            "learning_rate": 10 ** draw.uniform(-5, -3),
        }  # fmt: skip
        pruned, depth, back = draw.random() < 0.3, draw.uniform(0.1, 0.6), draw.uniform(0, 1.2)
        id, last = trial_id(config), reports * 3 // 10 if pruned else reports
        rows += [TrialRow("speed", id, config=config, budget=STEPS), AttemptRow("speed", id, 1, 0)]
        for k in range(1, last + 1):
            step = k * STEPS // reports
            level = 0.8 - depth * min(step / 100, 1) * (1 - back * max(step - 100, 0) / 900)
            share = {m: round(ITEMS * min(max(level + draw.gauss(0, 0.02), 0), 1)) / ITEMS for m in SHARES}
            other = {"length/mean": round(60 + draw.gauss(0, 1), 1), "train/loss": round(0.3 + draw.random(), 4)}
            rows.append(ReportRow("speed", id, 1, step, cost={"cpu_s": 0.1 * step}, **scores(share | other)))
        status = EndStatus.PRUNED if pruned else EndStatus.COMPLETED
        rows.append(EndRow("speed", id, 1, last * STEPS // reports, of=EndOf.SCORING, status=status))
    return [row.at(seq) for seq, row in enumerate(rows)]


def timed(what: str, act: Callable[[], T]) -> T:
    started = time.process_time()
    found = act()
    size = f", {len(found) / 1e6:.1f} MB" if isinstance(found, str) else ""
    print(f"{what}: {time.process_time() - started:.1f} CPU s{size}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--reports", type=int, default=100)
    chosen = parser.parse_args()
    rows = journal(chosen.trials, chosen.reports)
    summary = timed("analysis", lambda: summarize(rows))
    timed("page", lambda: render_html(summary))
    timed("JSON", lambda: json.dumps(summary.to_json(), allow_nan=False, separators=(",", ":")))


if __name__ == "__main__":
    main()
