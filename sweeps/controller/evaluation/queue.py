"""Which checkpoint is scored next, and which never will be.

The worker saves at fixed steps and never waits; where the evaluators cannot keep up, what they leave out must matter
least. So a curve is scored log-spaced first (its budget, halved again and again: `milestones`), densely where the stop
rule suspects a dip or is close to a decision, always at its end, and everywhere when there is time. A checkpoint that
was overtaken (a later one of its trial has scores) is given up once too many wait. All of it follows from the journal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache
from typing import Any, Final

from sweeps.config.eval_job import EvalJob
from sweeps.stopping.base import Phase

EVAL_TRIES: Final = 3
NEAR: Final = 3.0
"""A trial whose odds are within this factor of the bar below which it is paused is close to a decision."""
SUSPECTED: Final = frozenset({Phase.DIP, Phase.RECOVERY, Phase.COLLAPSE, Phase.LATE_DECLINE})


@dataclass(frozen=True, slots=True)
class TrialEvalState:
    """What of a trial decides how urgent its checkpoints are.

    Attributes:
        snapshots: the steps at which it saves to be scored; the last one is its budget.
        scored: the furthest step that has scores, 0 for none.
        suspect: the stop rule suspects a dip, or is close to a decision (`is_suspect`).
        over: the trial has ended; its scores are of no use any more.
    """

    snapshots: tuple[int, ...]
    scored: int = 0
    suspect: bool = False
    over: bool = False


class Urgency(IntEnum):
    """What is scored first; within a class the oldest checkpoint."""

    BASE = 0  # every curve of the model starts from it
    LAST = 1  # decides how the trial ended, and frees the searcher
    MILESTONE = 2
    SUSPECT = 3
    SPARE = 4


def urgency(job: EvalJob, eval_state: TrialEvalState | None) -> Urgency:
    """Returns how urgent a checkpoint is; `eval_state` is None for a base model, which belongs to no trial."""
    if eval_state is None:
        return Urgency.BASE
    if job.step == eval_state.snapshots[-1]:
        return Urgency.LAST
    if job.step in milestones(eval_state.snapshots):
        return Urgency.MILESTONE
    return Urgency.SUSPECT if eval_state.suspect else Urgency.SPARE


@cache
def milestones(snapshots: tuple[int, ...]) -> frozenset[int]:
    """Returns the log-spaced part of a grid: of the snapshots the one nearest to the budget, its half, its quarter, …"""
    first, budget = snapshots[0], snapshots[-1]
    octaves = range(1 + math.ceil(math.log2(budget / first)))
    wanted = [budget / 2**k for k in octaves]
    return frozenset(min(snapshots, key=lambda s: (abs(math.log(s / step)), s)) for step in wanted)


def is_suspect(phase: str, evidence: Mapping[str, Any]) -> bool:
    """True when a verdict (its phase and evidence) asks for a closer look: a dip, or odds near their bar."""
    if phase in SUSPECTED or evidence.get("held"):
        return True
    odds, bar = evidence.get("p_top"), evidence.get("bar")
    return isinstance(odds, float) and isinstance(bar, float) and odds < NEAR * bar


def overtaken(
    waiting: Iterable[EvalJob], eval_state: Callable[[EvalJob], TrialEvalState | None], backlog: int
) -> list[EvalJob]:
    """Returns the jobs to give up, oldest first: spare ones that were overtaken, down to `backlog` waiting in all."""
    jobs = list(waiting)
    if len(jobs) <= backlog:
        return []

    def is_overtaken(job: EvalJob) -> bool:
        trial = eval_state(job)
        return trial is not None and urgency(job, trial) is Urgency.SPARE and job.step < trial.scored

    return sorted(filter(is_overtaken, jobs), key=lambda job: job.order)[: len(jobs) - backlog]


class ScoreQueue:
    """The jobs of a sweep: those that wait, and those that are being scored.

    Args:
        eval_state: tells how a job's trial stands; None for a base model.
    """

    def __init__(self, eval_state: Callable[[EvalJob], TrialEvalState | None]) -> None:
        self.eval_state = eval_state
        self.waiting: dict[tuple[str, int, str], EvalJob] = {}
        self.running: dict[tuple[str, int, str], EvalJob] = {}

    def add(self, job: EvalJob) -> None:
        """Queues a job, unless it waits or runs already."""
        if job.key not in self.running:
            self.waiting.setdefault(job.key, job)

    def next(self) -> EvalJob | None:
        """Takes out the most urgent job; jobs of trials that are over are forgotten.

        One that is compared with its base as it goes waits while the base is being scored.
        """
        for job in [job for job in self.waiting.values() if not self.is_needed(job)]:
            self.forget(job)
        bases = {job.model for job in self.running.values() if self.eval_state(job) is None}
        ready = [job for job in self.waiting.values() if job.early is None or job.model not in bases]
        if not ready:
            return None
        job = min(ready, key=lambda job: (urgency(job, self.eval_state(job)), job.tries, job.order))
        self.running[job.key] = self.waiting.pop(job.key)
        return job

    def again(self, job: EvalJob, *, counted: bool = True) -> None:
        """Puts a job back whose evaluation broke; `counted` says whether that was a try."""
        self.forget(job)
        self.add(replace(job, tries=job.tries + counted))

    def forget(self, job: EvalJob) -> bool:
        """Strikes a job off: it is done, or given up. False when it was struck off before: its scores came twice."""
        found = [jobs.pop(job.key, None) for jobs in (self.waiting, self.running)]
        return any(found)

    def is_needed(self, job: EvalJob) -> bool:
        """False once the scores of a job are not needed any more."""
        eval_state = self.eval_state(job)
        return eval_state is None or not eval_state.over

    def overtaken(self, backlog: int) -> list[EvalJob]:
        """Returns the waiting jobs to give up; see `overtaken`."""
        return overtaken(self.waiting.values(), self.eval_state, backlog)

    def open(self, trial: str) -> bool:
        """True while a job of the trial waits or runs."""
        return any(job.trial == trial for jobs in (self.waiting, self.running) for job in jobs.values())

    def __bool__(self) -> bool:
        return bool(self.waiting or self.running)
