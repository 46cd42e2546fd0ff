"""The JSON Schema (draft 2020-12) of sweep files, for editors: `dipsweep schema > dipsweep.schema.json`.

It holds what can be said of one file without looking anywhere else; `dipsweep validate` also looks at what several blocks say
together, and at the files that they name.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from sweeps.config.blocks import known_axes
from sweeps.config.names import RL_READINESS
from sweeps.config.schema import Sweep
from sweeps.plugins import RULES, SEARCHERS, TRAINERS

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
Json = dict[str, Any]
_SCALAR: Final[Json] = {"type": ["string", "number", "boolean"]}
_NAME: Final[Json] = {"type": "string", "minLength": 1}
_NUMBERS: Final[Json] = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}


def sweep_schema() -> Json:
    """Returns the schema as plain JSON."""
    schema = Sweep.model_json_schema(mode="validation")
    trainer = schema["$defs"]["TrainerBlock"]["properties"]
    settings = {name: _bare(trainer[name]) if name in trainer else _NAME for name in known_axes()}
    schema["properties"]["space"] |= {
        "properties": {name: _axis(values) for name, values in settings.items()},
        "additionalProperties": {"$ref": "#/$defs/Zip"},
    }
    objective = schema["properties"]["objective"]
    schema["properties"]["objective"] = {
        "anyOf": [{"const": RL_READINESS}, {"$ref": objective["$ref"]}],
        **{key: value for key, value in objective.items() if key != "$ref"},
    }
    schema["$defs"] |= {"When": _when(), "Zip": _zip(settings)}
    _conditions_between_keys(schema["$defs"])
    head = {"$schema": DRAFT, "title": "dipsweep sweep file", "description": "One sweep of reasoning SFT."}
    return {**head, **{key: value for key, value in schema.items() if key not in head}}


def _bare(field: Mapping[str, Any]) -> Json:
    """Returns what a value must be, without what is said of the field."""
    return {key: copy.deepcopy(value) for key, value in field.items() if key not in ("default", "description", "title")}


def _axis(value: Json) -> Json:
    """Returns the schema of one axis of a setting with such values."""
    listed = {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
    kinds = {"grid": listed, "choice": listed}
    if value.get("type") in ("number", "integer"):
        kinds |= {"uniform": _NUMBERS, "loguniform": _NUMBERS}
    if value.get("type") == "integer":
        kinds = {"grid": listed, "choice": listed, "randint": {**_NUMBERS, "items": {"type": "integer"}}}
    elif value.get("type") == "number":
        kinds["randint"] = {**_NUMBERS, "items": {"type": "integer"}}
    return {
        "type": "object",
        "properties": {**kinds, "when": {"$ref": "#/$defs/When"}},
        "oneOf": [{"required": [kind]} for kind in kinds],
        "additionalProperties": False,
    }


def _when() -> Json:
    return {
        "description": "Values that other axes must have for this one to be there.",
        "type": "object",
        "propertyNames": {"enum": list(known_axes())},
        "additionalProperties": {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "minItems": 1}]},
    }


def _zip(settings: Mapping[str, Json]) -> Json:
    columns = {name: {"type": "array", "items": value, "minItems": 1} for name, value in settings.items()}
    return {
        "description": "Settings that change together, under a name of the user's own.",
        "type": "object",
        "properties": {
            "zip": {"type": "object", "properties": columns, "additionalProperties": False, "minProperties": 2},
            "when": {"$ref": "#/$defs/When"},
        },
        "required": ["zip"],
        "additionalProperties": False,
    }


def _conditions_between_keys(blocks: Json) -> None:
    """Adds the rules of `sweeps.config.blocks` that concern several keys of one block."""
    bounds = ("at_least", "at_most", "relative_to_base")
    blocks["ConstraintBlock"]["oneOf"] = [
        {"required": [name], "properties": {name: {"type": "number"}}} for name in bounds
    ]
    for block, key, registry in (
        ("StoppingBlock", "rule", RULES),
        ("SearchBlock", "algorithm", SEARCHERS),
        ("TrainerBlock", "loop", TRAINERS),
    ):
        blocks[block]["if"] = {"properties": {key: {"enum": list(registry.built_in)}}}
        blocks[block]["then"] = {"propertyNames": {"enum": list(blocks[block]["properties"])}}
    blocks["LimitsBlock"]["if"] = {"required": ["usd"], "properties": {"usd": {"type": "number"}}}
    blocks["LimitsBlock"]["then"] = {"required": ["usd_per_gpu_hour"]}
