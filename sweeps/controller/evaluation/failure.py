"""Why an evaluation broke, in the type that attempts have too."""

from __future__ import annotations

from sweeps.errors import out_of_memory, text_of
from sweeps.failures import Failure, FailureKind, storage_failure
from sweeps.storage.base import storage_trouble


def evaluation_failure(error: BaseException) -> Failure:
    """Returns what an error of an evaluation means: the storage's trouble, memory that ran out, or its own fault."""
    if (trouble := storage_trouble(error)) is not None:
        return storage_failure(trouble)
    cause = getattr(error, "cause", None) or error  # Ray's wrapper of a task's error
    kind, reason = (FailureKind.OUT_OF_MEMORY, "oom") if out_of_memory(cause) else (FailureKind.USER, "error")
    return Failure(kind, reason, f"{type(error).__name__}: {text_of(error, longest=10**6).strip()[-300:]}")
