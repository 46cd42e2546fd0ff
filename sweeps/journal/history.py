"""Rows in, curves out: what is known about every trial of one sweep.

Rows of one (trial, step) may be partial, late, doubled or out of order; they merge by (trial, step, metric). A higher
attempt wins from the step it resumed at; what an older attempt says beyond that step is dropped (it was run again).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.journal.rows import (
    BASE_PREFIX,
    AttemptRow,
    CommitRow,
    ControlRow,
    EndRow,
    LeaseRow,
    NoteRow,
    ReportRow,
    Row,
    SweepRow,
    VerdictRow,
    base_trial,
)
from sweeps.journal.vocabulary import ENDED as ENDED
from sweeps.journal.vocabulary import Action, ControlAction, EndOf, EndStatus, TrialStatus
from sweeps.setting_names import current_names


@dataclass(slots=True)
class Point:
    """All that is known of one trial at one step; `inherited` is the parent that trained it, "" where the trial did itself."""

    step: int
    metrics: dict[str, float] = field(default_factory=dict)
    se: dict[str, float] = field(default_factory=dict)
    n: dict[str, int] = field(default_factory=dict)
    invalid: dict[str, str] = field(default_factory=dict)
    suite: str = ""
    attempt: int = 0
    cost: dict[str, float] = field(default_factory=dict)
    progress: dict[str, float] = field(default_factory=dict)
    inherited: str = ""

    def merge(self, row: ReportRow) -> None:
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
        if row.suite or row.inherited:
            self.inherited = row.inherited


@dataclass(slots=True)
class Curve:
    """One trial: its configuration, its points in order of step, and its status.

    Attributes:
        resumed_from: step from which each attempt went on.
        state: how the trial stands; rows change it, and nothing else does. reason, detail: why it ended, was
            paused, or waits to go on.
        stopped_at: the step at which its training ended. phase: as the stop rule saw it last.
    """

    trial: str
    config: Mapping[str, Any] = field(default_factory=dict)
    budget: int | None = None
    points: dict[int, Point] = field(default_factory=dict)
    attempt: int = 0
    resumed_from: dict[int, int] = field(default_factory=dict)
    state: TrialStatus = TrialStatus.WAITING
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
        step = row.step
        if step is None or row.attempt >= self.attempt:  # the latest attempt's own
            return True
        return all(row.attempt >= newer or step <= start for newer, start in self.resumed_from.items())

    def is_news(self, row: ReportRow) -> bool:
        """True when a report would change this curve: it is not fenced off, and not a copy of what is known."""
        if row.step is None or not self.accepts(row):
            return False
        point = self.points.get(row.step)
        if point is None:
            return True
        if row.attempt < point.attempt and all(m in point.metrics for m in row.metrics):
            return False
        return not (row.metrics.items() <= point.metrics.items() and row.invalid.items() <= point.invalid.items())


class History:
    """The fold of a journal into curves. `fold` one row at a time, in journal order; read curves at any moment."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.curves: dict[str, Curve] = {}
        self.base: dict[str, Curve] = {}
        self.by_state: dict[TrialStatus, set[str]] = {state: set() for state in TrialStatus}
        self.sweep: SweepRow | None = None
        self.seq = -1
        for row in rows:
            self.fold(row)

    def fold(self, row: Row) -> bool:
        """Takes one row in; returns False when the row says nothing new or is fenced off."""
        self.seq = max(self.seq, row.seq)
        if isinstance(row, SweepRow):
            self.sweep = row
            return True
        if isinstance(row, LeaseRow):
            self._fold_lease()
            return True
        if isinstance(row, NoteRow):
            return True  # it changes nothing that is known of a trial
        if not row.trial:
            return isinstance(row, ControlRow)
        curve = self.curve(row.trial)
        if row.config and not curve.config:
            curve.config = current_names(row.config)
        if row.budget is not None:
            curve.budget = row.budget
        return self._fold_trial_row(curve, row)

    def _fold_lease(self) -> None:
        """What ran under the driver before waits for this one to start it again."""
        for trial in list(self.by_state[TrialStatus.RUNNING]):
            self._set_state(self.curve(trial), TrialStatus.WAITING)

    def _fold_trial_row(self, curve: Curve, row: Row) -> bool:
        match row:
            case ReportRow():
                return self._fold_report(curve, row)
            case AttemptRow():
                self._fold_attempt(curve, row)
            case VerdictRow():
                self._fold_verdict(curve, row)
            case ControlRow(action=ControlAction.RETRY | ControlAction.YIELD, refused=False):
                self._set_state(curve, TrialStatus.WAITING)
                curve.reason, curve.detail = row.reason, row.detail
            case ControlRow(action=ControlAction.WAIT):
                curve.reason = row.reason
            case CommitRow() if curve.state is TrialStatus.RUNNING:
                curve.reason = ""  # what it waited for is there
            case EndRow():
                self._fold_end(curve, row)
        return True

    def _fold_report(self, curve: Curve, row: ReportRow) -> bool:
        if row.step is None or not curve.is_news(row):
            return False
        curve.points.setdefault(row.step, Point(row.step)).merge(row)
        return True

    def _fold_attempt(self, curve: Curve, row: AttemptRow) -> None:
        start = row.step or 0
        curve.attempt = max(curve.attempt, row.attempt)
        curve.resumed_from[row.attempt] = start
        for step in [s for s, p in curve.points.items() if s > start and p.attempt < row.attempt]:
            del curve.points[step]
        curve.reason = curve.detail = ""
        self._set_state(curve, TrialStatus.RUNNING)

    def _fold_verdict(self, curve: Curve, row: VerdictRow) -> None:
        curve.phase = row.phase
        if row.action is Action.CONTINUE:
            return
        curve.reason = row.reason
        if row.action is Action.PAUSE:
            self._set_state(curve, TrialStatus.PAUSED)

    def _fold_end(self, curve: Curve, row: EndRow) -> None:
        curve.reason = curve.reason if row.reason is None else row.reason
        curve.detail = row.detail
        curve.stopped_at = row.step if row.step is not None else curve.stopped_at
        if row.of is EndOf.TRAINING and row.status is EndStatus.COMPLETED:
            self._set_state(curve, TrialStatus.SCORING)
        else:  # a training that failed or was pruned has decided the trial before the last score is in
            self._set_state(curve, TrialStatus.FAILED if row.status is EndStatus.DONE else TrialStatus(row.status))

    def _set_state(self, curve: Curve, state: TrialStatus) -> None:
        self.by_state[curve.state].discard(curve.trial)
        self.by_state[state].add(curve.trial)
        curve.state = state

    def curve(self, trial: str) -> Curve:
        """Returns the curve of a trial or of a base model; an empty one where it has no rows yet."""
        home = self.base if trial.startswith(BASE_PREFIX) else self.curves
        if trial not in home:
            home[trial] = Curve(trial)
            if home is self.curves:
                self.by_state[TrialStatus.WAITING].add(trial)
        return home[trial]

    def suite(self, trial: str) -> str:
        """Version of the suite by which a trial, or its base model, was scored first; "" before that."""
        curve = (self.base if trial.startswith(BASE_PREFIX) else self.curves).get(trial)
        if curve is None:
            return ""
        shared = self.base.get(base_trial(curve.model))
        known = [c for c in (shared, curve) if c is not None]
        return next((p.suite for c in known for p in c.points.values() if p.suite), "")

    def trained_by(self, trial: str, step: int) -> str:
        """Returns which trial trained the checkpoint that another, or it itself, was scored by at a step."""
        seen = set[str]()
        while trial not in seen and (curve := self.curves.get(trial)) is not None and step in curve.points:
            seen.add(trial)
            trial = curve.points[step].inherited or trial
        return trial

    def base_point(self, trial: str) -> Point | None:
        """Step 0 of a trial: the shared score of its base model, or its own row at step 0 where it has one."""
        curve = self.curves.get(trial)
        if curve is None:
            return None
        shared = self.base.get(base_trial(curve.model))
        if shared is not None and 0 in shared.points:
            return shared.points[0]
        return curve.points.get(0)

    def base_scores(self, trial: str) -> Mapping[str, float]:
        """The scores of `base_point`; empty where there are none."""
        point = self.base_point(trial)
        return point.metrics if point is not None else {}

    def trials(self) -> Iterator[Curve]:
        """Curves in order of first appearance."""
        return iter(self.curves.values())


def rows_of_runs(rows: Iterable[Row]) -> list[Row]:
    """Returns rows without the scores that branches have of their trunk and never began themselves: each run counts once.

    Recordings of reports alone do not say which runs began: all of theirs count.
    """
    kept = list(rows)
    begun = {(row.sweep, row.trial) for row in kept if isinstance(row, AttemptRow)}
    told = {sweep for sweep, _ in begun}
    return [
        row
        for row in kept
        if not (
            isinstance(row, ReportRow) and row.inherited and row.sweep in told and (row.sweep, row.trial) not in begun
        )
    ]
