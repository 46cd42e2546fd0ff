"""The sweep's definition: one strict schema for YAML and Python.

Every block is a frozen model that refuses unknown keys and wrong types; what a block cannot see alone (an axis that
names an unknown model, say) is checked in `sweeps.config.checks`. All faults come at once, in one `SpecError`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from sweeps.config.known_models import known_model
from sweeps.config.space import Axis, Grid, axis_from
from sweeps.config.trial import EvalSpec, ModelSource, TierSource
from sweeps.errors import SpecError
from sweeps.stopping.base import Constraint, Goal

BUILTIN_MODELS = ("tiny-s", "tiny-xs", "tiny-m")
BUILTIN_TIERS = ("verified-long-cot", "answer-only", "corrupted-cot")
ALGORITHMS = ("grid", "random", "qmc", "optuna-tpe", "optuna-gp", "optuna-nsga2")
RULES = ("none", "dip-aware", "asha", "median", "hyperband", "patient")
SUITE = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
METRIC = r"^(math|transfer|general|safety|train|length|perf)/[A-Za-z0-9_.\-]+(@\d+)?(,[a-z]+=[^,\s]+)*$"


LATE_FIELDS = ("stop_early",)
"""Settings of `evaluation` that came when there were sweeps already: unset, they leave the id of those as it was."""


class _Block(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


def _absolute(path: str) -> str:
    """A sweep must mean the same from every folder: workers and a later `resume` have another working directory."""
    if path == "builtin" or not path or "://" in path:
        return path
    return str(Path(os.path.expanduser(path)).absolute())


def anchored_suite(suite: str, anchor: Callable[[str], str]) -> str:
    """Returns a suite's name with the folder in it, if any, as `anchor` makes it: `paper:DIR`, `lm-eval:ROLE/TASK@DIR`."""
    kind, _, rest = suite.partition(":")
    if kind == "paper" and rest:
        return f"{kind}:{anchor(rest)}"
    tasks, at, folder = rest.partition("@")
    return f"{kind}:{tasks}@{anchor(folder)}" if kind == "lm-eval" and at and folder else suite


def _suite(name: str) -> str:
    if re.fullmatch(SUITE, name.partition(":")[0]) is None:
        raise ValueError(f"got {name!r}; expected the name of a suite, such as mini or paper:DIR (settings of test-time "
                         "compute belong under evaluation.test_time, a judge under evaluation.judge)")  # fmt: skip
    return anchored_suite(name, _absolute)


_Path = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]
_Positive = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1, lt=2**31)]
_Whole = Annotated[int, Field(ge=0, lt=2**31)]
_Setting = r"(cap|think|t)=[0-9.]+"
_Variant = Annotated[str, Field(pattern=rf"^(@[1-9]\d{{0,3}}(,{_Setting})*|{_Setting}(,{_Setting})*)$")]


def _workers(value: Any) -> int | tuple[int, int]:
    """`2`, or `[1, 4]` for a trial that may run on fewer when not all fit."""
    ends = list(value) if isinstance(value, list | tuple) else [value, value]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n < 2**31 for n in ends)
    if len(ends) != 2 or not whole or ends[0] > ends[1]:
        raise ValueError(f"came {value!r}; a whole number >= 1 would do, or [fewest, most] such as [1, 4]")
    return ends[1] if ends[0] == ends[1] else (ends[0], ends[1])


_Workers = Annotated[
    int | tuple[int, int],
    PlainValidator(_workers),
    PlainSerializer(lambda n: list(n) if isinstance(n, tuple) else n, return_type=Any),
]


class ModelBlock(_Block):
    """Where a model comes from and what a trial of it needs."""

    path: _Path = "builtin"
    """`builtin`, or a folder with config.json, tokenizer and safetensors, here or on `s3://`."""
    workers: _Workers | None = None
    """Training processes of one trial, or `[fewest, most]`: as many as there is room for, with the same batch.
    By default what `sweeps.config.known_models` says for a name it knows, else 1."""
    cpus_per_worker: _Positive = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """By default 1 for a name of `sweeps.config.known_models` with a path, else 0."""


class TierBlock(_Block):
    """Where a data tier comes from."""

    path: _Path = "builtin"
    """`builtin`, or a JSONL, Parquet or Arrow file of conversations, here or on `s3://`."""
    columns: dict[str, str] = {}
    """Renames columns: `{messages: conversation}` or `{prompt: question, response: answer}`."""
    max_bad_rows: _Share = 0.0
    """Share of unusable rows that may be left out (into a quarantine file, counted); above it nothing starts."""
    max_long_rows: _Share = 0.05
    """Share of rows that may be dropped because they are longer than `max_length`; above it nothing starts."""


class SearchBlock(_Block):
    """Who picks the values of the axes that are not grids."""

    algorithm: Literal["grid", "random", "qmc", "optuna-tpe", "optuna-gp", "optuna-nsga2"] = "grid"
    trials: _Count = 1
    """Samples per grid cell."""
    repeats: _Count = 1
    """Runs of every trial, each with its own seed."""
    share_trunk: bool = True
    """Let trials that differ in `steps` alone share their first steps, where that changes no bit
    (`sweeps.config.shared_prefix`)."""


class ObjectiveBlock(_Block):
    """The metric by which trials are ranked."""

    metric: Annotated[str, Field(pattern=METRIC)] = "transfer/score"
    goal: Literal["maximize", "minimize"] = "maximize"


class ConstraintBlock(_Block):
    """A metric that has to hold: exactly one of the three bounds."""

    metric: Annotated[str, Field(pattern=METRIC)]
    at_least: float | None = None
    at_most: float | None = None
    relative_to_base: float | None = None
    """Allowed change from the base model's score: -0.10 means at most 0.10 below it."""

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        given = [n for n in ("at_least", "at_most", "relative_to_base") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"came {' and '.join(given) or 'no bound'}; give exactly one of at_least, at_most, relative_to_base"
            )
        return self


class StoppingBlock(_Block):
    """Which rule prunes, and how hard it protects a dip."""

    rule: Literal["none", "dip-aware", "asha", "median", "hyperband", "patient"] = "none"
    protect: Literal["strict", "soft"] = "strict"
    top: _Count = 3
    """How many best trials the sweep is after."""
    risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    """dip-aware: share of the true top that may be lost, an upper bound; by default 0.07 under strict, 0.1 under soft."""
    patience: Annotated[float, Field(ge=1)] | None = None
    """dip-aware: with a dip, in multiples of its trough step; patient: reports without a new best."""
    grace: _Count | None = None
    """asha, median, hyperband, patient: no verdict before this step."""
    reduction: Annotated[float, Field(ge=1.5)] | None = None
    """asha, hyperband: keep one in this many."""


class TrainerBlock(_Block):
    """Defaults of every trial; any field may also be an axis of `space`."""

    steps: _Count = 400
    """Budget in optimizer steps."""
    lr: _Positive = 5e-5
    """Peak learning rate; the paper's value for 1.7B-14B (arXiv 2604.06628); tiny-s wants about 3e-3."""
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    warmup: Annotated[float, Field(ge=0)] = 0.1
    """Steps (>= 1) or share of the budget (< 1) of linear warm-up."""
    decay: _Share = 0.2
    """wsd: last share of the budget, in which the rate falls."""
    min_lr: _Share = 0.0
    """Final learning rate as a share of the peak."""
    batch_tokens: _Count = 8192
    """Tokens of one optimizer step over all workers, prompts included."""
    batch_rows: _Whole = 0
    """Rows of one optimizer step, however many tokens they have; 0 counts tokens. Holds tiers at equal rows."""
    pack_tokens: _Whole = 0
    """Tokens of one forward pass, at most `batch_tokens`; 0 takes `batch_tokens`. Decides memory, not the update."""
    max_length: Annotated[int, Field(ge=2, lt=2**31)] = 4096
    """Longest conversation in tokens; `long_rows` says what happens to longer ones, which are always counted."""
    long_rows: Literal["drop", "cut-prompt", "cut-answer"] = "drop"
    """drop them, cut-prompt (keep the prompt's end and the whole answer), or cut-answer."""
    replay: _Share = 0.0
    """Share of examples drawn from general data instead of the tier."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    clip: _Positive = 1.0
    """Largest global gradient norm."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Compute precision; master weights are always fp32."""
    recompute: bool = False
    """Activation checkpointing: less memory, about a third more compute."""
    lora_rank: _Whole = 0
    """Rank of low-rank adapters on frozen weights (LoRA, arXiv 2106.09685); 0 trains all weights."""
    lora_alpha: _Positive = 32.0
    """Adapters count `lora_alpha / lora_rank` times."""
    lora_targets: Literal["all-linear", "attention", "mlp"] = "all-linear"
    """Which of a layer's matrices get an adapter."""
    log_every: _Count = 10
    """Train metrics at least this often, in steps."""


class EvaluationBlock(_Block):
    """Which suite scores the checkpoints, and at which steps."""

    suite: Annotated[str, Field(min_length=1), AfterValidator(_suite)] = "mini"
    at: Any = "log"
    """`log`, `{every: n}`, or a list of optimizer steps; the last step is always scored."""
    items: _Count = 100
    """Items per task."""
    test_time: list[_Variant] = []
    """Other means at test time for the same items, by the tail of their metrics: `@8`, `cap=64`, `think=32`."""
    judge: _Path | None = None
    """Folder of a model that judges what a rule cannot, and refusals; default: rules alone."""
    workers: _Count = 1
    """Evaluator processes shared by all trials."""
    cpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """What each reserves; 0 shares the cores with the trainers."""
    gpus_per_worker: Annotated[float, Field(ge=0, le=1)] = 0.0
    """An evaluator answers on one device at most."""
    timeout_s: _Positive | None = None
    """Longest time of one evaluation; default: ten times the longest so far, twelve hours for the first ones."""
    backlog: _Count = 8
    """Checkpoints that may wait per evaluator; of more, spare ones that a later score has overtaken are skipped."""
    stop_early: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Ends the evaluation of a checkpoint that is clearly worse than its base, or clearly breaks a constraint, wrongly with
    at most this chance (`sweeps.controller.eval_early_stopping`); by default all items are asked."""

    @property
    def spec(self) -> EvalSpec:
        """What decides a checkpoint's scores, as evaluators take it."""
        return EvalSpec(self.suite, self.items, tuple(self.test_time), self.judge or "")


class LimitsBlock(_Block):
    """What the sweep may cost. Reaching a limit ends the sweep resumable, exit code 3."""

    trials: _Count | None = None
    gpu_hours: _Positive | None = None
    wall_hours: _Positive | None = None
    usd: _Positive | None = None
    usd_per_gpu_hour: _Positive | None = None
    retries: _Whole = 2
    """How often a trial whose worker died is started again; machines that were taken away do not count."""
    weight: _Positive = 1.0
    """Share of a cluster that other sweeps use too: twice the weight, twice the machines."""

    @model_validator(mode="after")
    def _price(self) -> Self:
        if self.usd is not None and self.usd_per_gpu_hour is None:
            raise ValueError("came usd without usd_per_gpu_hour; a limit in money needs the price of a GPU hour")
        return self


AxisField = Annotated[
    Axis,
    BeforeValidator(axis_from),
    PlainSerializer(lambda axis: axis.to_json(), return_type=dict),
]


class Sweep(_Block):
    """One sweep. `Sweep(name=…, space={…})` in Python and the YAML file are the same thing.

    Example:
        >>> from sweeps import Sweep, grid
        >>> sweep = Sweep(name="tiers", space={"data": grid("verified-long-cot", "answer-only")}, trainer={"lr": 3e-3})
        >>> sweep.id[:6]
        'tiers-'

    Raises:
        SpecError: anything about the definition is wrong; it lists every fault.
    """

    name: Annotated[str, Field(pattern=NAME)]
    seed: _Whole = 0
    models: dict[str, ModelBlock] = {}
    tiers: dict[str, TierBlock] = {}
    space: dict[str, AxisField] = {}
    search: SearchBlock = SearchBlock()
    objective: ObjectiveBlock = ObjectiveBlock()
    constraints: list[ConstraintBlock] = []
    stopping: StoppingBlock = StoppingBlock()
    trainer: TrainerBlock = TrainerBlock()
    evaluation: EvaluationBlock = EvaluationBlock()
    limits: LimitsBlock = LimitsBlock()
    storage: Annotated[str, Field(min_length=1)] = "./runs"

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as e:
            from sweeps.config.checks import check_rest
            from sweeps.config.schema_errors import explain

            raise SpecError(*explain(e), *check_rest(data, e)) from None
        from sweeps.config.checks import check

        if faults := check(self):
            raise SpecError(*faults)

    @classmethod
    def unchecked(cls, data: Mapping[str, Any]) -> Self:
        """Builds a sweep by the schema alone, without what `sweeps.config.checks` looks at.

        Raises:
            pydantic.ValidationError: the schema does not hold.
        """
        sweep = cls.__new__(cls)
        cls.__pydantic_validator__.validate_python(dict(data), self_instance=sweep)
        return sweep

    @property
    def id(self) -> str:
        """`name-<8 hex>`; where it is stored and what it may cost do not change what a sweep is."""
        text = json.dumps(self.to_json(identity=True), sort_keys=True, separators=(",", ":"))
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def goal(self) -> Goal:
        """Metric, direction, top k and constraints, as the stop rule and the report take them."""
        return Goal(
            metric=self.objective.metric,
            maximize=self.objective.goal == "maximize",
            top=self.stopping.top,
            constraints=tuple(Constraint(**c.model_dump()) for c in self.constraints),
        )

    def to_json(self, *, identity: bool = False) -> dict[str, Any]:
        """Returns the whole definition as plain JSON; with `identity`, only what makes it this sweep."""
        if not identity:
            return self.model_dump(mode="json")
        late = {"evaluation": {name for name in LATE_FIELDS if getattr(self.evaluation, name) is None}}
        return self.model_dump(mode="json", exclude={"storage": True, "limits": True, **late})

    @property
    def default_model(self) -> str:
        """The model of trials without a model axis: the first of `models`, else the first built-in one."""
        return next(iter(self.models), BUILTIN_MODELS[0])

    @property
    def default_tier(self) -> str:
        """The tier of trials without a data axis: the first of `tiers`, else the first built-in one."""
        return next(iter(self.tiers), BUILTIN_TIERS[0])

    def model_source(self, name: str) -> ModelSource:
        """Returns where the model `name` comes from; built-in names need no entry in `models`."""
        block = self.models.get(name, ModelBlock())
        known = None if block.path == "builtin" else known_model(name)
        gpus = (1.0 if known else 0.0) if block.gpus_per_worker is None else block.gpus_per_worker
        workers = block.workers or (known.gpus if known and gpus else 1)
        fewest, most = workers if isinstance(workers, tuple) else (workers, workers)
        return ModelSource(block.path, most, block.cpus_per_worker, gpus, fewest)

    def tier_source(self, name: str) -> TierSource:
        """Returns where the tier `name` comes from; built-in names need no entry in `tiers`."""
        block = self.tiers.get(name, TierBlock())
        return TierSource(block.path, dict(block.columns), block.max_bad_rows, block.max_long_rows)

    def axis_values(self, name: str, default: Any) -> tuple[Any, ...]:
        """Returns the values that `name` can take: those of its axis, else the default alone."""
        return self.space[name].samples() if name in self.space else (default,)

    @property
    def grid_axes(self) -> tuple[str, ...]:
        """Names of the axes that are crossed in full."""
        return tuple(n for n, a in self.space.items() if isinstance(a, Grid))


def known_axes() -> tuple[str, ...]:
    """Returns every name that `space` may hold."""
    return ("model", "data", *TrainerBlock.model_fields)


def block_fields(path: tuple[Any, ...]) -> Mapping[str, Any]:
    """Returns the fields that are legal at a place of the schema (for "did you mean")."""
    blocks: dict[str, type[BaseModel]] = {
        "models": ModelBlock, "tiers": TierBlock, "search": SearchBlock, "objective": ObjectiveBlock,
        "constraints": ConstraintBlock, "stopping": StoppingBlock, "trainer": TrainerBlock,
        "evaluation": EvaluationBlock, "limits": LimitsBlock,
    }  # fmt: skip
    if not path:
        return Sweep.model_fields
    return blocks[str(path[0])].model_fields if str(path[0]) in blocks else {}
