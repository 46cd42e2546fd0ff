"""From a validator's errors to sentences that a person can act on: what was got, and what is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sweeps.config.names import METRIC, NAME, ROLES, TASK, VARIANT, suggest
from sweeps.errors import Fault, nearest
from sweeps.setting_names import RENAMED

MAX_FAULTS = 100
"""So many are told at once; whoever has more begins with these."""

_WANTED = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "string_type": "a string", "bool_type": "true or false", "dict_type": "a mapping (key: value)",
    "list_type": "a list", "tuple_type": "a list", "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)", "finite_number": "a finite number",
}  # fmt: skip
_BOUNDS = {"greater_than": ("gt", ">"), "greater_than_equal": ("ge", ">="),
           "less_than": ("lt", "<"), "less_than_equal": ("le", "<=")}  # fmt: skip
_PATTERNS = {
    NAME: "at most 63 lower-case letters, digits and '-', starting with a letter or digit",
    METRIC: f"role/name with the role one of {', '.join(ROLES)}",
    TASK: "letters, digits, '_', '.' and '-' alone",
    VARIANT: "'@8' (samples), 'cap=64', 'think=32', 't=0.7' or 'r=8' (recurrences), several joined by commas",
}


FieldsAt = Callable[[tuple[Any, ...]], Iterable[str]]
"""Gives the names that may stand at a place of the schema."""


def explain(error: ValidationError, fields_at: FieldsAt = lambda _: ()) -> list[Fault]:
    """Returns one Fault for each error, with its dotted path as the place; `fields_at` helps with names that are unknown."""
    errors = error.errors()
    faults = [Fault(dotted(e["loc"]), _sentence(e, fields_at)) for e in errors[:MAX_FAULTS]]
    if len(errors) > MAX_FAULTS:
        faults.insert(0, Fault("sweep", f"{len(errors):,} faults; the first {MAX_FAULTS} follow"))
    return faults


def dotted(path: tuple[Any, ...]) -> str:
    """Returns `trainer.steps` for ("trainer", "steps") and `constraints[0].metric` for ("constraints", 0, "metric")."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text or "sweep"


def show(value: Any) -> str:
    """Returns a value as a short text with its kind: 'abc' (a string)."""
    kinds = {bool: "true/false", int: "a whole number", float: "a number", str: "a string", list: "a list",
             dict: "a mapping", type(None): "nothing"}  # fmt: skip
    return f"{_cut(value)} ({kinds.get(type(value), type(value).__name__)})"


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _sentence(e: ErrorDetails, fields_at: FieldsAt) -> str:
    kind, ctx, got = e["type"], e.get("ctx", {}), e["input"]
    if kind == "extra_forbidden":
        return unknown_key(e["loc"], list(fields_at(e["loc"][:-1])))
    if kind == "missing":
        return "missing; it has no default"
    if kind in _BOUNDS:
        key, sign = _BOUNDS[kind]
        return f"got {show(got)}; expected a number {sign} {ctx[key]}"
    if kind in _WANTED:
        return f"got {show(got)}; expected {_WANTED[kind]}"
    if kind == "literal_error":
        options = [o.strip(" '") for o in str(ctx["expected"]).replace(" or ", ", ").split(",")]
        return f"got {show(got)}; expected one of {', '.join(options)}{_meant(str(got), options)}"
    if kind == "string_pattern_mismatch":
        pattern = str(ctx["pattern"])
        return f"got {show(got)}; expected {_PATTERNS.get(pattern, f'text like {pattern}')}"
    if kind == "string_too_short":
        return f"got {show(got)}; expected some text"
    return str(e["msg"]).removeprefix("Value error, ")


def unknown_key(path: tuple[Any, ...], known: Iterable[str]) -> str:
    """Returns the message for an unknown key at `path`: its present name, or the known keys."""
    name, known = str(path[-1]), list(known)
    if RENAMED.get(name) in known:
        return f"is now {dotted((*path[:-1], RENAMED[name]))}"
    return f"unknown key {_cut(name)}; known: {', '.join(known)}{suggest(name, known)}"


_SCHEDULES = {"warmup_stable_decay": "wsd", "constant_with_warmup": "constant", "cosine_with_min_lr": "cosine"}
"""What transformers calls the schedules of `lr_scheduler_type`."""


def _meant(got: str, options: list[str]) -> str:
    ours = _SCHEDULES.get(got)
    return f"; did you mean '{ours}'?" if ours in options else nearest(got, options)
