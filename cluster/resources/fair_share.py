"""Two sweeps on one cluster: each driver asks one small named actor before it starts an attempt.

Nobody is ever stopped for another. A sweep within its share of the cluster (by weight, `limits.weight`, among the sweeps
that run or wait) starts what fits; above it, only when no other that waits is served less. So what ends goes to whoever
is furthest below its share. A trial too large for the gaps is passed by a bounded number of others, then they wait.

The actor keeps nothing that its drivers do not say again every second: a dead driver's share is free after `EXPIRY_S`, a
restarted actor listens for `QUIET_S` before it answers yes. Its clock is its own and never goes back.

Where the cluster has an autoscaler it also asks that one for machines, once for all sweeps
(`cluster.resources.autoscaler`). It sits on
the head node: an actor on a node that was added would keep that node for ever, even one that reserves nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from cluster.resources.autoscaler import Growth, Lot, ask_autoscaler, find_growth, share_out

NAMESPACE = "dipsweep"
NAME = (
    "dipsweep-arbiter-2"  # another number when a method changes: it outlives its drivers, also those of other versions
)
EXPIRY_S = 15.0  # a driver that was not heard of for so long holds nothing
RENEW_S = 1.0
QUIET_S = 3 * RENEW_S
ANSWER_S = 5.0  # an arbiter that takes longer is down or restarting: asked again in the next turn
OVERTAKES = 8
LOOKS = 5  # so many looks at the cluster must agree on what strangers hold: what just ended is nobody's for a moment
GROWTH_S = 60.0  # how often it is looked up what the autoscaler may add: an administrator may change it
HEAD = {"node:__internal_head__": 0.001}  # every head node has one of it
Asks = tuple[Sequence[Lot], Sequence[Lot]]  # what a sweep holds, evaluators included, and what waits, in order

Resources = Mapping[str, float]


@dataclass(slots=True)
class Party:
    """A sweep as its driver last described it: what its trials hold, what it would start next, and whether that fits now.

    `reserved` is what its evaluators hold; `asks` is what should exist for it in all, where an autoscaler can make it so.
    """

    weight: float
    held: Resources = field(default_factory=dict)
    wants: Resources = field(default_factory=dict)
    fits: bool = True
    reserved: Resources = field(default_factory=dict)
    asks: Asks = ((), ())
    heard: float = 0.0
    since: float = 0.0  # when it began to wait
    passed: int = 0  # attempts of others started since then


class Shares:
    """Who may start. Pure: the caller says what the cluster has and what time it is."""

    def __init__(self) -> None:
        self.parties: dict[str, Party] = {}
        self.not_ours: deque[Resources] = deque(maxlen=LOOKS)  # what no sweep held, look by look

    def hear(
        self, sweep: str, weight: float, held: Resources, wants: Resources, fits: bool, now: float
    ) -> None:  # fmt: skip
        """Takes in how a sweep stands; forgets those not heard of for EXPIRY_S."""
        self.parties = {name: p for name, p in self.parties.items() if now - p.heard <= EXPIRY_S}
        party = self.parties.setdefault(sweep, Party(weight))
        if wants and not party.wants:
            party.since, party.passed = now, 0
        party.weight, party.held, party.wants, party.fits, party.heard = weight, held, wants, fits, now

    def may_start(self, sweep: str, total: Resources) -> bool:
        """True when the sweep may start what it wants; then that counts as held, and as wanted once more.

        Were it not, others would find nobody waiting until its driver is heard of again, and go past their share.
        """
        me = self.parties[sweep]
        if not self._room(me.wants, total):
            return False
        others = [p for n, p in self.parties.items() if n != sweep and p.wants and self._could(n, p, total)]
        if not self._may(me, others, total):
            return False
        for other in others:
            other.passed += 1
        me.held = {name: me.held.get(name, 0.0) + me.wants.get(name, 0.0) for name in {*me.held, *me.wants}}
        me.since, me.passed = me.heard, 0
        return True

    def look(self, total: Resources, free: Resources) -> None:
        """Takes in what the cluster has and what of it is free: what no sweep holds is strangers' (a notebook, a service)."""
        self.not_ours.append({n: max(0.0, has - free.get(n, 0.0) - self._ours(n)) for n, has in total.items()})

    def kept_by_strangers(self, sweep: str, total: Resources) -> bool:
        """True when no end of another sweep's trials would make room for what a sweep wants."""
        others = any(p.held for n, p in self.parties.items() if n != sweep)
        return not (others and self._possible(self.parties[sweep].wants, total))

    def asked(self, growth: Growth) -> list[Resources]:
        """Returns the bundles that should exist for all sweeps together, as far as the cluster may grow."""
        return growth.hold(share_out([p.asks for p in self.parties.values()]))

    def leave(self, sweep: str) -> None:
        """The sweep is over."""
        self.parties.pop(sweep, None)

    def _room(self, wants: Resources, total: Resources) -> bool:
        """False when another sweep was just given what this one still sees free: two groups would wait for one place."""
        return all(self._ours(n) + amount <= total.get(n, 0.0) + 1e-6 for n, amount in wants.items())

    def _ours(self, name: str) -> float:
        """Returns what all sweeps hold of a resource, for trials and evaluators."""
        return sum(p.held.get(name, 0.0) + p.reserved.get(name, 0.0) for p in self.parties.values())

    def _possible(self, wants: Resources, total: Resources) -> bool:
        """False when not all sweeps' trials together could make room for it: evaluators and strangers stay."""
        for name, amount in wants.items():
            stays = sum(p.reserved.get(name, 0.0) for p in self.parties.values())
            stays += min((seen.get(name, 0.0) for seen in self.not_ours), default=0.0)
            if amount > total.get(name, 0.0) - stays + 1e-6:
                return False
        return True

    def _may(self, me: Party, others: list[Party], total: Resources) -> bool:
        if not others:
            return True
        mine = (_used(me.held, total) / me.weight, me.since)
        before_me = [p for p in others if (_used(p.held, total) / p.weight, p.since) < mine]
        if not before_me:
            return True
        if any(p.passed >= OVERTAKES for p in before_me):
            return False
        fair = me.weight / sum(p.weight for p in self.parties.values() if p.held or p.wants)
        after = {name: me.held.get(name, 0.0) + me.wants.get(name, 0.0) for name in {*me.held, *me.wants}}
        return _used(after, total) <= fair + 1e-9

    def _could(self, name: str, party: Party, total: Resources) -> bool:
        """False for a sweep whose next trial does not fit, and no end of another's trials would change that."""
        return party.fits or not self.kept_by_strangers(name, total)


def _used(held: Resources, total: Resources) -> float:
    """Returns the share of the resource of which most is held (dominant-resource fairness)."""
    return max((amount / total[name] for name, amount in held.items() if total.get(name)), default=0.0)


class Arbiter:
    """The actor around `Shares`."""

    def __init__(self) -> None:
        self.shares, self.total = Shares(), dict[str, float]()
        self.looked = self.grown = float("-inf")
        self.growth_now: Growth | None = None
        self.said: Any = None
        self.told = float("-inf")
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self.quiet = time.monotonic() + (QUIET_S if restarted else 0.0)

    def renew(
        self, sweep: str, weight: float, held: Resources, wants: Resources, reserved: Resources, asks: Asks = ((), ())
    ) -> bool:
        """Says how a sweep stands; expected once in RENEW_S. Returns whether only strangers keep it from what it wants."""
        now = time.monotonic()
        self.shares.hear(sweep, weight, held, wants, False, now)
        self.shares.parties[sweep].reserved, self.shares.parties[sweep].asks = reserved, asks
        self._tell_the_autoscaler()
        self._look(now)
        return now >= self.quiet and self.shares.kept_by_strangers(sweep, self.total)

    def ask(self, sweep: str, weight: float, held: Resources, wants: Resources) -> bool:
        """True when the sweep may start what it wants now."""
        now = time.monotonic()
        self.shares.hear(sweep, weight, held, wants, True, now)
        self._look(now)
        return now >= self.quiet and self.shares.may_start(sweep, self.total)

    def leave(self, sweep: str) -> None:
        """The sweep is over."""
        self.shares.leave(sweep)
        self._tell_the_autoscaler()

    def growth(self) -> Growth | None:
        """Returns what this cluster's autoscaler may add, None where there is none; as last known if it cannot be read now."""
        if (now := time.monotonic()) - self.grown > GROWTH_S:
            self.grown = now
            with contextlib.suppress(OSError, ValueError):
                self.growth_now = find_growth()
        return self.growth_now

    def _look(self, now: float) -> None:
        """Once in RENEW_S: nodes come and go, and so do strangers."""
        if now - self.looked > RENEW_S:
            self.total, self.looked = ray.cluster_resources(), now
            self.shares.look(self.total, ray.available_resources())

    def _tell_the_autoscaler(self) -> None:
        """Says what should exist, when that has changed and now and then. What is not said again is forgotten."""
        growth, now = self.growth(), time.monotonic()
        said = (growth, [p.asks for p in self.shares.parties.values()])
        if growth is not None and now >= self.quiet and (said != self.said or now - self.told >= EXPIRY_S / 3):
            self.said, self.told = said, now
            ask_autoscaler(self.shares.asked(growth), EXPIRY_S)

    def standing(self) -> dict[str, dict[str, Any]]:
        """Returns what every sweep holds and wants, for people who look."""
        return {
            n: {"weight": p.weight, "held": dict(p.held), "wants": dict(p.wants)}
            for n, p in self.shares.parties.items()
        }


def start_arbiter() -> Any:
    """Returns the cluster's one arbiter, started if there is none."""
    options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    return ray.remote(num_cpus=0, resources=HEAD, max_restarts=-1)(Arbiter).options(**options).remote()


class Share:
    """A driver's side: tells the arbiter every second how its sweep stands, and asks before each start.

    Args:
        sweep: its id. weight: its share among others. clock: seconds, never going back.

    Attributes:
        strangers: whether, as last heard, only strangers keep the sweep from what it would start next.
    """

    def __init__(self, sweep: str, weight: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.sweep, self.weight, self.clock = sweep, weight, clock
        self.next = self.next_growth = 0.0
        self.may_grow: Growth | None = None
        self.told: Any = None
        self.strangers = False
        self.answer: Any = None
        self._meet()

    def growth(self, wait_s: float = 0.0) -> Growth | None:
        """Returns what the cluster's autoscaler may add; None where there is none, or while that is not known."""
        if self.told is None and self.clock() >= self.next_growth:
            self.told = self.arbiter.growth.remote()
        if self.told is not None and ray.wait([self.told], timeout=wait_s)[0]:
            self.next_growth = self.clock() + GROWTH_S
            try:
                self.may_grow, self.told = ray.get(self.told), None
            except ray.exceptions.RayActorError:
                self._meet()
        return self.may_grow

    def hurry(self) -> None:
        """Something has changed: the next `renew` says so at once, before others see what is free now."""
        self.next = 0.0

    def renew(
        self, held: Resources, wants: Callable[[], Resources], reserved: Resources, asks: Callable[[Growth], Asks]
    ) -> None:
        """Once in RENEW_S says what is held, what waits without fitting, and what should exist; never waits for an answer."""
        if self.clock() >= self.next:
            self.next, growth = self.clock() + RENEW_S, self.growth()
            should_exist = asks(growth) if growth is not None else ((), ())
            self._hear()
            self.answer = self.arbiter.renew.remote(
                self.sweep, self.weight, dict(held), dict(wants()), dict(reserved), should_exist
            )

    def _hear(self) -> None:
        """Takes in the answer to the last `renew`, if it has come."""
        if self.answer is not None and ray.wait([self.answer], timeout=0)[0]:
            with contextlib.suppress(ray.exceptions.RayActorError):  # it is met anew when a start is asked for
                self.strangers = ray.get(self.answer)

    def may_start(self, held: Resources, wants: Resources) -> bool:
        """Asks for one more attempt. An arbiter that is gone is started anew, and asked again in the next turn."""
        try:
            return bool(
                ray.get(self.arbiter.ask.remote(self.sweep, self.weight, dict(held), dict(wants)), timeout=ANSWER_S)
            )
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            self._meet()
            return False

    def leave(self) -> None:
        """The sweep is over, or interrupted: others need not wait until its share expires."""
        self.arbiter.leave.remote(self.sweep)

    def _meet(self) -> None:
        self.arbiter = start_arbiter()
        self.told = self.arbiter.growth.remote()
