"""Which waiting attempt the Ray cluster has room for now, node by node, and which nodes are about to be taken away.

Evaluators come first: their pool is set up before the first trial and keeps what it reserves, so scores never wait for
trainers; trainers share the rest by `cluster.resources.backfill`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import ray

from cluster.ray_internals.nodes import available_resources_per_node, draining_nodes, total_resources_per_node
from cluster.resources.backfill import (
    BackfillScheduler,
    Choice,
    Group,
    Nodes,
    Pace,
    Running,
    Waiting,
    fit,
    fits_ever,
    less,
)
from cluster.resources.bundles import Attempt, beside_evaluators, bundle, held, pace_key, times, total
from sweeps.config.plan import Plan
from sweeps.config.trial import ModelSource, TrialSpec

LOOK_AHEAD = 64  # how many waiting trials a search without memory is asked for
RECHECK_S = 0.2  # how soon the cluster is looked at again when nothing fitted and nothing ended
SETTLE_S = 3.0  # how long Ray's view may lag behind a group that was just placed (usually 0.1)
NODES_S = 1.0  # how often Ray is asked which nodes are going away


@dataclass(slots=True)
class _Settling:
    """A group that was just placed, while Ray's view may be without it.

    Attributes:
        since: seconds, own clock. placed, need: bundles by node, and what one is.
        then: what the whole cluster has free of each resource once Ray sees the group.
    """

    since: float
    placed: Mapping[str, int]
    need: Mapping[str, float]
    then: dict[str, float]

    def seen(self, free: Mapping[str, float]) -> bool:
        """True when no more is free than there can be with the group in it."""
        return all(free.get(name, 0.0) <= amount + 1e-6 for name, amount in self.then.items())


class PlacementScheduler:
    """Chooses the next attempt to start.

    Args:
        plan: whose trials will want room. avoided: nodes on which nothing is to start for now. clock: seconds, never going back.

    Attributes:
        look_ahead: for how many of the trials that wait the autoscaler is asked for nodes.
        look_ahead_if_blocked: how many are asked of the search when the first does not fit.
        external_usage: whether what others use on the cluster will not be given back for this sweep.
        draining: nodes that will be taken away. nodes: what the others have in all. room: that without the evaluators.
        view: what is free in all, by resource, after what was started since Ray was last asked.
    """

    def __init__(
        self,
        plan: Plan,
        clock: Callable[[], float] = time.monotonic,
        avoided: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self.avoided = avoided
        self.clock, self.backfill, self.pace = clock, BackfillScheduler(), Pace()
        self.without_memory = _without_memory(plan)
        self.look_ahead_if_blocked = _look_ahead(plan)
        self.look_ahead = LOOK_AHEAD if self.without_memory else self.look_ahead_if_blocked
        self.evaluation = plan.sweep.evaluation
        self.next_check = self.next_node_check = 0.0
        self.external_usage = True
        self.draining: frozenset[str] = frozenset()
        self.nodes: Nodes = {}
        self.room: Nodes = {}
        self.settling: list[_Settling] = []
        self.view: dict[str, float] = {}

    def choose(
        self, offer: Callable[[int], list[TrialSpec]], running: Iterable[Attempt], ended: Attempt | None = None
    ) -> Choice | None:
        """Returns what to start now.

        A trial that no present node can hold waits for the autoscaler and is the first to start on what it adds. Until
        then the queue begins behind it: nothing that starts elsewhere delays it.

        Args:
            offer: gives the first n trials of the queue. A search that learns from scores is asked for more than one only
                when the first does not fit and others are of another size.
            running: the attempts on the cluster. ended: one that is over and whose processes still hold its place.
        """
        now = self.clock()
        if now < self.next_check or not (line := self._queue(offer, self.look_ahead if self.without_memory else 1)):
            return None
        seen: Nodes = self.free()
        free: Nodes = self._settled(seen, now)
        busy, first = [self._running(a, now) for a in running], line[0]
        if ended is not None:
            need = bundle(ended.launch.spec.model)
            back = {node: -count for node, count in ended.placed.items() if node not in self.draining}
            seen, free = less(seen, need, back), less(free, need, back)
        surely, perhaps = (fit(nodes, first.group.bundle, first.group.workers) is not None for nodes in (free, seen))
        if perhaps and not surely:
            return None  # known in a moment, and until then nothing overtakes
        avoids = bool(self.avoided())
        external = self.external_usage and not avoids
        choose = partial(self.backfill.choose, free, running=busy, now=now, external_usage=external)
        choice = choose([first] if surely or self.could_ever_fit(first.group) else [])
        if choice is None and self.look_ahead_if_blocked > 1:
            line = line if self.without_memory else self._queue(offer, self.look_ahead_if_blocked)
            choice = choose([w for w in line if self.could_ever_fit(w.group)])
        if avoids:
            self.backfill.blocked_by_external.clear()  # a node that is left alone is nobody's usage
        if choice is None:
            self.next_check = now + RECHECK_S
        return choice

    def _queue(self, offer: Callable[[int], list[TrialSpec]], limit: int) -> list[Waiting]:
        """Returns at most `limit` waiting trials in the order in which they are served."""
        line = [self._waiting(spec) for spec in offer(limit)]
        if len(line) < limit and self.without_memory:  # all that will ever come
            self.draining_nodes()  # brings `room` up to date
            line = self.backfill.order(line, self.room)
        return line

    def started(self, choice: Choice, model: ModelSource) -> None:
        """Notes that a choice was started."""
        need = bundle(model)
        for name, amount in times(need, choice.workers).items():
            self.view[name] = self.view.get(name, 0.0) - amount
        self.settling.append(_Settling(self.clock(), choice.placed, need, {name: self.view[name] for name in need}))

    def ended(self, attempt: Attempt) -> None:
        """Notes that an attempt is over: learns its pace, and looks at the cluster at once."""
        if attempt.done:
            self.pace.learn(attempt.kind, attempt.done, self.clock() - attempt.since)
        self.next_check = 0.0

    def given_back(self, attempt: Attempt) -> None:
        """Notes that the processes of an attempt are gone; Ray frees their placement group a little later."""
        self.next_check = 0.0
        for one in self.settling:
            for name, amount in held([attempt]).items():
                if name in one.then:
                    one.then[name] += amount

    def draining_nodes(self) -> frozenset[str]:
        """Returns the nodes that Ray was told will be taken away (drained, preempted)."""
        now = self.clock()
        if now >= self.next_node_check:
            self.next_node_check = now + NODES_S
            self.draining = draining_nodes()
            self.nodes = {n: has for n, has in total_resources_per_node().items() if n not in self.draining}
            self.room = beside_evaluators(self.nodes, self.evaluation)
        return self.draining

    def could_ever_fit(self, group: Group) -> bool:
        """True when the present nodes can hold the group once they are free."""
        return fits_ever(self.room, group)

    def first(self, offer: Callable[[int], list[TrialSpec]]) -> Group | None:
        """Returns the group of the trial that would start next on the present nodes."""
        self.draining_nodes()
        return next((w.group for w in self._queue(offer, self.look_ahead) if self.could_ever_fit(w.group)), None)

    def blocked(self, group: Group) -> bool:
        """True when others on the cluster have held what a group needs for some time."""
        return self.external_usage and self.backfill.blocked(group, self.clock())

    def any_gone(self, nodes: Iterable[str]) -> bool:
        """True when one of these nodes is dead, or being taken away."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        return any(node not in alive or node in self.draining for node in nodes)

    def free(self) -> dict[str, dict[str, float]]:
        """Returns what Ray says is free, on nodes that stay and on which something may start."""
        off = {*self.draining_nodes(), *self.avoided()}
        return {n: dict(has) for n, has in available_resources_per_node().items() if n not in off}

    def _settled(self, seen: Mapping[str, Mapping[str, float]], now: float) -> dict[str, dict[str, float]]:
        """Returns what is free if Ray does not show the latest groups yet: at times too little, never too much."""
        free, whole = {n: dict(has) for n, has in seen.items()}, total(seen.values())
        self.settling = [s for s in self.settling if now - s.since < SETTLE_S and not s.seen(whole)]
        for one in self.settling:
            for node, count in one.placed.items():
                for name, amount in times(one.need, count).items():
                    if node in free:
                        free[node][name] = free[node].get(name, 0.0) - amount
        self.view = total(free.values())
        return free

    def _waiting(self, spec: TrialSpec) -> Waiting:
        model = spec.model
        group = Group(bundle(model), model.workers, model.fewest)
        return Waiting(spec.id, group, self.pace.expect(pace_key(spec, model.workers), spec.steps))

    def _running(self, attempt: Attempt, now: float) -> Running:
        spec, seconds = attempt.launch.spec, now - attempt.since
        first = attempt.launch.resume.step if attempt.launch.resume else 0
        whole = self.pace.expect(attempt.kind, spec.steps - first)
        left = seconds / attempt.done * (spec.steps - attempt.step) if attempt.done else None
        if left is None and whole is not None:
            left = max(0.0, whole - seconds)
        return Running(bundle(spec.model), attempt.placed, left)


def _look_ahead(plan: Plan) -> int:
    sweep = plan.sweep
    sizes = {
        (tuple(bundle(m).items()), m.workers, m.fewest)
        for m in map(sweep.model_source, sweep.axis_values("model", sweep.default_model))
    }
    if len(sizes) == 1:
        return 1  # when the first does not fit, no other does
    if _without_memory(plan):
        return LOOK_AHEAD
    # Cells have studies of their own: a turn ahead costs little.
    return min(LOOK_AHEAD, max(len(plan.cells), 2 * len(sizes)))


def _without_memory(plan: Plan) -> bool:
    """True when the search proposes the same whatever the scores, so that it can be asked early."""
    return plan.sweep.search.algorithm in ("grid", "random", "qmc")
