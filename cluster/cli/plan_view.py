"""`dipsweep plan`: what a sweep will run, what that will cost, and where each figure is from."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cluster.jobs.list_nodes import NodeSize, nodes_text
from cluster.preflight.cost import Probed, StepSpeed, StorageUse, model_shape, speeds_for
from cluster.preflight.within_limits import fitting_changes
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.errors import DipsweepError, InputError, LimitError
from sweeps.journal.rows import Row, TierRow
from sweeps.planning.devices import MEMORY_GB, PEAK_BF16
from sweeps.planning.estimate import Estimate, ModelCost, Range, Starts, trial_costs
from sweeps.planning.progress import duration
from sweeps.planning.rehearsal import Saving, cached_saving, expected_saving
from sweeps.planning.speeds import Key, Speed, key_of
from sweeps.planning.work import TrialWork, planned_work

SLOTS: Final = 8
"""Trials that run at once in a rehearsal of the stop rule, where no machines were named."""
PROBE_STEPS: Final = 24
PROBE_ITEMS: Final = 32
TRAINING_IMPORTS: Final = "import ray, trainers.loop; from transformers import AutoModelForCausalLM, AutoTokenizer"
PROBE: Final = f"a probe of {PROBE_STEPS} steps here"


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


def probed_speeds(plan: Plan, *, gpu: str, journals: Iterable[Sequence[Row]] = ()) -> dict[Key, Speed]:
    """Returns how fast each model is, after some steps and some items of each here; see `speeds_for`."""
    return speeds_for(plan, gpu=gpu, journals=journals, probed=probe(plan))


def probe(plan: Plan) -> Probed:
    """Trains and scores some steps of each kind of trial on each tier, in this process, in a folder that is removed again.

    It also starts a process that imports what a new one of a cluster does.
    """
    from cluster.run_sweep import run
    from sweeps.journal.writer import read_rows

    kinds = {(key_of(w.config, w.workers), w.data): w for w in planned_work(plan)}
    rows: list[Row] = []
    for item in kinds.values():
        with tempfile.TemporaryDirectory(prefix="dipsweep-probe-") as folder:
            small = Sweep(**_probe_definition(plan.sweep, item))
            run(small, storage=folder, backend="in-process", say=lambda line: None)
            rows += read_rows(Path(folder) / small.id)
    return Probed(rows, new_process_seconds(), PROBE)


def new_process_seconds() -> float:
    """Returns how long a new process takes to import what trains a model.

    Raises:
        DipsweepError: it cannot.
    """
    began = time.monotonic()
    # Not from the folder that one works in (-P), which may have a ray.py of its own.
    done = subprocess.run([sys.executable, "-P", "-c", TRAINING_IMPORTS], capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise DipsweepError(f"plan: --probe: a new process cannot import what trains a model: {why}")
    return time.monotonic() - began


def _probe_definition(sweep: Sweep, item: TrialWork) -> dict[str, Any]:
    """The sweep with one trial, with the settings of `item`, for few steps and few items.

    It is scored three times, since the first evaluation of a kind also warms up: a median leaves that out.
    """
    definition = sweep.to_json()
    items, at = min(PROBE_ITEMS, sweep.evaluation.items), [PROBE_STEPS // 3, 2 * PROBE_STEPS // 3, PROBE_STEPS]
    trainer = {name: item.config[name] for name in definition["trainer"]}
    trainer |= {"steps": PROBE_STEPS, "logging_steps": 4, "warmup_steps": 1.0}
    return {
        **definition,
        "name": "probe",
        "space": {"model": {"grid": [item.model]}, "data": {"grid": [item.data]}},
        "search": {"algorithm": "grid"},
        "constraints": [],
        "stopping": {"rule": "none"},
        "limits": {},
        "trainer": trainer,
        "evaluation": {**definition["evaluation"], "items": items, "at": at, "stop_early": None},
    }


def saving_for(
    plan: Plan, speeds: Mapping[Key, Speed], *, journals: Iterable[Sequence[Row]] = (), nodes: Sequence[float]
) -> Saving | None:
    """Returns what the stop rule is likely to save, by rehearsal on recorded curves; None where no rule stops anything.

    A rehearsal that was made before, by the same code, is not made again. `journals` are the rows of earlier sweeps, whose
    curves are taken where there are enough.
    """
    if plan.sweep.stopping.rule == "none":
        return None
    from cluster.run_sweep import stop_rule
    from sweeps.planning.recorded import curves_for

    work = planned_work(plan)
    costs = trial_costs(work, speeds)
    largest = max(item.gpus or item.cpus for item in work)
    slots = max(1, sum(int(node / largest) for node in nodes)) if nodes else SLOTS
    curves, source = curves_for(plan.sweep.goal, journals)
    key = repr((plan.sweep.to_json(), plan.more, sorted(costs.items()), slots, curves))
    return cached_saving(
        key,
        lambda: expected_saving(plan, work, costs, lambda p: stop_rule(p.sweep), curves, source=source, slots=slots),
    )


def memory_lines(plan: Plan, gpu: str) -> list[str]:
    """Returns, for each model on GPUs, the predicted peak of a device with its parts, against the device's memory.

    Raises:
        InputError: weights, gradients and Adam's moments alone do not fit; it says what would help.
    """
    work = {w.model: w for w in planned_work(plan) if w.gpus > 0}
    if not work:
        return []
    from sweeps.config.blocks import TrialSettings
    from trainers.model.estimates.memory import HEADROOM, what_would_help
    from trainers.model.estimates.memory import estimate as peak

    lines, have = [], MEMORY_GB[gpu]
    for model, item in work.items():
        config = TrialSettings.from_config(item.config)
        need = peak(config, model_shape(model, plan.sweep.model_source(model)), item.workers)
        line, fits = f"{model}: {need} of {have:g} GB on each {gpu}", need.total <= HEADROOM * have * 1e9
        if not fits:
            line += f"; does not fit; what would help: {', '.join(what_would_help(config, need, item.workers))}"
        if need.states > have * 1e9:
            raise InputError(f"plan: {line}")
        lines.append(f"memory       {line}")
    return lines


def step_lines(steps: Sequence[StepSpeed]) -> list[str]:
    """Returns what a step of each kind of trial is predicted to take, as lines of the plan."""
    lines = []
    for one in steps:
        share = f", MFU {one.mfu:.0%}" if one.mfu is not None else ""
        workers = f" on {one.workers} workers" if one.workers > 1 else ""
        lines.append(f"step         {one.model}: {one.seconds:.3g} s for {_count(one.tokens)} tokens{workers}{share}")
    return lines


def label_lines(plan: Plan, journals: Iterable[Sequence[Row]]) -> list[str]:
    """Returns how many of a sweep's tokens are learnt from, as a line of the plan: by the tiers' cards in earlier journals.

    Empty where a tier has none there; `dipsweep preview` measures it.
    """
    cards = {(row.model, row.tier): row for rows in journals for row in rows if isinstance(row, TierRow)}
    tokens = labels = 0.0
    for item in planned_work(plan):
        card = cards.get((item.model, item.data))
        if card is None or not card.counts.get("tokens"):
            return []
        tokens += item.steps * item.step_tokens
        labels += item.steps * item.step_tokens * card.counts.get("label_tokens", 0) / card.counts["tokens"]
    return [f"labels       {_count(labels)} of {_count(tokens)} tokens are learnt from (cards of earlier sweeps here)"]


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
    """Raises LimitError when the expected cost is over a limit of the sweep, with single changes after which it would not be.

    Args:
        estimate_of: plans a changed sweep on the same machines.
    """
    over = estimate.over_limits(plan)
    if over:
        changes = "; or ".join(map(str, fitting_changes(plan, estimate, estimate_of)))
        raise LimitError(
            "; ".join(
                [*over, f"within the limits with {changes}" if changes else "no single change that was tried fits"]
            )
        )


def cost_text(estimate: Estimate, memory: Sequence[str] = ()) -> str:
    """Returns the cost as a table that is read in half a minute; `memory`: of `memory_lines`."""
    head = ("model", "trials", "on", "steps", "tokens", "training", "evaluation", "start-up", "device hours")
    rows = [head, *(_cells(m) for m in estimate.models)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("")
    total = estimate.device_seconds
    lines.append(f"in all       {_hours(total)} device hours{_price(estimate)}")
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
    crowd = f" (times {starts.crowd:.2g}, side by side on so few CPUs)" if starts.crowd > 1 else ""
    return (
        f"starting     {starts.cluster.value:.2g} s of that is Ray itself; an attempt takes {starts.new:.2g} s in new "
        f"processes{crowd}, {starts.again:.2g} s in those of another"
    )


def _saving_line(estimate: Estimate, saving: Saving) -> str:
    hours = estimate.device_seconds.value / 3600
    left = f"{_plain(hours * (1 - saving.high))} to {_plain(hours * (1 - saving.low))}"
    part = f" with {saving.trials} of its {estimate.trials} trials" if saving.trials < estimate.trials else ""
    return (
        f"stop rule    saves about {saving.share:.0%} ({saving.low:.0%} to {saving.high:.0%}) of that: {left} device hours; "
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
        f"{_short(cost.evaluation)} ({cost.evaluations} checkpoints)",
        _short(cost.start_up),
        _hours(cost.total),
    )


def _count(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def _short(span: Range) -> str:
    return duration(span.value)


def _hours(span: Range) -> str:
    return f"{_plain(span.value / 3600)} ({_plain(span.low / 3600)} to {_plain(span.high / 3600)})"


def _plain(number: float) -> str:
    """Two digits at least, never an exponent."""
    return (
        f"{number:,.0f}"
        if number >= 10
        else f"{number:.1f}"
        if number >= 1
        else f"{number:.4f}".rstrip("0").rstrip(".") or "0"
    )


def _time(span: Range) -> str:
    return f"{duration(span.value)} ({duration(span.low)} to {duration(span.high)})"


def _price(estimate: Estimate) -> str:
    usd = estimate.usd
    return f", {usd.value:,.0f} USD ({usd.low:,.0f} to {usd.high:,.0f})" if usd else ""


def _nodes(estimate: Estimate) -> str:
    device = "GPU" if any(m.on_gpu for m in estimate.models) else "CPU"
    sizes = Counter(estimate.nodes)
    return " and ".join(
        f"{n} node{'s' if n != 1 else ''} of {size:g} {device}{'s' if size != 1 else ''}" for size, n in sizes.items()
    )
