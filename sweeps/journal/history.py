"""Rows in, curves out: what is known about every trial of one sweep.

Rows of one (trial, step) may be partial, late, doubled or out of order; they merge by (trial, step, metric). A higher
attempt wins from the step it resumed at; what an older attempt says beyond that step is dropped (it was run again).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sweeps.journal.rows import BASE_PREFIX, Row, base_trial
from sweeps.setting_names import current_names

State = Literal["waiting", "running", "parked", "scoring", "completed", "pruned", "failed"]
ENDED: frozenset[str] = frozenset({"completed", "pruned", "failed"})


@dataclass(slots=True)
class Point:
    """All that is known of one trial at one step."""

    step: int
    metrics: dict[str, float] = field(default_factory=dict)
    se: dict[str, float] = field(default_factory=dict)
    n: dict[str, int] = field(default_factory=dict)
    invalid: dict[str, str] = field(default_factory=dict)
    suite: str = ""
    attempt: int = 0
    cost: dict[str, float] = field(default_factory=dict)
    progress: dict[str, float] = field(default_factory=dict)

    def merge(self, row: Row) -> None:
        self.metrics.update(row.metrics)
        self.se.update(row.se)
        self.n.update(row.n)
        self.invalid.update(row.invalid)
        for name in row.metrics:
            self.invalid.pop(name, None)
        self.suite = row.suite or self.suite
        self.attempt = max(self.attempt, row.attempt)
        self.cost.update(row.cost)
        self.progress.update(row.progress)


@dataclass(slots=True)
class Curve:
    """One trial: its configuration, its points in order of step, and how it stands."""

    trial: str
    config: Mapping[str, Any] = field(default_factory=dict)
    budget: int | None = None
    points: dict[int, Point] = field(default_factory=dict)
    attempt: int = 0
    resumed_from: dict[int, int] = field(default_factory=dict)
    state: State = "waiting"
    reason: str = ""
    detail: str = ""
    stopped_at: int | None = None
    phase: str = ""

    @property
    def model(self) -> str:
        return str(self.config.get("model", ""))

    @property
    def last_step(self) -> int:
        """The furthest step that was reported, 0 when none was."""
        return max(self.points, default=0)

    def steps(self, metric: str) -> list[int]:
        """Steps at which `metric` was measured, ascending."""
        return sorted(s for s, p in self.points.items() if metric in p.metrics)

    def values(self, metric: str) -> list[float]:
        """Values of `metric` at `steps(metric)`."""
        return [self.points[s].metrics[metric] for s in self.steps(metric)]

    def accepts(self, row: Row) -> bool:
        """False for what an older attempt says about steps that a newer one runs again."""
        return all(
            not (row.attempt < newer and row.step is not None and row.step > start)
            for newer, start in self.resumed_from.items()
        )

    def news(self, row: Row) -> bool:
        """True when a report row would change this curve: it is not fenced off, and not a copy of what is known."""
        if row.step is None or not self.accepts(row):
            return False
        point = self.points.get(row.step)
        if point is None:
            return True
        if row.attempt < point.attempt and all(m in point.metrics for m in row.metrics):
            return False
        return not (row.metrics.items() <= point.metrics.items() and row.invalid.items() <= point.invalid.items())


class History:
    """The fold of a journal. `fold` one row at a time, in journal order; read curves at any moment."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.curves: dict[str, Curve] = {}
        self.base: dict[str, Curve] = {}
        self.sweep: Row | None = None
        self.seq = -1
        for row in rows:
            self.fold(row)

    def fold(self, row: Row) -> bool:
        """Takes one row in; returns False when the row says nothing new or is fenced off."""
        self.seq = max(self.seq, row.seq)
        if row.kind == "sweep":
            self.sweep = row
            return True
        if not row.trial:
            return row.kind in ("control", "lease")
        curve = self._curve(row.trial)
        if row.config and not curve.config:
            curve.config = current_names(row.config)
        if row.budget is not None:
            curve.budget = row.budget
        return self._fold_trial_row(curve, row)

    def _fold_trial_row(self, curve: Curve, row: Row) -> bool:
        if row.kind == "attempt":
            start = row.step or 0
            curve.attempt = max(curve.attempt, row.attempt)
            curve.resumed_from[row.attempt] = start
            for step in [s for s, p in curve.points.items() if s > start and p.attempt < row.attempt]:
                del curve.points[step]
            curve.state = "running"
        elif row.kind == "report":
            return self._fold_report(curve, row)
        elif row.kind == "verdict":
            curve.phase = str(row.extra.get("phase", curve.phase))
            if row.extra.get("action") == "PARK":
                curve.state, curve.reason = "parked", str(row.extra.get("reason", ""))
            elif row.extra.get("action") == "STOP":
                curve.reason = str(row.extra.get("reason", ""))
        elif row.kind == "end":
            self._fold_end(curve, row)
        return True

    def _fold_report(self, curve: Curve, row: Row) -> bool:
        if row.step is None or not curve.news(row):
            return False
        curve.points.setdefault(row.step, Point(row.step)).merge(row)
        return True

    def _fold_end(self, curve: Curve, row: Row) -> None:
        status = str(row.extra.get("status", "completed"))
        curve.reason = str(row.extra.get("reason", curve.reason))
        curve.detail = str(row.extra.get("detail", ""))
        if row.extra.get("of", "scoring") == "training":
            curve.stopped_at = row.step
            curve.state = "scoring"
        else:
            curve.state = status if status in ENDED else "failed"  # type: ignore[assignment]
            curve.stopped_at = row.step if row.step is not None else curve.stopped_at

    def _curve(self, trial: str) -> Curve:
        home = self.base if trial.startswith(BASE_PREFIX) else self.curves
        if trial not in home:
            home[trial] = Curve(trial)
        return home[trial]

    def suite(self, trial: str) -> str:
        """Version of the suite by which a trial, or its base model, was scored first; "" before that."""
        curve = (self.base if trial.startswith(BASE_PREFIX) else self.curves).get(trial)
        if curve is None:
            return ""
        shared = self.base.get(base_trial(curve.model))
        known = [c for c in (shared, curve) if c is not None]
        return next((p.suite for c in known for p in c.points.values() if p.suite), "")

    def base_point(self, trial: str) -> Point | None:
        """Step 0 of a trial: the shared score of its base model, or its own row at step 0 where it has one."""
        curve = self.curves.get(trial)
        if curve is None:
            return None
        shared = self.base.get(base_trial(curve.model))
        if shared is not None and 0 in shared.points:
            return shared.points[0]
        return curve.points.get(0)

    def trials(self) -> Iterator[Curve]:
        """Curves in order of first appearance."""
        return iter(self.curves.values())
