"""Several sweeps on one cluster: each driver asks one small named actor before it starts an attempt.

No attempt is ever stopped for another sweep. A sweep within its share of the cluster (by `limits.weight`, among the
sweeps that run or wait) starts what fits; above it, only when no sweep that waits is served less. So what ends goes to
the sweep furthest below its share. A trial too large for the gaps may be overtaken by a bounded number of others, then
they wait.

The actor keeps nothing that its drivers do not say again every second: what a dead driver held is free after `EXPIRY_S`, a
restarted actor listens for `QUIET_S` before it answers yes. Its clock is its own and never goes back.

Where the cluster has an autoscaler the actor also asks it for nodes, once for all sweeps (`cluster.resources.autoscaler`).
It sits on the head node: an actor on a node that was added would keep that node for ever, even one that reserves nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from cluster.connect.environment import NAMESPACE
from cluster.resources.autoscaler import Growth, Lot, ask_autoscaler, find_growth, share_out

NAME = "dipsweep-fair-share-4"  # another number when a method changes: it outlives its drivers, also those of other versions
EXPIRY_S = 15.0  # a driver that was not heard of for so long holds nothing
RENEW_S = 1.0
QUIET_S = 3 * RENEW_S
ANSWER_S = 5.0  # an actor that takes longer is down or restarting: asked again in the next turn
OVERTAKES = 8
OBSERVATIONS = 5  # external usage is the least of this many: what just ended belongs to no sweep for a moment
GROWTH_S = 60.0  # how often it is looked up what the autoscaler may add: an administrator may change it
HEAD = {"node:__internal_head__": 0.001}  # every head node has one of it
GONE = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
"""What Ray raises for an actor that has ended; the second where its memory monitor ended it."""
NodeRequests = tuple[Sequence[Lot], Sequence[Lot]]  # what a sweep holds, evaluators included, and what waits, in order

Resources = Mapping[str, float]


@dataclass(slots=True)
class SweepUsage:
    """A sweep as its driver last described it.

    Attributes:
        weight: its share among others. held: what its trials hold. pending: what it would start next. fits: whether it fits.
        reserved: what its evaluators hold. node_requests: what should exist for it in all, given an autoscaler.
        updated_at: when it was last described. since: when it began to wait. passed: attempts of others started since then.
    """

    weight: float
    held: Resources = field(default_factory=dict)
    pending: Resources = field(default_factory=dict)
    fits: bool = True
    reserved: Resources = field(default_factory=dict)
    node_requests: NodeRequests = ((), ())
    updated_at: float = 0.0
    since: float = 0.0
    passed: int = 0


class FairShareState:
    """Which sweep may start an attempt. Pure: the caller says what the cluster has and what time it is."""

    def __init__(self) -> None:
        self.sweeps: dict[str, SweepUsage] = {}
        self.external: deque[Resources] = deque(maxlen=OBSERVATIONS)  # what no sweep held, observation by observation

    def update(self, sweep: str, weight: float, held: Resources, pending: Resources, fits: bool, now: float) -> None:
        """Takes a driver's usage; drops sweeps without an update for EXPIRY_S."""
        self.sweeps = {name: p for name, p in self.sweeps.items() if now - p.updated_at <= EXPIRY_S}
        usage = self.sweeps.setdefault(sweep, SweepUsage(weight))
        if pending and not usage.pending:
            usage.since, usage.passed = now, 0
        usage.weight, usage.held, usage.pending, usage.fits, usage.updated_at = weight, held, pending, fits, now

    def may_start(self, sweep: str, total: Resources) -> bool:
        """True when the sweep may start what it wants; then that counts as held, and as wanted once more.

        Otherwise others would see no one waiting until its driver's next update, and exceed their share.
        """
        me = self.sweeps[sweep]
        if not self._room(me.pending, total):
            return False
        others = [p for n, p in self.sweeps.items() if n != sweep and p.pending and self._could(n, p, total)]
        if not self._may(me, others, total):
            return False
        for other in others:
            other.passed += 1
        me.held = {name: me.held.get(name, 0.0) + me.pending.get(name, 0.0) for name in {*me.held, *me.pending}}
        me.since, me.passed = me.updated_at, 0
        return True

    def observe(self, total: Resources, free: Resources) -> None:
        """Takes in what the cluster has and what of it is free: what no sweep holds is external usage (a notebook, a service)."""
        self.external.append({n: max(0.0, has - free.get(n, 0.0) - self._ours(n)) for n, has in total.items()})

    def blocked_by_external(self, sweep: str, total: Resources) -> bool:
        """True when no end of another sweep's trials would make room for what a sweep wants."""
        others = any(p.held for n, p in self.sweeps.items() if n != sweep)
        return not (others and self._possible(self.sweeps[sweep].pending, total))

    def requested_bundles(self, growth: Growth) -> list[Resources]:
        """Returns the bundles that should exist for all sweeps together, as far as the cluster may grow."""
        return growth.hold(share_out([p.node_requests for p in self.sweeps.values()]))

    def unregister(self, sweep: str) -> None:
        """The sweep is over."""
        self.sweeps.pop(sweep, None)

    def _room(self, pending: Resources, total: Resources) -> bool:
        """False when another sweep was just given what this one still sees free: two groups would wait for one place."""
        return all(self._ours(n) + amount <= total.get(n, 0.0) + 1e-6 for n, amount in pending.items())

    def _ours(self, name: str) -> float:
        """Returns what all sweeps hold of a resource, for trials and evaluators."""
        return sum(p.held.get(name, 0.0) + p.reserved.get(name, 0.0) for p in self.sweeps.values())

    def _possible(self, pending: Resources, total: Resources) -> bool:
        """False when not all sweeps' trials together could make room for it: evaluators and external usage stay."""
        for name, amount in pending.items():
            stays = sum(p.reserved.get(name, 0.0) for p in self.sweeps.values())
            stays += min((seen.get(name, 0.0) for seen in self.external), default=0.0)
            if amount > total.get(name, 0.0) - stays + 1e-6:
                return False
        return True

    def _may(self, me: SweepUsage, others: list[SweepUsage], total: Resources) -> bool:
        if not others:
            return True
        mine = (_used(me.held, total) / me.weight, me.since)
        before_me = [p for p in others if (_used(p.held, total) / p.weight, p.since) < mine]
        if not before_me:
            return True
        if any(p.passed >= OVERTAKES for p in before_me):
            return False
        fair = me.weight / sum(p.weight for p in self.sweeps.values() if p.held or p.pending)
        after = {name: me.held.get(name, 0.0) + me.pending.get(name, 0.0) for name in {*me.held, *me.pending}}
        return _used(after, total) <= fair + 1e-9

    def _could(self, name: str, usage: SweepUsage, total: Resources) -> bool:
        """False for a sweep whose next trial does not fit, and no end of another's trials would change that."""
        return usage.fits or not self.blocked_by_external(name, total)


def _used(held: Resources, total: Resources) -> float:
    """Returns the share of the resource of which most is held (dominant-resource fairness)."""
    return max((amount / total[name] for name, amount in held.items() if total.get(name)), default=0.0)


class FairShareActor:
    """The actor around `FairShareState`."""

    def __init__(self) -> None:
        self.state, self.total = FairShareState(), dict[str, float]()
        self.observed_at = self.grown = float("-inf")
        self.growth_now: Growth | None = None
        self.requested: Any = None
        self.requested_at = float("-inf")
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self.quiet = time.monotonic() + (QUIET_S if restarted else 0.0)

    def renew(
        self,
        sweep: str,
        weight: float,
        held: Resources,
        pending: Resources,
        reserved: Resources,
        node_requests: NodeRequests = ((), ()),
    ) -> bool:
        """Sends a sweep's usage; expected once in RENEW_S. Returns whether only external usage keeps it from what it wants."""
        now = time.monotonic()
        self.state.update(sweep, weight, held, pending, False, now)
        self.state.sweeps[sweep].reserved, self.state.sweeps[sweep].node_requests = reserved, node_requests
        self._request_nodes()
        self._observe_cluster(now)
        return now >= self.quiet and self.state.blocked_by_external(sweep, self.total)

    def may_start(self, sweep: str, weight: float, held: Resources, pending: Resources) -> bool:
        """True when the sweep may start what it wants now."""
        now = time.monotonic()
        self.state.update(sweep, weight, held, pending, True, now)
        self._observe_cluster(now)
        return now >= self.quiet and self.state.may_start(sweep, self.total)

    def unregister(self, sweep: str) -> None:
        """The sweep is over."""
        self.state.unregister(sweep)
        self._request_nodes()

    def growth(self) -> Growth | None:
        """Returns what this cluster's autoscaler may add, None where there is none; as last known if it cannot be read now."""
        if (now := time.monotonic()) - self.grown > GROWTH_S:
            self.grown = now
            with contextlib.suppress(OSError, ValueError):
                self.growth_now = find_growth()
        return self.growth_now

    def _observe_cluster(self, now: float) -> None:
        """Once in RENEW_S: nodes come and go, and so does external usage."""
        if now - self.observed_at > RENEW_S:
            self.total, self.observed_at = ray.cluster_resources(), now
            self.state.observe(self.total, ray.available_resources())

    def _request_nodes(self) -> None:
        """Says what should exist, when that has changed and now and then. What is not said again is forgotten."""
        growth, now = self.growth(), time.monotonic()
        request = (growth, [p.node_requests for p in self.state.sweeps.values()])
        if (
            growth is not None
            and now >= self.quiet
            and (request != self.requested or now - self.requested_at >= EXPIRY_S / 3)
        ):
            self.requested, self.requested_at = request, now
            ask_autoscaler(self.state.requested_bundles(growth), EXPIRY_S)

    def usage(self) -> dict[str, dict[str, Any]]:
        """Returns what every sweep holds and wants, for people who look."""
        return {
            n: {"weight": p.weight, "held": dict(p.held), "pending": dict(p.pending)}
            for n, p in self.state.sweeps.items()
        }


def start_fair_share_actor() -> Any:
    """Returns the cluster's one actor, started if there is none."""
    options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    return ray.remote(num_cpus=0, resources=HEAD, max_restarts=-1)(FairShareActor).options(**options).remote()


class FairShareClient:
    """A driver's side: sends its sweep's usage every second, and asks before each start.

    Args:
        sweep: its id. weight: its share among others. clock: seconds, never going back.

    Attributes:
        external_usage: whether, as last heard, only external usage keeps the sweep from what it would start next.
    """

    def __init__(self, sweep: str, weight: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.sweep, self.weight, self.clock = sweep, weight, clock
        self.next = self.next_growth = 0.0
        self.may_grow: Growth | None = None
        self.growth_call: Any = None
        self.external_usage = False
        self.renew_call: Any = None
        self._connect()

    def growth(self, wait_s: float = 0.0) -> Growth | None:
        """Returns what the cluster's autoscaler may add; None where there is none, or while that is not known."""
        if self.growth_call is None and self.clock() >= self.next_growth:
            self.growth_call = self.actor.growth.remote()
        if self.growth_call is not None and ray.wait([self.growth_call], timeout=wait_s)[0]:
            self.next_growth = self.clock() + GROWTH_S
            try:
                self.may_grow, self.growth_call = ray.get(self.growth_call), None
            except GONE:
                self._connect()
        return self.may_grow

    def renew_soon(self) -> None:
        """Something has changed: the next `renew` says so at once, before others see what is free now."""
        self.next = 0.0

    def renew(
        self,
        held: Resources,
        pending: Callable[[], Resources],
        reserved: Resources,
        node_requests: Callable[[Growth], NodeRequests],
    ) -> None:
        """Once in RENEW_S says what is held, what waits without fitting, and what should exist; never waits for an answer."""
        if self.clock() >= self.next:
            self.next, growth = self.clock() + RENEW_S, self.growth()
            should_exist = node_requests(growth) if growth is not None else ((), ())
            self._take_answer()
            self.renew_call = self.actor.renew.remote(
                self.sweep, self.weight, dict(held), dict(pending()), dict(reserved), should_exist
            )

    def _take_answer(self) -> None:
        """Takes in the answer to the last `renew`, if it has come."""
        if self.renew_call is not None and ray.wait([self.renew_call], timeout=0)[0]:
            with contextlib.suppress(*GONE):  # it is met anew when a start is asked for
                self.external_usage = ray.get(self.renew_call)

    def may_start(self, held: Resources, pending: Resources) -> bool:
        """Asks for one more attempt. An actor that is gone is started anew, and asked again in the next turn."""
        try:
            return bool(
                ray.get(
                    self.actor.may_start.remote(self.sweep, self.weight, dict(held), dict(pending)), timeout=ANSWER_S
                )
            )
        except (*GONE, ray.exceptions.GetTimeoutError):
            self._connect()
            return False

    def unregister(self) -> None:
        """The sweep is over, or interrupted: others need not wait until its share expires."""
        self.actor.unregister.remote(self.sweep)

    def _connect(self) -> None:
        self.actor = start_fair_share_actor()
        self.growth_call = self.actor.growth.remote()
