"""Why an evaluation broke, by what Ray raises for it."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster.evals import pool
from cluster.evals.pool import explain
from sweeps.config.eval_job import EvalJob
from sweeps.config.trial import EvalSpec
from sweeps.errors import NodeTrouble, StorageUnavailable
from sweeps.executors.storage_backoff import NODE_FIRST_S
from sweeps.failures import FailureKind
from sweeps.reported import CheckedScores, checked_scores
from tests.support.fakes import FakeScores


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def as_ray_raises(error: Exception) -> Exception:
    """Returns what `ray.get` raises for a task's error: of both types, and without the arguments of the error's own."""
    wrapped: Exception = ray.exceptions.RayTaskError("score", "…", error).as_instanceof_cause()
    return wrapped


@pytest.mark.parametrize(
    ("error", "kind", "counts"),
    [
        (ValueError("no such suite"), FailureKind.USER, True),
        (TimeoutError("over the limit of 60 s"), FailureKind.USER, True),
        (
            ray.exceptions.RayTaskError("score", "…", OutOfMemoryError("CUDA out of memory")),
            FailureKind.OUT_OF_MEMORY,
            True,
        ),
        (ray.exceptions.RayTaskError("score", "…", OSError(errno.ENOSPC, "no space")), FailureKind.STORAGE, False),
        (as_ray_raises(OSError(errno.ENOSPC, "no space")), FailureKind.STORAGE, False),
        (as_ray_raises(StorageUnavailable("not mounted")), FailureKind.STORAGE, False),
        (ray.exceptions.ActorDiedError(), FailureKind.WORKER_CRASHED, True),
        (
            ray.exceptions.RayActorError(error_msg="The actor died because its node has died."),
            FailureKind.NODE_PREEMPTED,
            False,
        ),
    ],
)
def test_only_a_machine_or_a_storage_that_was_taken_away_is_no_try(error, kind, counts):
    failure = explain(error)
    assert (failure.kind, failure.counts) == (kind, counts)


class Actors:
    """Stands for Ray: evaluators are numbers, and each job ends in an error, or with the same scores."""

    exceptions = ray.exceptions

    def __init__(self, error: Exception | None, scores: CheckedScores | None = None) -> None:
        self.error, self.scores, self.started, self.killed = error, scores, 0, list[Any]()
        self.placed, self.fails = list[dict[str, str]](), "job"

    def remote(self, **options: Any) -> Any:
        return lambda evaluator: SimpleNamespace(remote=self.start, options=self.options)

    def options(self, *, label_selector: dict[str, str], fallback_strategy: list[Any]) -> Any:
        self.placed.append(label_selector)
        return SimpleNamespace(remote=self.start)

    def start(self, evaluate: Any) -> Any:
        self.started += 1
        return SimpleNamespace(ready=call(f"ready {self.started}"), score=call(f"job {self.started}"))

    def wait(self, refs: list[str], **how: Any) -> tuple[list[str], list[str]]:
        return list(refs), []

    def get(self, ref: str) -> CheckedScores | bool:
        if ref.startswith(self.fails) and self.error is not None:
            raise self.error
        return self.scores if ref.startswith("job") and self.scores is not None else True

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


def call(name: str) -> Any:
    return SimpleNamespace(remote=lambda *arguments: name)


@pytest.mark.parametrize(
    ("error", "replaced"),
    [
        (ray.exceptions.RayTaskError("score", "…", ValueError("no such suite")), False),
        (ray.exceptions.RayTaskError("score", "…", OutOfMemoryError("CUDA out of memory")), True),
        (ray.exceptions.OutOfMemoryError("the node was running low on memory: this actor was killed"), True),
        (ray.exceptions.ActorDiedError(), True),
        (ray.exceptions.OwnerDiedError("0" * 56, "x", "y"), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_evaluator_that_may_be_dead_or_short_of_memory_gets_no_other_job(error, replaced, monkeypatch):
    """Ray says `OutOfMemoryError`, not `RayActorError`, of an actor that its memory monitor killed."""
    actors = Actors(error)
    monkeypatch.setattr(pool, "ray", actors)
    made = pool.Pool(lambda job: None, 1)  # type: ignore[arg-type, return-value]
    made.open()
    assert list(made.finished()) == []
    (first,) = made.idle
    made.submit(EvalJob("t-1", 1, 4, "/c/4", "tiny-s", EvalSpec()))
    ((_, broken),) = made.finished()
    assert isinstance(broken, pool.Broken)
    list(made.finished())
    assert (made.idle == [first], actors.started, actors.killed) == (not replaced, 1 + replaced, [first] * replaced)


def test_what_failed_on_one_evaluator_is_tried_on_another(monkeypatch: pytest.MonkeyPatch):
    """One on a node that does not see the storage any more would else fail the same job for ever while others stand idle."""
    actors, asked = Actors(as_ray_raises(StorageUnavailable("not mounted"))), list[Any]()
    monkeypatch.setattr(pool, "ray", actors)
    made = pool.Pool(lambda job: None, 2)  # type: ignore[arg-type, return-value]
    made.open()
    assert list(made.finished()) == []
    first, second = made.idle
    for _ in range(4):
        asked.append(made.idle[-1])
        made.submit(EvalJob("t-1", 1, 4, "/c/4", "tiny-s", EvalSpec()))
        ((_, broken),) = made.finished()
        assert isinstance(broken, pool.Broken)
    assert asked == [second, first, second, first]


def test_an_evaluator_on_a_node_without_the_storage_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    actors = Actors(as_ray_raises(NodeTrouble("not mounted", "n1")))
    monkeypatch.setattr(pool, "ray", actors)
    made = pool.Pool(lambda job: None, 1, clock=lambda: now[0])  # type: ignore[arg-type, return-value]
    made.open()
    assert list(made.finished()) == []
    made.submit(EvalJob("t-1", 1, 4, "/c/4", "tiny-s", EvalSpec()))
    ((_, broken),) = made.finished()
    assert isinstance(broken, pool.Broken)
    assert (broken.failure.kind, broken.failure.node) == (FailureKind.STORAGE, "n1")
    assert not made.free
    now[0] += NODE_FIRST_S
    assert made.free


@pytest.mark.parametrize(("words", "gone"), [("The actor died because its node has died.", True), ("no torch", False)])
def test_a_node_that_was_taken_away_while_an_evaluator_came_up_is_not_its_failure(words, gone, monkeypatch):
    actors = Actors(ray.exceptions.RayActorError(error_msg=words))
    actors.fails = "ready"
    monkeypatch.setattr(pool, "ray", actors)
    made = pool.Pool(lambda job: None, 1)  # type: ignore[arg-type, return-value]
    made.open()
    for _ in range(pool.START_TRIES - 1):
        assert list(made.finished()) == []
    with nullcontext() if gone else pytest.raises(pool.EvaluatorMissing, match=words):
        assert list(made.finished()) == []
    assert actors.started == pool.START_TRIES + gone


@pytest.mark.parametrize(("elsewhere", "moves"), [(1.0, True), (0.4, False)])
def test_an_evaluator_on_a_node_without_the_storage_goes_to_another_that_has_room(elsewhere, moves, monkeypatch):
    actors = Actors(as_ray_raises(NodeTrouble("not mounted", "n1")))
    monkeypatch.setattr(pool, "ray", actors)
    room = {"n2": {"GPU": elsewhere}}
    made = pool.Pool(lambda job: None, 1, gpus=0.5, room=lambda: room)  # type: ignore[arg-type, return-value]
    made.open()
    assert list(made.finished()) == []
    (first,) = made.idle
    made.submit(EvalJob("t-1", 1, 4, "/c/4", "tiny-s", EvalSpec()))
    assert len(list(made.finished())) == 1
    assert list(made.finished()) == []  # what was started is up
    assert (actors.killed, actors.placed) == (([first], [{"ray.io/node-id": "!in(n1)"}]) if moves else ([], []))
    assert made.free is moves


@pytest.mark.parametrize("gpus", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("fails", [False, True])
def test_an_evaluation_costs_what_its_evaluator_reserves_whether_it_gives_scores_or_not(gpus, fails, monkeypatch):
    """One that reserves none sees the GPU of a trial all the same; that trial pays for it."""
    scores = checked_scores(FakeScores({"transfer/score": 0.5}, cost={"cpu_s": 3.0, "gpu_s": 10.0}))
    error, now = ray.exceptions.RayTaskError("score", "…", ValueError("no")) if fails else None, [5.0]
    monkeypatch.setattr(pool, "ray", Actors(error, scores))
    made = pool.Pool(lambda job: None, 1, gpus=gpus, clock=lambda: now[0])  # type: ignore[arg-type, return-value]
    made.open()
    assert list(made.finished()) == []
    made.submit(EvalJob("t-1", 1, 4, "/c/4", "tiny-s", EvalSpec()))
    now[0] += 10.0
    ((_, result),) = made.finished()
    assert result.cost.get("gpu_s") == (10.0 * gpus or None)
    if isinstance(result, CheckedScores):
        assert (result.cost["cpu_s"], result.seconds) == (3.0, 10.0)
