"""Attempts whose process is gone, until it is known whether their node went with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from cluster.resources.bundles import Attempt
from sweeps.failures import Failure, FailureKind

NODE_NEWS_S = 30.0  # Ray reports a lost process before its lost node: a failure may wait this long to be judged


class LostAttempts:
    """Judges lost attempts: a node that was taken away is no failure of the trial, a process that died on a live node may be.

    Args:
        any_gone: whether one of these nodes is dead or draining. fail: takes the verdict. clock: seconds, never going back.
    """

    def __init__(
        self,
        any_gone: Callable[[Iterable[str]], bool],
        fail: Callable[[Attempt, Failure], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.any_gone, self.fail, self.clock = any_gone, fail, clock
        self._pending: list[tuple[float, Attempt, Failure]] = []  # judged at the latest when, who, why

    def __bool__(self) -> bool:
        """True while an attempt waits to be judged."""
        return bool(self._pending)

    def add(self, attempt: Attempt, failure: Failure) -> None:
        """Takes an attempt that broke for a reason that may lie outside the trial."""
        wait_s = NODE_NEWS_S if failure.kind is FailureKind.WORKER_LOST else 0.0
        self._pending.append((self.clock() + wait_s, attempt, failure))

    def judge(self) -> None:
        """Reports every attempt of which enough is known by now."""
        pending, self._pending = self._pending, []
        for deadline, attempt, failure in pending:
            lost = failure.kind in (FailureKind.WORKER_LOST, FailureKind.WORKER_CRASHED)
            nodes = attempt.nodes | set(attempt.placed)  # not each of its processes may have said where it runs
            if lost and self.any_gone(nodes):
                self.fail(attempt, replace(failure, kind=FailureKind.NODE_PREEMPTED, reason="preempted"))
            elif not lost or self.clock() >= deadline:
                self.fail(attempt, failure)
            else:
                self._pending.append((deadline, attempt, failure))
