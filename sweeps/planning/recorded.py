"""Recorded curves for rehearsals: scores of fine-tunes that were never stopped, at any step of any budget.

Two sources: earlier sweeps of the same storage whose trials ran to their budgets, and, where there are too few of
those, the fine-tunes of tiny models that ship with dipsweep (`benchmarks.plan.pack_curves`).
"""

from __future__ import annotations

import json
import math
import random
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from sweeps.config.objective import Goal
from sweeps.journal.history import Curve, History, Point
from sweeps.journal.rows import Row

PACKED: Final = Path(__file__).parent / "recorded_curves.json"
FEWEST: Final = 8
"""Trials of one earlier sweep that ran to their budgets, below which the shipped curves say more."""

Scores = Mapping[str, tuple[float, float | None]]
"""Value and standard error by metric."""


@dataclass(frozen=True, slots=True)
class RecordedCurve:
    """One run's scores at ascending shares of its budget."""

    shares: tuple[float, ...]
    points: tuple[Scores, ...]

    def at(self, share: float) -> Scores:
        """Returns the scores at a share of the budget: between two recorded checkpoints on the line that joins them."""
        right = bisect_right(self.shares, share)
        if right == 0:
            return self.points[0]
        if right == len(self.shares):
            return self.points[-1]
        low, high = self.points[right - 1], self.points[right]
        w = (share - self.shares[right - 1]) / (self.shares[right] - self.shares[right - 1])
        return {m: ((1 - w) * low[m][0] + w * high[m][0], low[m][1]) for m in low if m in high}


@dataclass(frozen=True, slots=True)
class RecordedSweep:
    """The curves of one sweep that ran without a stop rule, and its base model's scores."""

    name: str
    base: Scores
    curves: tuple[RecordedCurve, ...]

    def measures(self, metrics: Iterable[str]) -> bool:
        """True when every curve has all these metrics at every checkpoint."""
        wanted = set(metrics)
        return all(wanted <= set(point) for curve in self.curves for point in curve.points)

    def renamed(self, names: Mapping[str, str]) -> RecordedSweep:
        """Returns the sweep with each metric `names[m]` also under the name `m`."""

        def with_names(scores: Scores) -> Scores:
            return {**scores, **{m: scores[old] for m, old in names.items() if old in scores}}

        curves = tuple(RecordedCurve(c.shares, tuple(map(with_names, c.points))) for c in self.curves)
        return RecordedSweep(self.name, with_names(self.base), curves)


@cache
def shipped_curves() -> tuple[RecordedSweep, ...]:
    """Returns the recordings that ship with dipsweep."""
    data = json.loads(PACKED.read_text(encoding="utf-8"))

    def scores(point: Mapping[str, Sequence[float]]) -> Scores:
        return {m: (v[0], v[1] if len(v) > 1 else None) for m, v in point.items()}

    return tuple(
        RecordedSweep(
            sweep["name"],
            scores(sweep["base"]),
            tuple(
                RecordedCurve(tuple(s / t["budget"] for s in t["at"]), tuple(map(scores, t["points"])))
                for t in sweep["trials"]
            ),
        )
        for sweep in data["sweeps"]
    )


def curves_for(goal: Goal, journals: Iterable[Sequence[Row]]) -> tuple[Sequence[RecordedSweep], str]:
    """Returns recordings with a goal's metrics, and their source in words.

    Args:
        journals: the rows of earlier sweeps; those with at least `FEWEST` trials that ran to their budgets count.

    A metric that was never recorded is stood in for by `transfer/score`, or by the recorded metric of the same role.
    """
    wanted = [goal.metric, *(c.metric for c in goal.constraints)]
    own = [found for rows in journals if (found := _recorded(rows, wanted)) is not None]
    if own:
        return own, f"curves of earlier sweeps here ({', '.join(one.name for one in own[-3:])})"
    shipped = shipped_curves()
    have = list(shipped[0].base)
    stands_in = {
        m: next((h for h in have if h.split("/")[0] == m.split("/")[0]), "transfer/score")
        for m in wanted
        if m not in have
    }
    other = f", {stands_in[goal.metric]} for {goal.metric}" if goal.metric in stands_in else ""
    count = sum(len(one.curves) for one in shipped)
    return [s.renamed(stands_in) for s in shipped], f"{count} recorded fine-tunes of tiny models{other}"


def _recorded(rows: Sequence[Row], metrics: Sequence[str]) -> RecordedSweep | None:
    history = History(row for row in rows if row.kind in ("sweep", "trial", "attempt", "report"))
    base = next((_scores(c.points[0]) for c in history.base.values() if 0 in c.points), {})
    curves = [found for curve in history.trials() if (found := _curve(curve, metrics)) is not None]
    name = rows[0].sweep if rows else ""
    return RecordedSweep(name, base, tuple(curves)) if len(curves) >= FEWEST and set(metrics) <= set(base) else None


def _curve(curve: Curve, metrics: Sequence[str]) -> RecordedCurve | None:
    steps = [s for s, p in sorted(curve.points.items()) if s and all(m in p.metrics for m in metrics)]
    if len(steps) < 4 or not curve.budget or steps[-1] < curve.budget:
        return None
    points = tuple(_scores(curve.points[s]) for s in steps)
    return RecordedCurve(tuple(s / curve.budget for s in steps), points)


def _scores(point: Point) -> Scores:
    return {m: (value, point.se.get(m)) for m, value in point.metrics.items() if math.isfinite(value)}


def noisy(scores: Scores, draw: random.Random) -> Scores:
    """Returns scores with another standard error of noise: what a second run of that kind might have shown."""
    return {m: (value + (se or 0.0) * draw.gauss(0.0, 1.0), se) for m, (value, se) in scores.items()}
