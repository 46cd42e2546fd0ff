"""One pass over the journal: the curves, and beside them what no curve holds (parents, costs, evaluations, suites)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sweeps.journal.history import Curve, History
from sweeps.journal.rows import BASE_PREFIX, Row
from sweeps.report.analysis.findings import Decision, Spent
from sweeps.report.analysis.pairing import Answers


@dataclass(slots=True)
class Aside:
    """What the journal says of one trial beside its curve."""

    parent: str | None = None
    fork_step: int | None = None
    training: dict[int, dict[str, float]] = field(default_factory=dict)  # by attempt; cumulative, so the largest counts
    scoring: dict[tuple[int, int | None], dict[str, float]] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)  # snapshots that are whole or queued, and not scored yet
    eval_reasons: dict[int, str] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)  # snapshots that were given up unscored, to keep up
    answers: dict[int, Answers] = field(default_factory=dict)  # by step: right or wrong, item by item
    cut_short: dict[int, tuple[int, int]] = field(default_factory=dict)  # by step: items asked, of how many
    decisions: list[Decision] = field(default_factory=list)
    training_status: str = ""
    detail: str = ""


class Evidence:
    """The journal, folded.

    Attributes:
        history: curves and base scores, of one suite only. asides: by trial, base models included.
        suite: the suite that is shown. other_suite: score rows under another one, left out.
        interrupts: why the sweep was interrupted, each time. seq: the last row's place in the journal.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        kept = list(rows)
        self.suite = _suite(kept)
        self.other_suite = 0
        self.history = History()
        self.asides: dict[str, Aside] = {}
        self.interrupts: list[str] = []
        for row in kept:
            self._take(row)
        self.seq = self.history.seq

    def _take(self, row: Row) -> None:
        if row.kind == "report" and row.suite not in ("", self.suite):
            self.other_suite += 1
            row = _without_scores(row)
        self.history.fold(row)
        if row.kind == "control" and row.extra.get("action") == "interrupt":
            self.interrupts.append(str(row.extra.get("reason", "")))
        if row.trial:
            _note(self.aside(row.trial), row)

    def aside(self, trial: str) -> Aside:
        return self.asides.setdefault(trial, Aside())

    @property
    def head(self) -> Mapping[str, Any]:
        """The sweep row's own keys (`name, spec, trials, version`); empty when the journal has none."""
        return self.history.sweep.extra if self.history.sweep is not None else {}

    def sweep_id(self) -> str:
        return self.history.sweep.sweep if self.history.sweep is not None else ""

    def line(self, trial: str) -> list[Curve]:
        """The trial's curve after those of its parents, oldest first; ends at a parent that the journal lacks."""
        line: list[Curve] = []
        name: str | None = trial
        while name is not None and name in self.history.curves and all(c.trial != name for c in line):
            line.insert(0, self.history.curves[name])
            name = self.aside(name).parent
        return line

    def answers(self, trial: str, step: int) -> Answers | None:
        """Item by item what a trial, or one of its parents up to the fork, answered at a step."""
        for curve in reversed(self.line(trial)):
            if step in self.aside(curve.trial).answers:
                return self.aside(curve.trial).answers[step]
        return self.aside(trial).answers.get(step)

    def training(self, trial: str) -> Spent:
        return _total(self.aside(trial).training.values())

    def scoring(self, trial: str) -> Spent:
        return _total(self.aside(trial).scoring.values())

    def reason(self, curve: Curve) -> str:
        """Why the trial ended or was parked, with the detail of an error, and why it was parked before it was pruned."""
        aside = self.aside(curve.trial)
        why = ": ".join(part for part in (curve.reason, aside.detail) if part)
        parked = next((d for d in reversed(aside.decisions) if d.action == "PARK"), None)
        if curve.state != "pruned" or parked is None or parked.reason in why:
            return why
        return f"{why}; parked at step {parked.step}: {parked.reason}"

    def state(self, curve: Curve) -> str:
        """The trial's state; a training that failed or was pruned has decided it before the last score is in."""
        status = self.aside(curve.trial).training_status
        return status if curve.state == "scoring" and status in ("failed", "pruned") else curve.state


def _suite(rows: Iterable[Row]) -> str:
    """The suite most score rows are of; of two, the later."""
    seen: Counter[str] = Counter()
    last: dict[str, int] = {}
    for i, row in enumerate(rows):
        if row.kind == "report" and row.suite:
            seen[row.suite] += 1
            last[row.suite] = i
    return max(seen, key=lambda s: (seen[s], last[s]), default="")


def _without_scores(row: Row) -> Row:
    kept = {k: v for k, v in row.metrics.items() if k.startswith(("train/", "perf/"))}
    return replace(row, metrics=kept, suite="")


def _note(aside: Aside, row: Row) -> None:
    if row.kind == "trial":
        aside.parent = row.extra.get("parent") or aside.parent
        aside.fork_step = row.extra.get("fork_step", aside.fork_step)
    elif row.kind == "attempt":
        aside.training_status = aside.detail = ""
        aside.waiting = {s for s in aside.waiting if s <= (row.step or 0)}
    elif row.kind == "verdict":
        aside.decisions.append(
            Decision(
                row.seq,
                row.step,
                *(str(row.extra.get(name, "")) for name in ("action", "phase", "reason")),
            )
        )
    elif row.kind == "end":
        aside.detail = str(row.extra.get("detail", ""))
        if row.extra.get("of") == "training":
            aside.training_status = str(row.extra.get("status", ""))
    elif row.kind == "commit" and row.step is not None:
        aside.waiting.discard(row.step) if row.extra.get("dropped") else aside.waiting.add(row.step)
    elif row.kind == "eval":
        _note_eval(aside, row)
    elif row.kind == "report" and row.suite and row.step is not None:
        aside.waiting.discard(row.step)
        if row.extra.get("items"):
            aside.answers[row.step] = Answers(row)
    _note_cost(aside, row)


def _note_eval(aside: Aside, row: Row) -> None:
    """A failed try is tried again unless the row says that it was given up, or says nothing of trying."""
    if row.step is None:
        return
    status = row.extra.get("status")
    if status == "queued":
        aside.waiting.add(row.step)
    elif status == "failed" and row.extra.get("given_up", True):
        aside.waiting.discard(row.step)
        aside.eval_reasons[row.step] = str(row.extra.get("reason", "no reason given"))
    elif status == "skipped":
        aside.waiting.discard(row.step)
        aside.skipped.add(row.step)
    elif status == "done":
        aside.waiting.discard(row.step)
        aside.eval_reasons.pop(row.step, None)
        asked = row.extra.get("asked")
        if isinstance(asked, Mapping):
            aside.cut_short[row.step] = (int(asked["items"]), int(asked["of"]))


def _note_cost(aside: Aside, row: Row) -> None:
    """Trainers report what an attempt cost so far, evaluators what one snapshot cost; a base model is only scored."""
    if not row.cost:
        return
    if row.kind == "eval" or row.trial.startswith(BASE_PREFIX):
        _raise(aside.scoring.setdefault((row.attempt, row.step), {}), row.cost)
    elif row.kind in ("report", "end"):
        _raise(aside.training.setdefault(row.attempt, {}), row.cost)


def _raise(known: dict[str, float], seen: Mapping[str, float]) -> None:
    for name, value in seen.items():
        known[name] = max(value, known.get(name, 0.0))


def _total(costs: Iterable[Mapping[str, float]]) -> Spent:
    total = Spent()
    for cost in costs:
        total += Spent(cost.get("cpu_s", 0.0), cost.get("gpu_s", 0.0))
    return total
