"""`dipsweep plan`: what a sweep will run, what that will cost, and where each figure is from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from cluster.jobs.list_nodes import NodeSize, nodes_text
from cluster.preflight.cost import DeviceMemory, LongestRows, StepSpeed, StorageUse
from cluster.preflight.within_limits import fitting_changes
from sweeps.config.plan import Plan
from sweeps.errors import Fault, InputError, LimitError
from sweeps.journal.rows import Row, TierRow
from sweeps.planning.devices import PEAK_BF16
from sweeps.planning.estimate import Estimate, ModelCost, Range, Starts, evaluator_devices, trial_costs
from sweeps.planning.progress import duration
from sweeps.planning.rehearsal import Saving, cached_saving, expected_saving
from sweeps.planning.speeds import Key, Speed
from sweeps.planning.work import ROW_SHARE, planned_work
from sweeps.plugins import RULES

SLOTS: Final = 8
"""Trials that run at once in a rehearsal of the stop rule, where no machines were named."""


def parse_nodes(gpus: float | None, nodes: str | None) -> list[float]:
    """Returns the devices of each node from `--gpus 8` or `--nodes 2x8`.

    Raises:
        InputError: both are given, `gpus` is no number of devices, or `nodes` is not of the form COUNTxDEVICES.
    """
    if gpus is not None and nodes is not None:
        raise InputError("plan: got both --gpus and --nodes; expected one of them")
    if gpus is not None and not 0 <= gpus < math.inf:
        raise InputError(f"plan: --gpus: got {gpus:g}; expected a number, such as 8")
    if nodes is None:
        return [gpus] if gpus else []
    count, x, each = nodes.lower().partition("x")
    if not (x and count.isdecimal() and each.isdecimal() and int(count) and int(each)):
        raise InputError(f"plan: --nodes: got {nodes!r}; expected COUNTxDEVICES, such as 2x8")
    return [float(each)] * int(count)


def machines_of(plan: Plan, nodes: Sequence[NodeSize], gpu: str | None) -> tuple[list[float], list[float], str, str]:
    """Returns what a sweep could use of a cluster's nodes: the devices of each, the CPUs of each, the kind of GPU, and a line.

    Args:
        gpu: the kind that somebody named; else that of the nodes.

    Raises:
        InputError: the sweep needs GPUs and the cluster has none, or only of a kind of which no speed is published.
    """
    on_gpu = any(item.gpus > 0 for item in planned_work(plan))
    usable = [node for node in nodes if not on_gpu or node.gpus]
    kinds = sorted({known for node in usable if node.gpus and (known := _known_kind(node.kind))})
    if on_gpu and not usable:
        raise InputError(f"plan: --address: the sweep trains on GPUs; the cluster has {nodes_text(nodes)}")
    if on_gpu and gpu is None and not kinds:
        raise InputError(
            f"plan: --address: the cluster has {nodes_text(nodes)}, and no speed of such GPUs is published; expected --gpu and "
            f"the nearest of {', '.join(PEAK_BF16)}"
        )
    chosen = gpu or min(kinds, key=PEAK_BF16.__getitem__, default="H100")  # of two kinds the slower
    mixed = f"; all taken as {chosen}" if len(kinds) > 1 else ""
    devices = [node.gpus if on_gpu else node.cpus for node in usable]
    return devices, [node.cpus for node in usable], chosen, f"nodes        {nodes_text(nodes)}{mixed}"


def _known_kind(kind: str) -> str:
    """Returns the device of `PEAK_BF16` that a kind of Ray's (`A100-80G`, `NVIDIA_L40S`) is; empty where none is."""
    return next((name for name in PEAK_BF16 if name in kind.replace("_", "-").split("-")), "")


def saving_for(
    plan: Plan, speeds: Mapping[Key, Speed], *, journals: Iterable[Sequence[Row]] = (), nodes: Sequence[float]
) -> Saving | None:
    """Returns what the stop rule is likely to save, by rehearsal on recorded curves; None where no rule stops anything.

    A rehearsal that was made before, by the same code, is not made again, but that of a rule of somebody else's code, whose
    changes nothing tells. `journals` are the rows of earlier sweeps, whose curves are taken where there are enough.

    Raises:
        StrategyError: the rule raised an error, or gave an answer that is none.
    """
    if plan.sweep.stopping.rule == "none":
        return None
    from cluster.run_sweep import stop_rule
    from sweeps.planning.recorded import curves_for

    work = planned_work(plan)
    costs = trial_costs(work, speeds, evaluator_devices(plan))
    largest = max(item.devices for item in work)
    slots = max(1, sum(int(node / largest) for node in nodes)) if nodes else SLOTS
    curves, source = curves_for(plan.sweep.goal, journals)

    def rehearse() -> Saving:
        return expected_saving(plan, work, costs, lambda p: stop_rule(p.sweep), curves, source=source, slots=slots)

    if plan.sweep.stopping.rule not in RULES.built_in:
        return rehearse()
    return cached_saving(repr((plan.sweep.to_json(), plan.more, sorted(costs.items()), slots, curves)), rehearse)


def missing_lines(missing: Sequence[Fault]) -> list[str]:
    """Returns what of a sweep's files is not there, as lines of the plan."""
    return [f"missing      {fault}" for fault in missing]


def memory_lines(memory: Sequence[DeviceMemory], gpu: str) -> list[str]:
    """Returns, for each model on GPUs, the predicted peak of a device with its parts, against the device's memory.

    Raises:
        InputError: weights, gradients and Adam's moments alone do not fit a whole device; it says what would help.
    """
    lines = []
    for one in memory:
        device = f"each {gpu}" if one.share == 1.0 else f"the {one.share:g} of an {gpu} that each worker reserves"
        line = f"{one.model}: {one.need} of {one.have / 1e9:g} GB on {device}"
        if one.helps:
            line += f"; does not fit; what would help: {', '.join(one.helps)}"
        if one.need.states > one.have / one.share:  # what is beside it on its device may need less than its own share
            raise InputError(f"plan: {line}")
        lines.append(f"memory       {line}")
    return lines


def step_lines(steps: Sequence[StepSpeed]) -> list[str]:
    """Returns what a step of each kind of trial is predicted to take, as lines of the plan."""
    lines, mixed = [], len({one.precision for one in steps}) > 1
    for one in steps:
        share = f", MFU {one.mfu:.0%}" if one.mfu is not None else ""
        workers = f" on {one.workers} workers" if one.workers > 1 else ""
        kinds = [one.precision] if mixed else []
        kinds += ["adapters"] if one.adapters else []
        kind = f" ({', '.join(kinds)})" if kinds else ""
        lines.append(
            f"step         {one.model}{kind}: {one.seconds:.3g} s for {_count(one.tokens)} tokens{workers}{share}"
        )
    return lines


def longest_lines(found: Sequence[LongestRows]) -> list[str]:
    """Returns what a probe measured at the longest rows, as lines of the plan."""
    lines = []
    for one in found:
        kind = " (adapters)" if one.adapters else ""
        peak = f", {one.peak / 1e9:.1f} GB of the device" if one.peak else ""
        lines.append(
            f"longest rows {one.model}{kind} on {one.data}: up to {one.tokens:,} tokens, {one.seconds:.3g} s a step{peak}"
        )
    return lines


class Labels(NamedTuple):
    """Tokens of a sweep's steps, and those of them that are learnt from.

    Attributes:
        unknown: models and tiers without a card; then `labels` is None.
    """

    tokens: float
    labels: float | None
    unknown: tuple[str, ...] = ()


def label_tokens(plan: Plan, journals: Iterable[Sequence[Row]]) -> Labels:
    """Returns how many of a sweep's tokens are learnt from, by the tiers' cards in earlier journals, or in those of a probe."""
    cards = {(row.model, row.tier): row for rows in journals for row in rows if isinstance(row, TierRow)}
    unknown, tokens, labels = dict[str, None](), 0.0, 0.0
    for item in planned_work(plan):
        card = cards.get((item.model, item.data))
        tokens += item.steps * item.step_tokens
        if card is None or not card.counts.get("tokens"):
            unknown[f"{item.data} for {item.model}"] = None
        else:
            labels += item.steps * item.step_tokens * card.counts.get("label_tokens", 0) / card.counts["tokens"]
    return Labels(tokens, None if unknown else labels, tuple(unknown))


def row_lines(plan: Plan) -> list[str]:
    """Returns how long rows are taken to be where steps are counted in rows, as a line of the plan."""
    lengths = {item.step_tokens // int(rows) for item in planned_work(plan) if (rows := item.config["batch_rows"])}
    if not lengths:
        return []
    said = " or ".join(f"{length:,}" for length in sorted(lengths))
    return [
        f"rows         taken for {said} tokens in the mean, {ROW_SHARE:g} of max_length: assumed, of every tier alike"
    ]


def label_lines(found: Labels) -> list[str]:
    """Returns how many of a sweep's tokens are learnt from, as a line of the plan."""
    if found.labels is None:
        more = f" and {len(found.unknown) - 1} more" if len(found.unknown) > 1 else ""
        return [f"labels       not known before a sweep here, or --probe, has counted {found.unknown[0]}{more}"]
    return [
        f"labels       {_count(found.labels)} of {_count(found.tokens)} tokens are learnt from (cards of the tiers)"
    ]


def storage_lines(use: StorageUse | None, wall: Range | None = None) -> list[str]:
    """Returns what the checkpoints of a sweep take and move, as a line of the plan; `wall`: seconds that the sweep takes."""
    if use is None:
        return []
    rate = f", {_bytes(use.rate(wall.value))}/s on average" if wall is not None and wall.value > 0 else ""
    return [
        f"storage      {_bytes(use.written)} written in {use.checkpoints:,} checkpoints (fp32 weights and Adam's moments), "
        f"{_bytes(use.read)} read by evaluators and branches{rate}; at most {_bytes(use.kept)} kept"
    ]


def _bytes(number: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e6:.1f} MB"


def limits_kept(estimate: Estimate, plan: Plan, estimate_of: Callable[[Plan], Estimate]) -> None:
    """Raises LimitError when the expected cost is over a limit of the sweep, with changes after which it would not be.

    Args:
        estimate_of: plans a changed sweep on the same machines.
    """
    over = estimate.over_limits(plan)
    if over:
        changes = "; or ".join(map(str, fitting_changes(plan, estimate, estimate_of)))
        raise LimitError(
            "; ".join([*over, f"within the limits with {changes}" if changes else "no change that was tried fits"])
        )


def cost_text(estimate: Estimate, memory: Sequence[str] = ()) -> str:
    """Returns the cost as a table that is read in half a minute; `memory`: of `memory_lines`."""
    head = (
        "model",
        "trials",
        "on",
        "steps",
        "tokens",
        "training",
        "evaluation",
        "base scores",
        "start-up",
        "device time",
    )
    rows = [head, *(_cells(m) for m in estimate.models)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("")
    total = estimate.device_seconds
    gpus = estimate.gpu_hours.scaled(3600)
    part = f", {_time(gpus)} of it on reserved GPUs" if 0 < gpus.value < total.value else ""
    lines.append(f"in all       {_time(total)} of device time{part}{_price(estimate)}")
    if estimate.wall:
        lines.append(f"wall clock   {_time(estimate.wall)} on {_nodes(estimate)}")
    if estimate.starts:
        lines.append(_starts_line(estimate.starts))
    lines += memory
    if estimate.sampled:
        lines.append("sampled axes: these trials are random draws; which ones the search picks depends on scores")
    if estimate.saving:
        lines.append(_saving_line(estimate, estimate.saving))
    sources = dict.fromkeys(s for m in estimate.models for s in m.sources)
    if estimate.starts:
        sources[estimate.starts.source] = None
    lines += ["where the figures are from:", *(f"  {source}" for source in sources)]
    return "\n".join(lines)


def _starts_line(starts: Starts) -> str:
    return (
        f"starting     {starts.cluster.value:.2g} s of that is Ray itself; an attempt takes {starts.new:.2g} s in new "
        f"processes, {starts.again:.2g} s in those of another"
    )


def _saving_line(estimate: Estimate, saving: Saving) -> str:
    whole = estimate.device_seconds.value
    left = f"{_long(whole * (1 - saving.high))} to {_long(whole * (1 - saving.low))}"
    part = f" with {saving.trials} of its {estimate.trials} trials" if saving.trials < estimate.trials else ""
    return (
        f"stop rule    saves about {saving.share:.0%} ({saving.low:.0%} to {saving.high:.0%}) of that: {left} are left; "
        f"from {saving.rehearsals} rehearsals{part} on {saving.source}"
    )


def _cells(cost: ModelCost) -> tuple[str, ...]:
    shared = f" of {cost.alone:,}" if cost.alone != cost.steps else ""
    device = "GPU" if cost.on_gpu else "CPU"
    return (
        cost.model,
        str(cost.trials),
        f"{cost.devices:g} {device}{'s' if cost.devices != 1 else ''}",
        f"{cost.steps:,}{shared}",
        _count(cost.tokens),
        _short(cost.training),
        f"{_short(cost.evaluation)} ({cost.evaluations:,} checkpoints)",
        _short(cost.base),
        _short(cost.start_up),
        _time(cost.total),
    )


def _count(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def _short(span: Range) -> str:
    return _long(span.value)


def _long(seconds: float) -> str:
    """Returns `40 s`, `3.5 h`, or `1,200 h`."""
    return duration(seconds) if seconds < 36_000 else f"{seconds / 3600:,.0f} h"


def _time(span: Range) -> str:
    return f"{_long(span.value)} ({_long(span.low)} to {_long(span.high)})"


def _price(estimate: Estimate) -> str:
    usd = estimate.usd
    return f", {_usd(usd.value)} USD ({_usd(usd.low)} to {_usd(usd.high)})" if usd else ""


def _usd(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


def _nodes(estimate: Estimate) -> str:
    device = "GPU" if any(m.on_gpu for m in estimate.models) else "CPU"
    sizes = Counter(estimate.nodes)
    return " and ".join(
        f"{n} node{'s' if n != 1 else ''} of {size:g} {device}{'s' if size != 1 else ''}" for size, n in sizes.items()
    )
