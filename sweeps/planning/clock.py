"""How long a cluster takes for a sweep: trials in order, each on the first machines that fit it, branches after their trunk.

The same two rules as on a cluster (`cluster.resources`): the head of the line is served first, and what fits beside it
may start earlier as long as it does not take what the head waits for.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.errors import InputError
from sweeps.planning.work import TrialWork


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
    work: Sequence[TrialWork], seconds: Mapping[str, float], nodes: Sequence[float], *, gpus: bool
) -> list[Span]:
    """Returns when each trial runs.

    Args:
        work: trials in the order in which they are suggested. seconds: how long each holds its machines.
        nodes: devices of each node (GPUs, or CPUs where `gpus` is false).

    Raises:
        DoesNotFit: a trial needs more devices than all nodes have.
    """
    free = list(nodes)
    needs = {w.trial: (w.gpus if gpus else w.cpus) / w.workers for w in work}
    smallest = min((w.workers * needs[w.trial] for w in work), default=0.0)
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
    running: list[tuple[float, str, list[tuple[int, float]]]] = []
    spans: list[Span] = []
    now = 0.0
    while ready or running:
        passed = []
        while ready and sum(free) + 1e-9 >= smallest:
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
            needed = work[ready[0][1]]
            raise DoesNotFit(
                f"trial {needed.trial} ({needed.model}) needs {needed.workers} x {needs[needed.trial]:g} "
                f"{'GPUs' if gpus else 'CPUs'}; the nodes have {', '.join(f'{n:g}' for n in nodes)}"
            )
        now, ended, held = heapq.heappop(running)
        for node, amount in held:
            free[node] += amount
        for number in branches.get(ended, ()):
            heapq.heappush(ready, place_in_line(number))
    return spans


def _place(free: list[float], workers: int, need: float) -> list[tuple[int, float]] | None:
    """Takes `need` devices for each worker, on one node if one has room for all, else spread; None where they do not fit."""
    wanted = workers * need
    one = [i for i, have in enumerate(free) if have + 1e-9 >= wanted]
    if one:
        node = min(one, key=lambda i: free[i])
        free[node] -= wanted
        return [(node, wanted)]
    held: list[tuple[int, float]] = []
    left = workers
    for node in sorted(range(len(free)), key=lambda i: -free[i]):
        fit = min(left, int((free[node] + 1e-9) / need)) if need else left
        if fit:
            held.append((node, fit * need))
            left -= fit
    if left:
        return None
    for node, amount in held:
        free[node] -= amount
    return held
