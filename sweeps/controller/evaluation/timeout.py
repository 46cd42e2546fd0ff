"""How long an evaluation may take: one rule for every executor, and a limit for those that have one process only."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

FIRST_S: Final = 12 * 3600.0
"""Before one has ended: the paper's suite takes a 14B model hours on one device, by arithmetic."""
SHORTEST_S: Final = 600.0
SLOWER: Final = 10.0
"""Without a limit of the user's own an evaluation may take so many times as long as the longest one so far: replies
grow several times longer in a dip (arXiv 2604.06628), a hung process never returns."""
AGAIN_S: Final = 1.0
"""Code that swallows the first TimeoutError gets another one so much later."""
TICK_S: Final = 1.0


class Allowance:
    """The longest time of one evaluation: `timeout_s` where the user set it, else derived from those before."""

    def __init__(self, timeout_s: float | None = None) -> None:
        self.timeout_s = timeout_s
        self.longest = 0.0

    def took(self, seconds: float, scores: object) -> None:
        """Hears how long an evaluation took that gave scores: what a look-up took says nothing of the next one, and one that
        ended early (`sweeps.controller.evaluation.early_stopping`) counts for what all of its items would have taken."""
        if not getattr(scores, "cached", False):
            asked = getattr(scores, "asked", None) or {"items": 1, "of": 1}
            self.longest = max(self.longest, seconds * asked["of"] / asked["items"])

    @property
    def limit_s(self) -> float:
        """How long one may take now."""
        if self.timeout_s is not None:
            return self.timeout_s
        return max(SHORTEST_S, SLOWER * self.longest) if self.longest else FIRST_S

    @property
    def overdue(self) -> TimeoutError:
        """What to say of one that took longer."""
        return TimeoutError(f"over the limit of {self.limit_s:g} s (evaluation.timeout_s)")


@contextmanager
def time_limit(late: TimeoutError, seconds: float) -> Iterator[None]:
    """Raises `late` in what runs in this block after so many seconds; those of a process that was stopped (Ctrl-Z) do not count.

    A signal to this thread raises between two lines of Python and wakes a call that waits. It is SIGURG, which asks for
    nothing else and does nothing where it comes too late; libraries use SIGALRM, batch systems SIGUSR1. A native call that
    neither returns nor waits is not broken off, nor anything outside the main thread, where Python has no signals.

    Raises:
        TimeoutError: it took too long; also where the block swallowed that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over, ended = threading.Event(), threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        if not ended.is_set():
            raise late

    def watch() -> None:
        left = seconds
        while not ended.wait(tick := min(left, TICK_S)):
            left -= tick  # of the time of a clock that went on while the process stood still, one tick at most
            if left > 0:
                continue
            over.set()
            left = AGAIN_S
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGURG)

    before = signal.signal(signal.SIGURG, handler)
    watcher = threading.Thread(target=watch, daemon=True, name="time limit")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        signal.signal(signal.SIGURG, before)
    if over.is_set():  # swallowed on the way: whatever came of it is not to be trusted
        raise late
