"""Compares stop rules on recorded curves: a table, and a page with winners lost against compute saved.

    python -m benchmarks.stopping.recorded benchmarks/stopping/published.jsonl --metric math/math500 --top 1 --workers 2

Reads journal rows (`report` rows are enough) of any number of sweeps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sweeps.journal.rows import Row
from sweeps.report.replay import compare, comparison_page, histories_of, read_rows, replay, table

RULES = ("none", "dip-aware", "dip-aware:protect=soft", "asha", "asha:reduction=2", "median", "hyperband", "patient")


Key = tuple[str, str]


def fallen(rows: Sequence[Row], metric: str, sign: float) -> tuple[dict[Key, int], set[Key]]:
    """Returns the runs that fell clearly below their base, by (sweep, trial): of those that ended nearer to their trough
    than to their base the step of the trough, and those that recovered."""
    never, back = {}, set()
    for sweep, history in histories_of(rows).items():
        for curve in history.trials():
            base, steps = history.base_point(curve.trial), [s for s in curve.steps(metric) if s]
            if base is None or metric not in base.metrics or len(steps) < 4:
                continue
            scores = [sign * curve.points[s].metrics[metric] for s in steps]
            start, low = sign * base.metrics[metric], min(scores)
            if start - low > 4 * max(base.se.get(metric, 0.0), 0.01 * abs(start)):
                if scores[-1] < 0.5 * (start + low):
                    never[sweep, curve.trial] = steps[scores.index(low)]
                else:
                    back.add((sweep, curve.trial))
    return never, back


class Spared(NamedTuple):
    """What a rule did to runs that fell: steps after the trough of those that never recovered, how many of these were
    run, and winners that recovered: all, and those pruned."""

    left: int
    run: int
    winners: int
    pruned: int

    @property
    def saved(self) -> float:
        """Share of the steps after the trough that was not run."""
        return 1 - self.run / self.left if self.left else 0.0


def spared(rows: Sequence[Row], rule: str, metric: str, **how: Any) -> Spared:
    """Replays `rule` and says what it did to runs that fell; `how` as in `sweeps.report.replay.replay`."""
    never, back = fallen(rows, metric, 1.0 if str(how.get("goal", "max")).startswith("max") else -1.0)
    ends = {(r.sweep, r.trial): r.step or 0 for r in rows if r.kind == "report" and r.trial}
    result = replay(rows, rule, metric=metric, **how)["sweeps"]
    left = run = 0
    for (sweep, trial), trough in never.items():
        stopped = result[sweep]["trials"][trial]["stopped_at"]
        left += ends[sweep, trial] - trough
        run += max(0, (ends[sweep, trial] if stopped is None else stopped) - trough)
    won = {(s, t) for s in result for t in result[s]["winners"]} & back
    lost = {(s, t) for s in result for t in result[s]["lost_winners"]} & back
    return Spared(left, run, len(won), len(lost))


def leave_one_out(rows: Sequence[Row], rule: str, metric: str, **how: Any) -> Spared:
    """The same summed over all sweeps that lack one configuration: does it hang on any single run?"""
    parts = []
    for sweep, trial in dict.fromkeys((r.sweep, r.trial) for r in rows if r.kind == "trial"):
        parts.append(spared([r for r in rows if r.sweep == sweep and r.trial != trial], rule, metric, **how))
    return Spared(*map(sum, zip(*parts, strict=True)))


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("curves", nargs="+")
    p.add_argument("--metric", required=True)
    p.add_argument("--goal", default="maximize")
    p.add_argument("--rules", nargs="+", default=list(RULES))
    p.add_argument("--workers", type=int, default=8)
    p.add_argument("--top", type=int, default=3)
    p.add_argument("--leave-one-out", action="store_true", help="also over all sweeps that lack one configuration")
    p.add_argument("--page", default="", help="write the Pareto plot to this HTML file")
    a = p.parse_args(argv)
    rows = [row for path in a.curves for row in read_rows(path)]
    rows = [
        r for r in rows if r.kind != "report" or a.metric in r.metrics or any(k.startswith("train/") for k in r.metrics)
    ]
    summaries = compare(rows, a.rules, metric=a.metric, goal=a.goal, workers=a.workers, top=a.top)
    print(table(summaries))
    how = {"goal": a.goal, "workers": a.workers, "top": a.top}
    for rule in (r for r in a.rules if r.startswith("dip-aware")):
        told = {"all runs": spared, **({"one configuration left out": leave_one_out} if a.leave_one_out else {})}
        for name, count in told.items():
            s = count(rows, rule, a.metric, **how)
            print(
                f"{rule}, {name}: {s.pruned} of {s.winners} recovering winners pruned;"
                f" {s.saved:.1%} of the steps after the trough of never-recovering runs saved"
            )
    if a.page:
        Path(a.page).write_text(comparison_page(summaries), encoding="utf-8")


if __name__ == "__main__":
    main()
