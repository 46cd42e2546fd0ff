"""A sweep in numbers for Prometheus: rows in, samples out. Pure; `cluster.observe.exporter` carries the samples to Ray.

Series that name a trial exist only while the trial is open, and for at most MOST_TRIALS of them: what has ended stays in
Prometheus' own history and in the report. So the number of live series is bounded by a constant, whatever the size of a
sweep, and so is the memory here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from sweeps.config.names import ROLES
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.controller.requests import TrialCount
from sweeps.journal.rows import (
    AttemptRow,
    ControlRow,
    EndRow,
    LeaseRow,
    ReportRow,
    Row,
    SweepRow,
    TrialRow,
    VerdictRow,
)
from sweeps.journal.state import SweepState, is_base
from sweeps.journal.vocabulary import EndOf, TrialStatus

MOST_TRIALS: Final = 100
MOST_METRICS: Final = 24
"""Scores of one trial; the objective first, then by name. The paper's suite has 14."""


class Family(NamedTuple):
    """One metric: its kind, what it says, and its labels beside `sweep`."""

    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ()


FAMILIES: Final[Mapping[str, Family]] = {
    "dipsweep_score": Family("gauge", "Latest score of a trial, in the metric's own unit", ("trial", "role", "metric")),
    "dipsweep_objective": Family("gauge", "1 for the metric that the sweep is after", ("metric",)),
    "dipsweep_best": Family("gauge", "Best last score of completed trials that meet the constraints", ("metric",)),
    "dipsweep_step": Family("gauge", "Optimizer steps a trial has run", ("trial",)),
    "dipsweep_budget": Family("gauge", "Optimizer steps a trial is meant to run", ("trial",)),
    "dipsweep_trial_phase": Family("gauge", "1 for the phase that a trial is in", ("trial", "phase")),
    "dipsweep_tokens_per_s": Family("gauge", "Training tokens a second of a trial, over all its workers", ("trial",)),
    "dipsweep_mfu": Family("gauge", "Model FLOP/s of a trial as a share of its devices' peak", ("trial",)),
    "dipsweep_trials": Family("gauge", "Trials by state", ("state",)),
    "dipsweep_planned_trials": Family("gauge", "Trials the sweep is meant to have"),
    "dipsweep_trials_in_phase": Family("gauge", "Open trials by phase", ("phase",)),
    "dipsweep_verdicts": Family("counter", "Verdicts of the stop rule", ("action", "phase")),
    "dipsweep_queue": Family("gauge", "What waits: trials for machines, checkpoints for evaluators", ("queue",)),
    "dipsweep_gpu_hours": Family("gauge", "GPU hours spent", ("part",)),
    "dipsweep_cpu_hours": Family("gauge", "CPU hours spent", ("part",)),
    "dipsweep_saved_gpu_hours": Family("gauge", "GPU hours that pruned trials would have cost (at their own pace)"),
    "dipsweep_saved_steps": Family("gauge", "Optimizer steps that pruned trials did not run"),
    "dipsweep_starts": Family(
        "gauge", "Attempts that reached their first step, by the processes they began in", ("processes",)
    ),
    "dipsweep_start_up_seconds": Family("gauge", "Seconds of workers from launch to first step, of all attempts"),
    "dipsweep_saved_start_up_seconds": Family(
        "gauge", "Seconds that new processes would have taken where others went on"
    ),
}


class Sample(NamedTuple):
    """One value of one series."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(slots=True)
class _Trial:
    row: TrialRow
    step: int = 0
    attempt: int = 0
    scores: dict[str, ReportRow] = field(default_factory=dict)  # the row of each metric's last step
    perf: dict[str, float] = field(default_factory=dict)  # of the attempt that runs


class _Best:
    """The best value of the objective as the report will say it, by the report's own judgement.

    A trial is judged when the number is read, not when its row is written: whatever goes wrong here stays out of the
    driver's loop. Asked is only about trials that would be the best, from the top: a few in a sweep, 0.5 ms each.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.goal = goal = sweep.goal
        self.metrics = dict.fromkeys([goal.metric, *(c.metric for c in goal.constraints)])
        self.facts: list[Row] = [SweepRow(sweep.id, spec=sweep.to_json())]  # and the base models' scores
        self.pending: list[tuple[float, list[Row]]] = []
        self.unevaluated: list[tuple[float, list[Row]]] = []  # a constraint was not measured, maybe on the base model
        self.value: float | None = None

    def base(self, row: ReportRow) -> None:
        """Takes scores of a base model in, which may come after trials of it have completed."""
        self.facts.append(replace(row, items={}, parts=None))
        self.pending, self.unevaluated = [*self.pending, *self.unevaluated], []

    def completed(self, trial: _Trial, end: EndRow) -> None:
        """Takes a completed trial in, by its last scores."""
        if self.goal.metric not in trial.scores:
            return
        last = [replace(trial.scores[m], items={}, parts=None) for m in self.metrics if m in trial.scores]
        value = trial.scores[self.goal.metric].metrics[self.goal.metric]
        # It has its parent's scores as its own.
        self.pending.append((value, [replace(trial.row, parent="", fork_step=None), *last, end]))

    def read(self) -> float | None:
        """Returns the best value now; None when no trial has one."""
        if not self.pending:
            return self.value
        from sweeps.report.analysis.summarize import summarize

        sign = self.goal.sign
        for value, rows in sorted(self.pending, key=lambda one: -sign * one[0]):
            if self.value is not None and sign * value <= sign * self.value:
                break
            summary = summarize([*self.facts, *rows])
            if summary.best:
                self.value = value
            elif summary.trials[0].meets is None:
                self.unevaluated.append((value, rows))
        self.pending = []
        return self.value


class SweepMetrics:
    """The numbers of one sweep.

    Args:
        sweep: whose. state: what its journal says, the row that is taken in included; one of its own by default.
    """

    def __init__(self, sweep: Sweep, state: SweepState | None = None) -> None:
        self.sweep, self.metric = sweep.id, sweep.objective.metric
        self.follows = state is None
        self.state = SweepState() if state is None else state
        self.count, self.best = TrialCount(Plan(sweep), self.state), _Best(sweep)
        self.total = self.count.total
        self.open: dict[str, _Trial] = {}
        self.ended: dict[str, TrialStatus] = {}
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.saved_steps, self.saved_gpu_s = 0, 0.0

    @property
    def done(self) -> int:
        """Trials that have ended."""
        return len(self.ended)

    def progress(self) -> str:
        """Returns how far the sweep is, in one line."""
        value, total = self.best.read(), self.total
        best = "" if value is None else f", best {self.metric} {value:.3f}"
        return f"{self.done} of {total} trial{'s' if total != 1 else ''} ended{best}"

    def apply(self, row: Row) -> None:
        """Takes one row in; rows of an earlier driver too, in the order of the journal."""
        if self.follows:
            self.state.apply(row)
        match row:
            case TrialRow():
                self.open[row.trial] = _Trial(row)
                self.total = self.count.total
            case ControlRow():
                self.total = self.count.total
            case AttemptRow() if self.ended.pop(row.trial, None):  # it had failed, and somebody had it tried again
                self.open[row.trial] = _Trial(self.state.trials[row.trial].row)
            case LeaseRow():  # a new driver: nothing trains under it yet
                for trial in self.open.values():
                    trial.perf = {}
            case ReportRow() if is_base(row.trial):
                self.best.base(row)
        if (known := self.open.get(row.trial)) is not None:
            self._apply_to_trial(row, known)

    def _apply_to_trial(self, row: Row, trial: _Trial) -> None:
        if self.state.trials[row.trial].status is not TrialStatus.RUNNING:
            trial.perf = {}  # a pace that a trial no longer has is not shown
        match row:
            case AttemptRow():
                trial.attempt, trial.perf = row.attempt, {}
                trial.scores = {m: r for m, r in trial.scores.items() if (r.step or 0) <= (row.step or 0)}
            case ReportRow():
                self._report(trial, row)
            case VerdictRow():
                self.verdicts[row.action, row.phase] += 1
            case EndRow(of=EndOf.SCORING):
                self._end(trial, row)

    def _report(self, trial: _Trial, row: ReportRow) -> None:
        trial.step = max(trial.step, row.step or 0)
        running = self.state.trials[row.trial].status is TrialStatus.RUNNING
        for name, value in row.metrics.items():
            role = name.partition("/")[0]
            if role == "perf":
                if running and row.attempt == trial.attempt:
                    trial.perf[name] = value
            elif role in ROLES or name in self.best.metrics:
                last = trial.scores.get(name)
                if last is None or (row.step or 0) >= (last.step or 0):  # scores of an earlier step may come later
                    trial.scores[name] = row

    def _end(self, trial: _Trial, row: EndRow) -> None:
        del self.open[row.trial]
        status = self.ended[row.trial] = TrialStatus(row.status)
        if status is TrialStatus.COMPLETED:
            self.best.completed(trial, row)
        elif status is TrialStatus.PRUNED:
            missing = max(0, (trial.row.budget or 0) - trial.step)
            own = trial.step - (trial.row.fork_step or 0)
            gpu_s = self.state.costs.training_of(row.trial).get("gpu_s", 0.0)
            self.saved_steps += missing
            self.saved_gpu_s += gpu_s / own * missing if own > 0 else 0.0

    def samples(self, queues: Mapping[str, int] | None = None) -> Iterator[Sample]:
        """Yields the value of every series as it is now; a series that is not there has ceased to be.

        Args:
            queues: lengths of queues, by name.
        """
        states = Counter([*map(self.state.trial_status, self.open), *self.ended.values()])
        for state in TrialStatus:
            yield self._sample("dipsweep_trials", states[state], state=state)
        yield self._sample("dipsweep_planned_trials", self.total)
        for phase, number in Counter(map(self._phase, self.open)).items():
            yield self._sample("dipsweep_trials_in_phase", number, phase=phase)
        for (action, phase), number in self.verdicts.items():
            yield self._sample("dipsweep_verdicts", number, action=action, phase=phase)
        for queue, length in (queues or {}).items():
            yield self._sample("dipsweep_queue", length, queue=queue)
        yield from self._costs()
        yield self._sample("dipsweep_objective", 1, metric=self.metric)
        if (best := self.best.read()) is not None:
            yield self._sample("dipsweep_best", best, metric=self.metric)
        waits = {name: self.state.trial_status(name) is TrialStatus.WAITING for name in self.open}
        for name in sorted(self.open, key=waits.__getitem__)[:MOST_TRIALS]:
            yield from self._trial(name, self.open[name])

    def _costs(self) -> Iterator[Sample]:
        for part, spent in {"training": self.state.costs.training, "scoring": self.state.costs.scoring}.items():
            for unit in ("gpu", "cpu"):
                yield self._sample(f"dipsweep_{unit}_hours", spent.get(f"{unit}_s", 0.0) / 3600, part=part)
        yield self._sample("dipsweep_saved_gpu_hours", self.saved_gpu_s / 3600)
        yield self._sample("dipsweep_saved_steps", self.saved_steps)
        starts = self.state.start_ups.read()
        yield self._sample("dipsweep_starts", starts.attempts - starts.reused, processes="new")
        yield self._sample("dipsweep_starts", starts.reused, processes="reused")
        yield self._sample("dipsweep_start_up_seconds", starts.seconds)
        yield self._sample("dipsweep_saved_start_up_seconds", starts.saved)

    def _phase(self, trial: str) -> str:
        return self.state.history.curves[trial].phase or "unknown"

    def _trial(self, name: str, trial: _Trial) -> Iterator[Sample]:
        yield self._sample("dipsweep_step", trial.step, trial=name)
        yield self._sample("dipsweep_budget", trial.row.budget or 0, trial=name)
        yield self._sample("dipsweep_trial_phase", 1, trial=name, phase=self._phase(name))
        if "perf/tokens_per_s" in trial.perf:
            yield self._sample("dipsweep_tokens_per_s", trial.perf["perf/tokens_per_s"], trial=name)
        if "perf/mfu" in trial.perf:
            yield self._sample("dipsweep_mfu", trial.perf["perf/mfu"], trial=name)
        for metric in sorted(trial.scores, key=lambda m: (m != self.metric, m))[:MOST_METRICS]:
            role = metric.partition("/")[0]
            value = trial.scores[metric].metrics[metric]
            yield self._sample("dipsweep_score", value, trial=name, role=role, metric=metric)

    def _sample(self, name: str, value: float, **labels: str) -> Sample:
        return Sample(name, {"sweep": self.sweep, **labels}, float(value))
