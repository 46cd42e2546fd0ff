"""Why an attempt or an evaluation broke, as one type from the worker to the controller."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.errors import DamagedCheckpoint, NodeTrouble, StorageError, TrialFailed
from sweeps.text_enum import TextEnum


class FailureKind(TextEnum):
    """What the end of an attempt means for its trial, or that of an evaluation for its checkpoint."""

    USER = "user"  # the trial's own: an exception, a divergence, data that cannot be read; final
    OUT_OF_MEMORY = "oom"  # tried once more: another process may have held the memory
    WORKER_CRASHED = "worker-crashed"  # a process died on a node that lives; counts against `limits.retries`
    WORKER_LOST = "worker-lost"  # a process is gone, perhaps with its node; counts unless the node was taken away
    NODE_PREEMPTED = "node-preempted"  # its node was taken away; never counts
    STORAGE = "storage"  # the storage is full, away or refuses us; never counts, and is tried again after a while
    BAD_CHECKPOINT = "bad-checkpoint"  # the checkpoint it was to start from is damaged; an earlier one is taken


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt or an evaluation broke.

    Attributes:
        kind: what follows from it. reason: a slug for the journal, such as `diverged`. detail: one sentence.
        node: the machine of a cluster whose trouble alone it is, by its id; empty where it may be everybody's.
    """

    kind: FailureKind
    reason: str
    detail: str = ""
    node: str = ""

    @property
    def retryable(self) -> bool:
        """True when the trial itself may be sound."""
        return self.kind not in (FailureKind.USER, FailureKind.BAD_CHECKPOINT)

    @property
    def counts(self) -> bool:
        """True when it is held against what broke: False where a machine or the storage was taken away."""
        return self.kind not in (FailureKind.NODE_PREEMPTED, FailureKind.STORAGE)


def storage_failure(trouble: StorageError) -> Failure:
    """Returns the failure behind which the storage's trouble stands (`storage.base.storage_trouble`)."""
    node = trouble.node if isinstance(trouble, NodeTrouble) else ""
    return Failure(FailureKind.STORAGE, "storage", str(trouble), node)


def failure_of(error: TrialFailed) -> Failure:
    """Returns the failure that a training function names itself."""
    kind = FailureKind.BAD_CHECKPOINT if isinstance(error, DamagedCheckpoint) else FailureKind.USER
    return Failure(kind, error.reason, error.detail)
