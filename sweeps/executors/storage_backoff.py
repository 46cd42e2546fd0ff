"""What the storage stood in the way of is tried again: later each time, and with a sentence on what is needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

FIRST_S: Final = 1.0
LONGEST_S: Final = 60.0


class StorageBackoff:
    """Holds new attempts and evaluations back after one for which the storage had no room, or did not answer.

    Args:
        say: takes a sentence. clock: seconds that never go back.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.say, self.clock = say, clock
        self._next_s, self._until = FIRST_S, float("-inf")

    def failed(self, why: str) -> None:
        """Something could not be stored or read; several at the same time count as one."""
        if self.waiting:
            return
        self.say(f"paused: {why}; tried again in {self._next_s:.0f} s, as often as it takes")
        self._until = self.clock() + self._next_s
        self._next_s = min(2 * self._next_s, LONGEST_S)

    def worked(self) -> None:
        """Something was stored: the next trouble is a new one."""
        self._next_s = FIRST_S

    @property
    def waiting(self) -> bool:
        """True while nothing new is to be started."""
        return self.clock() < self._until
