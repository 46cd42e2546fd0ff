"""A sweep's cost before it runs: work times speed, by model and in sum, each with the error that its sources deserve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, Final

from sweeps.config.plan import Plan
from sweeps.config.space import sampled
from sweeps.planning.clock import DoesNotFit, Span, timeline
from sweeps.planning.rehearsal import Costs, Saving
from sweeps.planning.speeds import CLUSTER_START_S, EVALUATOR_PROCESS_S, Figure, Key, Speed, key_of
from sweeps.planning.work import TrialWork, planned_work


@dataclass(frozen=True, slots=True)
class Range:
    """An amount with the bounds that its sources leave."""

    value: float
    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.value + other.value, self.low + other.low, self.high + other.high)

    def scaled(self, factor: float) -> Range:
        return Range(self.value * factor, self.low * factor, self.high * factor)


NOTHING = Range(0.0, 0.0, 0.0)
CLUSTER_ERROR: Final = 0.5
CLUSTER_SOURCE: Final = f"Ray itself: {CLUSTER_START_S:g} s to come up and to end, as measured on two cores"


def _range(figure: Figure, times: float) -> Range:
    value = figure.seconds * times
    return Range(value, value / (1 + figure.error), value * (1 + figure.error))


@dataclass(frozen=True, slots=True)
class ModelCost:
    """One model's part of a sweep.

    Attributes:
        devices: GPUs of one trial (CPUs where it has none).
        steps: optimizer steps to run; alone: as many as without shared prefixes. tokens: of those steps.
        evaluations: checkpoints that are scored, the base model apart.
        training, evaluation, base, start_up: device seconds; `base`: of the base model's scores. GPUs count as they are
            reserved: two trials, or evaluators, of half a GPU each as one.
        scores_on_gpu: evaluators reserve GPUs, so that their time is GPU time.
    """

    model: str
    trials: int
    workers: int
    devices: float
    on_gpu: bool
    steps: int
    alone: int
    tokens: int
    evaluations: int
    training: Range
    evaluation: Range
    base: Range
    start_up: Range
    sources: tuple[str, ...]
    scores_on_gpu: bool = False

    @property
    def gpu_seconds(self) -> Range:
        """Seconds of GPUs, as limits and money count them."""
        training = self.training + self.start_up if self.on_gpu else NOTHING
        return training + self.evaluation + self.base if self.scores_on_gpu else training

    @property
    def total(self) -> Range:
        """Device seconds in all."""
        return self.training + self.evaluation + self.base + self.start_up


@dataclass(frozen=True, slots=True)
class Starts:
    """What starting takes; seconds of wall clock.

    Attributes:
        cluster: Ray itself, from the sweep's start to its first trial's, and at its end. source: of that, in words.
        new: an attempt in new processes, in the mean over the trials. again: one that finds the processes of another.
    """

    cluster: Range
    new: float
    again: float
    source: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a sweep will cost.

    Attributes:
        models: by model, in the order in which they come. wall: seconds from start to end on `nodes`, None where no
            machines were named. starts: what of that is starting; None without machines.
        usd: at `limits.usd_per_gpu_hour`, None without a price.
        sampled: the trials are random draws, since the search has yet to pick them.
        saving: what the stop rule is likely to leave out of all that, None where none is asked for.
    """

    sweep: str
    trials: int
    models: tuple[ModelCost, ...]
    nodes: tuple[float, ...]
    wall: Range | None
    usd: Range | None
    sampled: bool
    saving: Saving | None = None
    starts: Starts | None = None

    @property
    def device_seconds(self) -> Range:
        return sum((m.total for m in self.models), NOTHING)

    @property
    def gpu_hours(self) -> Range:
        return sum((m.gpu_seconds for m in self.models), NOTHING).scaled(1 / 3600)

    def over_limits(self, plan: Plan) -> list[str]:
        """Returns one sentence for each limit that the expected cost is over, and by how much."""
        return [
            f"limits.{name} is {limit:g}; the plan needs about {expected.value:,.4g} "
            f"({expected.low:,.4g} to {expected.high:,.4g}), {expected.value / limit - 1:.0%} more"
            for name, limit, expected in self._limited(plan)
            if expected.value > limit
        ]

    def share_of_limits(self, plan: Plan) -> float:
        """Returns the expected cost as a share of the limit that it is nearest to, or most over; 0 where there is none."""
        return max((expected.value / limit for _, limit, expected in self._limited(plan)), default=0.0)

    def _limited(self, plan: Plan) -> list[tuple[str, float, Range]]:
        limits = plan.sweep.limits
        known = (
            ("gpu_hours", limits.gpu_hours, self.gpu_hours),
            ("wall_hours", limits.wall_hours, self.wall.scaled(1 / 3600) if self.wall else None),
            ("usd", limits.usd, self.usd),
        )
        return [(name, limit, cost) for name, limit, cost in known if limit is not None and cost is not None]

    def to_json(self) -> dict[str, Any]:
        """Returns the estimate as plain JSON."""
        totals = {"device_seconds": asdict(self.device_seconds), "gpu_hours": asdict(self.gpu_hours)}
        return {**asdict(self), **totals}


def estimate(
    plan: Plan,
    speeds: Mapping[Key, Speed],
    nodes: Sequence[float] = (),
    *,
    cpus: Sequence[float] = (),
    in_process: bool = False,
) -> Estimate:
    """Estimates a sweep.

    Args:
        plan: the unfolded sweep. speeds: of every model that it trains, by `key_of`.
        nodes: devices of each node, GPUs if any trial needs some, else CPUs; empty: no wall-clock time. cpus: of each node beside
            its GPUs; empty: enough. in_process: all runs in one process that is there already, so that none is started.

    Raises:
        DoesNotFit: a trial needs more than all nodes have.
    """
    work = planned_work(plan)
    by_model: dict[str, list[TrialWork]] = defaultdict(list)
    for item in work:
        by_model[item.model].append(item)
    training = _for_training(plan, work, nodes)
    cold = frozenset[str]() if in_process else _first_ones(work, training)
    evaluator = evaluator_devices(plan, in_process=in_process)
    # In one process the GPU that it trains on is held while it scores.
    scores_on_gpu = any(item.gpus > 0 for item in work) if in_process else plan.sweep.evaluation.gpus_per_worker > 0
    models = tuple(
        replace(_model_cost(name, items, speeds, cold, evaluator, in_process=in_process), scores_on_gpu=scores_on_gpu)
        for name, items in by_model.items()
    )
    if not in_process:  # a new evaluator loads what all evaluations need
        loads = _range(_speed(work[0], speeds).loads, plan.sweep.evaluation.workers * evaluator)
        models = (replace(models[0], base=models[0].base + loads), *models[1:])
    price = plan.sweep.limits.usd_per_gpu_hour
    uses_gpus = any(m.on_gpu or m.scores_on_gpu for m in models)
    gpu_hours = sum((m.gpu_seconds for m in models), NOTHING).scaled(1 / 3600)
    starts = _starts(work, speeds, in_process=in_process) if nodes else None
    return Estimate(
        sweep=plan.sweep_id,
        trials=len(work),
        models=models,
        nodes=tuple(nodes),
        wall=_wall(plan, work, speeds, training, cpus, cold=cold) + starts.cluster if starts else None,
        starts=starts,
        usd=gpu_hours.scaled(price) if price is not None and uses_gpus else None,
        sampled=bool(sampled(plan.sweep.space)),
    )


def _first_ones(work: Sequence[TrialWork], nodes: Sequence[float]) -> frozenset[str]:
    """Returns the trials that start first on their machines: as many as run side by side; one, where no machines were named.

    Those after them find the processes there (`cluster.driver.loop`).
    """
    largest = max((item.devices for item in work), default=1.0)
    slots = max(1, sum(int((node + 1e-9) / largest) for node in nodes)) if largest else 1
    return frozenset(item.trial for item in work[:slots])


def _begin(item: TrialWork, speeds: Mapping[Key, Speed], cold: frozenset[str]) -> Figure:
    speed = _speed(item, speeds)
    return speed.start_up if item.trial in cold else speed.next_start


def evaluator_devices(plan: Plan, *, in_process: bool = False) -> float:
    """Returns how many device seconds an evaluator costs a second: the share of a GPU that it reserves, else a CPU's."""
    return 1.0 if in_process else plan.sweep.evaluation.gpus_per_worker or 1.0


def trial_costs(work: Sequence[TrialWork], speeds: Mapping[Key, Speed], evaluator: float) -> dict[str, Costs]:
    """Returns the expected device seconds of each trial's parts; `evaluator`: see `evaluator_devices`."""
    costs = {}
    for item in work:
        speed = _speed(item, speeds)
        step = speed.step_seconds(item.step_tokens) * item.devices
        start = speed.next_start.seconds * item.start_devices
        costs[item.trial] = Costs(step, speed.evaluation.seconds * evaluator, start)
    return costs


def _speed(item: TrialWork, speeds: Mapping[Key, Speed]) -> Speed:
    return speeds[key_of(item.config, item.workers)]


def _model_cost(
    model: str,
    items: Sequence[TrialWork],
    speeds: Mapping[Key, Speed],
    cold: frozenset[str],
    evaluator: float,
    *,
    in_process: bool,
) -> ModelCost:
    training = evaluation = start_up = NOTHING
    first = items[0]
    for item in items:
        speed = _speed(item, speeds)
        step = Figure(speed.step_seconds(item.step_tokens), speed.step.error, speed.step.source)
        training += _range(step, item.steps * item.devices)
        evaluation += _range(speed.evaluation, item.evaluations * evaluator)
        starts_on = max(item.start_devices, item.workers) if in_process else item.start_devices  # whole GPUs there
        start_up += _range(_begin(item, speeds, cold), starts_on)
    used = [_speed(item, speeds) for item in items]
    sources = dict.fromkeys(s for u in used for s in (u.step.source, u.evaluation.source, u.next_start.source))
    return ModelCost(
        model=model,
        trials=len(items),
        workers=first.workers,
        devices=first.devices,
        on_gpu=first.gpus > 0,
        steps=sum(i.steps for i in items),
        alone=sum(i.budget for i in items),
        tokens=sum(i.steps * i.step_tokens for i in items),
        evaluations=sum(i.evaluations for i in items),
        training=training,
        evaluation=evaluation,
        base=_range(_speed(first, speeds).evaluation, evaluator),
        start_up=start_up,
        sources=tuple(sources),
    )


def _for_training(plan: Plan, work: Sequence[TrialWork], nodes: Sequence[float]) -> list[float]:
    """Returns the devices of each node that evaluators leave, which reserve theirs on the fullest node that holds them."""
    each, left = _each_evaluator(plan, work), list(nodes)
    for _ in range(plan.sweep.evaluation.workers if each else 0):
        holds = [i for i, have in enumerate(left) if have >= each]
        if holds:
            left[min(holds, key=left.__getitem__)] -= each
    return left


def _each_evaluator(plan: Plan, work: Sequence[TrialWork]) -> float:
    """Returns how many of the devices that the trials train on an evaluator reserves."""
    evaluation, on_gpu = plan.sweep.evaluation, any(item.gpus > 0 for item in work)
    return evaluation.gpus_per_worker if on_gpu else evaluation.cpus_per_worker


def _wall(
    plan: Plan,
    work: Sequence[TrialWork],
    speeds: Mapping[Key, Speed],
    nodes: Sequence[float],
    cpus: Sequence[float],
    *,
    cold: frozenset[str],
) -> Range:
    """Wall-clock time from the first trial's launch: trials side by side, evaluators beside them; the last checkpoint is scored
    after all training.

    Evaluators come up when the first trial's processes are there. Where they share the trainers' CPUs, it takes at least as long
    as all CPUs need for the work of both, new processes included.
    """
    evaluation, ends, on_gpu = plan.sweep.evaluation, [], any(item.gpus > 0 for item in work)
    new_evaluators, shared = evaluation.workers if cold else 0, not on_gpu and not evaluation.cpus_per_worker
    bases = {item.model: item for item in work}.values()
    threads = 1.0 if on_gpu or evaluation.gpus_per_worker else evaluation.cpus_per_worker or 1.0
    for pick in (0, 1, -1):  # expected, slow, fast
        seconds = _seconds(work, speeds, pick, cold)
        trained = max(span.end for span in _spans(plan, work, seconds, nodes, cpus))
        each = {key: _bound(speed.evaluation, pick) / threads for key, speed in speeds.items()}
        asked = [(item, item.evaluations) for item in work] + [(item, 1) for item in bases]
        scoring = sum(each[key_of(item.config, item.workers)] * count for item, count in asked)
        first = EVALUATOR_PROCESS_S + _bound(_speed(work[0], speeds).loads, pick) if new_evaluators else 0.0
        begin = _bound(_begin(work[0], speeds, cold), pick)
        scored = begin + first + scoring / evaluation.workers
        end = max(trained, scored) + each[key_of(work[-1].config, work[-1].workers)]
        if shared:
            held = sum(seconds[item.trial] * item.cpus for item in work)
            end = max(end, (held + scoring + first * new_evaluators) / sum(nodes))
        ends.append(end)
    return Range(ends[0], ends[2], ends[1])


def _spans(
    plan: Plan, work: Sequence[TrialWork], seconds: Mapping[str, float], nodes: Sequence[float], cpus: Sequence[float]
) -> list[Span]:
    """Returns when each trial runs on the devices that evaluators leave.

    Raises:
        DoesNotFit: a trial needs more than that; it names them.
    """
    on_gpu, each = any(item.gpus > 0 for item in work), _each_evaluator(plan, work)
    try:
        return timeline(work, seconds, nodes, gpus=on_gpu, cpus=cpus if on_gpu else ())
    except DoesNotFit as e:
        if not each:
            raise
        raise DoesNotFit(f"{e} beside {plan.sweep.evaluation.workers} x {each:g} for evaluators") from None


def _starts(work: Sequence[TrialWork], speeds: Mapping[Key, Speed], *, in_process: bool) -> Starts:
    each = [_speed(item, speeds) for item in work]
    cluster = Figure(0.0 if in_process else CLUSTER_START_S, CLUSTER_ERROR, CLUSTER_SOURCE)
    return Starts(
        cluster=_range(cluster, 1.0),
        new=fmean(speed.start_up.seconds for speed in each),
        again=fmean(speed.next_start.seconds for speed in each),
        source=cluster.source,
    )


def planned_timeline(
    plan: Plan, speeds: Mapping[Key, Speed], nodes: Sequence[float], cpus: Sequence[float] = ()
) -> list[tuple[TrialWork, Span]]:
    """Returns when each trial is expected to run on `nodes`, in the order in which they start; see `estimate`.

    Raises:
        DoesNotFit: a trial needs more than all nodes have.
    """
    work = planned_work(plan)
    by_id, left = {item.trial: item for item in work}, _for_training(plan, work, nodes)
    seconds = _seconds(work, speeds, 0, _first_ones(work, left))
    spans = _spans(plan, work, seconds, left, cpus)
    return [(by_id[span.trial], span) for span in spans]


def _seconds(
    work: Sequence[TrialWork], speeds: Mapping[Key, Speed], pick: int, cold: frozenset[str]
) -> dict[str, float]:
    """Returns how long each trial holds its machines: expected (0), slow (1), fast (-1)."""
    found = {}
    for item in work:
        speed = _speed(item, speeds)
        train = speed.step_seconds(item.step_tokens) * item.steps * (1 + speed.step.error) ** pick
        found[item.trial] = train + _bound(_begin(item, speeds, cold), pick)
    return found


def _bound(figure: Figure, pick: int) -> float:
    return figure.seconds * (1 + figure.error) ** pick
