"""Ctrl-C, SIGTERM and their kin as a request: the first one asks, a second Ctrl-C interrupts at once.

A signal handler runs between any two lines of the main thread, also in the middle of a journal write. So it only raises a
flag; the driver looks at it where rows may be written.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGPWR")
STOPS: Final = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))  # macOS has no SIGPWR
"""Ctrl-C; what service managers send; a terminal that was closed; what batch systems send before a time limit; the power is
about to fail."""


class Interrupt:
    """Whether this process was asked to save and end.

    Attributes:
        reason: what asked for it: `Ctrl-C`, `SIGTERM`, …; empty before that.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None, signals: Sequence[int] = ()) -> None:
        self.reason = ""
        self._say, self._signals = say, signals

    def __bool__(self) -> bool:
        return bool(self.reason)

    def listen(self) -> None:
        """Installs its signal handlers; again where a library has replaced one since."""
        for number in self._signals:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self:
            self.reason = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            self._say(f"{self.reason}: running trials save a checkpoint and stop; Ctrl-C (again) stops at once")


@contextmanager
def stop_signals(say: Callable[[str], None]) -> Iterator[Interrupt]:
    """Gives the flag that the first of these signals raises; a second Ctrl-C raises KeyboardInterrupt.

    Any other one changes nothing the second time: a terminal that is closed sends two. A signal that is ignored, as under
    `nohup`, stays so. Outside the main thread, nothing is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Interrupt()
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    # None is a handler that Python does not know and could not put back.
    handled = [n for n in STOPS if n == signal.SIGINT or before[n] not in (signal.SIG_IGN, None)]
    interrupt = Interrupt(say, handled)
    interrupt.listen()
    try:
        yield interrupt
    finally:
        for number in handled:
            signal.signal(number, before[number])


@contextmanager
def signals_as_ctrl_c() -> Iterator[None]:
    """Around what has nothing to save yet, or any more: SIGTERM and SIGHUP end it as Ctrl-C does, so that it cleans up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    for number, old in before.items():
        if old == signal.SIG_DFL:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
