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

from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.controller.requests import TrialCount
from sweeps.journal.rows import BASE_PREFIX, ROLES, Row

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
}


class Sample(NamedTuple):
    """One value of one series."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(slots=True)
class _Trial:
    row: Row
    budget: int = 0
    step: int = 0
    start: int = 0
    state: str = "waiting"
    phase: str = ""
    scores: dict[str, Row] = field(default_factory=dict)  # the row of each metric's last step
    perf: dict[str, float] = field(default_factory=dict)  # of the attempt that runs
    attempt: int = 0
    cost: dict[str, float] = field(default_factory=dict)  # of the attempt that runs
    spent: dict[str, float] = field(default_factory=dict)  # of all attempts before it


class _Best:
    """The best value of the objective as the report will say it, by the report's own judgement.

    A trial is judged when the number is read, not when its row is written: whatever goes wrong here stays out of the
    driver's loop. Asked is only about trials that would be the best, from the top: a few in a sweep, 0.5 ms each.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.goal = goal = sweep.goal
        self.metrics = dict.fromkeys([goal.metric, *(c.metric for c in goal.constraints)])
        self.facts = [Row("sweep", sweep.id, extra={"spec": sweep.to_json()})]  # and the base models' scores
        self.ripe: list[tuple[float, list[Row]]] = []
        self.unsure: list[tuple[float, list[Row]]] = []  # a constraint was not measured, maybe on the base model
        self.value: float | None = None

    def base(self, row: Row) -> None:
        """Takes scores of a base model in, which may come after trials of it have completed."""
        self.facts.append(replace(row, extra={}))
        self.ripe, self.unsure = [*self.ripe, *self.unsure], []

    def completed(self, trial: _Trial, end: Row) -> None:
        """Takes a completed trial in, by its last scores."""
        if self.goal.metric not in trial.scores:
            return
        last = [replace(trial.scores[m], extra={}) for m in self.metrics if m in trial.scores]
        value = trial.scores[self.goal.metric].metrics[self.goal.metric]
        self.ripe.append((value, [replace(trial.row, extra={}), *last, end]))  # it has its parent's scores as its own

    def read(self) -> float | None:
        """Returns the best value now; None when no trial has one."""
        if not self.ripe:
            return self.value
        from sweeps.report.analysis.summarize import summarize

        sign = self.goal.sign
        for value, rows in sorted(self.ripe, key=lambda one: -sign * one[0]):
            if self.value is not None and sign * value <= sign * self.value:
                break
            summary = summarize([*self.facts, *rows])
            if summary.best:
                self.value = value
            elif summary.trials[0].meets is None:
                self.unsure.append((value, rows))
        self.ripe = []
        return self.value


class Meters:
    """The numbers of one sweep.

    Args:
        sweep: whose.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.metric = sweep.id, sweep.objective.metric
        self.count, self.best = TrialCount(Plan(sweep)), _Best(sweep)
        self.open: dict[str, _Trial] = {}
        self.ended: Counter[str] = Counter()
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.spent: dict[str, Counter[str]] = {"training": Counter(), "scoring": Counter()}
        self.saved_steps, self.saved_gpu_s = 0, 0.0

    @property
    def done(self) -> int:
        """Trials that have ended."""
        return self.ended.total()

    def progress(self) -> str:
        """Returns how far the sweep is, in one line."""
        value, total = self.best.read(), self.count.total
        best = "" if value is None else f", best {self.metric} {value:.3f}"
        return f"{self.done} of {total} trial{'s' if total != 1 else ''} ended{best}"

    def take(self, row: Row) -> None:
        """Takes one row in; rows of an earlier driver too, in the order of the journal."""
        self.count.take(row)
        if row.kind == "eval":
            self.spent["scoring"].update(row.cost)
        elif row.kind == "lease":  # a new driver: what ran under the one before waits now
            for trial in self.open.values():
                if trial.state == "running":
                    self._rest(trial, "waiting")
        elif row.trial.startswith(BASE_PREFIX):
            if row.kind == "report":
                self.best.base(row)
        elif row.kind == "trial":
            start = int(row.extra.get("fork_step", 0) or 0)
            self.open[row.trial] = _Trial(row, budget=row.budget or 0, start=start)
        if (known := self.open.get(row.trial)) is not None:
            self._take(row, known)

    def _take(self, row: Row, trial: _Trial) -> None:
        if row.kind == "attempt":
            self._close_attempt(trial)
            trial.attempt, trial.state = row.attempt, "running"
            trial.scores = {m: r for m, r in trial.scores.items() if (r.step or 0) <= (row.step or 0)}
        elif row.kind == "report":
            self._report(trial, row)
        elif row.kind == "verdict":
            trial.phase = str(row.extra.get("phase", ""))
            self.verdicts[str(row.extra.get("action", "")), trial.phase] += 1
            if row.extra.get("action") == "PARK":
                self._rest(trial, "parked")
        elif row.kind == "control" and row.extra.get("action") in ("retry", "yield"):
            self._rest(trial, "waiting")
        elif row.kind == "end":
            self._end(row, trial)

    def _report(self, trial: _Trial, row: Row) -> None:
        trial.step = max(trial.step, row.step or 0)
        if row.attempt == trial.attempt and row.cost:
            trial.cost = {**trial.cost, **row.cost}
        for name, value in row.metrics.items():
            role = name.partition("/")[0]
            if role == "perf":
                if trial.state == "running" and row.attempt == trial.attempt:
                    trial.perf[name] = value
            elif role in ROLES or name in self.best.metrics:
                last = trial.scores.get(name)
                if last is None or (row.step or 0) >= (last.step or 0):  # scores of an earlier step may come later
                    trial.scores[name] = row

    def _rest(self, trial: _Trial, state: str) -> None:
        """Notes that a trial does not train now: a pace it no longer has is not shown."""
        trial.state, trial.perf = state, {}

    def _close_attempt(self, trial: _Trial) -> None:
        self.spent["training"].update(trial.cost)
        for unit, amount in trial.cost.items():
            trial.spent[unit] = trial.spent.get(unit, 0.0) + amount
        trial.cost, trial.perf = {}, {}

    def _end(self, row: Row, trial: _Trial) -> None:
        if row.extra.get("of") == "training":
            self._rest(trial, "scoring")
            return
        self._close_attempt(trial)
        del self.open[row.trial]
        status = str(row.extra.get("status", "failed"))
        self.ended[status] += 1
        if status == "completed":
            self.best.completed(trial, row)
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
        yield self._sample("dipsweep_planned_trials", self.count.total)
        for phase, number in Counter(t.phase or "unknown" for t in self.open.values()).items():
            yield self._sample("dipsweep_trials_in_phase", number, phase=phase)
        for (action, phase), number in self.verdicts.items():
            yield self._sample("dipsweep_verdicts", number, action=action, phase=phase)
        for queue, length in (queues or {}).items():
            yield self._sample("dipsweep_queue", length, queue=queue)
        yield from self._costs()
        yield self._sample("dipsweep_objective", 1, metric=self.metric)
        if (best := self.best.read()) is not None:
            yield self._sample("dipsweep_best", best, metric=self.metric)
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
            value = trial.scores[metric].metrics[metric]
            yield self._sample("dipsweep_score", value, trial=name, role=role, metric=metric)

    def _sample(self, name: str, value: float, **labels: str) -> Sample:
        return Sample(name, {"sweep": self.sweep, **labels}, float(value))
