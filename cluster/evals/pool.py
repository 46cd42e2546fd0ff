"""The evaluator pool: a few actors that score checkpoints for all trials of a sweep, while training goes on."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import ray

from cluster.resources.backfill import Nodes, fit
from cluster.resources.bundles import selector_avoiding
from cluster.train.this_node import naming_this_node
from evaluators.engines.vllm import GPU_SHARE
from sweeps.config.eval_job import EvalJob
from sweeps.controller.evaluation.failure import evaluation_failure
from sweeps.controller.evaluation.timeout import Allowance
from sweeps.errors import DipsweepError
from sweeps.executors.storage_backoff import NodeBackoff
from sweeps.failures import Failure, FailureKind
from sweeps.journal.state import reserved
from sweeps.reported import CheckedScores, checked_scores

if TYPE_CHECKING:  # an evaluator needs no executor
    from sweeps.executors.local import Evaluate

START_TRIES: Final = 3
NODE_GONE: Final = ("its node has died", "node was terminated")  # Ray's words for an actor that went with its machine


class EvaluatorMissing(DipsweepError):
    """No evaluator process comes up: nothing could ever be scored."""


class Evaluator:
    """Scores one checkpoint at a time. By default it reserves no CPU: a small machine shares its cores with the trainers."""

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate

    def __repr__(self) -> str:
        return "dipsweep-evaluator"  # what Ray's dashboard shows

    def ready(self) -> bool:
        """Returns once the process is up."""
        return True

    def score(self, job: EvalJob) -> CheckedScores:
        """Returns the scores of a checkpoint.

        Raises:
            InputError: what the evaluation gave is none. NodeTrouble: this machine does not see the storage.
        """
        with naming_this_node():
            return checked_scores(self.evaluate(job))


class Broken(NamedTuple):
    """An evaluation that gave no scores: why, and what it cost all the same."""

    failure: Failure
    cost: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Running:
    actor: Any
    job: EvalJob
    since: float


class Pool:
    """Gives jobs to idle evaluators, and collects their results; never waits.

    An evaluator that died, that ran out of memory, or that was killed for being over its time, is replaced by a new one; what
    becomes of the job is the controller's business, who hears of it as of any other failure. One whose machine does not see the
    storage is replaced by one on another where there is room, and else asked again after a while. Nothing comes up before `open`.

    Args:
        evaluate: scores one job; carried to the evaluators once. size: evaluators. gpus, cpus: what each reserves.
        timeout_s: longest time of one job; None derives it from those before (`sweeps.controller.evaluation.timeout`).
        python: the evaluators' interpreter; None is the driver's. nodes: which are left alone for now. room: tells what each of
            the others has free.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        size: int,
        *,
        gpus: float = 0.0,
        cpus: float = 0.0,
        timeout_s: float | None = None,
        python: str | None = None,
        nodes: NodeBackoff | None = None,
        room: Callable[[], Nodes] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        environment: dict[str, Any] = {"py_executable": shlex.quote(python)} if python else {}
        environment |= {"env_vars": {GPU_SHARE: str(gpus)}} if 0 < gpus < 1 else {}
        options = {"runtime_env": environment} if environment else {}
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, **options)(Evaluator)
        self._evaluate, self._room, self._need = evaluate, room, {"CPU": cpus, "GPU": gpus}
        self.gpus, self.allowance, self.clock = gpus, Allowance(timeout_s), clock
        self.nodes = NodeBackoff(lambda line: None, clock) if nodes is None else nodes
        self._where: dict[int, str] = {}  # the nodes of evaluators that had trouble there
        self.failed_starts = 0
        self.idle: list[Any] = []
        self.busy: dict[Any, _Running] = {}
        self.starting: dict[Any, Any] = {}
        self.to_open = size

    def open(self) -> None:
        """Brings the evaluators up, the first time it is called."""
        for _ in range(self.to_open):
            self._start()
        self.to_open = 0

    @property
    def free(self) -> bool:
        """True when a job could start now."""
        return bool(self._usable())

    def _usable(self) -> list[int]:
        """Returns the places of the idle evaluators that are not on a node which is left alone."""
        avoided = self.nodes.avoided()
        return [i for i, actor in enumerate(self.idle) if self._where.get(id(actor)) not in avoided]

    def submit(self, job: EvalJob) -> None:
        """Starts a job on an idle evaluator; ask `free` first."""
        actor = self.idle.pop(self._usable()[-1])
        self.busy[actor.score.remote(job)] = _Running(actor, job, self.clock())

    def finished(self) -> Iterator[tuple[EvalJob, CheckedScores | Broken]]:
        """Yields the jobs that are over since the last call, each with its scores or with what went wrong, and what that cost.

        Raises:
            EvaluatorMissing: several evaluators in a row did not come up.
        """
        self._take_started()
        for ref in _ready(self.busy):
            running = self.busy.pop(ref)
            try:
                result: CheckedScores | Broken = ray.get(ref)
            except Exception as e:
                result = self._broken(running, e)
                if node := result.failure.node:
                    self._where[id(running.actor)] = node
                    self.nodes.failed(node, result.failure.detail)
                lives = isinstance(e, ray.exceptions.RayTaskError)  # it said so itself
                moves = bool(node) and fit(self._room(), self._need, 1) is not None
                if lives and not moves and result.failure.kind is not FailureKind.OUT_OF_MEMORY:
                    self.idle.insert(0, running.actor)  # the last to be asked again: elsewhere it may work
                else:
                    self._replace(running.actor)
            else:
                self.idle.append(running.actor)
                self.nodes.worked(filter(None, [self._where.pop(id(running.actor), "")]))
                self.allowance.took(self.clock() - running.since, result)
                result = result._replace(cost=reserved(result.cost, self.gpus))
            yield running.job, result
        yield from self._overdue()

    def _overdue(self) -> Iterator[tuple[EvalJob, Broken]]:
        limit, now = self.allowance.limit_s, self.clock()
        for ref in [ref for ref, running in self.busy.items() if now - running.since > limit]:
            running = self.busy.pop(ref)
            self._replace(running.actor)
            yield running.job, self._broken(running, self.allowance.overdue)

    def _broken(self, running: _Running, error: Exception) -> Broken:
        """A failure costs what its evaluator reserved for as long as it ran."""
        return Broken(explain(error), reserved({"gpu_s": self.clock() - running.since}, self.gpus))

    def _replace(self, actor: Any) -> None:
        """Ends an evaluator, if it has not ended by itself, and brings up a new one: Ray would fail every job that comes while
        it restarts the old."""
        self._where.pop(id(actor), None)
        ray.kill(actor)
        self._start()

    def _start(self) -> None:
        """Brings up an evaluator, on no node that is left alone unless it can be on no other."""
        remote = self._remote
        if avoided := self.nodes.avoided():
            remote = remote.options(
                label_selector=selector_avoiding(avoided), fallback_strategy=[{"label_selector": {}}]
            )
        actor = remote.remote(self._evaluate)
        self.starting[actor.ready.remote()] = actor

    def _take_started(self) -> None:
        for ref in _ready(self.starting):
            actor = self.starting.pop(ref)
            try:
                ray.get(ref)
            except Exception as e:
                self.failed_starts += explain(e).kind is not FailureKind.NODE_PREEMPTED
                if self.failed_starts >= START_TRIES:
                    why = str(e).strip().splitlines()[-1]
                    raise EvaluatorMissing(f"{START_TRIES} evaluators in a row did not start: {why}") from e
                self._start()
            else:
                self.failed_starts = 0
                self.idle.append(actor)


def explain(error: Exception) -> Failure:
    """Returns why an evaluation broke, of what Ray raised for it."""
    failure = evaluation_failure(error)
    if isinstance(error, ray.exceptions.RayActorError) and failure.kind is not FailureKind.STORAGE:
        gone = any(words in str(error) for words in NODE_GONE)
        kind, reason = (FailureKind.NODE_PREEMPTED, "preempted") if gone else (FailureKind.WORKER_CRASHED, "lost")
        return replace(failure, kind=kind, reason=reason)
    return failure


def _ready(refs: dict[Any, Any]) -> list[Any]:
    """Returns those of the pending results that are there."""
    if not refs:
        return []
    ready: list[Any] = ray.wait(list(refs), num_returns=len(refs), timeout=0)[0]
    return ready
