"""The fields of a sweep, made of the blocks of `sweeps.config.blocks`, and what follows from them.

`sweeps.config.schema.Sweep` is this definition, checked; the checks themselves read it in this form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from sweeps.config.blocks import (
    Block,
    ConstraintBlock,
    EvaluationBlock,
    LimitsBlock,
    ModelBlock,
    ObjectiveBlock,
    SearchBlock,
    StoppingBlock,
    TierBlock,
    TrainerBlock,
    Whole,
)
from sweeps.config.known_models import known_model
from sweeps.config.names import BUILTIN_MODELS, BUILTIN_TIERS, NAME, READY_METRIC, READY_SAMPLES, RL_READINESS
from sweeps.config.objective import Constraint, Goal
from sweeps.config.space import Axis, axis_from, by_setting
from sweeps.config.trial import ModelSource, TierSource

AxisField = Annotated[
    Axis,
    BeforeValidator(axis_from),
    PlainSerializer(lambda axis: axis.to_json(), return_type=dict),
    WithJsonSchema({"type": "object"}),
]


def _loop_alone(value: Any) -> Any:
    """`trainer: my-loop` names a loop, and leaves all else to its defaults."""
    return {"loop": value} if isinstance(value, str) else value


class SweepDefinition(Block):
    """A sweep by its fields alone, which pydantic holds; what needs more than one of them to be seen is not checked."""

    name: Annotated[str, Field(pattern=NAME)]
    """Lower-case letters, digits and `-`; the sweep's id is `name-<8 hex of the definition>`."""
    seed: Whole = 0
    """Of the search, and of the first repeat of every trial."""
    models: dict[str, ModelBlock] = Field(default={})
    """The user's own models by name, beside the built-in tiny-s, tiny-xs, tiny-m and tiny-r (of recurrent depth)."""
    tiers: dict[str, TierBlock] = Field(default={})
    """The user's own data tiers by name, beside the built-in verified-long-cot, answer-only, corrupted-cot, concise-cot
    and few-long-cot."""
    space: dict[str, AxisField] = Field(default={})
    """What varies: `model`, `data`, any key of `trainer`, each with an axis; or a `zip` of several under a name of its own."""
    search: SearchBlock = SearchBlock()
    """Who picks the values of the axes that are not grids, and how many trials there are."""
    objective: ObjectiveBlock = ObjectiveBlock()
    """What makes a trial better than another; `rl-readiness` stands for a score of how good a start for RL it is."""
    constraints: list[ConstraintBlock] = Field(default=[])
    """Metrics that have to hold for a trial to count among the best."""
    stopping: StoppingBlock = StoppingBlock()
    """Which rule prunes."""
    trainer: Annotated[TrainerBlock, BeforeValidator(_loop_alone, json_schema_input_type=str | TrainerBlock)] = (
        TrainerBlock()
    )
    """Settings of every trial."""
    evaluation: EvaluationBlock = EvaluationBlock()
    """What checkpoints are asked, and when."""
    limits: LimitsBlock = LimitsBlock()
    """What the sweep may cost; not part of its id."""
    storage: Annotated[str, Field(min_length=1)] = "./runs"
    """A folder that all nodes see, or `s3://bucket/prefix`; not part of the id. Credentials, region and endpoint come from
    the environment or the instance, never from here."""

    @model_validator(mode="before")
    @classmethod
    def _readiness(cls, data: Any) -> Any:
        """`objective: rl-readiness` is its metric, and asks for the samples that it takes."""
        if not isinstance(data, Mapping) or data.get("objective") != RL_READINESS:
            return data
        asked = data.get("evaluation", {})
        block = asked.model_dump(exclude_unset=True) if isinstance(asked, BaseModel) else asked
        if isinstance(block, Mapping) and isinstance(block.get("test_time", []), list):
            given = block.get("test_time", [])
            asked_already = any(str(text).removesuffix(".0") == READY_SAMPLES for text in given)
            block = {**block, "test_time": [*given, *([] if asked_already else [READY_SAMPLES])]}
        return {**data, "objective": {"metric": READY_METRIC}, "evaluation": block}

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
            at=self.objective.at,
        )

    def to_json(self, *, identity: bool = False) -> dict[str, Any]:
        """Returns the whole definition as plain JSON; with `identity`, only what makes it this sweep."""
        if not identity:
            return self.model_dump(mode="json")
        outside: dict[str, Any] = {"storage": True, "limits": True, "evaluation": {"keep_replies", "python"}}
        data = self.model_dump(mode="json", exclude=outside)
        data["stopping"]["protect"] = self.stopping.protect or "strict"  # its default, whether it is written out or not
        if self.objective.at == "end":  # younger than the ids of many sweeps
            del data["objective"]["at"]
        if not self.search.points_from:
            del data["search"]["points_from"]
        if not self.search.promote:
            del data["search"]["promote"]
        return data

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
        return ModelSource(block.path, most, block.cpus_per_worker, gpus, fewest, block.chat_template or "")

    def tier_source(self, name: str) -> TierSource:
        """Returns where the tier `name` comes from; built-in names need no entry in `tiers`."""
        block = self.tiers.get(name, TierBlock())
        return TierSource(block.path, dict(block.columns), block.max_bad_rows, block.max_long_rows)

    @property
    def axes(self) -> dict[str, Axis]:
        """The axes by the setting that they give values to; the columns of a zip are grids here."""
        return by_setting(self.space)

    @property
    def trains_on_gpus(self) -> bool:
        """True where any trial trains on a GPU."""
        models = map(str, self.axis_values("model", self.default_model))
        return any(self.model_source(name).gpus_per_worker for name in models)

    def axis_values(self, name: str, default: Any) -> tuple[Any, ...]:
        """Returns the values that a setting can take: those of its axis, and the default where that can be absent."""
        axis = self.axes.get(name)
        if axis is None:
            return (default,)
        return tuple(dict.fromkeys((*axis.samples(), default))) if axis.when else axis.samples()
