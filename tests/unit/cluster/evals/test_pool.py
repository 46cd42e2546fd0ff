"""Why an evaluation broke, by what Ray raises for it."""

from __future__ import annotations

import errno

import pytest
import ray

from cluster.evals.pool import explain
from sweeps.failures import FailureKind


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


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
