"""An attempt that an executor starts."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.config.trial import Saved, TrialSpec


@dataclass(frozen=True, slots=True)
class Launch:
    """An attempt to be started now: from scratch, or from a checkpoint of an earlier attempt, on `workers` processes."""

    spec: TrialSpec
    attempt: int
    resume: Saved | None = None
    workers: int = 1
