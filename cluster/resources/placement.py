"""The gate: which waiting attempt the Ray cluster has room for now, node by node, and which nodes are going away.

Evaluators come first: their pool is set up before the first trial and keeps what it reserves, so scores never wait for
trainers; trainers share the rest by `sweeps.controller.gang_scheduler`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray
from ray._private.state import available_resources_per_node, state, total_resources_per_node

from cluster.resources.autoscaler import Growth
from sweeps.config.plan import Plan
from sweeps.config.trial import ModelSource, TrialSpec
from sweeps.controller.controller import Launch
from sweeps.controller.gang_scheduler import (
    Admission,
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
from sweeps.errors import Fault, SpecError

LOOK = 64  # how far down the line a search without memory is asked
AGAIN_S = 0.2  # when nothing fitted and nothing ended, the cluster is looked at again after so long
SETTLE_S = 3.0  # so long Ray's view may lag behind a group that was just placed (usually 0.1)
NODES_S = 1.0  # how often Ray is asked which nodes are going away


@dataclass(slots=True)
class Attempt:
    """An attempt that is on the cluster.

    Attributes:
        launch: what was started. placed: where it was expected to lie, bundles by node. since: seconds, own clock.
        step: last step heard of. nodes: where its processes say they run. trains: its training processes are up.
        asked: what it was asked: "" nothing, "leave" to save and return, "stop" to end at once.
        drained: it was asked to leave because one of its nodes is being taken away. said: it said its last word.
    """

    launch: Launch
    placed: Mapping[str, int]
    since: float
    step: int = 0
    nodes: set[str] = field(default_factory=set)
    trains: bool = False
    asked: str = ""
    drained: bool = False
    said: bool = False

    @property
    def kind(self) -> str:
        """What its pace depends on."""
        return _kind(self.launch.spec, self.launch.workers)

    @property
    def done(self) -> int:
        """Steps made since it started."""
        return max(0, self.step - (self.launch.resume.step if self.launch.resume else 0))


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


class Gate:
    """Chooses what starts next.

    Args:
        plan: says whose groups will want room. clock: seconds, never going back.
    """

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.admission, self.pace = clock, Admission(), Pace()
        self.look, self.without_memory = _look(plan), _without_memory(plan)
        self.ahead = LOOK if self.without_memory else self.look  # for so many trials machines are asked for
        self.evaluation = plan.sweep.evaluation
        self.next_look = self.next_nodes = 0.0
        self.strangers = True  # who else is on the cluster will not make room; another sweep does
        self.draining: frozenset[str] = frozenset()
        self.nodes: Nodes = {}  # what the nodes that stay have, busy or not
        self.room: Nodes = {}  # and what of it is not the evaluators'
        self.settling: list[_Settling] = []
        self.view: dict[str, float] = {}  # what is free in all, with what was started since

    def choose(self, offer: Callable[[int], list[TrialSpec]], running: Iterable[Attempt]) -> Choice | None:
        """Returns what to start now. `offer(n)` gives the first n trials of the line; of a search that learns more than one is
        asked for only when the first does not fit and others are of another size.

        Who fits no node that is there waits for one to be added, and is the first to get it; until then the line begins
        behind it, since nothing that starts elsewhere keeps it waiting.
        """
        now = self.clock()
        if now < self.next_look or not (line := self._line(offer, self.ahead if self.without_memory else 1)):
            return None
        seen, busy, first = self._free(), [self._running(a, now) for a in running], line[0]
        free = self._settled(seen, now)
        surely, perhaps = (fit(nodes, first.group.bundle, first.group.workers) is not None for nodes in (free, seen))
        if perhaps and not surely:
            return None  # known in a moment, and until then nobody overtakes
        choose = partial(self.admission.choose, free, running=busy, now=now, strangers=self.strangers)
        choice = choose([first] if surely or self.servable(first.group) else [])
        if choice is None and self.look > 1:
            line = line if self.without_memory else self._line(offer, self.look)
            choice = choose([w for w in line if self.servable(w.group)])
        if choice is None:
            self.next_look = now + AGAIN_S
        return choice

    def _line(self, offer: Callable[[int], list[TrialSpec]], limit: int) -> list[Waiting]:
        """Returns who waits, at most `limit`, in the order in which they are served."""
        line = [self._waiting(spec) for spec in offer(limit)]
        if len(line) < limit and self.without_memory:  # all that will ever come
            self.going()  # looks at the nodes
            line = self.admission.order(line, self.room)
        return line

    def placed(self, choice: Choice, model: ModelSource) -> None:
        """Notes that a choice was started."""
        need = bundle(model)
        for name, amount in times(need, choice.workers).items():
            self.view[name] = self.view.get(name, 0.0) - amount
        self.settling.append(_Settling(self.clock(), choice.placed, need, {name: self.view[name] for name in need}))

    def left(self, attempt: Attempt) -> None:
        """Notes that an attempt is over: learns from it, and looks at the cluster at once. Ray frees its group a little later."""
        self.pace.learn(attempt.kind, attempt.done, self.clock() - attempt.since) if attempt.done else None
        self.next_look = 0.0
        for one in self.settling:
            for name, amount in held([attempt]).items():
                if name in one.then:
                    one.then[name] += amount

    def going(self) -> frozenset[str]:
        """Returns the nodes that Ray was told will be taken away (drained, preempted)."""
        now = self.clock()
        if now >= self.next_nodes:
            self.next_nodes = now + NODES_S
            self.draining = frozenset(state.get_draining_nodes() or {})
            self.nodes = {n: has for n, has in total_resources_per_node().items() if n not in self.draining}
            self.room = beside_evaluators(self.nodes, self.evaluation)
        return self.draining

    def servable(self, group: Group) -> bool:
        """True when the nodes that are there can hold the group once they are free."""
        return fits_ever(self.room, group)

    def first(self, offer: Callable[[int], list[TrialSpec]]) -> Group | None:
        """Returns whose group would start next on the nodes that are there."""
        self.going()
        return next((w.group for w in self._line(offer, self.ahead) if self.servable(w.group)), None)

    def held_up(self, group: Group) -> bool:
        """True when strangers hold what a group needs, for some time now."""
        return self.strangers and self.admission.held_up_by_others(group, self.clock())

    def gone(self, nodes: Iterable[str]) -> bool:
        """True when one of these nodes is dead, or being taken away."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        return any(node not in alive or node in self.draining for node in nodes)

    def _free(self) -> dict[str, dict[str, float]]:
        """Returns what Ray says is free, on nodes that stay."""
        return {n: dict(has) for n, has in available_resources_per_node().items() if n not in self.going()}

    def _settled(self, seen: Mapping[str, Mapping[str, float]], now: float) -> dict[str, dict[str, float]]:
        """Returns what is free if Ray has not seen the latest groups yet: at times too little, never too much."""
        free, whole = {n: dict(has) for n, has in seen.items()}, _total(seen.values())
        self.settling = [s for s in self.settling if now - s.since < SETTLE_S and not s.seen(whole)]
        for one in self.settling:
            for node, count in one.placed.items():
                for name, amount in times(one.need, count).items():
                    if node in free:
                        free[node][name] = free[node].get(name, 0.0) - amount
        self.view = _total(free.values())
        return free

    def _waiting(self, spec: TrialSpec) -> Waiting:
        model = spec.model
        group = Group(bundle(model), model.workers, model.fewest)
        return Waiting(spec.id, group, self.pace.expect(_kind(spec, model.workers), spec.steps))

    def _running(self, attempt: Attempt, now: float) -> Running:
        spec, seconds = attempt.launch.spec, now - attempt.since
        first = attempt.launch.resume.step if attempt.launch.resume else 0
        whole = self.pace.expect(attempt.kind, spec.steps - first)
        left = seconds / attempt.done * (spec.steps - attempt.step) if attempt.done else None
        if left is None and whole is not None:
            left = max(0.0, whole - seconds)
        return Running(bundle(spec.model), attempt.placed, left)


def bundle(model: ModelSource) -> dict[str, float]:
    """Returns what one worker of a model reserves."""
    resources = {"CPU": model.cpus_per_worker}
    if model.gpus_per_worker:
        resources["GPU"] = model.gpus_per_worker
    return resources


def most_workers(room: Nodes, model: ModelSource) -> int:
    """Returns on how many workers a trial runs at most on these nodes when they are empty; never fewer than it needs."""
    sizes = range(model.workers, model.fewest, -1)
    return next((n for n in sizes if fit(room, bundle(model), n) is not None), model.fewest)


def times(need: Mapping[str, float], count: int) -> dict[str, float]:
    """Returns what `count` such bundles are in all."""
    return {name: amount * count for name, amount in need.items()}


def held(attempts: Iterable[Attempt]) -> dict[str, float]:
    """Returns what attempts hold together."""
    return _total(times(bundle(a.launch.spec.model), a.launch.workers) for a in attempts)


def _total(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    out: dict[str, float] = {}
    for part in parts:
        for name, amount in part.items():
            out[name] = out.get(name, 0.0) + amount
    return out


def evaluator_bundle(evaluation: Any) -> dict[str, float]:
    """Returns what one evaluator reserves."""
    return {"GPU": evaluation.gpus_per_worker, "CPU": evaluation.cpus_per_worker}


def beside_evaluators(total: Nodes, evaluation: Any) -> Nodes:
    """Returns what is left of these nodes for trials, as well as that can be told; all where they hold no evaluators."""
    evaluators = evaluator_bundle(evaluation)
    return less(total, evaluators, fit(total, evaluators, evaluation.workers) or {})


def check_fits(sweep: Any, growth: Callable[[], Growth | None] = lambda: None) -> None:
    """Raises SpecError for a model whose trials the cluster can never hold; Ray alone would wait for ever.

    Args:
        sweep: whose models, and whose evaluators. growth: what an autoscaler may add; asked only if today's nodes do not do.
    """
    total = total_resources_per_node()
    try:
        _check_fits(sweep, total, _nodes(total))
    except SpecError:
        if (more := growth()) is None:
            raise
        groups = "; ".join(f"{count} x ({size(has)})" for has, count in more.groups.values())
        _check_fits(sweep, more.nodes(), f"{_nodes(total)}, and the autoscaler may add {groups}")


def _check_fits(sweep: Any, total: Nodes, there_are: str) -> None:
    evaluation = sweep.evaluation
    evaluators = evaluator_bundle(evaluation)
    if fit(total, evaluators, evaluation.workers) is None:
        raise _refusal(
            "evaluation",
            f"{evaluation.workers} evaluators with {_text(evaluators)} each do not fit this cluster "
            f"({there_are}); lower evaluation.workers or evaluation.gpus_per_worker",
        )
    room = beside_evaluators(total, evaluation)
    for name in sweep.axis_values("model", sweep.default_model):
        model = sweep.model_source(name)
        if 1 < model.gpus_per_worker != int(model.gpus_per_worker):
            raise _refusal(
                f"models.{name}.gpus_per_worker",
                f"came {model.gpus_per_worker}; a share below 1 or a whole number would do",
            )
        if fit(room, bundle(model), model.fewest) is None:
            beside = (
                f" beside {evaluation.workers} evaluators with {_text(evaluators)} each"
                if any(evaluators.values())
                else ""
            )
            raise _refusal(
                f"models.{name}",
                f"{model.fewest} worker(s) with {_text(bundle(model))} each do not fit this cluster"
                f"{beside} (a worker lies on one node; there are {there_are}); lower that, or use a larger cluster",
            )


def _refusal(where: str, why: str) -> SpecError:
    return SpecError(Fault(where, why))


def _look(plan: Plan) -> int:
    sweep = plan.sweep
    sizes = {
        (tuple(bundle(m).items()), m.workers, m.fewest)
        for m in map(sweep.model_source, sweep.axis_values("model", sweep.default_model))
    }
    if len(sizes) == 1:
        return 1  # where the first does not fit no other does
    if _without_memory(plan):
        return LOOK
    return min(LOOK, max(len(plan.cells), 2 * len(sizes)))  # cells have studies of their own: a turn ahead costs little


def _without_memory(plan: Plan) -> bool:
    """True when it does not matter how early the search is asked: it proposes the same, whatever the scores."""
    return plan.sweep.search.algorithm in ("grid", "random", "qmc")


def _kind(spec: TrialSpec, workers: int) -> str:
    return f"{spec.config['model']} x{workers}"


def _text(need: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in need.items() if amount) or "nothing"


def _nodes(total: Mapping[str, Mapping[str, float]]) -> str:
    """Returns the sizes of all nodes: `2 x (4 CPU, 8 GPU)`."""
    sizes = [size(has) for has in total.values()]
    return "; ".join(f"{sizes.count(size)} x ({size})" for size in sorted(set(sizes)))


def size(has: Mapping[str, float]) -> str:
    return ", ".join(f"{has[n]:g} {n}" for n in ("CPU", "GPU") if n in has) or "neither CPU nor GPU"
