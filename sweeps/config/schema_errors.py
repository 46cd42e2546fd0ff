"""From a validator's errors to sentences that a person can act on: what came, and what would do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sweeps.errors import Fault, nearest

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


_SYNONYMS = {"learning_rate": "lr", "batch_size": "batch_tokens", "epochs": "steps", "max_steps": "steps",
             "warmup_steps": "warmup", "warmup_ratio": "warmup", "num_samples": "trials", "n_trials": "trials",
             "mode": "goal", "metrics": "metric", "max_seq_length": "max_length", "grad_clip": "clip",
             "lr_scheduler": "schedule"}  # fmt: skip


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" by spelling, or by what other trainers call the same thing."""
    known = list(known)
    for other, ours in _SYNONYMS.items():
        if ours in known and nearest(name, [other]):
            return f"; did you mean '{ours}'?"
    return nearest(name, known)


def explain(error: ValidationError) -> list[Fault]:
    """Returns one Fault for each error, with its dotted path as the place."""
    errors = error.errors()
    faults = [Fault(dotted(e["loc"]), _sentence(e)) for e in errors[:MAX_FAULTS]]
    if len(errors) > MAX_FAULTS:
        faults.insert(0, Fault("sweep", f"{len(errors):,} faults; the first {MAX_FAULTS} follow"))
    return faults


def dotted(path: tuple[Any, ...]) -> str:
    """Returns `trainer.lr` for ("trainer", "lr") and `constraints[0].metric` for ("constraints", 0, "metric")."""
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


def _sentence(e: ErrorDetails) -> str:
    kind, ctx, came = e["type"], e.get("ctx", {}), e["input"]
    if kind == "extra_forbidden":
        from sweeps.config.schema import block_fields

        fields = block_fields(e["loc"][:-1])
        return f"unknown key {_cut(str(e['loc'][-1]))}; known: {', '.join(fields)}{suggest(str(e['loc'][-1]), fields)}"
    if kind == "missing":
        return f"missing; every sweep needs a {e['loc'][-1]}"
    if kind in _BOUNDS:
        key, sign = _BOUNDS[kind]
        return f"came {show(came)}; must be {sign} {ctx[key]}"
    if kind in _WANTED:
        return f"came {show(came)}; {_WANTED[kind]} would do"
    if kind == "literal_error":
        options = [o.strip(" '") for o in str(ctx["expected"]).replace(" or ", ", ").split(",")]
        return f"came {show(came)}; one of {', '.join(options)} would do{nearest(str(came), options)}"
    if kind == "string_pattern_mismatch":
        return f"came {show(came)}; {_pattern(str(ctx['pattern']))}"
    if kind == "string_too_short":
        return f"came {show(came)}; must not be empty"
    return str(e["msg"]).removeprefix("Value error, ")


def _pattern(pattern: str) -> str:
    from sweeps.config.schema import METRIC, NAME

    if pattern == NAME:
        return "lower-case letters, digits and '-' would do, at most 63, starting with a letter or digit"
    if pattern != METRIC:
        return "another means at test time is '@8' (samples), 'cap=64', 'think=32' or 't=0.7', several joined by commas"
    return "a metric is role/name with the role one of math, transfer, general, safety, train, length, perf"
