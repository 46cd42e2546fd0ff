"""The sweep's definition: one strict schema for YAML and Python (`sweeps.config.definition`), with its checks.

All faults come at once, in one `SpecError`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from sweeps.config.blocks import (
    ConstraintBlock,
    EvalFileBlock,
    EvaluationBlock,
    LimitsBlock,
    ModelBlock,
    ObjectiveBlock,
    SearchBlock,
    StoppingBlock,
    TierBlock,
    TrainerBlock,
)
from sweeps.config.checks.whole_sweep import check
from sweeps.config.definition import SweepDefinition
from sweeps.config.schema_errors import explain
from sweeps.errors import Fault, SpecError


class Sweep(SweepDefinition):
    """One sweep. `Sweep(name=…, space={…})` in Python and the YAML file are the same thing.

    Example:
        >>> from sweeps import Sweep, grid
        >>> sweep = Sweep(name="tiers", space={"data": grid("verified-long-cot", "answer-only")}, trainer={"learning_rate": 3e-3})
        >>> sweep.id[:6]
        'tiers-'

    Raises:
        SpecError: anything about the definition is wrong; it lists every fault.
    """

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as e:
            raise SpecError(*explain(e, block_fields), *_check_rest(data, e)) from None
        if faults := check(self):
            raise SpecError(*faults)

    @classmethod
    def recorded(cls, data: Mapping[str, Any]) -> Self:
        """Builds a sweep that ran before, to be looked at: what it names need not be installed here.

        Raises:
            SpecError: it cannot be read by this version.
        """
        sweep = cls.__new__(cls)
        try:
            cls.__pydantic_validator__.validate_python(dict(data), self_instance=sweep)
        except ValidationError as e:
            raise SpecError(*explain(e, block_fields)) from None
        return sweep


def block_fields(path: tuple[Any, ...]) -> Mapping[str, Any]:
    """Returns the fields that are legal at a place of the schema (for "did you mean")."""
    blocks: dict[str, type[BaseModel]] = {
        "models": ModelBlock, "tiers": TierBlock, "search": SearchBlock, "objective": ObjectiveBlock,
        "constraints": ConstraintBlock, "stopping": StoppingBlock, "trainer": TrainerBlock,
        "evaluation": EvaluationBlock, "limits": LimitsBlock,
    }  # fmt: skip
    if not path:
        return Sweep.model_fields
    if tuple(path[:2]) == ("evaluation", "files") and len(path) > 2:
        return EvalFileBlock.model_fields
    return blocks[str(path[0])].model_fields if str(path[0]) in blocks else {}


def _check_rest(data: Mapping[str, Any], error: ValidationError) -> list[Fault]:
    """Returns what `check` finds once the parts that broke the schema are taken out, so that all faults come at once."""
    rest = copy.deepcopy(dict(data))
    for e in error.errors():
        _drop(rest, e["loc"])
    try:
        return check(SweepDefinition(**{"name": "unnamed", **rest}))
    except ValidationError:
        return []


def _drop(data: Any, path: tuple[Any, ...]) -> None:
    """Removes the value at `path`; of a list that loses an entry, the whole list goes."""
    for depth, part in enumerate(path):
        inner = data.get(part) if isinstance(data, dict) else None
        if depth == len(path) - 1 or not isinstance(inner, dict):
            if isinstance(data, dict):
                data.pop(part, None)
            return
        data = inner
