"""Compares stop rules on recorded curves: a table, and a page with winners lost against compute saved.

    python -m benchmarks.stopping.recorded benchmarks/stopping/published.jsonl --metric math/math500 --top 1 --workers 2

Reads journal rows (`report` rows are enough) of any number of sweeps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sweeps.history import History
from sweeps.records import Row
from sweeps.replay import compare, pareto_page, read_rows, replay, table

RULES = ("none", "dip-aware", "dip-aware:protect=soft", "asha", "asha:reduction=2", "median", "hyperband", "patient")


def never_recovering(rows: Sequence[Row], metric: str, sign: float) -> dict[tuple[str, str], int]:
    """Returns the trough step of every trial that ends nearer to its trough than to its base, by (sweep, trial)."""
    histories: dict[str, History] = {}
    for row in rows:
        histories.setdefault(row.sweep, History()).fold(row)
    out = {}
    for sweep, history in histories.items():
        for curve in history.trials():
            base, steps = history.base_point(curve.trial), [s for s in curve.steps(metric) if s]
            if base is None or metric not in base.metrics or len(steps) < 4:
                continue
            scores = [sign * curve.points[s].metrics[metric] for s in steps]
            start, low = sign * base.metrics[metric], min(scores)
            fallen = start - low > 4 * max(base.se.get(metric, 0.0), 0.01 * abs(start))
            if fallen and scores[-1] < 0.5 * (start + low):
                out[sweep, curve.trial] = steps[scores.index(low)]
    return out


def saved_after_trough(
    rows: Sequence[Row], rule: str, metric: str, goal: str, workers: int, top: int
) -> tuple[int, float]:
    """Returns how many runs never recovered, and the share of their steps after the trough that the rule saved."""
    troughs = never_recovering(rows, metric, 1.0 if goal.startswith("max") else -1.0)
    ends = {(r.sweep, r.trial): r.step or 0 for r in rows if r.kind == "report" and r.trial}
    result = replay(rows, rule, metric=metric, goal=goal, workers=workers, top=top)["sweeps"]
    left = spent = 0
    for (sweep, trial), trough in troughs.items():
        stopped = result[sweep]["trials"][trial]["stopped_at"]
        left += ends[sweep, trial] - trough
        spent += max(0, (ends[sweep, trial] if stopped is None else stopped) - trough)
    return len(troughs), 1 - spent / left if left else 0.0


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("curves", nargs="+")
    p.add_argument("--metric", required=True)
    p.add_argument("--goal", default="maximize")
    p.add_argument("--rules", nargs="+", default=list(RULES))
    p.add_argument("--workers", type=int, default=8)
    p.add_argument("--top", type=int, default=3)
    p.add_argument("--page", default="", help="write the Pareto plot to this HTML file")
    a = p.parse_args(argv)
    rows = [row for path in a.curves for row in read_rows(path)]
    rows = [
        r for r in rows if r.kind != "report" or a.metric in r.metrics or any(k.startswith("train/") for k in r.metrics)
    ]
    summaries = compare(rows, a.rules, metric=a.metric, goal=a.goal, workers=a.workers, top=a.top)
    print(table(summaries))
    count, saved = saved_after_trough(rows, "dip-aware", a.metric, a.goal, a.workers, a.top)
    print(f"{count} runs never recover; dip-aware saves {saved:.0%} of their steps after the trough")
    if a.page:
        Path(a.page).write_text(pareto_page(summaries), encoding="utf-8")


if __name__ == "__main__":
    main()
