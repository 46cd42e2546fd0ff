"""Rules by name: what a sweep file, a command line or a test writes, made into a StopRule."""

from __future__ import annotations

import inspect
from typing import Any

from sweeps.config.checks.plugin_settings import make_plugin
from sweeps.config.objective import Goal
from sweeps.errors import InputError, nearest
from sweeps.plugins import RULES
from sweeps.stopping.base import StopRule


def make_rule(name: str, goal: Goal, **settings: Any) -> StopRule:
    """Returns a fresh rule.

    Args:
        name: one that ships (`none, dip-aware, asha, median, hyperband, patient`), or that an installed package adds.
        settings: the rule's own.

    Raises:
        InputError: the name or a setting is unknown, or a value is out of range.
    """
    if name not in RULES.built_in:
        made = make_plugin(RULES, name, goal, settings)
        if not isinstance(made, StopRule):
            raise InputError(f"{RULES.find(name)} made {type(made).__name__}; expected a sweeps.stopping.StopRule")
        return made
    rule = RULES.load(name)
    accepted = [p for p in inspect.signature(rule).parameters if p not in ("goal", "self")]
    for key in settings:
        if key not in accepted:
            takes = f"it takes {', '.join(accepted)}" if accepted else "it takes none"
            raise InputError(f"stop rule {name!r} has no setting {key!r}; {takes}{nearest(key, accepted)}")
    built_in: StopRule = rule(goal, **settings)
    return built_in


def parse_rule(text: str, goal: Goal) -> StopRule:
    """Returns the rule that `NAME` or `NAME:key=value,key=value` describes, as on the command line.

    Raises:
        InputError: as `make_rule`, or a setting is not of the form key=value.
    """
    name, _, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"rule {text!r}: {part!r} should be key=value, as in dip-aware:protect=soft,patience=6")
        settings[key.strip().replace("-", "_")] = _value(value.strip())
    return make_rule(name.strip(), goal, **settings)


def _value(text: str) -> Any:
    """A whole number, a number, true/false, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
