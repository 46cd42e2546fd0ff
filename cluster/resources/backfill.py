"""Gang scheduling with backfill: which waiting trial starts now, on a cluster of unequal gaps, without starving any.

Pure, and without a clock of its own: the caller says what is free on each node, which trials wait, what runs and what
time it is. The queue is served in order. When its head does not fit, a start is reserved for it: the time at which, by
what is known of the running trials, enough of them will have ended. Until then smaller trials may overtake it if they
end before that time or leave it room (EASY backfilling: Lifka 1995); from then on nothing starts before it. The
reserved start only moves nearer, when others end early. So the head waits as long as the running trials were expected
to take, and then for what still runs: two of the longest runs where expectations hold. Where nothing is known of the
running trials, a fixed number of others may overtake it. The last trials of a queue that nothing joins any more are
served longest first, so that no long trial runs on alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

Resources = Mapping[str, float]
Nodes = Mapping[str, Resources]  # what each node has free, by name

OVERTAKES = 8  # without expectations: this many trials may overtake the head of the queue
BLOCKED_S = 10.0  # a trial counts as blocked by external usage after this long; what just ended is free in less
ELASTIC_WAIT_S = 60.0  # an elastic trial waits this long for all its workers before it takes fewer
_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Group:
    """What an attempt reserves, all or nothing: `workers` equal bundles, down to `min_workers` when it is elastic."""

    bundle: Resources = field(hash=False)
    workers: int
    min_workers: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A trial in the queue; `expected` is how long it will run, in seconds, None when nothing is known."""

    trial: str
    group: Group
    expected: float | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt that runs: what it gives back on which nodes, and in how many seconds by what is known."""

    bundle: Resources
    placed: Mapping[str, int]
    left: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Start this trial now, on so many workers; `placed` is where they fit (the placement itself is Ray's)."""

    trial: str
    workers: int
    placed: Mapping[str, int]


class BackfillScheduler:
    """Decides the order of starts.

    Args:
        overtakes: without expectations, how many trials may overtake the head of the queue.
        elastic_wait_s: how long an elastic trial waits for all its workers before it takes fewer.

    Attributes:
        head: the trial at the head of the queue, there `since` (seconds). reserved_start: when it starts at the latest,
            by what is known. overtaken: how many were started before it.
        final_order: place of each of the last trials, once no other joins the queue.
        blocked_by_external: groups that would not fit even if everything of this sweep ended, and since when.
    """

    def __init__(self, overtakes: int = OVERTAKES, elastic_wait_s: float = ELASTIC_WAIT_S) -> None:
        self.overtakes, self.elastic_wait_s = overtakes, elastic_wait_s
        self.head, self.since, self.reserved_start, self.overtaken = "", 0.0, math.inf, 0
        self.final_order: dict[str, int] = {}
        self.blocked_by_external: dict[Group, float] = {}

    def order(self, line: Sequence[Waiting], total: Nodes) -> list[Waiting]:
        """Returns the queue in the order in which it is to be served, when no further trial will join it.

        The order stays as it is until the cluster can do all that waits in the time of the longest of them; from then on
        it is longest first. It is changed once, since a head that changes again and again never gets a reserved start,
        and late, since otherwise some would wait beyond their fair bound (`benchmarks.scale.mixes`). A trial that joins
        all the same keeps its end of the queue: one whose process was lost stands at its head and goes on first, one that
        somebody added comes last.
        """
        if not any(w.trial in self.final_order for w in line):
            self.final_order = {}  # all of those have started; these came later
        if not self.final_order and _one_longest_run(line, total):
            longest = sorted(line, key=lambda w: -(w.expected or 0.0))
            self.final_order = {w.trial: place for place, w in enumerate(longest)}
        known = [i for i, w in enumerate(line) if w.trial in self.final_order]
        head, last = (known[0] if known else 0), len(self.final_order)
        places = [self.final_order.get(w.trial, -1 if i < head else last) for i, w in enumerate(line)]
        return [line[i] for i in sorted(range(len(line)), key=places.__getitem__)]

    def choose(
        self,
        free: Nodes,
        line: Sequence[Waiting],
        running: Sequence[Running],
        now: float,
        *,
        external_usage: bool = True,
    ) -> Choice | None:
        """Returns what to start now, or None: then ask again when something has ended.

        Args:
            free: what each node has free. line: the waiting trials, in order. running: what will be given back.
            now: seconds on any clock that never goes back.
            external_usage: what is neither free nor in `running` belongs to others, who will not give it back for this queue.
        """
        self._note_blocked(free, line, running, now)
        if external_usage:
            line = [w for w in line if not self.blocked(w.group, now)]
        if not line:
            return None
        head = line[0]
        if (choice := _whole(free, head)) is not None:
            return choice
        self._reserve(free, head, running, now)
        waited = now - self.since
        if waited >= self.elastic_wait_s and (choice := _fewer(free, head)) is not None:
            return choice
        known = math.isfinite(self.reserved_start)
        if now >= self.reserved_start or (not known and self.overtaken >= self.overtakes):
            return None
        then = _after(free, running, self.reserved_start - now) if known else {}
        answers: dict[Group, Choice | None] = {}  # one look at each size: a queue holds many of the same
        for other in sorted(line[1:], key=_large_and_long):  # large and long ones fit least often
            if other.group not in answers:
                answers[other.group] = _whole(free, other)
            choice = answers[other.group]
            if choice is None:
                continue
            over_by_then = other.expected is not None and now + other.expected <= self.reserved_start
            if not known or over_by_then or _leaves_room(then, other.group, choice, head.group):
                self.overtaken += 1
                return replace(choice, trial=other.trial)
        return None

    def blocked(self, group: Group, now: float) -> bool:
        """True when machines that the group needs have been in external use for BLOCKED_S: another sweep, a notebook."""
        return now - self.blocked_by_external.get(group, now) >= BLOCKED_S

    def _note_blocked(self, free: Nodes, line: Sequence[Waiting], running: Sequence[Running], now: float) -> None:
        """Notes the groups that only external usage keeps waiting: an end of this sweep's trials would not help them."""
        all_ours = {n: dict(has) for n, has in free.items()}
        for r in running:
            _add(all_ours, r.bundle, r.placed, 1)
        for group in {w.group for w in line}:
            if fits_ever(all_ours, group):
                self.blocked_by_external.pop(group, None)
            else:
                self.blocked_by_external.setdefault(group, now)

    def _reserve(self, free: Nodes, head: Waiting, running: Sequence[Running], now: float) -> None:
        if head.trial != self.head:
            self.head, self.since, self.overtaken, self.reserved_start = head.trial, now, 0, math.inf
        self.reserved_start = min(self.reserved_start, now + _room_in(free, head.group, running))  # sooner, never later


def fit(free: Nodes, bundle: Resources, workers: int) -> dict[str, int] | None:
    """Returns how many bundles go on which node, or None when there is no room for all: packed on as few as possible.

    One node that holds all is best, and of several the fullest one, so that large gaps stay for large groups.
    """
    room = {node: capacity(has, bundle) for node, has in free.items()}
    alone = [node for node, n in room.items() if n >= workers]
    if alone:
        return {min(alone, key=lambda node: (room[node], node)): workers}
    placed: dict[str, int] = {}
    for node in sorted(room, key=lambda n: (-room[n], n)):
        if room[node] <= 0:
            break
        placed[node] = min(room[node], workers - sum(placed.values()))
        if sum(placed.values()) == workers:
            return placed
    return None


def capacity(has: Resources, bundle: Resources) -> int:
    """Returns how many such bundles fit on a node. A share of a GPU lies on one GPU: 1.5 free hold two of 0.5, not of 0.6."""
    limits = []
    for name, amount in bundle.items():
        free = has.get(name, 0.0) + _EPS
        if amount <= 0:
            continue
        if name == "GPU" and amount < 1:
            whole, rest = divmod(free, 1.0)
            limits.append(int(whole) * int(1 / amount + _EPS) + int(rest / amount + _EPS))
        else:
            limits.append(int(free / amount))
    return min(limits, default=2**31)


def fits_ever(total: Nodes, group: Group) -> bool:
    """True when an empty cluster of these nodes holds the group at its smallest."""
    return fit(total, group.bundle, group.min_workers) is not None


@dataclass(slots=True)
class Pace:
    """Seconds per step by kind of trial (its model, say), learned from what ran; the mean over all that was seen."""

    steps: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def learn(self, kind: str, steps: int, seconds: float) -> None:
        """Takes in that an attempt made `steps` in `seconds`, its start-up included."""
        self.steps[kind] = self.steps.get(kind, 0) + steps
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds

    def expect(self, kind: str, steps: int) -> float | None:
        """Returns how long `steps` of that kind take, or None when none was seen."""
        return steps * self.seconds[kind] / self.steps[kind] if self.steps.get(kind) else None


def _whole(free: Nodes, waiting: Waiting) -> Choice | None:
    placed = fit(free, waiting.group.bundle, waiting.group.workers)
    return Choice(waiting.trial, waiting.group.workers, placed) if placed is not None else None


def _fewer(free: Nodes, waiting: Waiting) -> Choice | None:
    group = waiting.group
    for workers in range(group.workers - 1, group.min_workers - 1, -1):
        placed = fit(free, group.bundle, workers)
        if placed is not None:
            return Choice(waiting.trial, workers, placed)
    return None


def _one_longest_run(line: Sequence[Waiting], total: Nodes) -> bool:
    """True when the whole cluster could do all that waits in the time of its longest trial; False when one is not known."""
    runs = [w.expected for w in line if w.expected is not None]
    if not runs or len(runs) < len(line):
        return False
    work: dict[str, float] = {}
    for waiting in line:
        for name, amount in waiting.group.bundle.items():
            work[name] = work.get(name, 0.0) + amount * waiting.group.workers * (waiting.expected or 0.0)
    return all(done <= max(runs) * sum(has.get(name, 0.0) for has in total.values()) for name, done in work.items())


def _large_and_long(waiting: Waiting) -> tuple[int, float]:
    return -waiting.group.workers, -(waiting.expected or 0.0)


def _leaves_room(then: Nodes, other: Group, choice: Choice, head: Group) -> bool:
    """True when the head of the queue fits at its reserved start beside the other trial."""
    return fit(less(then, other.bundle, choice.placed), head.bundle, head.workers) is not None


def _room_in(free: Nodes, group: Group, running: Sequence[Running]) -> float:
    """Returns in how many seconds the whole group fits by what is known, or infinity."""
    for left in sorted(r.left for r in running if r.left is not None):
        if fit(_after(free, running, left), group.bundle, group.workers) is not None:
            return max(left, 0.0)
    return math.inf


def _after(free: Nodes, running: Iterable[Running], seconds: float) -> Nodes:
    """Returns what is free once everything that is over by then has given back its machines."""
    out = {node: dict(has) for node, has in free.items()}
    for r in running:
        if r.left is not None and r.left <= seconds + _EPS:
            _add(out, r.bundle, r.placed, 1)
    return out


def less(free: Nodes, bundle: Resources, placed: Mapping[str, int]) -> Nodes:
    """Returns what is free once such bundles lie there."""
    out = {node: dict(has) for node, has in free.items()}
    _add(out, bundle, placed, -1)
    return out


def _add(nodes: dict[str, dict[str, float]], bundle: Resources, placed: Mapping[str, int], sign: int) -> None:
    for node, count in placed.items():
        if node in nodes:  # a node may have gone meanwhile
            for name, amount in bundle.items():
                nodes[node][name] = nodes[node].get(name, 0.0) + sign * count * amount
