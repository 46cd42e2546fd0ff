"""What the stop rule says of a trial, and how trials end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeps.controller.branches import has_begun, trunk_text
from sweeps.controller.evaluation.jobs import is_close_to_verdict
from sweeps.controller.evaluation.queue import is_suspect
from sweeps.controller.record import SweepRecord
from sweeps.controller.strategies import UNJUDGED_SINCE
from sweeps.errors import InputError
from sweeps.failures import Failure, FailureKind
from sweeps.journal.rows import (
    AttemptRow,
    ControlRow,
    EndRow,
    LeaseRow,
    ReportRow,
    Row,
    TierRow,
    VerdictRow,
)
from sweeps.journal.state import TrialState
from sweeps.journal.vocabulary import (
    Action,
    ControlAction,
    EndOf,
    EndStatus,
    Phase,
    TrialStatus,
)
from sweeps.stopping.base import Verdict


class Verdicts:
    """Asks the stop rule after each report, and ends trials."""

    def __init__(self, record: SweepRecord) -> None:
        self.record = record

    def report(self, row: ReportRow) -> Verdict | None:
        """Writes a report; returns the verdict when its trial is not to go on."""
        return self.judge(row) if self.record.write(row) else None

    def judge(self, row: ReportRow, given: Verdict | None = None) -> Verdict | None:
        """Asks the rule about the trial of a report that was just written, and writes down what is new.

        Args:
            given: what it said of the rows up to this report, where it was asked before.
        """
        for child in self.record.state.children.get(row.trial, ()) if row.suite else ():
            branch = self.record.state.trials[child]
            if row.step is not None and (has_begun(branch) or branch.status is TrialStatus.PAUSED):
                self.inherit(child, row.step)
        known = self.record.state.trials.get(row.trial)
        if known is None or not has_begun(known):
            return None
        if known.status is not TrialStatus.RUNNING and known.id not in self.record.queue:
            return None  # scores of a trial in the queue count: its attempt broke off, and it may not be worth another
        if row.step is not None and row.step <= known.paused_at:
            # Judged before: a trial resumed without a later checkpoint would be paused there again and again.
            return None
        verdict = self._decided(row.trial) if given is None else given
        if verdict is None or (verdict.action is Action.CONTINUE and not self._is_new(verdict, known)):
            return None
        gives_up = verdict.action is not Action.CONTINUE and verdict.phase is not Phase.DIVERGED
        metric = self.record.plan.sweep.goal.metric
        if gives_up and (_is_unscored(known, metric) or (row.step or 0) >= self.record.specs[row.trial].steps):
            return None  # by the scores for which it was paused before; or its steps are all run, and only their score is missing
        self._write(verdict, known, row.step, self.record.state.history.seq if given is None else row.seq)
        return None if verdict.action is Action.CONTINUE else verdict

    def _decided(self, trial: str) -> Verdict | None:
        """Returns the rule's verdict; None where it has none, and the sweep ends."""
        return self.record.ask_rule(lambda: checked_verdict(self.record.rule.decide(trial)), None)

    def judge_unbegun(self, trial: str, trunk: TrialState) -> None:
        """Asks the rule about a branch before it begins, where its trunk was given up short of the fork (`branches`).

        It is judged by its trunk's scores, at its own budget. Where the trunk diverged, so would the branch: up to its fork it is
        the same run.
        """
        known = self.record.state.trials[trial]
        for step in sorted(trunk.curve.points):
            self.inherit(trial, step)
        verdict, at = self._decided(trial), trunk.verdict
        if verdict is None:
            return
        if at is not None and at.phase is Phase.DIVERGED:
            verdict = Verdict(Action.STOP, at.reason, at.phase, at.evidence)
        how = {
            Action.CONTINUE: "begins without",
            Action.PAUSE: "waits with",
            Action.STOP: "ended with",
        }[verdict.action]
        reason = f"{how} {trunk_text(trunk)}: {verdict.reason}"
        self._write(replace(verdict, reason=reason), known, known.curve.last_step, self.record.state.history.seq)

    def _write(self, verdict: Verdict, trial: TrialState, step: int | None, seen: int) -> None:
        """Writes a verdict down that rests on the rows up to `seen`; one that stops its trial ends it."""
        self.record.write(
            VerdictRow(
                self.record.sweep_id,
                trial.id,
                trial.attempt,
                step,
                action=verdict.action,
                phase=verdict.phase,
                reason=verdict.reason,
                evidence=verdict.evidence,
                seen=seen,
            )
        )
        if verdict.action is Action.STOP:
            self.end(trial.id, EndStatus.PRUNED, verdict.reason)

    def inherit(self, trial: str, step: int) -> None:
        """Writes what its parent measured at a step that they share as the trial's own, at no cost: one curve a trial."""
        known = self.record.state.trials[trial]
        point = self.record.state.history.curves[known.parent].points.get(step)
        if point is None or not point.suite or not 0 < step <= known.fork_step or known.ended:
            return
        metrics = {k: v for k, v in point.metrics.items() if not k.startswith("perf/")}
        self.record.write(
            ReportRow(
                self.record.sweep_id,
                trial,
                known.attempt,
                step,
                budget=self.record.specs[trial].steps,
                metrics=metrics,
                se=point.se,
                n=point.n,
                invalid=point.invalid,
                suite=point.suite,
                inherited=known.parent,
            )
        )

    def _is_new(self, verdict: Verdict, trial: TrialState) -> bool:
        """True when a verdict changes a trial's phase, or how closely it is looked at."""
        before = trial.verdict.phase if trial.verdict is not None else None
        return verdict.phase != before or is_suspect(verdict.phase, verdict.evidence) != is_close_to_verdict(trial)

    def end(
        self, trial: str, status: EndStatus, reason: str, *, detail: str = "", failure: FailureKind | None = None
    ) -> None:
        """Ends a trial."""
        known = self.record.state.trials[trial]
        self.record.write(
            EndRow(
                self.record.sweep_id,
                trial,
                known.attempt,
                known.curve.last_step,
                of=EndOf.SCORING,
                status=status,
                reason=reason,
                detail=detail,
                failure=failure,
            )
        )

    def fail(self, trial: str, failure: Failure) -> None:
        """Ends a trial as failed."""
        self.end(trial, EndStatus.FAILED, failure.reason, detail=failure.detail, failure=failure.kind)

    def restore(self, rows: Sequence[Row]) -> None:
        """Applies the journal's rows, and gives what the driver before left owing.

        One that died between a report and its verdict, or a verdict and its end, owes that. One whose rule or search stumbled
        owes the verdicts on all that it heard from then on: the rule is asked about each report where it stands among the rows,
        and sees none that came after.
        """
        owed, given = {row.seq: row for row in _unjudged(rows)}, list[tuple[ReportRow, Verdict]]()

        def ask(row: Row) -> None:
            trial, report = self.record.state.trials.get(row.trial), owed.get(row.seq)
            if report is None or trial is None or not has_begun(trial) or trial.ended:
                return
            if (verdict := self._decided(row.trial)) is not None:
                given.append((report, verdict))

        self.record.restore(rows, ask)
        strategies = self.record.strategies  # earlier reports were judged, also where it stumbles while it is rebuilt
        strategies.since = max(strategies.since, min(owed, default=self.record.state.history.seq))
        mine = (r for r in reversed(rows) if not isinstance(r, LeaseRow | TierRow))
        last = next((r for r in mine if not (isinstance(r, ReportRow) and r.inherited)), None)
        if (
            isinstance(last, VerdictRow)
            and last.action is Action.STOP
            and not self.record.state.trials[last.trial].ended
        ):
            self.end(last.trial, EndStatus.PRUNED, last.reason)
        for report, verdict in given:
            self.judge(report, verdict)
        if isinstance(last, ReportRow) and not owed:
            self.judge(last)


def _unjudged(rows: Sequence[Row]) -> list[ReportRow]:
    """Returns the reports on which the rule owes its verdict since it, or the search, stumbled; none where attempts have started
    since, nor of a trial of which somebody has asked something, which is judged anew."""
    ends = (r for r in reversed(rows) if isinstance(r, AttemptRow) or _is_interrupt(r))
    last, found = next(ends, None), list[ReportRow]()
    since = (last.args or {}).get(UNJUDGED_SINCE) if isinstance(last, ControlRow) else None
    if since is None:
        return found
    for row in rows:
        if isinstance(row, ReportRow) and not row.inherited:
            if row.seq <= since:  # at the last of these it may have stumbled
                found.clear()
            found.append(row)
        elif isinstance(row, ControlRow) and row.is_asked:
            found = [report for report in found if report.trial != row.trial]
    return found


def _is_interrupt(row: Row) -> bool:
    return isinstance(row, ControlRow) and row.action is ControlAction.INTERRUPT


def _is_unscored(trial: TrialState, metric: str) -> bool:
    """True for a trial that was paused and has no number since then of what it is worth; not where none was ever measured, and a
    rule goes by others of the trainer's."""
    steps = [s for s, p in trial.curve.points.items() if metric in p.metrics or metric in p.invalid]
    return bool(steps) and max(steps) <= trial.paused_at


def checked_verdict(given: Any) -> Verdict:
    """Returns a rule's answer as a row can hold it: with Python's own numbers in its evidence, and none that is not finite.

    Raises:
        InputError: it is no verdict. ValueError: its action or phase is none.
    """
    if not isinstance(given, Verdict):
        raise InputError(f"got {given!r}; expected a Verdict")
    if not isinstance(given.reason, str) or not isinstance(given.evidence, Mapping):
        raise InputError(f"got {given!r}; expected a reason, which is text, and evidence by name")
    evidence = {str(k): plain for k, v in given.evidence.items() if (plain := _plain(v)) is not None or v is None}
    return Verdict(Action(given.action), given.reason, Phase(given.phase), evidence)


def _plain(value: Any) -> Any:
    """Returns what JSON has for a value: None for a number that is not finite, text for what it has nothing for."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if callable(as_python := getattr(value, "tolist", None)):  # NumPy's and torch's numbers and arrays
        return _plain(as_python())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, int | str) else str(value)
