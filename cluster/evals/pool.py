"""The evaluator pool: a few actors that score checkpoints for all trials of a sweep, while training goes on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import ray

from sweeps.inprocess import Evaluate, Scored
from sweeps.scoring import EvalJob


class Evaluator:
    """Scores one checkpoint at a time. It reserves no CPU: on a small machine it shares cores with the trainers."""

    def __init__(self, evaluate: Evaluate) -> None:
        from cluster.guard import check_names

        check_names()
        self.evaluate = evaluate

    def score(self, job: EvalJob) -> Scored:
        return self.evaluate(job)


class Pool:
    """Hands jobs to idle evaluators, and collects what they say; never waits.

    Args:
        evaluate: scores one job; carried to the evaluators once. size: evaluators. gpus: what each reserves.
    """

    def __init__(self, evaluate: Evaluate, size: int, gpus: float = 0.0) -> None:
        remote = ray.remote(num_cpus=0, num_gpus=gpus, max_restarts=0)(Evaluator)
        self.start = partial(remote.remote, evaluate)
        self.idle: list[Any] = [self.start() for _ in range(size)]
        self.busy: dict[Any, tuple[Any, EvalJob]] = {}

    def submit(self, job: EvalJob) -> None:
        """Starts a job on an idle evaluator; ask `free` first."""
        actor = self.idle.pop()
        self.busy[actor.score.remote(job)] = (actor, job)

    @property
    def free(self) -> bool:
        """True when a job could start now."""
        return bool(self.idle)

    def finished(self) -> Iterator[tuple[EvalJob, Scored | Exception]]:
        """Yields the jobs that are over since the last call, each with its scores or with what went wrong."""
        if not self.busy:
            return
        ready, _ = ray.wait(list(self.busy), num_returns=len(self.busy), timeout=0)
        for ref in ready:
            actor, job = self.busy.pop(ref)
            try:
                result: Scored | Exception = ray.get(ref)
            except Exception as e:
                result = e
            # A dead evaluator is replaced by a new one: Ray would fail every job that comes while it restarts the old.
            self.idle.append(self.start() if isinstance(result, ray.exceptions.RayActorError) else actor)
            yield job, result
