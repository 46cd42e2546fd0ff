"""The simulated clock: a whole sweep under a stop rule in milliseconds, from curves that are already known.

The same contract as on a cluster: rows are numbered and handed to the rule in the order of their (simulated) time, a
verdict is asked for after every report, a paused trial gives its machine back and may be resumed when one is free. No
wall-clock time is read, so a run is reproduced to the row.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sweeps.controller.strategies import RULE, stumbled
from sweeps.errors import InputError
from sweeps.journal.rows import AttemptRow, EndRow, ReportRow, Row, TrialRow, VerdictRow
from sweeps.journal.vocabulary import EndStatus
from sweeps.stopping.base import Action, StopRule, Verdict

RESUME_REPORTS = 0.3  # restoring a checkpoint costs a trial this share of its mean time between two reports


@dataclass(frozen=True, slots=True)
class Recording:
    """What one trial would report if it were never stopped.

    Attributes:
        trial: its id; `start`: its `trial` row, which carries config and budget.
        reports: rows at ascending steps, the last one at the budget (or where the recording ends).
        seconds: cost of the way to each report from the one before, in any one unit.
        base: rows at step 0, handed to the rule when the trial starts.
    """

    trial: str
    start: TrialRow
    reports: tuple[ReportRow, ...]
    seconds: tuple[float, ...]
    base: tuple[Row, ...] = ()

    @property
    def cost(self) -> float:
        """Cost of the whole run."""
        return sum(self.seconds)


@dataclass(slots=True)
class Run:
    """How a trial fared: `done` counts its reports; `spent` is its cost, resumes included.

    `held` is the part of the cost that was spent only because the rule protected a dip it would else have paused.
    """

    done: int = 0
    spent: float = 0.0
    held: float = 0.0
    attempt: int = 0
    paused: bool = False
    ended: str = ""
    verdict: Verdict | None = None
    verdicts: list[tuple[int, Verdict]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A simulated sweep: one Run a trial, every row in order, costs, and the time until the last machine stood still."""

    runs: dict[str, Run]
    journal: list[Row]
    spent: float
    full: float
    makespan: float

    @property
    def saved(self) -> float:
        """Share of the cost of running everything to its budget that was not spent."""
        return 1.0 - self.spent / self.full if self.full else 0.0

    def completed(self, trial: str) -> bool:
        return self.runs[trial].ended == "completed"


def simulate(
    recordings: Sequence[Recording],
    rule: StopRule,
    *,
    sweep: str = "simulated",
    workers: int = 8,
    shared: Iterable[Row] = (),
) -> Outcome:
    """Runs recorded trials under `rule` on `workers` machines of one slot each.

    Args:
        recordings: in the order in which the trials are to start.
        rule: a fresh rule; it is fed every row, its own verdicts included.
        shared: rows known before the first trial starts (the base models' scores).

    Raises:
        StrategyError: the rule raised an error, or gave an answer that is none.
    """
    return _Clock(recordings, rule, sweep, workers).run(shared)


@contextmanager
def _telling(rule: StopRule) -> Iterator[None]:
    """Has an error of the rule's own told as that; it may be anybody's."""
    try:
        yield
    except Exception as e:
        raise stumbled(RULE, rule, e) from e


class _Clock:
    """The event loop: a heap of (time, order, trial), one entry a busy machine."""

    def __init__(self, recordings: Sequence[Recording], rule: StopRule, sweep: str, workers: int) -> None:
        self.by_id = {r.trial: r for r in recordings}
        self.waiting = [r.trial for r in reversed(recordings)]
        self.runs = {r.trial: Run() for r in recordings}
        self.place = {trial: i for i, trial in enumerate(self.runs)}
        self.rule, self.sweep, self.free = rule, sweep, workers
        self.heap: list[tuple[float, int, str]] = []
        self.now, self.order = 0.0, 0
        self.journal: list[Row] = []
        self.asleep: set[str] = set()

    def paused(self) -> list[str]:
        """Paused trials, in the order in which they were first started."""
        return sorted(self.asleep, key=self.place.__getitem__)

    def write(self, row: Row, attempt: int) -> None:
        row = replace(row, sweep=self.sweep, attempt=attempt, seq=len(self.journal))
        self.journal.append(row)
        with _telling(self.rule):
            self.rule.observe(row)

    def run(self, shared: Iterable[Row]) -> Outcome:
        for row in shared:
            self.write(row, 0)
        self.fill()
        while self.heap:
            self.now, _, trial = heapq.heappop(self.heap)
            self.arrive(trial)
            self.fill()
        for trial, run in self.runs.items():
            if run.paused:
                self.end(trial, "pruned")
        spent = sum(r.spent for r in self.runs.values())
        return Outcome(self.runs, self.journal, spent, sum(r.cost for r in self.by_id.values()), self.now)

    def fill(self) -> None:
        """Gives every free machine a new trial, or else the paused one that the rule wants back."""
        while self.free:
            if self.waiting:
                self.start(self.waiting.pop(), 0.0)
                continue
            paused = self.paused()
            with _telling(self.rule):
                trial = self.rule.choose_trial_to_resume(paused) if paused else None
                if trial is not None and trial not in paused:
                    raise InputError(f"choose_trial_to_resume returned {trial!r}; expected one of them, or None")
            if trial is None:
                return
            recording = self.by_id[trial]
            self.start(trial, RESUME_REPORTS * recording.cost / len(recording.reports))

    def start(self, trial: str, resume: float) -> None:
        run, recording = self.runs[trial], self.by_id[trial]
        run.attempt, run.paused = run.attempt + 1, False
        self.asleep.discard(trial)
        if run.attempt == 1:
            self.write(recording.start, 0)
        step = recording.reports[run.done - 1].step if run.done else 0
        self.write(AttemptRow(self.sweep, trial, step=step), run.attempt)
        if run.attempt == 1:
            for row in recording.base:
                self.write(row, 1)
        self.free -= 1
        run.spent += resume
        self.go(trial, resume)

    def go(self, trial: str, extra: float = 0.0) -> None:
        run = self.runs[trial]
        took = self.by_id[trial].seconds[run.done]
        run.spent += took
        self.order += 1
        heapq.heappush(self.heap, (self.now + extra + took, self.order, trial))

    def arrive(self, trial: str) -> None:
        run, recording = self.runs[trial], self.by_id[trial]
        self.write(recording.reports[run.done], run.attempt)
        run.done += 1
        if run.done == len(recording.reports):
            self.end(trial, "completed")
            self.free += 1
            return
        with _telling(self.rule):
            verdict = run.verdict = self.rule.decide(trial)
            if not isinstance(verdict, Verdict):
                raise InputError(f"decide returned {verdict!r}; expected a Verdict")
        if verdict.action is Action.CONTINUE:
            run.held += recording.seconds[run.done] if verdict.evidence.get("held") else 0.0
            self.go(trial)
            return
        run.verdicts.append((len(self.journal) - 1, verdict))
        self.write(verdict_row(self.sweep, trial, verdict, recording.reports[run.done - 1].step), run.attempt)
        self.free += 1
        if verdict.action is Action.PAUSE:
            run.paused = True
            self.asleep.add(trial)
        else:
            self.end(trial, "pruned")

    def end(self, trial: str, status: str) -> None:
        run, recording = self.runs[trial], self.by_id[trial]
        run.ended = status
        step = recording.reports[run.done - 1].step if run.done else 0
        reason = run.verdict.reason if status == "pruned" and run.verdict else ""
        row = EndRow(self.sweep, trial, step=step, status=EndStatus(status), reason=reason)
        self.write(row, run.attempt)


def verdict_row(sweep: str, trial: str, verdict: Verdict, step: int | None) -> VerdictRow:
    """Returns the journal row of a verdict."""
    return VerdictRow(
        sweep,
        trial,
        step=step,
        action=verdict.action,
        phase=verdict.phase,
        reason=verdict.reason,
        evidence=dict(verdict.evidence),
    )
