"""Packs the recorded fine-tunes for `dipsweep plan`, which replays them to say what a stop rule is likely to save.

    python -m benchmarks.plan.pack_curves benchmarks/stopping/recorded.jsonl

Writes `sweeps/planning/recorded_curves.json`: by sweep the base model's scores and each trial's, with standard errors, at shares
of the budget. The curves are dipsweep's own (`benchmarks.stopping.record`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sweeps.journal.history import Curve, History, Point
from sweeps.planning.recorded import PACKED
from sweeps.report.replay import histories_of, read_rows

METRICS: Final = (
    "math/score",
    "transfer/score",
    "general/score",
    "safety/refusal",
    "safety/over_refusal",
    "train/loss",
)


def packed(histories: Mapping[str, History]) -> dict[str, Any]:
    """Returns the curves of each sweep as plain JSON."""
    sweeps = []
    for name, history in histories.items():
        trials = [_trial(curve) for curve in history.trials()]
        base = next((_point(c.points[0]) for c in history.base.values() if 0 in c.points), {})
        sweeps.append({"name": name.rpartition("-")[0], "base": base, "trials": trials})
    return {"source": "dipsweep's own recordings of tiny models, benchmarks/stopping/record.py", "sweeps": sweeps}


def _trial(curve: Curve) -> dict[str, Any]:
    scored = [point for step, point in sorted(curve.points.items()) if step and _scored(point)]
    return {"budget": curve.budget, "at": [p.step for p in scored], "points": [_point(p) for p in scored]}


def _scored(point: Point) -> bool:
    return any(not name.startswith("train/") for name in point.metrics)


def _point(point: Point) -> dict[str, list[float]]:
    """Returns each metric as [value, standard error], without the error where there is none."""
    return {m: [point.metrics[m], *([point.se[m]] if m in point.se else [])] for m in METRICS if m in point.metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path)
    histories = histories_of(read_rows(parser.parse_args().curves))
    PACKED.write_text(json.dumps(packed(histories), separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{PACKED}: {PACKED.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
