"""Ctrl-C as a request: the first press asks, the second one interrupts at once.

A signal handler runs between any two lines of the main thread, also in the middle of a journal write. So it only raises a
flag; whoever drives the sweep looks at it where rows may be written.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def ctrl_c(say: Callable[[str], None]) -> Iterator[Interrupt]:
    """Gives the flag that the first Ctrl-C raises; the second raises KeyboardInterrupt. Outside the main thread, nothing."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True
        say("Ctrl-C: running trials save a checkpoint and stop; press again to stop at once")

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
