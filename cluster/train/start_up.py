"""What an attempt takes from its launch to its first step, and where those seconds go."""

from __future__ import annotations

import time
from collections.abc import Mapping


class StartUp:
    """The clock of one attempt's start in one of its processes.

    Args:
        launched: when the driver started it, by `time.time()`. reused: whether its processes ran an attempt before.
        cpu: seconds of CPU that this process had used by then: 0.0 for a new process, whose interpreter and imports count.
    """

    def __init__(self, launched: float, *, reused: bool = False, cpu: float = 0.0) -> None:
        self._launched, self._reused, self._cpu = launched, reused, cpu
        self._up = time.time()
        self._first: tuple[float, float] | None = None
        self._reported = False

    def first_step(self) -> None:
        """The first step comes next; later calls change nothing."""
        if self._first is None:
            self._first = time.time(), time.process_time()

    def metrics(self, trained: Mapping[str, float]) -> dict[str, float]:
        """Returns what the first report after the first step says of the start; nothing at any other time.

        Args:
            trained: the trainer's own numbers; it tells how long data and model took.
        """
        if self._first is None or self._reported:
            return {}
        self._reported = True
        process = max(0.0, self._up - self._launched)
        whole = max(process, self._first[0] - self._launched)
        known = sum(trained.get(f"perf/start_up/{part}_s", 0.0) for part in ("data", "model"))
        return {
            "perf/start_up_s": round(whole, 3),
            "perf/start_up/process_s": round(process, 3),
            "perf/start_up/imports_s": round(max(0.0, whole - process - known), 3),
            "perf/start_up/cpu_s": round(self._first[1] - self._cpu, 3),
            "perf/reused_processes": float(self._reused),
        }
