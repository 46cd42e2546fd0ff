"""How long after a stop a whole machine was given back, for sweeps whose every trial takes all of it."""

from __future__ import annotations

import threading
import time

import ray
from ray.util.placement_group import placement_group_table

from sweeps.journal.rows import Row

LOOK_S = 0.05


class Release:
    """Looks twenty times a second for the end of what each stop began; `freed` has the seconds of each stop, in order.

    A machine was given back when Ray says that all of it is free, or when another group has it: groups that take all of a
    machine never share it. The second sign is needed because the next trial may have the machine in less time than
    Ray's own view of what is free takes to follow (0.1 s); that view alone found one stop in ten one whole trial late.

    Args:
        resource, whole: what every trial takes, and how much of it there is.
    """

    def __init__(self, resource: str, whole: float) -> None:
        self.resource, self.whole = resource, whole
        self.stops, self.freed = list[float](), list[float]()
        self._held = set[str]()
        threading.Thread(target=self._watch, daemon=True).start()

    def heard(self, row: Row) -> None:
        """Takes a row of the journal: at each verdict the clock starts."""
        if row.kind == "verdict":
            now = time.monotonic()
            self._held = _groups()
            self.stops.append(now)

    def settled(self, patience_s: float = 30.0) -> list[float]:
        """Returns the seconds of each stop; of one that gave nothing back in that time, infinity."""
        deadline = time.monotonic() + patience_s
        while len(self.freed) < len(self.stops) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        return [*self.freed, *[float("inf")] * (len(self.stops) - len(self.freed))]

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK_S)
            if len(self.freed) < len(self.stops) and (self._all_free() or _groups() - self._held):
                self.freed.append(time.monotonic() - self.stops[len(self.freed)])

    def _all_free(self) -> bool:
        return bool(ray.available_resources().get(self.resource, 0.0) >= self.whole - 1e-6)


def _groups() -> set[str]:
    """Returns the groups that have their machines."""
    return {name for name, group in placement_group_table().items() if group["state"] == "CREATED"}
