"""The blocks of a sweep's definition, each a frozen model that refuses unknown keys and wrong types.

The text under a field is its documentation: editors show it (`dipsweep schema`), and the tables of docs/sweep-file.md are
made from it. What a block cannot see alone (an axis that names an unknown model, say) is checked in
`sweeps.config.checks.whole_sweep`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from sweeps.config.compat import PAPER, paper_faults
from sweeps.config.names import METRIC, SUITE, TASK, TEMPLATES, VARIANT
from sweeps.config.objective import At
from sweeps.config.schema_errors import explain
from sweeps.config.trial import EvalFile, EvalSpec, KeepReplies
from sweeps.errors import InputError
from sweeps.plugins import RULES, SEARCHERS, SFT, TRAINERS, Registry


class Block(BaseModel):
    """Base of all blocks."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
    )


class OpenBlock(Block):
    """A block that may name a plugin, and then holds the plugin's settings too.

    Whether they are the plugin's is checked in `sweeps.config.checks.plugin_settings`.
    """

    model_config = ConfigDict(extra="allow")

    @property
    def own(self) -> dict[str, Any]:
        """The settings that dipsweep itself does not know."""
        return dict(self.model_extra or {})


B = TypeVar("B", bound=Block)


def checked_block(block: type[B], values: Mapping[str, Any], where: str = "") -> B:
    """Returns the block with these values; `where` is its place in a sweep file.

    Raises:
        InputError: a key is unknown, or a value will not do; it names every one.
    """
    try:
        return block.model_validate(dict(values))
    except ValidationError as e:
        faults = explain(e, lambda _: block.model_fields)
        raise InputError("; ".join(f"{where and where + '.'}{fault}" for fault in faults)) from None


def _absolute(path: str) -> str:
    """A sweep must mean the same from every folder: workers and a later `resume` have another working directory."""
    if path == "builtin" or not path or "://" in path:
        return path
    return str(Path(os.path.expanduser(path)).absolute())


def anchored_suite(suite: str, anchor: Callable[[str], str]) -> str:
    """Returns a suite's name with the folder in it, if any, as `anchor` makes it: `paper:DIR`, `lm-eval:ROLE/TASK@DIR`."""
    kind, _, rest = suite.partition(":")
    if rest and (kind == "paper" or re.match(r"(\.{1,2}|~)?/", rest)):
        return f"{kind}:{anchor(rest)}"
    tasks, at, folder = rest.partition("@")
    return f"{kind}:{tasks}@{anchor(folder)}" if kind == "lm-eval" and at and folder else suite


def _suite(name: str) -> str:
    if re.fullmatch(SUITE, name) is None:
        raise ValueError(
            f"got {name!r}; expected the name of a suite, such as mini or paper:DIR (settings of test-time "
            "compute belong under evaluation.test_time, a judge under evaluation.judge)"
        )
    return anchored_suite(name, _absolute)


def anchored_place(place: str, anchor: Callable[[str], str]) -> str:
    """Returns where sweeps lie, a folder as `anchor` makes it; an id or an address as it is."""
    return anchor(place) if "/" in place else place


def _known(registry: Registry) -> WithJsonSchema:
    """A name that ships or that a package adds; `sweeps.config.checks.plugin_settings` checks that it exists."""
    return WithJsonSchema({"anyOf": [{"enum": list(registry.built_in)}, {"type": "string", "minLength": 1}]})


_RuleName = Annotated[str, Field(min_length=1), _known(RULES)]
_SearcherName = Annotated[str, Field(min_length=1), _known(SEARCHERS)]
_TrainerName = Annotated[str, Field(min_length=1, exclude_if=lambda name: name == SFT), _known(TRAINERS)]
_Path = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]
_Template = Annotated[
    str, Field(min_length=1), AfterValidator(lambda path: path if path in TEMPLATES else _absolute(path))
]
_Positive = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1, lt=2**31)]
_Places = Annotated[
    list[Annotated[str, Field(min_length=1), AfterValidator(lambda place: anchored_place(place, _absolute))]],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=str | list[str]),
]
Whole = Annotated[int, Field(ge=0, lt=2**31)]
MAX_PATIENCE = 100  # of dip-aware, in multiples of its trough step
LongRows = Literal["drop", "cut-prompt", "cut-answer"]
_Variant = Annotated[str, Field(pattern=VARIANT)]


_A_COUNT = {"type": "integer", "minimum": 1}


def _workers(value: Any) -> int | tuple[int, int]:
    """`2`, or `[1, 4]` for a trial that may run on fewer when not all fit."""
    ends = list(value) if isinstance(value, list | tuple) else [value, value]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n < 2**31 for n in ends)
    if len(ends) != 2 or not whole or ends[0] > ends[1]:
        raise ValueError(f"got {value!r}; expected a whole number >= 1, or [fewest, most] such as [1, 4]")
    return ends[1] if ends[0] == ends[1] else (ends[0], ends[1])


_Workers = Annotated[
    int | tuple[int, int],
    PlainValidator(_workers),
    PlainSerializer(lambda n: list(n) if isinstance(n, tuple) else n, return_type=Any),
    WithJsonSchema({"anyOf": [_A_COUNT, {"type": "array", "items": _A_COUNT, "minItems": 2, "maxItems": 2}]}),
]
_At = Annotated[Any, WithJsonSchema({"anyOf": [
    {"const": "log"},
    {"type": "object", "properties": {"every": _A_COUNT}, "required": ["every"], "additionalProperties": False},
    {"type": "array", "items": _A_COUNT, "minItems": 1},
]})]  # fmt: skip


class ModelBlock(Block):
    """Where a model comes from and what a trial of it needs."""

    path: _Path = "builtin"
    """`builtin`, or a folder with config.json, tokenizer and safetensors, here or on `s3://`."""
    chat_template: _Template | None = None
    """File with a chat template (Jinja) to use instead of the model's own, in training, evaluation and exports; or `thinking`
    (its own, with thoughts turned on), `chatml`, `gemma` (docs/how-to/own-model.md)."""
    workers: _Workers | None = None
    """Training processes of one trial, or `[fewest, most]`: as many as there is room for, with the same batch.
    By default what `sweeps.config.known_models` says for a name it knows, else 1."""
    cpus_per_worker: _Positive = 1.0
    """CPUs that each process reserves, and threads that it computes with."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """GPUs that each process reserves; shares such as 0.5 too. By default 1 for a name of `sweeps.config.known_models` with a
    path, else 0."""


class TierBlock(Block):
    """Where a data tier comes from."""

    path: _Path = "builtin"
    """`builtin`, or a JSONL, Parquet or Arrow file of conversations, here or on `s3://`."""
    columns: dict[str, str] = {}
    """Renames columns: `{messages: conversation}` or `{prompt: question, response: answer}`."""
    max_bad_rows: _Share = 0.0
    """Share of unusable rows that may be left out (into a quarantine file, counted); above it nothing starts."""
    max_long_rows: _Share = 0.05
    """Share of rows that may be dropped because they are longer than `max_length`; above it nothing starts."""


class SearchBlock(OpenBlock):
    """Who picks the values of the axes that are not grids."""

    algorithm: _SearcherName = "grid"
    """grid runs every cell once; random, qmc, optuna-tpe, optuna-gp and optuna-nsga2 sample the axes that are no grids
    inside each cell; or a search that an installed package adds, with its own settings beside."""
    trials: _Count | None = None
    """Trials in all, spread evenly over the grid cells (the first ones get one more); by default one per cell."""
    trials_per_cell: _Count | None = None
    """Trials of each grid cell, instead of `trials`."""
    repeats: _Count = 1
    """Runs of every trial, each with its own seed; `trials` counts them all."""
    share_trunk: bool = True
    """Let trials that differ in `steps`, `decay` and `min_lr_rate` alone share their first steps, where that changes no bit
    (`sweeps.config.shared_prefix`)."""
    promote: bool = False
    """With `stopping.rule: dip-aware`: compute goes to promising runs first. A run goes on while its odds of the top k are at
    least a new configuration's, else it waits at its last checkpoint; shorter budgets come last (docs/how-to/plan-a-sweep.md)."""
    points_from: _Places = []
    """optuna-tpe, optuna-gp: earlier sweeps that the search begins from, by id in the sweep's storage, folder or address; a
    storage stands for all of its sweeps. Their trials count as finished ones where all but the axes is the same, and else
    their best settings are tried first."""


class ObjectiveBlock(Block):
    """The metric by which trials are ranked."""

    metric: Annotated[str, Field(pattern=METRIC)] = "transfer/score"
    """`ROLE/NAME`, with the tail of `evaluation.test_time` if any: `transfer/score@8`."""
    goal: Literal["maximize", "minimize"] = "maximize"
    """Whether more is better."""
    at: At = "end"
    """What a trial is worth: its score at the `end`, or that of its `best` checkpoint, also where it was pruned after it. The
    report corrects the best of many noisy checkpoints for having been chosen (docs/stopping.md)."""


class ConstraintBlock(Block):
    """A metric that has to hold: exactly one of the three bounds."""

    metric: Annotated[str, Field(pattern=METRIC)]
    """As in `objective`."""
    at_least: float | None = None
    """Smallest value allowed."""
    at_most: float | None = None
    """Largest value allowed."""
    relative_to_base: float | None = None
    """Allowed change from the base model's score: -0.10 means at most 0.10 below it."""

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        given = [n for n in ("at_least", "at_most", "relative_to_base") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"got {' and '.join(given) or 'no bound'}; expected exactly one of at_least, at_most, relative_to_base"
            )
        return self


class StoppingBlock(OpenBlock):
    """Which rule prunes, and how hard it protects a dip."""

    rule: _RuleName = "none"
    """none (all run to their budget), dip-aware, or a rule that is blind to dips: asha, median, hyperband, patient; or a
    rule that an installed package adds, with its own settings beside (docs/how-to/own-stop-rule.md)."""
    protect: Literal["strict", "soft"] | None = None
    """dip-aware: strict (the default) neither stops nor pauses a trial in its dip or its recovery; soft does, at lower odds."""
    top: _Count = 3
    """How many best trials the sweep is after."""
    max_lost_winners: Annotated[float, Field(gt=0)] | None = None
    """dip-aware: how many of the best trials may be expected among what was given up (docs/stopping.md), fewer than `top`; by
    default 0.2 of a top 3, and in proportion."""
    risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    """dip-aware: the old name of `max_lost_winners`, which is a third of `risk` x `top`."""
    patience: Annotated[float, Field(ge=1)] | None = None
    """dip-aware: with a dip, in multiples of its trough step; patient: reports without a new best."""
    grace: _Count | None = None
    """asha, median, hyperband, patient: no verdict before this step."""
    reduction: Annotated[float, Field(ge=1.5)] | None = None
    """asha, hyperband: keep one in this many."""
    experience: Annotated[str, Field(min_length=1)] | None = None
    """dip-aware: a storage, such as ./runs or s3://bucket/sweeps, whose finished sweeps with the same metric and suite the rule
    begins from (docs/stopping.md); read once, when the sweep begins."""

    @property
    def rule_settings(self) -> dict[str, Any]:
        """All that is set here for the rule."""
        named = {
            name: getattr(self, name) for name in type(self).model_fields if name not in ("rule", "top", "experience")
        }
        return {name: value for name, value in (named | self.own).items() if value is not None}


class TrainerBlock(OpenBlock):
    """Settings of every trial; any of them may also be an axis of `space`. Names are those of transformers and TRL."""

    loop: _TrainerName = SFT
    """sft, or a training loop that an installed package adds, with its own settings beside
    (docs/how-to/own-trainer.md). No axis. `trainer: my-loop` is short for `trainer: {loop: my-loop}`."""
    steps: _Count = 400
    """Budget in optimizer steps."""
    learning_rate: _Positive = 5e-5
    """Peak learning rate; the paper's value for 1.7B-14B (arXiv 2604.06628); tiny-s wants about 3e-3."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """What follows the warm-up: cosine or linear to `min_lr_rate`, constant, or wsd (constant, then a linear decay)."""
    warmup_steps: Annotated[float, Field(ge=0)] = 0.1
    """Linear warm-up: steps (>= 1), or a share of the budget (< 1)."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """wsd: last share of the budget, in which the rate falls."""
    min_lr_rate: _Share = 0.0
    """Final learning rate as a share of the peak."""
    batch_tokens: Annotated[int, Field(ge=2, lt=2**31)] = 8192
    """Tokens of one optimizer step over all workers, prompts included; a step comes as close as whole rows allow."""
    batch_rows: Whole = 0
    """Rows of one optimizer step, however many tokens they have; 0 counts tokens. Holds tiers at equal rows."""
    pack_tokens: Whole = 0
    """Tokens of one forward pass, at most `batch_tokens`; 0 takes `batch_tokens`. Decides memory, never the update."""
    max_length: Annotated[int, Field(ge=2, lt=2**31)] = 4096
    """Longest conversation in tokens; `long_rows` says what happens to longer ones, which are always counted."""
    long_rows: LongRows = "drop"
    """drop them, cut-prompt (keep the prompt's end and the whole answer), or cut-answer."""
    replay: _Share = 0.0
    """Share of examples drawn from general data instead of the tier."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decoupled weight decay, on every parameter."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's decay of the first moment."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's decay of the second moment."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Largest global gradient norm; 0 turns clipping off."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Compute precision; master weights and optimizer state are always fp32."""
    gradient_checkpointing: bool = False
    """Recomputes activations in the backward pass: less memory, about a third more compute."""
    lora_rank: Whole = 0
    """Rank of low-rank adapters on frozen weights (LoRA, arXiv 2106.09685); 0 trains all weights."""
    lora_alpha: _Positive = 32.0
    """Adapters count `lora_alpha / lora_rank` times."""
    lora_target_modules: Literal["all-linear", "attention", "mlp"] = "all-linear"
    """Which of a layer's matrices get an adapter: all, those of attention, or those of the feed-forward part."""
    logging_steps: _Count = 10
    """Train metrics at least this often, in steps; checkpoints always report."""
    compat: Annotated[Literal["none", "paper"], Field(exclude_if=lambda name: name == "none")] = "none"
    """paper: row order, loss, clipping and warm-up as the trainer of arXiv 2604.06628 has them (docs/compat-paper.md)."""


class TrialSettings(TrainerBlock):
    """All that decides what one trial computes: the trainer's settings with model, data and seed. Equal ones, equal runs."""

    model_config = ConfigDict(extra="forbid")

    model: str
    """Name of the base model; the trial's `ModelSource` says where it lies."""
    data: str
    """Name of the data tier; the trial's `TierSource` says where it lies."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides the order of the data; two runs of one seed see the same rows in the same steps."""

    @property
    def pass_tokens(self) -> int:
        """Tokens of one forward pass, at most."""
        return self.pack_tokens or self.batch_tokens

    @property
    def row_limit(self) -> int:
        """Longest row that can be trained on, in tokens: it has to fit one forward pass."""
        return min(self.max_length, self.pass_tokens)

    @model_validator(mode="after")
    def _packs_fit_a_step(self) -> Self:
        if self.pack_tokens > self.batch_tokens:
            raise ValueError(f"got pack_tokens {self.pack_tokens}; expected at most batch_tokens {self.batch_tokens}")
        return self

    @model_validator(mode="after")
    def _as_the_paper(self) -> Self:
        if self.compat == PAPER and (faults := [f"{name}: {why}" for name, why in paper_faults(dict(self))]):
            raise ValueError("; ".join(faults))
        return self

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Reads a trial's resolved configuration; what it holds for a loop that a package adds is left out.

        Raises:
            InputError: a setting is unknown, missing, of the wrong type or out of range; it names every one.
        """
        if config.get("loop", SFT) != SFT:
            config = {name: value for name, value in config.items() if name in cls.model_fields}
        return checked_block(cls, config)


def anchored_scorer(scorer: str, anchor: Callable[[str], str]) -> str:
    """Returns a scorer's name with the file in it, if any, as `anchor` makes it: `file.py:function`."""
    file, _, function = scorer.rpartition(":")
    return f"{anchor(file)}:{function}" if file.endswith(".py") else scorer


class EvalFileBlock(Block):
    """A JSONL file of the user's own evaluation items."""

    path: _Path
    """A JSONL file of items, here or on `s3://`: `prompt` or `messages`, `answer`, and what the scorer takes."""
    role: Literal["math", "transfer", "general", "safety"] | None = None
    """Role of items that name none of their own."""
    task: Annotated[str, Field(pattern=TASK)] | None = None
    """Name of the task, so that its metric is `role/task`; by default the file's name."""
    scorer: (
        Annotated[str, Field(min_length=1), AfterValidator(lambda name: anchored_scorer(name, _absolute))] | None
    ) = None
    """`exact`, `number`, `choice`, `math`, `regex`, `json`, `code`, `refusal`, `judge`, or a Python function
    `score(reply, item) -> float` as `file.py:function` or `package.module:function`; by default `choice` for items with
    `choices`, else `exact`."""
    max_new_tokens: _Count = 1024
    """Tokens that a reply may have."""

    @property
    def spec(self) -> EvalFile:
        """The file as evaluators take it."""
        return EvalFile(self.path, self.role or "", self.task or "", self.scorer or "", self.max_new_tokens)


class EvaluationBlock(Block):
    """Which suite scores the checkpoints, and at which steps."""

    suite: Annotated[str, Field(min_length=1), AfterValidator(_suite)] = "mini"
    """`mini` (tiny models, seconds), `gym` (reasoning-gym, English), `offline` (HumanEval, StrongREJECT, DoNotAnswer, from
    packages), `paper:DIR` (the paper's benchmarks, from files of yours), `lm-eval:ROLE/TASK@DIR` (any task of
    lm-evaluation-harness, your own YAML files too), or `none` where `files` stand
    alone, which is the default beside `files`."""
    files: list[EvalFileBlock] = []
    """Files of your own items, asked beside the suite's (docs/how-to/own-evaluation.md)."""
    at: _At = "log"
    """Steps after which a checkpoint is saved to be scored: `log` (up to 13 steps from 1/64 of the budget on, each 1.41 times the
    one before), `{every: n}`, or a list of steps. The last step always is, and the base model once, as step 0."""
    items: _Count = 100
    """Items per task, at most: the same ones for every checkpoint and trial, so that differences are paired."""
    test_time: list[_Variant] = []
    """Settings of test-time compute under which the same items are asked too, written as the tail of their metrics: `@8`,
    `cap=64`, `think=32`, `@4,t=1.0`, and `r=8` for models of recurrent depth (docs/recurrent-depth.md)."""
    judge: _Path | None = None
    """Folder of a model that judges what a rule cannot, and refusals; default: rules alone."""
    workers: _Count = 1
    """Evaluator processes shared by all trials."""
    cpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """CPUs that each reserves; 0 shares the cores with the trainers."""
    gpus_per_worker: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a GPU that each reserves; at most 1, since an evaluator answers on one device."""
    python: _Path | None = None
    """Interpreter of the evaluators at this path on every node, where vLLM has an environment of its own
    (docs/how-to/vllm.md); default: the trainers'. Not part of the sweep's id."""
    timeout_s: _Positive | None = None
    """Longest time of one evaluation; default: ten times the longest so far, twelve hours for the first ones."""
    backlog: _Count = 8
    """Checkpoints that may wait per evaluator; of more, spare ones that a later score has overtaken are skipped."""
    stop_early: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Ends the evaluation of a checkpoint that is clearly worse than its base, or clearly breaks a constraint, wrongly with
    at most this chance (`sweeps.controller.evaluation.early_stopping`); by default all items are asked."""
    keep_replies: KeepReplies = "sample"
    """Replies that are kept beside the scores of each checkpoint, for `dipsweep replies` and the report: of each role the same
    few (`sample`), `all`, or `none`. Not part of the sweep's id: it may change between runs."""

    @model_validator(mode="before")
    @classmethod
    def _files_alone(cls, data: Any) -> Any:
        return {"suite": "none", **data} if isinstance(data, Mapping) and data.get("files") else data

    @property
    def spec(self) -> EvalSpec:
        """What decides a checkpoint's scores, as evaluators take it."""
        files = tuple(file.spec for file in self.files)
        return EvalSpec(self.suite, self.items, tuple(self.test_time), self.judge or "", files)


class LimitsBlock(Block):
    """What the sweep may cost. Reaching a limit ends the sweep resumable, exit code 3."""

    trials: _Count | None = None
    """Most trials that may be planned."""
    gpu_hours: _Positive | None = None
    """GPU hours of training and evaluation, as trials and evaluators reserve GPUs: two of half a GPU each count as one; an
    evaluator that reserves none costs none. A run in one process holds whole ones."""
    wall_hours: _Positive | None = None
    """Hours of one run; a resumed sweep has them again."""
    usd: _Positive | None = None
    """Dollars, by `usd_per_gpu_hour`."""
    usd_per_gpu_hour: _Positive | None = None
    """Price of a GPU hour."""
    retries: Whole = 2
    """How often a trial whose worker died is started again; machines that were taken away do not count."""
    weight: _Positive = 1.0
    """Weight among the sweeps that share a cluster: twice the weight, twice the machines."""

    @model_validator(mode="after")
    def _price(self) -> Self:
        if self.usd is not None and self.usd_per_gpu_hour is None:
            raise ValueError(
                "got usd without usd_per_gpu_hour; expected the price of a GPU hour beside a limit in money"
            )
        return self

    def exceeded(self, wall_s: float, spent: Mapping[str, float]) -> str | None:
        """Returns a sentence on the limit that is used up, else None.

        Args:
            wall_s: seconds since this driver began; `wall_hours` is for one run.
            spent: seconds by unit over the sweep's whole life: all attempts and evaluations of all drivers.
        """
        if self.wall_hours is not None and wall_s > self.wall_hours * 3600:
            return f"limits.wall_hours: {wall_s / 3600:.2f} h have passed, {self.wall_hours} are allowed"
        gpu_hours = spent.get("gpu_s", 0.0) / 3600
        if self.gpu_hours is not None and gpu_hours > self.gpu_hours:
            return f"limits.gpu_hours: {gpu_hours:.2f} GPU hours are spent, {self.gpu_hours} are allowed"
        usd = gpu_hours * (self.usd_per_gpu_hour or 0)
        if self.usd is not None and usd > self.usd:
            return f"limits.usd: {usd:.2f} are spent, {self.usd} are allowed"
        return None


def known_axes() -> tuple[str, ...]:
    """Returns every name that `space` may hold."""
    return ("model", "data", *(name for name in TrainerBlock.model_fields if name != "loop"))
