"""The usual rules behind the same interface: what DipAware is measured against.

They see scores at steps and nothing else; none of them knows of a dip. All compare at equal step, as Ray Tune and Optuna
do. Their verdicts are final (STOP), as theirs are. A score that is not finite, or too large to calculate with, is worse than
any other.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict

from sweeps.config.objective import Goal
from sweeps.errors import InputError
from sweeps.journal.rows import AttemptRow, ReportRow, Row
from sweeps.stopping.base import Action, StopRule, Verdict
from sweeps.stopping.noise import as_number, as_step, usable


class _Scores(StopRule):
    """Keeps every trial's scores by step, larger is better."""

    def __init__(self, goal: Goal) -> None:
        super().__init__(goal)
        self.scores: dict[str, dict[int, float]] = {}

    def observe(self, row: Row) -> bool:
        fresh = super().observe(row)
        if fresh and isinstance(row, ReportRow) and row.step:
            score = row.metrics.get(self.goal.metric)
            if score is not None and usable(score):
                self.scores.setdefault(row.trial, {})[row.step] = self.goal.sign * score
            elif score is not None or self.goal.metric in row.invalid:
                self.scores.setdefault(row.trial, {})[row.step] = -math.inf
        elif isinstance(row, AttemptRow) and row.trial in self.scores:
            self.begin_again(row.trial, row.step or 0)
        return fresh

    def begin_again(self, trial: str, start: int) -> None:
        """Forgets what a trial scored beyond the step from which it goes on: that is run again."""
        self.scores[trial] = {step: score for step, score in self.scores[trial].items() if step <= start}
        if not self.scores[trial]:
            del self.scores[trial]

    def latest(self, trial: str) -> tuple[int, float]:
        """Returns the furthest step of a trial and its score there, or its best so far where a trial is worth its best
        checkpoint; (0, 0) when nothing was scored."""
        scores = self.scores.get(trial)
        if not scores:
            return 0, 0.0
        step = max(scores)
        return step, max(scores.values()) if self.goal.at == "best" else scores[step]

    def lost(self, trial: str) -> Verdict | None:
        """Returns the end of a trial whose last two scores are not finite: no comparison is needed for that."""
        last = sorted(self.scores.get(trial, {}).items())[-2:]
        if len(last) < 2 or any(math.isfinite(score) for _, score in last):
            return None
        return Verdict(Action.STOP, f"{self.goal.metric} is not finite at steps {last[0][0]} and {last[1][0]}")

    def shown(self, value: float) -> float:
        """Returns a kept score in the metric's own direction."""
        return self.goal.sign * value


def _finite(numbers: dict[str, float]) -> dict[str, float]:
    """Evidence as a journal row can hold it."""
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _at_least(name: str, value: float, least: float) -> float:
    number = as_number(value)
    if number is None or not least <= number < math.inf:
        raise InputError(f"stopping setting {name} is {value!r}, but must be a number of at least {least}")
    return number


def _whole(name: str, value: int, least: int) -> int:
    number = as_step(value)
    if number is None or number < least:
        raise InputError(f"stopping setting {name} is {value!r}, but must be a whole number of at least {least}")
    return number


class Asha(_Scores):
    """Asynchronous successive halving (Li et al. 2020) as Ray Tune's `ASHAScheduler` does it.

    Args:
        grace: first rung, in steps; 0 takes the first step that any trial reports.
        reduction: each rung lets the best 1/reduction of those that reached it pass, and lies that many times later.
    """

    name = "asha"

    def __init__(self, goal: Goal, grace: int = 0, reduction: float = 4.0) -> None:
        super().__init__(goal)
        self.grace, self.reduction = _whole("grace", grace, 0), _at_least("reduction", reduction, 1.5)
        self.rungs: dict[tuple[int, int], dict[str, tuple[int, float]]] = defaultdict(dict)
        self.levels: dict[str, int] = {}
        self.earliest = math.inf  # first step that any trial reported

    def bracket(self, trial: str) -> int:
        """Which bracket a trial belongs to; bracket b starts b rungs later."""
        return 0

    def observe(self, row: Row) -> bool:
        """Takes one row in; a report at or past a rung that its trial has not been at fills that rung."""
        fresh = super().observe(row)
        if fresh and isinstance(row, ReportRow) and row.trial in self.scores:
            step, score = self.latest(row.trial)
            if row.step in self.scores[row.trial]:
                self.earliest = min(self.earliest, row.step)
            first = self._first()
            level = int(math.log(step / first) / math.log(self.reduction) + 1e-9) if step >= first else -1
            if row.step == step and level >= self.bracket(row.trial) and level > self.levels.get(row.trial, -1):
                self.levels[row.trial] = level
                self.rungs[self.bracket(row.trial), level][row.trial] = step, score
        return fresh

    def begin_again(self, trial: str, start: int) -> None:
        super().begin_again(trial, start)
        for rung in self.rungs.values():
            if trial in rung and rung[trial][0] > start:
                del rung[trial]
        self.levels[trial] = max((level for (_, level), rung in self.rungs.items() if trial in rung), default=-1)

    def _first(self) -> int:
        return self.grace or (1 if math.isinf(self.earliest) else int(self.earliest))

    def decide(self, trial: str) -> Verdict:
        if gone := self.lost(trial):
            return gone
        step, score = self.latest(trial)
        if not step or step < self._first():
            return Verdict(Action.CONTINUE, f"step {step} lies before the first rung at {self._first()}")
        level = self.levels.get(trial, -1)
        rung = self.rungs[self.bracket(trial), level]
        if trial not in rung or rung[trial][0] != step:
            return Verdict(Action.CONTINUE, f"no new rung at step {step}")
        before = list(rung)[: list(rung).index(trial)]
        reached = sorted((rung[t][1] for t in before), reverse=True)
        if not reached:
            return Verdict(Action.CONTINUE, f"first at rung {level}")
        cut = _percentile(reached, 1 - 1 / self.reduction)
        numbers = {"rung": level, "score": self.shown(score), "cut": self.shown(cut), "reached": len(reached)}
        said = f"{self.shown(score):.4g} at step {step}, cut {self.shown(cut):.4g} among {len(reached)} at rung {level}"
        stop = score < cut or score == -math.inf
        return Verdict(Action.STOP if stop else Action.CONTINUE, said, evidence=_finite(numbers))


class Hyperband(Asha):
    """Asynchronous Hyperband: ASHA with trials dealt to brackets in turn, each bracket starting a rung later."""

    name = "hyperband"

    def __init__(self, goal: Goal, grace: int = 0, reduction: float = 3.0, brackets: int = 3) -> None:
        super().__init__(goal, grace, reduction)
        self.brackets = _whole("brackets", brackets, 1)

    def bracket(self, trial: str) -> int:
        return list(self.history.curves).index(trial) % self.brackets


class Median(_Scores):
    """The median rule (Golovin et al. 2017): stop a trial whose best is below the median of the others' running means.

    Args:
        grace: steps before which no trial is stopped.
        least: how many others must have come this far.
    """

    name = "median"

    def __init__(self, goal: Goal, grace: int = 0, least: int = 3) -> None:
        super().__init__(goal)
        self.grace, self.least = _whole("grace", grace, 0), _whole("least", least, 1)

    def decide(self, trial: str) -> Verdict:
        if gone := self.lost(trial):
            return gone
        step, _ = self.latest(trial)
        if not step or step < self.grace:
            return Verdict(Action.CONTINUE, f"step {step} lies within the grace of {self.grace} steps")
        means = [
            statistics.fmean(v for s, v in scores.items() if s <= step)
            for other, scores in self.scores.items()
            if other != trial and max(scores) >= step and min(scores) <= step
        ]
        if len(means) < self.least:
            return Verdict(Action.CONTINUE, f"{len(means)} of {self.least} others have reached step {step}")
        median, best = statistics.median(means), max(self.scores[trial].values())
        numbers = {"best": self.shown(best), "median": self.shown(median), "others": len(means)}
        said = (
            f"best {self.shown(best):.4g} by step {step}, median of {len(means)} running means {self.shown(median):.4g}"
        )
        stop = best < median or best == -math.inf
        return Verdict(Action.STOP if stop else Action.CONTINUE, said, evidence=_finite(numbers))


class Patient(Median):
    """The median rule, applied only when a trial's best of the last `patience` reports is not above its best before.

    Optuna's `PatientPruner`, here around the median rule above. In a dip the condition holds from `patience` reports after the
    fall began until the old peak is passed: it delays a false prune, it does not see a recovery.
    """

    name = "patient"

    def __init__(self, goal: Goal, patience: int = 8, min_delta: float = 0.0, grace: int = 0, least: int = 3) -> None:
        super().__init__(goal, grace, least)
        self.patience, self.min_delta = _whole("patience", patience, 0), _at_least("min_delta", min_delta, 0)

    def decide(self, trial: str) -> Verdict:
        if gone := self.lost(trial):
            return gone
        scores = [v for _, v in sorted(self.scores.get(trial, {}).items())]
        if len(scores) <= self.patience + 1:
            return Verdict(Action.CONTINUE, f"{len(scores)} reports do not exhaust a patience of {self.patience}")
        cut = len(scores) - self.patience - 1
        before, after = max(scores[:cut]), max(scores[cut:])
        if before - self.min_delta <= after:
            return Verdict(
                Action.CONTINUE, f"best of the last {self.patience + 1} reports {self.shown(after):.4g} holds"
            )
        return super().decide(trial)


def _percentile(descending: list[float], q: float) -> float:
    """Linear-interpolated quantile `q` of values sorted descending."""
    place = (1 - q) * (len(descending) - 1)
    low = int(place)
    if place == low:
        return descending[low]
    step = descending[low + 1] - descending[low] if math.isfinite(descending[low]) else 0.0
    return descending[low] + (place - low) * step
