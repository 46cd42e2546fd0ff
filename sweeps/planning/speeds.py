"""How fast one model trains and is scored, and from where that is known.

Three sources, best first: a probe on this machine, earlier sweeps of the same storage, published utilisation of devices.
Each figure carries its source and a relative error that the source deserves; a plan prints both.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sweeps.journal.rows import BASE_PREFIX, AttemptRow, EvalRow, ReportRow, Row, SweepRow, TrialRow
from sweeps.planning.devices import CPU_BF16, CPU_FP32, CPU_STEP_S, PEAK_BF16, published_mfu
from sweeps.planning.work import step_tokens

PAST_ERROR: Final = 0.25
PUBLISHED_ERROR: Final = 0.4
ASSUMED_ERROR: Final = 1.0
GENERATION_MFU: Final = 0.05
"""Share of a device's rate that generation reaches; decoding is bound by memory. An assumption, not a measurement."""
REPLY_SHARE: Final = 1 / 8
"""Tokens of a reply as a share of `max_length`, where no earlier sweep tells. An assumption."""
START_UP_S: Final = {"GPU": 30.0, "CPU": 4.0}
"""Seconds of a new process until its model is loaded: imports, device, process group. An assumption."""
REUSED_S: Final = {"GPU": 2.0, "CPU": 0.1}
"""The same where processes stand ready from the attempt before: 0.05 CPU seconds were measured with tiny models
(`benchmarks.scale.start_up`); that of GPUs is an assumption."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of seconds, how far off it may be (a share of it), and where it is from."""

    seconds: float
    error: float
    source: str


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of one trial's machines: per token trained, per scored checkpoint, and to start an attempt.

    `step` is the time of a step of `tokens` tokens on all workers of the trial together (wall clock). `start_up` is that of the
    first attempt on its machines, `reused` that of those after it, which find the processes there; None: they take as long.
    """

    step: Figure
    evaluation: Figure
    start_up: Figure
    tokens: int
    reused: Figure | None = None

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
        found[key] = Speed(step, evaluation, start_up, int(one["tokens"]), reused)
    return found


@dataclass(frozen=True, slots=True)
class Measured:
    """What journals tell of one key: seconds per token of a step, per item of each task, and to start; None: nothing."""

    step: Figure | None
    evaluation: Figure | None
    start_up: Figure | None

    def over(self, guess: Speed, items: int) -> Speed:
        """Returns the guess with what was measured in its place, for evaluations of `items` items a task."""
        evaluation = self.evaluation
        return Speed(
            step=Figure(self.step.seconds * guess.tokens, self.step.error, self.step.source)
            if self.step
            else guess.step,
            evaluation=Figure(evaluation.seconds * items, evaluation.error, evaluation.source)
            if evaluation
            else guess.evaluation,
            start_up=guess.start_up,
            tokens=guess.tokens,
            reused=self.start_up or guess.reused,  # most attempts of a sweep find their processes there
        )


@dataclass(slots=True)
class _Seen:
    """What the attempts of one key spent."""

    per_token: list[float]
    start_up: list[float]


def measured_speeds(
    journals: Iterable[Sequence[Row]], suite: str, *, source: str, error: float = PAST_ERROR
) -> dict[Key, Measured]:
    """Returns what sweeps took, by key; the median over attempts.

    Args:
        journals: the rows of each sweep. suite: evaluations of this suite count, per item and task.
        source: where the journals are from, in words. error: how far off another sweep may be.

    The cost in a report row is cumulative per attempt: from the first report of an attempt to its last one it is training alone,
    and what the first one has beyond that pace is start-up.
    """
    seen: dict[Key, _Seen] = defaultdict(lambda: _Seen([], []))
    scoring: dict[str, list[float]] = defaultdict(list)
    for rows in journals:
        _read_one(rows, suite, seen, scoring)

    def median(values: Sequence[float], what: str) -> Figure | None:
        return Figure(statistics.median(values), error, f"{what}: {source}") if values else None

    return {
        key: Measured(
            step=median(one.per_token, "steps"),
            evaluation=median(scoring[key[0]], "evaluations"),
            start_up=median(one.start_up, "start-up"),
        )
        for key, one in seen.items()
    }


def _read_one(rows: Sequence[Row], suite: str, seen: dict[Key, _Seen], scoring: dict[str, list[float]]) -> None:
    spec: Mapping[str, Any] = next((row.spec for row in rows if isinstance(row, SweepRow)), {})
    evaluation = spec.get("evaluation", {})
    items = int(evaluation.get("items", 0)) if evaluation.get("suite") == suite else 0
    configs: dict[str, Mapping[str, Any]] = {}
    workers: dict[tuple[str, int], int] = {}
    forked: set[tuple[str, int]] = set()
    points: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if isinstance(row, TrialRow):
            configs[row.trial] = row.config
        elif isinstance(row, AttemptRow):
            workers[row.trial, row.attempt] = row.workers or 1
            if row.step:
                forked.add((row.trial, row.attempt))
        elif isinstance(row, ReportRow) and row.cost and "tokens" in row.progress:
            points[row.trial, row.attempt].append((row.progress["tokens"], sum(row.cost.values())))
        elif isinstance(row, EvalRow) and row.cost and items and (model := model_of(row.trial, configs.get(row.trial))):
            scoring[model].append(sum(row.cost.values()) / items)
    for (trial, attempt), found in points.items():
        config = configs.get(trial)
        if config is None or len(found) < 2:
            continue
        (tokens_0, cost_0), (tokens_1, cost_1) = found[0], found[-1]
        if tokens_1 <= tokens_0 or cost_1 <= cost_0:
            continue
        world = workers.get((trial, attempt), 1)
        per_token = (cost_1 - cost_0) / (tokens_1 - tokens_0) / world
        one = seen[key_of(config, world)]
        one.per_token.append(per_token)
        if (trial, attempt) not in forked:
            one.start_up.append(max(0.0, cost_0 / world - per_token * tokens_0))


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
    on_gpu: bool,
    gpu: str,
    replies: int,
) -> Speed:
    """Returns the speed that published figures suggest.

    Args:
        config: resolved hyperparameters of a trial. shape: the model's config.json. parameters: as counted from it, those that
            a token passes through. total: all of them, where experts make them more.
        workers: processes of the trial. on_gpu: each has a device. gpu: its name, of `PEAK_BF16`.
        replies: items of one evaluation, over all tasks.
    """
    tokens, reply = step_tokens(config), REPLY_SHARE * int(config["max_length"])
    flops = flops_per_token(shape, parameters, int(config["max_length"]), frozen=bool(config["lora_rank"])) * tokens
    if on_gpu:
        known = published_mfu(parameters)
        rate = PEAK_BF16[gpu] * known.mfu * workers
        step = Figure(flops / rate, PUBLISHED_ERROR, f"steps: MFU {known.mfu:.0%} on {gpu}: {known.source}")
        answer = 2.0 * parameters * replies * reply / (PEAK_BF16[gpu] * GENERATION_MFU)
    else:
        rate = (CPU_BF16 if config["precision"] == "bf16" else CPU_FP32) * workers
        step = Figure(
            CPU_STEP_S + flops / rate, ASSUMED_ERROR, "steps: operations of one CPU core in dipsweep's own loop"
        )
        answer = 2.0 * parameters * replies * reply / CPU_FP32
    evaluation = Figure(answer, ASSUMED_ERROR, f"evaluations: assumed, replies of {reply:.0f} tokens")
    device, load = "GPU" if on_gpu else "CPU", 16.0 * max(total, parameters) / 2e9
    said = f"start-up: assumed, {START_UP_S[device]:g} s at first and {REUSED_S[device]:g} s after, 2 GB of states a second"
    first, later = (Figure(begin[device] + load, ASSUMED_ERROR, said) for begin in (START_UP_S, REUSED_S))
    return Speed(step, evaluation, first, tokens, later)


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
