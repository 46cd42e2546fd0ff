"""A sweep in numbers for Prometheus: rows in, samples out. Pure; `cluster.ops.exporter` carries the samples to Ray.

Series that name a trial exist only while the trial is open, and for at most MOST_TRIALS of them: what has ended stays in
Prometheus' own history and in the report. So the number of live series is bounded by a constant, whatever the size of a
sweep, and so is the memory here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from sweeps.records import BASE_PREFIX, ROLES, Row
from sweeps.spec import Sweep

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
    "dipsweep_best": Family("gauge", "Best value of the objective so far", ("metric",)),
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
}


class Sample(NamedTuple):
    """One value of one series."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(slots=True)
class _Trial:
    budget: int = 0
    step: int = 0
    start: int = 0
    state: str = "waiting"
    phase: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    perf: dict[str, float] = field(default_factory=dict)
    attempt: int = 0
    cost: dict[str, float] = field(default_factory=dict)  # of the attempt that runs
    spent: dict[str, float] = field(default_factory=dict)  # of all attempts before it


class Meters:
    """The numbers of one sweep.

    Args:
        sweep: whose. total: trials it is meant to have.
    """

    def __init__(self, sweep: Sweep, total: int) -> None:
        self.sweep, self.total = sweep.id, total
        self.metric, self.sign = sweep.objective.metric, sweep.goal.sign
        self.open: dict[str, _Trial] = {}
        self.ended: Counter[str] = Counter()
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.spent: dict[str, Counter[str]] = {"training": Counter(), "scoring": Counter()}
        self.saved_steps, self.saved_gpu_s = 0, 0.0
        self.best: float | None = None

    @property
    def done(self) -> int:
        """Trials that have ended."""
        return self.ended.total()

    def progress(self) -> str:
        """Returns how far the sweep is, in one line."""
        best = "" if self.best is None else f", best {self.metric} {self.best:.3f}"
        return f"{self.done} of {self.total} trial{'s' if self.total != 1 else ''} ended{best}"

    def take(self, row: Row) -> None:
        """Takes one row in; rows of an earlier driver too, in the order of the journal."""
        if row.kind == "eval":
            self.spent["scoring"].update(row.cost)
        if not row.trial or row.trial.startswith(BASE_PREFIX):
            return
        if row.kind == "trial":
            self.open[row.trial] = _Trial(budget=row.budget or 0, start=int(row.extra.get("fork_step", 0) or 0))
        trial = self.open.get(row.trial)
        if trial is None:
            return
        if row.kind == "attempt":
            self._close_attempt(trial)
            trial.attempt, trial.state = row.attempt, "running"
        elif row.kind == "report":
            self._report(trial, row)
        elif row.kind == "verdict":
            trial.phase = str(row.extra.get("phase", ""))
            self.verdicts[str(row.extra.get("action", "")), trial.phase] += 1
            if row.extra.get("action") == "PARK":
                trial.state = "parked"
        elif row.kind == "control" and row.extra.get("action") in ("retry", "yield"):
            trial.state = "waiting"
        elif row.kind == "end":
            self._end(row, trial)

    def _report(self, trial: _Trial, row: Row) -> None:
        trial.step = max(trial.step, row.step or 0)
        if row.attempt == trial.attempt and row.cost:
            trial.cost = {**trial.cost, **row.cost}
        for name, value in row.metrics.items():
            role = name.partition("/")[0]
            if role == "perf":
                trial.perf[name] = value
            elif role in ROLES:
                trial.scores[name] = value
        if self.metric in row.metrics:
            value = row.metrics[self.metric]
            self.best = value if self.best is None or self.sign * value > self.sign * self.best else self.best

    def _close_attempt(self, trial: _Trial) -> None:
        self.spent["training"].update(trial.cost)
        for unit, amount in trial.cost.items():
            trial.spent[unit] = trial.spent.get(unit, 0.0) + amount
        trial.cost = {}

    def _end(self, row: Row, trial: _Trial) -> None:
        if row.extra.get("of") == "training":
            trial.state = "scoring"
            return
        self._close_attempt(trial)
        del self.open[row.trial]
        status = str(row.extra.get("status", "failed"))
        self.ended[status] += 1
        missing, own = max(0, trial.budget - trial.step), trial.step - trial.start
        if status == "pruned":
            self.saved_steps += missing
            self.saved_gpu_s += trial.spent.get("gpu_s", 0.0) / own * missing if own > 0 else 0.0

    def samples(self, queues: Mapping[str, int] | None = None) -> Iterator[Sample]:
        """Yields the value of every series as it is now; a series that is not there has ceased to be.

        Args:
            queues: lengths of queues, by name.
        """
        states = Counter(t.state for t in self.open.values()) + self.ended
        for state in ("waiting", "running", "scoring", "parked", "completed", "pruned", "failed"):
            yield self._sample("dipsweep_trials", states[state], state=state)
        yield self._sample("dipsweep_planned_trials", self.total)
        for phase, number in Counter(t.phase or "unknown" for t in self.open.values()).items():
            yield self._sample("dipsweep_trials_in_phase", number, phase=phase)
        for (action, phase), number in self.verdicts.items():
            yield self._sample("dipsweep_verdicts", number, action=action, phase=phase)
        for queue, length in (queues or {}).items():
            yield self._sample("dipsweep_queue", length, queue=queue)
        yield from self._costs()
        if self.best is not None:
            yield self._sample("dipsweep_best", self.best, metric=self.metric)
        shown = sorted(self.open.items(), key=lambda item: item[1].state == "waiting")[:MOST_TRIALS]
        for name, trial in shown:
            yield from self._trial(name, trial)

    def _costs(self) -> Iterator[Sample]:
        for part, spent in self.spent.items():
            live = [t.cost for t in self.open.values()] if part == "training" else []
            for unit in ("gpu", "cpu"):
                seconds = spent[f"{unit}_s"] + sum(c.get(f"{unit}_s", 0.0) for c in live)
                yield self._sample(f"dipsweep_{unit}_hours", seconds / 3600, part=part)
        yield self._sample("dipsweep_saved_gpu_hours", self.saved_gpu_s / 3600)
        yield self._sample("dipsweep_saved_steps", self.saved_steps)

    def _trial(self, name: str, trial: _Trial) -> Iterator[Sample]:
        yield self._sample("dipsweep_step", trial.step, trial=name)
        yield self._sample("dipsweep_budget", trial.budget, trial=name)
        yield self._sample("dipsweep_trial_phase", 1, trial=name, phase=trial.phase or "unknown")
        if "perf/tokens_per_s" in trial.perf:
            yield self._sample("dipsweep_tokens_per_s", trial.perf["perf/tokens_per_s"], trial=name)
        if "perf/mfu" in trial.perf:
            yield self._sample("dipsweep_mfu", trial.perf["perf/mfu"], trial=name)
        for metric in sorted(trial.scores, key=lambda m: (m != self.metric, m))[:MOST_METRICS]:
            role = metric.partition("/")[0]
            yield self._sample("dipsweep_score", trial.scores[metric], trial=name, role=role, metric=metric)

    def _sample(self, name: str, value: float, **labels: str) -> Sample:
        return Sample(name, {"sweep": self.sweep, **labels}, float(value))
