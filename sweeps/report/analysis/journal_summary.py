"""One pass over the journal: the state of the sweep (`SweepState`), and what only a report needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from sweeps.journal.history import Curve, History
from sweeps.journal.rows import AttemptRow, CommitRow, EvalRow, ReportRow, Row, SweepRow, VerdictRow
from sweeps.journal.state import SweepState
from sweeps.journal.vocabulary import Action, EvalStatus, TrialStatus
from sweeps.report.analysis.comparisons.pairing import Answers
from sweeps.report.analysis.findings.trials import AttemptRun, Decision, Spent


@dataclass(slots=True)
class TrialExtras:
    """Facts of one trial in the journal besides its curve."""

    waiting: set[int] = field(default_factory=set)  # snapshots that are whole or queued, and not scored yet
    eval_reasons: dict[int, str] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)  # snapshots that were given up unscored, to keep up
    answers: dict[int, Answers] = field(default_factory=dict)  # by step: right or wrong, item by item
    cut_short: dict[int, tuple[int, int]] = field(default_factory=dict)  # by step: items asked, of how many
    decisions: list[Decision] = field(default_factory=list)


class JournalSummary:
    """The journal, folded.

    Attributes:
        sweep: what the journal says, with scores of one suite only. extras: by trial, base models included.
        suite: the suite that is shown. other_suite: score rows under another one, left out.
        seq: the last row's place in the journal.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        kept = list(rows)
        self.suite = _suite(kept)
        self.other_suite = 0
        self._first_sweep = kept[0].sweep if kept else ""
        self.sweep = SweepState()
        self.extras: dict[str, TrialExtras] = {}
        for row in kept:
            self._apply(row)
        self.seq = self.history.seq

    def _apply(self, row: Row) -> None:
        if isinstance(row, ReportRow) and row.suite not in ("", self.suite):
            self.other_suite += 1
            row = _without_scores(row)
        self.sweep.apply(row)
        if row.trial:
            _add(self.extras_of(row.trial), row)

    @property
    def history(self) -> History:
        return self.sweep.history

    @property
    def interrupts(self) -> list[str]:
        return self.sweep.interrupts

    def extras_of(self, trial: str) -> TrialExtras:
        return self.extras.setdefault(trial, TrialExtras())

    @property
    def head(self) -> SweepRow:
        """The sweep's own row; an empty one when the journal has none."""
        return self.history.sweep or SweepRow("")

    def sweep_id(self) -> str:
        """The sweep's id; of a journal that has not got to the sweep's own row yet, from the driver's first one."""
        return self.head.sweep or self._first_sweep

    def line(self, trial: str) -> list[Curve]:
        """The trial's curve after those of its parents, oldest first; ends at a parent that the journal lacks."""
        alone = self.history.curves.get(trial)  # one whose own row the journal lacks
        return [known.curve for known in self.sweep.line(trial)][::-1] or ([alone] if alone is not None else [])

    def parent(self, trial: str) -> str | None:
        """The trial that a trial begins from; None for one that begins from the base model."""
        return self.sweep.trials[trial].parent or None if trial in self.sweep.trials else None

    def fork_step(self, trial: str) -> int | None:
        """The step up to which a trial's curve is its parent's: where it began, or will; None without a parent.

        Of a branch that was given up with its parent before it began, how far the parent had come.
        """
        known = self.sweep.trials.get(trial)
        if known is None or not known.parent:
            return None
        parent, begins = self.history.curves.get(known.parent), known.attempt or known.status is TrialStatus.WAITING
        return known.fork_step if parent is None or begins else min(known.fork_step, parent.last_step)

    def trained_by(self, trial: str, step: int) -> str:
        """Returns which trial trained a checkpoint that lies on a trial's curve: itself, or one that it turned off from later."""
        line = self.line(trial)
        return next((part.trial for part in reversed(line) if step > (self.fork_step(part.trial) or 0)), line[0].trial)

    def answers(self, trial: str, step: int) -> Answers | None:
        """Item by item what a trial, or one of its parents up to the fork, answered at a step."""
        for curve in reversed(self.line(trial)):
            if step in self.extras_of(curve.trial).answers:
                return self.extras_of(curve.trial).answers[step]
        return self.extras_of(trial).answers.get(step)

    def training(self, trial: str) -> Spent:
        return _spent(self.sweep.costs.training_of(trial))

    def scoring(self, trial: str) -> Spent:
        return _spent(self.sweep.costs.scoring_of(trial))

    def runs(self, curve: Curve) -> tuple[AttemptRun, ...]:
        """A trial's attempts: where each went on from, and what it cost."""
        costs = self.sweep.costs.training_by_attempt(curve.trial)
        return tuple(AttemptRun(n, start, _spent(costs.get(n, {}))) for n, start in sorted(curve.resumed_from.items()))

    def reason(self, curve: Curve) -> str:
        """Why the trial ended or was paused, with the detail of an error, and why it was paused before it was pruned."""
        extras = self.extras_of(curve.trial)
        why = ": ".join(part for part in (curve.reason, curve.detail) if part)
        paused = next((d for d in reversed(extras.decisions) if d.action == Action.PAUSE), None)
        if curve.state is not TrialStatus.PRUNED or paused is None or paused.reason in why:
            return why
        return f"{why}; paused at step {paused.step}: {paused.reason}"

    def state(self, curve: Curve) -> TrialStatus:
        """The trial's status."""
        return self.sweep.trial_status(curve.trial)


def _suite(rows: Iterable[Row]) -> str:
    """The suite most score rows are of; of two, the later."""
    seen: Counter[str] = Counter()
    last: dict[str, int] = {}
    for i, row in enumerate(rows):
        if isinstance(row, ReportRow) and row.suite:
            seen[row.suite] += 1
            last[row.suite] = i
    return max(seen, key=lambda s: (seen[s], last[s]), default="")


def _without_scores(row: ReportRow) -> ReportRow:
    kept = {k: v for k, v in row.metrics.items() if k.startswith(("train/", "perf/"))}
    return replace(row, metrics=kept, suite="")


def _add(extras: TrialExtras, row: Row) -> None:
    match row:
        case AttemptRow():
            extras.waiting = {s for s in extras.waiting if s <= (row.step or 0)}
        case VerdictRow():
            extras.decisions.append(Decision(row.seq, row.step, row.action, row.phase, row.reason))
        case CommitRow(step=int(step)):
            extras.waiting.discard(step) if row.dropped or row.damaged else extras.waiting.add(step)
        case EvalRow(step=int(step)):
            _add_eval(extras, row, step)
        case ReportRow(step=int(step)) if row.suite:
            extras.waiting.discard(step)
            if row.items:
                extras.answers[step] = Answers(row)


def _add_eval(extras: TrialExtras, row: EvalRow, step: int) -> None:
    """A failed try is tried again unless the row says that it was given up, or says nothing of trying."""
    if row.status is EvalStatus.QUEUED:
        extras.waiting.add(step)
    elif row.status is EvalStatus.FAILED and row.given_up is not False:
        extras.waiting.discard(step)
        extras.eval_reasons[step] = row.reason or "no reason given"
    elif row.status is EvalStatus.SKIPPED:
        extras.waiting.discard(step)
        extras.skipped.add(step)
    elif row.status is EvalStatus.DONE:
        extras.waiting.discard(step)
        extras.eval_reasons.pop(step, None)
        if row.asked:
            extras.cut_short[step] = (int(row.asked["items"]), int(row.asked["of"]))


def _spent(cost: Mapping[str, float]) -> Spent:
    return Spent(cost.get("cpu_s", 0.0), cost.get("gpu_s", 0.0))
