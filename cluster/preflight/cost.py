"""What a sweep is expected to cost, from the best source there is: a probe, earlier sweeps, published figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cluster.evals.interpreter import vllm_of
from sweeps.config.blocks import TrialSettings
from sweeps.config.known_models import known_model
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.config.trial import ModelSource
from sweeps.errors import DipsweepError, Fault, InputError, SpecError
from sweeps.journal.rows import Row
from sweeps.planning.decoding import Replies
from sweeps.planning.devices import MEMORY_GB, PEAK_BF16
from sweeps.planning.estimate import estimate
from sweeps.planning.speeds import (
    PAST_ERROR,
    PROCESS_S,
    Figure,
    Key,
    Measured,
    OnGpus,
    Speed,
    flops_per_token,
    key_of,
    measured_speeds,
    published_speed,
    speeds_to_json,
)
from sweeps.planning.work import TrialWork, planned_work
from sweeps.storage.base import Where
from trainers.data.sources.download_cache import is_remote

if TYPE_CHECKING:  # counted only where a sweep trains on GPUs
    from trainers.model.estimates.memory import Memory

RECENT: Final = 20
"""Earlier sweeps of a storage that are read for their speed: the last ones by name."""
RECENT_AT_START: Final = 5
"""As many are read when a sweep begins, which is not to wait for it."""
USUAL_GPU: Final = "H100"
"""The device of a figure, where nobody says which it is."""
BYTES_A_PARAMETER: Final = 12
BYTES_A_WEIGHT: Final = 4
KEPT: Final = 3
DECIDE_MEMORY: Final = (
    "precision", "lora_rank", "lora_target_modules", "pack_tokens", "batch_tokens", "max_length", "gradient_checkpointing"
)  # fmt: skip
"""Settings that decide what a trial takes of its devices' memory."""
PROBE_ERROR: Final = 0.15
TASKS: Final = 10
CAP: Final = 2048
PROMPT_TOKENS: Final = 128
"""Tasks, tokens of a reply and of a prompt of a suite that cannot be loaded here. Assumptions."""
CHARACTERS_A_TOKEN: Final = 4
"""Of prompts, where the tokenizer has not been read; 1 of the tiny models, whose vocabularies are characters."""


def predicted(plan: Plan, storage: Where, *, in_process: bool = False, nodes: Sequence[float] = ()) -> dict[str, Any]:
    """Returns what a sweep that begins is expected to cost, as its journal keeps it; {} where that cannot be said.

    `device_seconds` with its bounds, the `speeds` behind them (`sweeps.planning.speeds.speeds_to_json`), and `in_process`: one
    process, which holds whole GPUs. On `nodes`, where they are known, as many processes start as there is room for.
    """
    try:
        journals = journals_of(storage, RECENT_AT_START)
        speeds = speeds_for(plan, gpu=USUAL_GPU, journals=journals, in_process=in_process)
        whole = estimate(plan, speeds, nodes, in_process=in_process).device_seconds
    except DipsweepError:  # a model whose shape cannot be read from here: the sweep runs all the same
        return {}
    return {"device_seconds": asdict(whole), "speeds": speeds_to_json(speeds), "in_process": in_process}


class LongestRows(NamedTuple):
    """What a model took at the longest rows of a tier: device seconds of a step, and bytes of a GPU at most (0: none)."""

    model: str
    data: str
    adapters: bool
    tokens: int
    seconds: float
    peak: int


class Probed(NamedTuple):
    """What was tried on this machine for a plan: the rows of short sweeps, the seconds in which a new process had imported what
    trains a model, and what it was, in words; and what the longest rows took."""

    rows: Sequence[Row]
    new_process: float
    source: str
    longest: Sequence[LongestRows] = ()


def speeds_for(
    plan: Plan,
    *,
    gpu: str,
    journals: Iterable[Sequence[Row]] = (),
    probed: Probed | None = None,
    in_process: bool = False,
) -> dict[Key, Speed]:
    """Returns the speed of each model of a sweep, from the best source there is.

    Args:
        gpu: name of the devices, of `PEAK_BF16`. journals: the rows of earlier sweeps (`journals_of`).
        probed: on this machine, which goes before all else; but of evaluations by an engine that one process, as a probe is, does
            not use (`_in_vllm`). in_process: so is the sweep.

    Raises:
        InputError: the device is unknown, or a model's shape cannot be read.
    """
    if gpu not in PEAK_BF16:
        raise InputError(f"plan: --gpu: got {gpu!r}; expected one of {', '.join(PEAK_BF16)}")
    sweep = plan.sweep
    past = measured_speeds(
        journals,
        sweep.evaluation.suite,
        source="earlier sweeps here",
        on_gpus=None if in_process else partial(_on_gpus, sweep),  # one process takes a GPU where there is one
    )
    if probed:
        found = measured_speeds([probed.rows], sweep.evaluation.suite, source=probed.source, error=PROBE_ERROR)
        earlier = dict(past)  # as Ray's evaluators took it
        new = Figure(PROCESS_S + probed.new_process, PAST_ERROR, f"start-up: {probed.source}")
        for key, one in found.items():
            alike = _in_vllm(sweep, key[0], in_process=in_process) == _in_vllm(sweep, key[0], in_process=True)
            scored = one if alike else earlier.get(key, Measured())
            past[key] = replace(one, new=new, evaluation=scored.evaluation, items=scored.items, loads=scored.loads)
    suites = _Suites(sweep)
    speeds: dict[Key, Speed] = {}
    for item in planned_work(plan):
        key = key_of(item.config, item.workers)
        if key not in speeds:
            of_one = past.get(key_of(item.config, 1))
            speeds[key] = _speed(plan, item, gpu, suites, past.get(key), of_one, in_process=in_process)
    return speeds


def _on_gpus(sweep: Sweep, model: str) -> OnGpus:
    """Returns on which kind of device a sweep runs a model."""
    trains = sweep.model_source(model).gpus_per_worker > 0
    return OnGpus(trains, trains or sweep.evaluation.gpus_per_worker > 0)


def _in_vllm(sweep: Sweep, model: str, *, in_process: bool) -> bool:
    """Whether vLLM answers for a model: where the evaluators' interpreter has it for the kind of device that answers, or, as
    `missing_inputs` says, cannot be asked here; in one process not where that trains on a GPU (`evaluators.engines.select`)."""
    from trainers.model.recurrent.recurrence import is_recurrent

    on_gpus, python = _on_gpus(sweep, model), None if in_process else sweep.evaluation.python
    if (in_process and on_gpus.trains) or vllm_of(python, gpu=on_gpus.scored) == "":
        return False
    return not is_recurrent(model_shape(model, sweep.model_source(model)))


def _speed(
    plan: Plan,
    item: TrialWork,
    gpu: str,
    suites: _Suites,
    measured: Measured | None,
    of_one: Measured | None,
    *,
    in_process: bool,
) -> Speed:
    """Returns the speed of a kind of trial; `measured` is of its number of workers, `of_one` of a single one."""
    from trainers.model.estimates.flops import counted
    from trainers.model.recurrent.recurrence import is_recurrent, layer_runs, train_range

    shape = model_shape(item.model, plan.sweep.model_source(item.model))
    try:
        known, recurrent = counted(shape), is_recurrent(shape)
        runs = round(layer_runs(shape, sum(train_range(shape)) / 2)) if recurrent else 0
        each, scored_on_gpu = item.devices / item.workers, _on_gpus(plan.sweep, item.model).scored
        in_vllm = _in_vllm(plan.sweep, item.model, in_process=in_process)

        def guess(items: int, workers: int = item.workers) -> Speed:
            return published_speed(
                item.config,
                {**shape, "num_hidden_layers": runs} if runs else shape,
                known.active,
                total=known.total,
                workers=workers,
                each=each,
                on_gpu=item.gpus > 0,
                scored_on_gpu=scored_on_gpu,
                gpu=gpu,
                replies=suites.replies(items, shape),
                engine="vllm" if in_vllm else "transformers",
            )

        own = guess(plan.sweep.evaluation.items)
        if of_one is not None and item.workers > 1:
            told = of_one.of_several(own.step.seconds * item.workers / guess(1, workers=1).step.seconds)
            measured = told if measured is None else measured.completed(told)
        if measured is None:
            return own
        more = own.evaluation.seconds / guess(measured.items).evaluation.seconds if measured.items else 1.0
        return measured.over(own, more, devices=item.devices, each=each if item.gpus else 0.0)
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"plan: model {item.model!r}: its config.json is not that of a decoder: {e!r}") from e


def model_shape(name: str, source: ModelSource) -> dict[str, Any]:
    """Returns a model's config.json: of a built-in model, of a folder or bucket, or of a published name.

    Raises:
        InputError: there is none to read.
    """
    from sweeps.storage.factory import open_store
    from trainers.model.files.builtin import builtin_folder

    try:
        if source.path == "builtin":
            text: str | bytes = (builtin_folder(name) / "config.json").read_text(encoding="utf-8")
        else:
            text = open_store(source.path).read("config.json")
        found: dict[str, Any] = json.loads(text)
        return found
    except (OSError, ValueError, DipsweepError) as e:
        known = known_model(name)
        if known is not None:
            return known.shape.config()
        raise InputError(f"plan: model {name!r}: config.json cannot be read from {source.path}: {e}") from e


def missing_inputs(sweep: Sweep) -> list[Fault]:
    """Returns the models' folders, tiers' files and evaluators' interpreter that are not on this machine; what lies elsewhere is
    not looked for.

    Raises:
        SpecError: one of these models has no shape that ships with dipsweep, so that nothing can be planned; it names all.
    """

    def missing(where: str, path: str, kind: str) -> list[Fault]:
        there = path == "builtin" or is_remote(path) or Path(path).expanduser().exists()
        return [] if there else [Fault(where, f"no {kind} {path} on this machine")]

    faults, unknown = list[Fault](), False
    for name in map(str, sweep.axis_values("model", sweep.default_model)):
        found = missing(f"models.{name}.path", sweep.model_source(name).path, "folder")
        unknown = unknown or (bool(found) and known_model(name) is None)
        faults += found
    for name in map(str, sweep.axis_values("data", sweep.default_tier)):
        faults += missing(f"tiers.{name}.path", sweep.tier_source(name).path, "file")
    if unknown:
        raise SpecError(*faults)
    if (python := sweep.evaluation.python) is not None and vllm_of(python, gpu=False) is None:
        faults.append(
            Fault(
                "evaluation.python",
                f"{python} cannot be run on this machine; evaluations are planned as if it had vLLM",
            )
        )
    return faults


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What the largest kind of trial of a model is predicted to take of each of its devices, in bytes.

    Attributes:
        need: the peak of a step with its parts. have: of the device, or of the share of it that a worker reserves.
        helps: settings that would make it smaller, where it does not fit.
        share: what a worker reserves of a device; 1 also where that is several.
    """

    model: str
    need: Memory
    have: float
    helps: Sequence[str]
    share: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON."""
        return {**asdict(self), "need": {**asdict(self.need), "total": self.need.total}}


def device_memory(plan: Plan, gpu: str) -> list[DeviceMemory]:
    """Returns what each model that trains on GPUs is predicted to take of a device of this kind.

    Raises:
        InputError: a model's shape cannot be read.
    """
    from trainers.model.estimates.memory import HEADROOM, what_would_help
    from trainers.model.estimates.memory import estimate as peak

    found = dict[str, DeviceMemory]()
    on_gpus = [w for w in planned_work(plan) if w.gpus > 0]
    for item in {(w.model, w.workers, *(w.config[name] for name in DECIDE_MEMORY)): w for w in on_gpus}.values():
        config = TrialSettings.from_config(item.config)
        need = peak(config, model_shape(item.model, plan.sweep.model_source(item.model)), item.workers)
        known, share = found.get(item.model), min(1.0, item.gpus / item.workers)
        have = share * MEMORY_GB[gpu] * 1e9
        if known is None or known.need.total < need.total:
            helps = what_would_help(config, need, item.workers, share) if need.total > HEADROOM * have else ()
            found[item.model] = DeviceMemory(item.model, need, have, helps, share)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class StepSpeed:
    """What a step of one kind of trial is predicted to take.

    Attributes:
        adapters: they are trained, and not the whole model. seconds: of a step of `tokens` tokens on `workers` processes.
        mfu: the share that this is of the bf16 rate of the GPUs, or shares of GPUs, that they hold; None on CPUs.
    """

    model: str
    precision: str
    adapters: bool
    workers: int
    seconds: float
    tokens: int
    mfu: float | None


def step_speeds(plan: Plan, speeds: Mapping[Key, Speed], gpu: str) -> list[StepSpeed]:
    """Returns what a step of each kind of trial is predicted to take, in the order in which they come."""
    from trainers.model.estimates.flops import counted

    found: dict[Key, StepSpeed] = {}
    for item in planned_work(plan):
        key = key_of(item.config, item.workers)
        if key in found:
            continue
        seconds, mfu = speeds[key].step_seconds(item.step_tokens), None
        if item.gpus:
            shape = model_shape(item.model, plan.sweep.model_source(item.model))
            frozen, length = bool(item.config["lora_rank"]), int(item.config["max_length"])
            flops = flops_per_token(shape, counted(shape).active, length, frozen=frozen) * item.step_tokens
            mfu = flops / seconds / (PEAK_BF16[gpu] * item.gpus)
        model, workers, precision, adapters = key
        found[key] = StepSpeed(model, precision, adapters, workers, seconds, item.step_tokens, mfu)
    return list(found.values())


class _Suites:
    """What the evaluations of a sweep ask, by how many items a task; loaded once each."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._asked: dict[int, list[tuple[int, int]]] = {}

    def replies(self, items: int, shape: Mapping[str, Any]) -> list[Replies]:
        """Returns the replies of one evaluation of a model of this shape, in the batches of `evaluators.engines.generate`."""
        from evaluators.engines.generate import BATCH_ROWS, BATCH_TOKENS, batches

        if items not in self._asked:
            self._asked[items] = self._load(items)
        small = int(shape.get("text_config", shape).get("vocab_size", 0)) < 1000
        each = 1 if small else CHARACTERS_A_TOKEN
        prompts = [range(max(1, characters // each)) for characters, _ in self._asked[items]]
        caps = [cap for _, cap in self._asked[items]]
        return [
            Replies(len(rows), sum(len(prompts[i]) for i in rows) // len(rows), max(caps[i] for i in rows))
            for rows in batches(prompts, caps, BATCH_ROWS, BATCH_TOKENS)
        ]

    def _load(self, items: int) -> list[tuple[int, int]]:
        """Characters of the prompt and cap of each reply, of the suite itself and of its other means at test time."""
        from evaluators.suites.registry import load_suite
        from evaluators.tasks import text_of
        from evaluators.test_time import parse_variant

        spec = replace(self.sweep.evaluation.spec, items=items)
        try:
            suite = load_suite(spec, seed=self.sweep.seed)
        except DipsweepError:
            return [(PROMPT_TOKENS * CHARACTERS_A_TOKEN, CAP)] * (TASKS * items * (1 + len(spec.test_time)))
        variants = [variant for variant in map(parse_variant, suite.variants) if not variant.cheap]
        return [
            (len(text_of(prompt)), task.cap)
            for asked in (suite, *(variant.of(suite) for variant in variants))
            for task in asked.tasks
            for prompt in task.prompts
            for _ in range(asked.samples(task))
        ]


@dataclass(frozen=True, slots=True)
class StorageUse:
    """Bytes of checkpoints.

    Attributes:
        written: to the storage, in so many `checkpoints`. read: from it, by evaluators (weights alone) and by branches that
            begin at their parent's. kept: at most, at the sweep's end.
    """

    written: int
    kept: int
    checkpoints: int
    read: int = 0

    def rate(self, seconds: float) -> float:
        """Returns the mean traffic to and from the storage of a sweep that takes so long, in bytes a second."""
        return (self.written + self.read) / seconds


def storage_use(plan: Plan) -> StorageUse | None:
    """Returns what the checkpoints of a sweep take; None where some trials train adapters, whose checkpoints differ.

    Weights and both of Adam's moments in fp32; of a trial its last two checkpoints and its best are kept.
    """
    from trainers.model.estimates.flops import num_parameters

    written = kept = checkpoints = read = 0
    sizes: dict[str, int] = {}
    for item in planned_work(plan):
        if item.config["lora_rank"]:
            return None
        if item.model not in sizes:
            shape = model_shape(item.model, plan.sweep.model_source(item.model))
            sizes[item.model] = BYTES_A_PARAMETER * num_parameters(shape)
        written += item.saves * sizes[item.model]
        read += item.evaluations * sizes[item.model] * BYTES_A_WEIGHT // BYTES_A_PARAMETER
        read += sizes[item.model] if item.parent else 0
        kept += min(item.saves, KEPT) * sizes[item.model]
        checkpoints += item.saves
    return StorageUse(written, kept, checkpoints, read)


def journals_of(storage: Where, recent: int = RECENT) -> Iterator[Sequence[Row]]:
    """Yields the rows of the last sweeps of a storage by name, of those that can be read."""
    from sweeps.journal.writer import read_rows, sweeps_in
    from sweeps.storage.factory import open_store

    try:
        homes = list(sweeps_in(open_store(storage)))[-recent:]
    except (DipsweepError, OSError):
        return
    for home in homes:
        try:
            yield read_rows(home)
        except DipsweepError:
            continue
