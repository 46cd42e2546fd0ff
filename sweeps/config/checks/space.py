"""What is wrong with a search space: axes that fit no setting, pairs that do not pair, conditions that cannot hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from sweeps.config.blocks import TrainerBlock, known_axes
from sweeps.config.checks.plugin_settings import trainer_fields, value_fault
from sweeps.config.definition import SweepDefinition
from sweeps.config.names import BUILTIN_MODELS, BUILTIN_TIERS, suggest
from sweeps.config.schema_errors import explain
from sweeps.config.space import Axis, Choice, Grid, RandInt, Zip, by_setting, in_order
from sweeps.errors import Fault, nearest
from sweeps.setting_names import RENAMED


def space_faults(sweep: SweepDefinition) -> Iterator[Fault]:
    """Yields every fault of the space, in the order of the file."""
    own = trainer_fields(sweep)
    owners: dict[str, str] = {}
    for name, axis in sweep.space.items():
        where = f"space.{name}"
        faults = [*axis.faults(), *_condition_faults(sweep, name, axis)]
        yield from (Fault(where, message) for message in faults)
        if isinstance(axis, Zip) and name in known_axes():
            yield Fault(where, f"'{name}' is a setting; give the zip a name of its own, such as {name}-pairs")
        for setting, values in by_setting({name: axis}).items():
            inside = f"{where}.zip.{setting}" if isinstance(axis, Zip) else where
            if setting in owners:
                yield Fault(inside, f"'{setting}' has an axis already, in space.{owners[setting]}; keep one")
            owners.setdefault(setting, name)
            if fault := _unknown(setting, own):
                yield Fault(inside, fault)
            elif not faults:
                yield from (Fault(inside, message) for message in _value_faults(sweep, setting, values, own))
    left = [name for name in sweep.space if name not in in_order(sweep.space)]
    circle = [name for name in left if set(sweep.space[name].when) <= by_setting(sweep.space).keys()]
    if circle:
        yield Fault(f"space.{circle[0]}.when", f"the conditions of {', '.join(circle)} go round in a circle")


def name_fault(sweep: SweepDefinition, axis: str, value: Any) -> str:
    """Returns why a trial cannot have this `model` or `data`; empty if it can."""
    block, known = {
        "model": ("models", {*sweep.models, *BUILTIN_MODELS}),
        "data": ("tiers", {*sweep.tiers, *BUILTIN_TIERS}),
    }[axis]
    if value in known:
        return ""
    listed = ", ".join(sorted(known))
    return f"'{value}' is unknown; known: {listed}{nearest(str(value), known)} A new one goes under {block}."


def _unknown(setting: str, own: Iterable[str]) -> str:
    """Returns why there is no such axis, empty if there is; `own`: settings that the training loop adds."""
    known = [*known_axes(), *own]
    if setting in known:
        return ""
    if setting in RENAMED:
        return f"is now space.{RENAMED[setting]}"
    hint = " (seeds come from search.repeats)" if setting == "seed" else ""
    return f"unknown axis '{setting}'{hint}; known: {', '.join(known)}{suggest(setting, known)}"


def _condition_faults(sweep: SweepDefinition, name: str, axis: Axis) -> Iterator[str]:
    axes = by_setting(sweep.space)
    own = by_setting({name: axis})
    for other, values in axis.when.items():
        parent = axes.get(other)
        if other in own:
            yield f"when names '{other}', which is this axis itself"
        elif parent is None:
            yield f"when names '{other}', which is no axis of this space{nearest(other, axes)}"
        elif not isinstance(parent, Grid | Choice):
            yield f"when names '{other}', a {parent.kind} axis; expected one with listed values (grid, choice or zip)"
        elif isinstance(axis, Grid | Zip) and isinstance(parent, Choice):
            yield f"a {axis.kind} axis is crossed before '{other}' is sampled; make it a choice, or '{other}' a grid"
        else:
            for value in values:
                if value not in parent.samples():
                    listed = ", ".join(map(str, parent.samples()))
                    yield f"when asks for {other} {value!r}, which the axis never has; its values: {listed}"


def _value_faults(sweep: SweepDefinition, setting: str, axis: Axis, own: Mapping[str, FieldInfo]) -> Iterator[str]:
    """Yields what is wrong with the values as values of this setting."""
    if setting in ("model", "data"):
        if not isinstance(axis, Grid | Choice):
            yield f"{axis.kind} makes no sense for names; use grid or choice"
            return
        yield from filter(None, (name_fault(sweep, setting, value) for value in axis.samples()))
        return
    field = {**own, **TrainerBlock.model_fields}[setting]
    if field.annotation is int and not isinstance(axis, Grid | Choice | RandInt):
        yield f"{axis.kind} gives fractions, but {setting} is a whole number; use randint, grid or choice"
        return
    if setting in own:
        yield from filter(None, (value_fault(field, value) for value in axis.samples()))
        return
    adapter: TypeAdapter[Any] = TypeAdapter(_annotated(field))
    for value in axis.samples():
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as e:
            yield explain(e)[0].message


def _annotated(field: FieldInfo) -> Any:
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
