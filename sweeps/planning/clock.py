"""How long a cluster takes for a sweep: trials in order, each on the first machines that fit it, branches after their trunk.

The same two rules as on a cluster (`cluster.resources`): the head of the line is served first, and what fits beside it
may start earlier as long as it does not take what the head waits for. An elastic trial that could never have all of its workers
runs on as many as there is room for, as much longer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sweeps.errors import InputError
from sweeps.planning.work import TrialWork

EVERY: Final = 1 << 30
"""Room for any number of workers."""


@dataclass(frozen=True, slots=True)
class Span:
    """When a trial runs, in seconds from the start, and on which node its first worker is."""

    trial: str
    start: float
    end: float
    node: int


class DoesNotFit(InputError):
    """A trial asks for more than the whole cluster has."""


def timeline(
    work: Sequence[TrialWork],
    seconds: Mapping[str, float],
    nodes: Sequence[float],
    *,
    gpus: bool,
    cpus: Sequence[float] = (),
) -> list[Span]:
    """Returns when each trial runs.

    Args:
        work: trials in the order in which they are suggested. seconds: how long each holds its machines.
        nodes: devices of each node (GPUs, or CPUs where `gpus` is false). cpus: of each node beside its GPUs; empty: enough.

    Raises:
        DoesNotFit: a trial needs more devices than all nodes have, on its fewest workers.
    """
    free = [_Room(have, cpus[i] if cpus else math.inf) for i, have in enumerate(nodes)]
    needs = {
        w.trial: _Room((w.gpus if gpus else w.cpus) / w.workers, w.cpus / w.workers if cpus else 0.0) for w in work
    }
    smallest = min((w.workers * needs[w.trial].devices for w in work), default=0.0)
    known = {w.trial for w in work}
    branches: dict[str, list[int]] = {}
    for number, item in enumerate(work):
        if item.parent in known:
            branches.setdefault(item.parent, []).append(number)

    def place_in_line(number: int) -> tuple[bool, int]:
        """Trunks before others, so that their branches come free early."""
        return work[number].trial not in branches, number

    ready = [place_in_line(number) for number, item in enumerate(work) if item.parent not in known]
    heapq.heapify(ready)
    running: list[tuple[float, str, list[tuple[int, int]]]] = []
    spans: list[Span] = []
    now = 0.0
    while ready or running:
        passed = []
        while ready and sum(room.devices for room in free) + 1e-9 >= smallest:
            place = heapq.heappop(ready)
            item = work[place[1]]
            held = _place(free, item.workers, needs[item.trial])
            if held is None:
                passed.append(place)
                continue
            end = now + seconds[item.trial]
            heapq.heappush(running, (end, item.trial, held))
            spans.append(Span(item.trial, now, end, held[0][0]))
        for place in passed:
            heapq.heappush(ready, place)
        if not running:
            item = work[heapq.heappop(ready)[1]]
            workers, held = _place_fewer(free, item, needs[item.trial])
            if held is None:
                raise DoesNotFit(
                    f"trial {item.trial} ({item.model}) needs {item.fewest or item.workers} x {needs[item.trial].devices:g} "
                    f"{'GPUs' if gpus else 'CPUs'}{_beside(needs[item.trial])}; the nodes have "
                    f"{', '.join(f'{n:g}' for n in nodes)}{f' and {min(cpus):g} CPUs or more' if cpus else ''}"
                )
            end = now + seconds[item.trial] * item.workers / workers
            heapq.heappush(running, (end, item.trial, held))
            spans.append(Span(item.trial, now, end, held[0][0]))
        now, ended, held = heapq.heappop(running)
        for node, workers in held:
            free[node] = free[node].plus(needs[ended], workers)
        for number in branches.get(ended, ()):
            heapq.heappush(ready, place_in_line(number))
    return spans


class _Room(NamedTuple):
    """Devices and the CPUs beside them: of a node, or of one worker."""

    devices: float
    cpus: float

    def fits(self, need: _Room) -> int:
        """Returns how many workers there is room for."""
        counts = [
            int((have + 1e-9) / each)
            for have, each in ((self.devices, need.devices), (self.cpus, need.cpus))
            if each and not math.isinf(have)
        ]
        return min(counts, default=EVERY)

    def plus(self, need: _Room, workers: int) -> _Room:
        return _Room(self.devices + workers * need.devices, self.cpus + workers * need.cpus)


def _place_fewer(free: list[_Room], item: TrialWork, need: _Room) -> tuple[int, list[tuple[int, int]] | None]:
    """Takes room for as many workers of an elastic trial as an empty cluster has, fewer than it would like; None for too few."""
    for workers in range(item.workers - 1, (item.fewest or item.workers) - 1, -1):
        if (held := _place(free, workers, need)) is not None:
            return workers, held
    return 0, None


def _beside(need: _Room) -> str:
    return f" and {need.cpus:g} CPUs" if need.cpus else ""


def _place(free: list[_Room], workers: int, need: _Room) -> list[tuple[int, int]] | None:
    """Takes room for each worker, on one node if one has room for all, else spread; None where they do not fit.

    Returns nodes with their numbers of workers.
    """
    fits = [room.fits(need) for room in free]
    one = [i for i, count in enumerate(fits) if count >= workers]
    if one:
        held = [(min(one, key=lambda i: free[i].devices), workers)]
    else:
        held, left = [], workers
        for node in sorted(range(len(free)), key=lambda i: -free[i].devices):
            if fit := min(left, fits[node]):
                held.append((node, fit))
                left -= fit
        if left:
            return None
    for node, count in held:
        free[node] = free[node].plus(need, -count)
    return held
