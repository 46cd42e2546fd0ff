"""What a person reads while a sweep runs: one line per event worth knowing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeps.config.plan import Plan
from sweeps.config.space import Axis
from sweeps.controller.requests import TrialCount
from sweeps.journal.rows import BASE_PREFIX, Row

SHORT = {
    "math/in_domain": "in-domain",
    "math/score": "math",
    "transfer/score": "transfer",
    "general/score": "general",
    "safety/refusal": "refusal",
}


class Narrator:
    """Turns rows into lines; rows not worth a line give None.

    Args:
        plan: whose axes tell trials apart.
    """

    def __init__(self, plan: Plan) -> None:
        self.axes: Mapping[str, Axis] = plan.sweep.space
        self.metric = plan.sweep.objective.metric
        self.count = TrialCount(plan)
        self.configs: dict[str, Mapping[str, Any]] = {}
        self.budgets: dict[str, int] = {}
        self.ended = 0
        self.over = False

    def line(self, row: Row) -> str | None:
        """Returns the line for a row."""
        self.count.take(row)
        if row.kind == "trial":
            self.configs[row.trial] = row.config
            self.budgets[row.trial] = row.budget or 0
            return None
        if row.kind == "attempt":
            again = f" (attempt {row.attempt}, from step {row.step})" if row.attempt > 1 else ""
            if row.extra.get("fork_step"):
                again = f" (from {row.extra['parent']} at step {row.step})"
            return f"{self.label(row.trial)} starts{again}"
        if row.kind == "report" and row.suite and not row.extra.get("inherited"):
            return f"{self.label(row.trial)} step {row.step}{self._of(row.trial)}: {self._scores(row)}"
        if row.kind == "verdict" and row.extra.get("action") != "CONTINUE":
            return f"{self.label(row.trial)} {row.extra['action']}: {row.extra['reason']}"
        if row.kind == "eval" and row.extra.get("status") == "failed":
            return f"{self.label(row.trial)} step {row.step} could not be scored: {row.extra['reason']}"
        if row.kind == "control":
            return f"{row.extra.get('action')} by {row.extra.get('who')}: {row.extra.get('reason', '')}"
        if row.kind == "end" and not row.trial:
            self.over = True
            return None
        if row.kind == "end" and row.extra.get("of") != "training":
            return self._end(row)
        return None

    def label(self, trial: str) -> str:
        """Returns `t-1a2b3c4d data=answer-only replay=0.1`: the id, and what tells the trial apart."""
        config = self.configs.get(trial, {})
        varied = [
            f"{name}={_short(config[name])}"
            for name, axis in self.axes.items()
            if name in config and len(set(axis.samples())) > 1
        ]
        return " ".join([trial, *varied])

    def _of(self, trial: str) -> str:
        return "" if trial.startswith(BASE_PREFIX) else f"/{self.budgets.get(trial, 0)}"

    def _scores(self, row: Row) -> str:
        names = {self.metric: self.metric, **SHORT}
        parts = [f"{names[m]} {row.metrics[m]:.2f}" for m in names if m in row.metrics]
        return ", ".join(parts) or "no scores"

    def _end(self, row: Row) -> str:
        self.ended += 1
        status, detail = row.extra.get("status"), row.extra.get("detail") or row.extra.get("reason")
        why = f": {detail}" if detail and status != "completed" else ""
        return f"{self.label(row.trial)} {status} at step {row.step} [{self.ended}/{self.count.total}]{why}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
