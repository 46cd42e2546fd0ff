"""What the storage stood in the way of is tried again: later each time, and with a sentence on what is needed.

Where it may be everybody's trouble the whole sweep waits; where it is one machine's own, that machine alone is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

FIRST_S: Final = 1.0
LONGEST_S: Final = 60.0
NODE_FIRST_S: Final = 15.0
"""A start on a node costs its trial some seconds, and others can take it: longer than `FIRST_S`."""


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


class NodeBackoff:
    """Leaves a machine alone for a while that does not see the storage: attempts start on others, and evaluators of others score.

    Args:
        say: takes a sentence. clock: seconds that never go back.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.say, self.clock = say, clock
        self._next_s: dict[str, float] = {}
        self._until: dict[str, float] = {}

    def failed(self, node: str, why: str) -> None:
        """Something failed on a node, by its own trouble; several at the same time count as one."""
        if node in self.avoided():
            return
        wait_s = self._next_s.get(node, NODE_FIRST_S)
        self.say(f"nothing starts on one node for {wait_s:.0f} s, others go on: {why}, or drain it (ray drain-node)")
        self._until[node], self._next_s[node] = self.clock() + wait_s, min(2 * wait_s, LONGEST_S)

    def worked(self, nodes: Iterable[str]) -> None:
        """Something ended well on these nodes."""
        for node in nodes:
            self._until.pop(node, None)
            self._next_s.pop(node, None)

    def avoided(self) -> frozenset[str]:
        """Returns the nodes on which nothing is to start now."""
        now = self.clock()
        return frozenset(node for node, until in self._until.items() if now < until)
