"""How fast one model trains and is scored, and from where that is known.

Three sources, best first: a probe on this machine, earlier sweeps of the same storage, published utilisation of devices.
Each figure carries its source and a relative error that the source deserves; a plan prints both.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, NamedTuple

from sweeps.journal.rows import BASE_PREFIX, AttemptRow, EvalRow, ReportRow, Row, SweepRow, TrialRow
from sweeps.journal.start_ups import StartUpMeter
from sweeps.journal.state import device_seconds
from sweeps.planning.decoding import Engine, Network, Replies, answer_seconds, mean_reply
from sweeps.planning.devices import (
    CPU_ADAPTERS,
    CPU_BF16,
    CPU_FP32,
    CPU_SHARDED_S,
    CPU_STEP_S,
    CPU_TOKEN_LAYER_S,
    GPU_LAYER_STEP_S,
    PEAK_BF16,
    cpu_has_bf16,
    published_mfu,
)
from sweeps.planning.work import step_tokens

PAST_ERROR: Final = 0.25
PUBLISHED_ERROR: Final = 0.4
ASSUMED_ERROR: Final = 1.0
PROCESS_S: Final = 2.0
"""Seconds until Ray runs our code in a new process (`perf/start_up/process_s`): 1.6 to 2.4 on two cores."""
START_UP_S: Final = {"GPU": 30.0, "CPU": 6.5}
"""Seconds of a new process until its first step: Ray's process, imports, tokenizer, data. On CPUs as measured (two side by side
on two cores: 6.3 to 7.9 s, 4.2 to 4.9 of them of CPU); on GPUs an assumption."""
GROUP_START_S: Final = 6.0
"""As many more where a trial has several workers: Tune's process, then Ray Train's controller, one after the other. Two workers
on two cores took 12.3 s, where one takes 6.3 to 7.9."""
CLUSTER_START_S: Final = 8.0
"""Seconds of a sweep on Ray in which no trial has machines yet, or any more: 2.5 of imports, 4 until Ray, its actors and Tune are
up, 1.5 for the report and Ray's end."""
REUSED_S: Final = {"GPU": 2.0, "CPU": 0.2}
"""Seconds of an attempt until its first step where processes stand ready from the attempt before: 0.12 to 0.25 were measured with
tiny models; that of GPUs is an assumption."""
EVALUATOR_PROCESS_S: Final = 2.3
"""CPU seconds of a new evaluator before its first evaluation, which no evaluation counts."""
EVALUATOR_LOADS_S: Final = {"GPU": 30.0, "CPU": 2.4}
"""Seconds that the first evaluation of a new evaluator takes more than others, for imports, the suite and its engine. On CPUs as
measured (2.5 s, where others take 0.1 to 0.3); on GPUs an assumption."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of seconds, how far off it may be (a share of it), and where it is from."""

    seconds: float
    error: float
    source: str


NOTHING: Final = Figure(0.0, 0.0, "")


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of wall clock of one trial's machines: per token trained, per scored checkpoint, and to start an attempt.

    `step` is the time of a step of `tokens` tokens on all workers of the trial together, with the devices or shares of devices
    that the trial holds. `evaluation` is that of an evaluator on a GPU, else CPU seconds. `start_up` is that of the
    first attempt on its machines, `reused` that of those after it, which find the processes there; None: they take as long.
    `loads` is what the first evaluation of a new evaluator takes more than others.
    """

    step: Figure
    evaluation: Figure
    start_up: Figure
    tokens: int
    reused: Figure | None = None
    loads: Figure = NOTHING

    @property
    def next_start(self) -> Figure:
        """What the start of an attempt takes where processes stand ready."""
        return self.reused or self.start_up

    def step_seconds(self, tokens: int) -> float:
        """Returns the time of a step with another number of tokens."""
        return self.step.seconds * tokens / self.tokens


Key = tuple[str, int, str, bool]
"""Model, workers, precision, and whether adapters are trained: what decides how long a step takes."""


def key_of(config: Mapping[str, Any], workers: int) -> Key:
    return str(config["model"]), workers, str(config["precision"]), bool(config["lora_rank"])


def speeds_to_json(speeds: Mapping[Key, Speed]) -> list[dict[str, Any]]:
    """Returns speeds as plain JSON, one object a key."""
    names = ("model", "workers", "precision", "adapters")
    return [{**dict(zip(names, key, strict=True)), **asdict(speed)} for key, speed in speeds.items()]


def speeds_from_json(data: Sequence[Mapping[str, Any]]) -> dict[Key, Speed]:
    """Returns what `speeds_to_json` wrote.

    Raises:
        KeyError, TypeError: it did not write this.
    """
    found: dict[Key, Speed] = {}
    for one in data:
        key = str(one["model"]), int(one["workers"]), str(one["precision"]), bool(one["adapters"])
        step, evaluation, start_up = (Figure(**one[name]) for name in ("step", "evaluation", "start_up"))
        reused = Figure(**one["reused"]) if one.get("reused") else None
        loads = Figure(**one["loads"]) if one.get("loads") else NOTHING
        found[key] = Speed(step, evaluation, start_up, int(one["tokens"]), reused, loads)
    return found


@dataclass(frozen=True, slots=True)
class Measured:
    """What journals tell of one key; None: nothing.

    Attributes:
        step: device seconds per token, of all workers. each: GPUs of each of these, 0 where they train on CPUs.
        evaluation: seconds for `items` items a task. start_up: data, model and what the first steps
            take longer; first: the same in a new process, which also imports then. new, again: seconds before that, of a new
            process and of one that ran an attempt before. loads: what the first evaluation of a process takes longer.
    """

    step: Figure | None = None
    evaluation: Figure | None = None
    start_up: Figure | None = None
    items: int = 0
    first: Figure | None = None
    new: Figure | None = None
    again: Figure | None = None
    loads: Figure | None = None
    each: float = 0.0

    def over(self, guess: Speed, more: float = 1.0, *, devices: float = 1.0, each: float = 0.0) -> Speed:
        """Returns the guess with what was measured in its place.

        A step is taken to need as many device seconds whatever share of a GPU it has: of two processes on one each is half as
        fast. Of another share than was measured that may be off by as much as the shares are.

        Args:
            more: how many times an evaluation of `items` items this sweep's own is expected to take.
            devices: what all workers of a trial hold, and each: GPUs of each of them.
        """
        evaluation = self.evaluation
        return Speed(
            step=self._step(guess.tokens / devices, each) or guess.step,
            evaluation=Figure(evaluation.seconds * more, evaluation.error, evaluation.source)
            if evaluation
            else guess.evaluation,
            start_up=_sum(self.new, self.first or self.start_up) if self.new else guess.start_up,
            tokens=guess.tokens,
            reused=_sum(self.start_up, self.again) if self.start_up else guess.reused,
            loads=self.loads or guess.loads,
        )

    def completed(self, other: Measured) -> Measured:
        """Returns what is known of either, this one's where both know it: journals may tell of starts alone, or of steps."""
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        more = {
            name: value
            for name, value in told.items()
            if value is not None and name not in ("evaluation", "items", "each")
        }
        if self.evaluation is not None:  # its items belong to it
            more |= {"evaluation": self.evaluation, "items": self.items}
        if self.step is not None:  # and so do GPUs
            more["each"] = self.each
        return replace(other, **more)

    def _step(self, factor: float, each: float) -> Figure | None:
        if self.step is None:
            return None
        seconds, error, source = self.step.seconds * factor, self.step.error, self.step.source
        if not self.each or not each or math.isclose(self.each, each):
            return Figure(seconds, error, source)
        off = max(self.each, each) / min(self.each, each) - 1
        return Figure(seconds, max(error, off), f"{source}, of workers with {self.each:g} GPU each")

    def of_several(self, more: float) -> Measured:
        """Returns what one worker's figures say of several, whose step takes so much `more` device seconds (a factor) by
        published figures."""
        step, new = self.step, self.new
        if step is not None:
            step = Figure(step.seconds * more, PUBLISHED_ERROR, f"{step.source}, of one worker")
        if new is not None:
            new = Figure(new.seconds + GROUP_START_S, ASSUMED_ERROR, f"{new.source}, of one worker")
        return replace(self, step=step, new=new)


def _sum(first: Figure, second: Figure | None) -> Figure:
    if second is None:
        return first
    return Figure(first.seconds + second.seconds, max(first.error, second.error), first.source)


class _Scored(NamedTuple):
    """One evaluation: items a task, seconds, and whether it was that of a base model."""

    items: int
    seconds: float
    base: bool


@dataclass(slots=True)
class _Seen:
    """What the attempts of one key spent."""

    per_token: list[float] = field(default_factory=list)
    start_up: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    each: float = 0.0


class OnGpus(NamedTuple):
    """Whether a model trains on GPUs, and whether it is scored on one."""

    trains: bool
    scored: bool


def measured_speeds(
    journals: Iterable[Sequence[Row]],
    suite: str,
    *,
    source: str,
    error: float = PAST_ERROR,
    on_gpus: Callable[[str], OnGpus] | None = None,
) -> dict[Key, Measured]:
    """Returns what sweeps took, by key; the median over attempts.

    Args:
        journals: the rows of each sweep. suite: evaluations of this suite count, those of trained checkpoints where there are any
            (a base's loads suite and model first), with as many items as the last of those sweeps asked.
        source: where the journals are from, in words. error: how far off another sweep may be.
        on_gpus: on which kind of device a model is to run: what ran on the other kind says nothing of it. None takes all.

    The cost in a report row is cumulative per attempt. Its pace is that of its second half: a process takes longer for its first
    steps, until it has seen packs of every length (on CPUs a half longer for some twenty). What the first report has beyond that
    pace is start-up. What lies before an attempt's own clock, such as imports, stands
    beside it (`perf/start_up_s`).
    """
    seen: dict[Key, _Seen] = defaultdict(_Seen)
    scoring: dict[str, list[_Scored]] = defaultdict(list)
    for rows in journals:
        _read_one(rows, suite, seen, scoring, on_gpus)

    def median(values: Sequence[float], what: str) -> Figure | None:
        return Figure(statistics.median(values), error, f"{what}: {source}") if values else None

    found = {}
    for key, one in seen.items():
        items, seconds = _alike(scoring[key[0]])
        evaluation = median(seconds, "evaluations")
        bases = [s.seconds for s in scoring[key[0]] if s.base and s.items == items] if one.new else []
        found[key] = Measured(
            step=median(one.per_token, "steps"),
            evaluation=evaluation,
            start_up=median(one.start_up, "start-up"),
            items=items,
            first=median(one.first, "start-up"),
            new=median(one.new, "start-up"),
            again=median(one.again, "start-up"),
            loads=median([max(0.0, base - evaluation.seconds) for base in bases], "start-up") if evaluation else None,
            each=one.each,
        )
    return found


def _alike(scored: Sequence[_Scored]) -> tuple[int, list[float]]:
    """Returns how many items a task the last evaluation asked, and the seconds of those that asked as many."""
    known = [one for one in scored if not one.base] or scored
    items = known[-1].items if known else 0
    return items, [one.seconds for one in known if one.items == items]


def _read_one(
    rows: Sequence[Row],
    suite: str,
    seen: dict[Key, _Seen],
    scoring: dict[str, list[_Scored]],
    on_gpus: Callable[[str], OnGpus] | None,
) -> None:
    spec: Mapping[str, Any] = next((row.spec for row in rows if isinstance(row, SweepRow)), {})
    evaluation = spec.get("evaluation", {})
    items = int(evaluation.get("items", 0)) if evaluation.get("suite") == suite else 0
    models: Mapping[str, Any] = spec.get("models") or {}
    configs: dict[str, Mapping[str, Any]] = {}
    attempts: dict[tuple[str, int], AttemptRow] = {}
    forked: set[tuple[str, int]] = set()
    points: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    on_gpu: set[tuple[str, int]] = set()
    starts = StartUpMeter()
    for row in rows:
        starts.apply(row)
        if isinstance(row, TrialRow):
            configs[row.trial] = row.config
        elif isinstance(row, AttemptRow):
            attempts[row.trial, row.attempt] = row
            if row.step:
                forked.add((row.trial, row.attempt))
        elif isinstance(row, ReportRow) and row.cost and "tokens" in row.progress:
            points[row.trial, row.attempt].append((row.progress["tokens"], device_seconds(row.cost)))
            if "gpu_s" in row.cost:
                on_gpu.add((row.trial, row.attempt))
        elif not (isinstance(row, EvalRow) and row.tells_duration and items):
            continue
        elif model := model_of(row.trial, configs.get(row.trial)):
            if on_gpus is not None and (row.seconds is not None or "gpu_s" in row.cost) != on_gpus(model).scored:
                continue
            seconds = device_seconds(row.cost) if row.seconds is None else row.seconds
            scoring[model].append(_Scored(items, seconds, row.trial.startswith(BASE_PREFIX)))

    def ran_alike(trial: str, attempt: int, model: str) -> bool:
        told = points.get((trial, attempt))
        return on_gpus is None or not told or ((trial, attempt) in on_gpu) == on_gpus(model).trains

    for (trial, attempt), start in starts.starts.items():
        if (config := configs.get(trial)) is not None and ran_alike(trial, attempt, str(config["model"])):
            one = seen[key_of(config, _workers(attempts.get((trial, attempt))))]
            (one.again if start.reused else one.new).append(start.before_training)
    for (trial, attempt), found in points.items():
        config = configs.get(trial)
        if config is None or len(found) < 2 or not ran_alike(trial, attempt, str(config["model"])):
            continue
        (tokens_0, cost_0), (tokens_1, cost_1) = found[0], found[-1]
        half, cost_half = max((p for p in found if p[0] <= (tokens_0 + tokens_1) / 2), default=found[0])
        if tokens_1 <= half or cost_1 <= cost_half:
            continue
        held = _held(
            attempts.get((trial, attempt)), models.get(str(config["model"])), on_gpu=(trial, attempt) in on_gpu
        )
        per_token = (cost_1 - cost_half) / (tokens_1 - half) / held.charged
        one = seen[key_of(config, held.workers)]
        one.per_token.append(per_token * held.workers * (held.each or 1.0))
        one.each = held.each
        if (trial, attempt) not in forked:
            begun = starts.starts.get((trial, attempt))
            is_new = begun is not None and not begun.reused
            (one.first if is_new else one.start_up).append(max(0.0, cost_0 / held.charged - per_token * tokens_0))


class _Held(NamedTuple):
    """Workers of an attempt, GPUs of each (0: CPUs), and the seconds that its rows count for a second of wall clock."""

    workers: int
    each: float
    charged: float


def _workers(row: AttemptRow | None) -> int:
    return (row.workers if row is not None else None) or 1


def _held(row: AttemptRow | None, model: Mapping[str, Any] | None, *, on_gpu: bool) -> _Held:
    """Returns what an attempt held; rows of early journals do not say it, but the sweep's definition does of its model."""
    workers = _workers(row)
    if row is not None and row.gpus and on_gpu:
        return _Held(workers, row.gpus_each, row.gpus)
    share = float((model or {}).get("gpus_per_worker") or 1.0) if on_gpu else 0.0
    return _Held(workers, share, float(workers))


def model_of(trial: str, config: Mapping[str, Any] | None) -> str:
    """Returns the model behind a trial, or behind the id under which a base's scores stand; empty where nothing tells."""
    if trial.startswith(BASE_PREFIX):
        return trial.removeprefix(BASE_PREFIX)
    return str((config or {}).get("model", ""))


def published_speed(
    config: Mapping[str, Any],
    shape: Mapping[str, Any],
    parameters: int,
    *,
    total: int = 0,
    workers: int,
    each: float = 1.0,
    on_gpu: bool,
    scored_on_gpu: bool | None = None,
    gpu: str,
    replies: Sequence[Replies],
    engine: Engine = "transformers",
) -> Speed:
    """Returns the speed that published figures suggest.

    Args:
        config: resolved hyperparameters of a trial. shape: the model's config.json. parameters: as counted from it, those that
            a token passes through. total: all of them, where experts make them more.
        workers: processes of the trial. on_gpu: each has a device, and each: so many, or such a share of one (CPUs, else); a
            worker computes on one GPU at most. gpu: its name, of `PEAK_BF16`. scored_on_gpu: evaluators answer on one too, as
            they do by default where the trial has some.
        replies: of one evaluation, over all tasks. engine: what draws them.
    """
    tokens, length = step_tokens(config), int(config["max_length"])
    flops = flops_per_token(shape, parameters, length, frozen=bool(config["lora_rank"])) * tokens
    network = Network.of(shape, parameters, max(total, parameters))
    if on_gpu:
        known = published_mfu(parameters)
        rate = PEAK_BF16[gpu] * known.mfu * workers * min(each, 1.0)
        step = Figure(
            max(flops / rate, GPU_LAYER_STEP_S * network.layers),
            PUBLISHED_ERROR,
            f"steps: MFU {known.mfu:.0%} on {gpu}: {known.source}",
        )
    else:
        per_token = CPU_TOKEN_LAYER_S * network.layers * (CPU_ADAPTERS if config["lora_rank"] else 1.0)
        whole = tokens * per_token + flops / (
            CPU_BF16 if config["precision"] == "bf16" and cpu_has_bf16() else CPU_FP32
        )
        together = CPU_SHARDED_S * (network.layers + 1) if workers > 1 else 0.0
        whole /= workers * (max(1, int(each)) if each >= 1 else each)  # by as many threads
        step = Figure(
            CPU_STEP_S / min(each, 1.0) + whole + together,
            ASSUMED_ERROR,
            "steps: as of a CPU core in dipsweep's own loop",
        )
    answers_on_gpu = on_gpu if scored_on_gpu is None else scored_on_gpu
    answer = answer_seconds(network, replies, length, engine=engine, gpu=gpu if answers_on_gpu else "")
    evaluation = Figure(
        answer, ASSUMED_ERROR, f"evaluations: {_assumed(replies, length, engine, on_gpu=answers_on_gpu)}"
    )
    device, scorer = ("GPU" if gpu_is_held else "CPU" for gpu_is_held in (on_gpu, answers_on_gpu))
    load = 16.0 * max(total, parameters) / 2e9
    new = START_UP_S[device] + (GROUP_START_S if workers > 1 else 0.0)
    said = f"start-up: assumed, {new:g} s at first and {REUSED_S[device]:g} s after, 2 GB of states a second"
    first, later = (Figure(begin + load, ASSUMED_ERROR, said) for begin in (new, REUSED_S[device]))
    return Speed(step, evaluation, first, tokens, later, Figure(EVALUATOR_LOADS_S[scorer], ASSUMED_ERROR, said))


def _assumed(replies: Sequence[Replies], length: int, engine: Engine, *, on_gpu: bool) -> str:
    """Says on what the time of an evaluation rests that nobody measured."""
    count, cap = sum(r.rows for r in replies), max((r.cap for r in replies), default=0)
    mean = sum(r.rows * mean_reply(r.cap, length) for r in replies) / max(count, 1)
    together, by_probe = "", ""
    if engine == "transformers":  # as a probe, which is one process, answers too
        together, by_probe = f" in {len(replies)} batch{'es' if len(replies) != 1 else ''}", "; --probe measures them"
    return (
        f"assumed, {count:,} replies{together} by {engine} on a {'GPU' if on_gpu else 'CPU'}, "
        f"{mean:,.0f} tokens in the mean, the longest up to {cap:,}{by_probe}"
    )


def flops_per_token(shape: Mapping[str, Any], parameters: int, length: int, *, frozen: bool) -> float:
    """Returns the operations of a training token, forward and backward, in rows of half the longest length.

    Six per weight (four where weights are frozen), and causal attention: 6 · layers · heads · head size · row length.
    """
    shape = shape.get("text_config", shape)
    hidden, heads = int(shape["hidden_size"]), int(shape["num_attention_heads"])
    head_size = int(shape.get("head_dim") or hidden // heads)
    embedding = 0 if shape.get("tie_word_embeddings") else hidden * int(shape["vocab_size"])
    attention = 6.0 * int(shape["num_hidden_layers"]) * heads * head_size * length / 2
    return (4.0 if frozen else 6.0) * (parameters - embedding) + attention
