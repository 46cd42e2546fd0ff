"""What a person reads while a sweep runs: one line per event worth knowing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.config.plan import Plan
from sweeps.config.space import Axis
from sweeps.controller.requests import TrialCount
from sweeps.journal.rows import (
    BASE_PREFIX,
    REFUSED,
    AttemptRow,
    ControlRow,
    EndRow,
    EvalRow,
    ReportRow,
    Row,
    VerdictRow,
)
from sweeps.journal.silent_base import silence
from sweeps.journal.state import SweepState
from sweeps.journal.vocabulary import ENDED, Action, ControlAction, EndOf, EndStatus, EvalStatus

SHORT = {
    "math/in_domain": "in-domain",
    "math/score": "math",
    "transfer/score": "transfer",
    "general/score": "general",
    "safety/refusal": "refusal",
}


class EventFormatter:
    """Turns rows into lines; rows not worth a line give None.

    Args:
        plan: whose axes tell trials apart.
        state: what the journal says up to the row that is formatted; one of its own, to which it applies each row, by default.
    """

    def __init__(self, plan: Plan, state: SweepState | None = None) -> None:
        self.axes: Mapping[str, Axis] = plan.sweep.axes
        self.metric = plan.sweep.objective.metric
        self.looked_at = self.metric if plan.sweep.objective.goal == "maximize" else ""
        self.follows = state is None
        self.state = SweepState() if state is None else state
        self.count = TrialCount(plan, self.state)

    def format(self, row: Row) -> str | None:
        """Returns the line for a row."""
        if self.follows:
            self.state.apply(row)
        match row:
            case AttemptRow():
                return f"{self.label(row.trial)} starts{_from(row)}"
            case ReportRow() if row.suite and not row.inherited:
                line = f"{self.label(row.trial)} step {row.step}{self._budget(row.trial)}: {self._scores(row)}"
                return line + self._silence(row)
            case VerdictRow() if row.action is not Action.CONTINUE:
                return f"{self.label(row.trial)} {row.action}: {row.reason}"
            case EvalRow(status=EvalStatus.FAILED):
                return f"{self.label(row.trial)} step {row.step} could not be scored: {row.reason}"
            case ControlRow(action=ControlAction.WAIT):
                return f"{self.label(row.trial)} waits: {row.reason}"
            case ControlRow():
                return f"{row.action}{REFUSED if row.refused else ''} by {row.who}: {row.reason}"
            case EndRow() if row.trial and row.of is not EndOf.TRAINING:
                return self._end(row)
        return None

    def label(self, trial: str, config: Mapping[str, Any] | None = None) -> str:
        """Returns `t-1a2b3c4d data=answer-only replay=0.1`: the id, and the settings that distinguish the trial."""
        if config is None:
            curve = self.state.history.curves.get(trial)
            config = curve.config if curve is not None else {}
        varied = [
            f"{name}={_short(config[name])}"
            for name, axis in self.axes.items()
            if name in config and len(set(axis.samples())) > 1
        ]
        return " ".join([trial, *varied])

    def _budget(self, trial: str) -> str:
        curve = self.state.history.curves.get(trial)
        return f"/{curve.budget or 0}" if curve is not None else ""

    def _scores(self, row: ReportRow) -> str:
        names = {self.metric: self.metric, **SHORT}
        parts = [f"{names[m]} {row.metrics[m]:.2f}" for m in names if m in row.metrics]
        return ", ".join(parts) or "no scores"

    def _silence(self, row: ReportRow) -> str:
        if row.step != 0 or not row.trial.startswith(BASE_PREFIX):
            return ""
        told = silence(row.trial.removeprefix(BASE_PREFIX), row.metrics, row.se, row.n, self.looked_at)
        return f"\nwarning: {told}" if told else ""

    def _end(self, row: EndRow) -> str:
        ended = sum(len(self.state.history.by_state[status]) for status in ENDED)
        detail = row.detail or row.reason
        why = f": {detail}" if detail and row.status is not EndStatus.COMPLETED else ""
        return f"{self.label(row.trial)} {row.status} at step {row.step} [{ended}/{self.count.total}]{why}"


def _from(row: AttemptRow) -> str:
    if row.fork_step:
        return f" (from {row.parent} at step {row.step})"
    return f" (attempt {row.attempt}, from step {row.step})" if row.attempt > 1 else ""


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
