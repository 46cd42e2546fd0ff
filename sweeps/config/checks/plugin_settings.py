"""Settings of rules, loops and searches that packages add, checked against the signatures of these.

The settings of a plugin are the keyword arguments that it takes beyond those that dipsweep hands it. Where one has an
annotation, its values are checked as pydantic checks a field of that type.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from sweeps.config.blocks import OpenBlock
from sweeps.config.definition import SweepDefinition
from sweeps.config.schema_errors import dotted, explain, show, unknown_key
from sweeps.errors import Fault, InputError, place_of, text_of
from sweeps.plugins import RULES, SEARCHERS, SFT, TRAINERS, Registry

TRAIN_KEYWORDS: Final = ("folder", "resume", "rank", "world")
"""What a training function is handed by name, beside the trial and the hooks."""
_STRICT: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def settings_model(plugin: Callable[..., Any], handed: int = 1, keywords: Collection[str] = ()) -> type[BaseModel]:
    """Returns a model of the settings that a plugin takes.

    Args:
        plugin: a class or a function. handed: so many of its first parameters come from dipsweep, and those of `keywords`.
    """
    try:
        signature = inspect.signature(plugin, eval_str=True)
    except NameError:  # an annotation that exists for type checkers alone
        signature = inspect.signature(plugin)
    parameters = list(signature.parameters.values())[handed:]
    fields: dict[str, Any] = {
        p.name: (
            Any if p.annotation is p.empty or isinstance(p.annotation, str) else p.annotation,
            ... if p.default is p.empty else p.default,
        )
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in keywords
    }
    return create_model("Settings", __config__=_STRICT, **fields)


def checked_settings(model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings as the plugin takes them.

    Raises:
        ValidationError: a name is unknown, one that has no default is missing, or a value will not do.
    """
    # As JSON: a list may stand for a tuple, a text for an enum.
    read = model.model_validate_json(json.dumps(dict(given), default=repr))
    return {name: getattr(read, name) for name in read.model_fields_set}


def value_fault(field: FieldInfo, value: Any) -> str:
    """Returns why a plugin does not take a value for the setting of this field; empty if it does."""
    alone: Any = {"value": (field.annotation, field)}
    try:
        checked_settings(create_model("Setting", __config__=_STRICT, **alone), {"value": value})
    except ValidationError as e:
        return explain(e)[0].message
    return ""


def make_plugin(registry: Registry, name: str, handed: Any, given: Mapping[str, Any]) -> Any:
    """Makes a plugin of what it is handed and of its settings.

    Raises:
        InputError: it cannot be found or imported, does not take these settings, or raises an error when it is made.
    """
    plugin = registry.load(name)
    model = settings_model(plugin)
    try:
        settings = checked_settings(model, given)
    except ValidationError as e:
        told = "; ".join(str(fault) for fault in explain(e, lambda _: model.model_fields))
        raise InputError(f"{registry.kind} {name!r}: {told}") from None
    try:
        return plugin(handed, **settings)
    except (Exception, SystemExit) as e:
        place = place_of(e, getattr(plugin, "__module__", ""))
        raise InputError(f"{registry.find(name)} cannot be made: {type(e).__name__}: {text_of(e)} ({place})") from e


class Named(NamedTuple):
    """A key of a sweep file that may name a plugin, with its value in this sweep."""

    registry: Registry
    place: str
    key: str
    name: str
    given: Mapping[str, Any]


def places(sweep: SweepDefinition) -> Iterator[Named]:
    """Yields the places of a sweep where a plugin with settings of its own can be named."""
    yield Named(RULES, "stopping", "rule", sweep.stopping.rule, sweep.stopping.rule_settings)
    yield Named(SEARCHERS, "search", "algorithm", sweep.search.algorithm, sweep.search.own)
    yield Named(TRAINERS, "trainer", "loop", sweep.trainer.loop, sweep.trainer.own)


def plugin_faults(sweep: SweepDefinition) -> Iterator[Fault]:
    """Yields what is wrong with the plugins that a sweep names and with their settings, and keys that nothing knows."""
    for at in places(sweep):
        block: OpenBlock = getattr(sweep, at.place)
        known = list(type(block).model_fields)
        if at.name in at.registry.built_in:
            for name in block.own:
                yield Fault(dotted((at.place, name)), unknown_key((at.place, name), known))
            continue
        try:
            model = model_of(at)
        except InputError as e:
            yield Fault(dotted((at.place, at.key)), str(e))
            continue
        given = dict(at.given)
        if at.place == "trainer":  # what an axis varies is given too
            given |= {name: axis.samples()[0] for name, axis in sweep.axes.items() if name in model.model_fields}
            yield from _worker_faults(sweep, at)
        try:
            checked_settings(model, given)
        except ValidationError as e:
            for fault in explain(e, lambda _, model=model, known=known: [*model.model_fields, *known]):  # type: ignore[misc]
                yield Fault(f"{at.place}.{fault.where}", fault.message)


def model_of(at: Named) -> type[BaseModel]:
    """Returns a model of the settings of the plugin that is named there.

    Raises:
        InputError: it cannot be found or imported, or is nothing that can be called.
    """
    plugin = at.registry.load(at.name)
    if not callable(plugin):
        raise InputError(f"{at.registry.find(at.name)} is {show(plugin)}; expected a class or a function")
    return settings_model(plugin, 2, TRAIN_KEYWORDS) if at.place == "trainer" else settings_model(plugin)


def trainer_fields(sweep: SweepDefinition) -> Mapping[str, FieldInfo]:
    """Returns the fields of the settings that the sweep's training loop adds; {} where it adds none or cannot be loaded."""
    if sweep.trainer.loop == SFT:
        return {}
    try:
        return model_of(Named(TRAINERS, "trainer", "loop", sweep.trainer.loop, {})).model_fields
    except InputError:
        return {}


def _worker_faults(sweep: SweepDefinition, at: Named) -> Iterator[Fault]:
    """Yields models whose trials have several processes, for a loop that takes no rank."""
    parameters = inspect.signature(at.registry.load(at.name)).parameters.values()
    if any(p.kind is p.VAR_KEYWORD or p.name == "rank" for p in parameters):
        return
    for name in map(str, sweep.axis_values("model", sweep.default_model)):
        if (workers := sweep.model_source(name).workers) > 1:
            yield Fault(
                f"models.{name}.workers", f"got {workers}, but trainer {at.name!r} takes no rank and world; expected 1"
            )
