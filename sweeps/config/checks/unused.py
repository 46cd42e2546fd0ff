"""Settings in a sweep file that nothing would use: an error where they were meant to change results, else a note."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from sweeps.config.definition import SweepDefinition
from sweeps.config.schema_errors import show
from sweeps.config.space import Zip, can_be_active, cell_count, cells, sampled
from sweeps.errors import Fault
from sweeps.plugins import SFT

MAX_CELLS: Final = 100_000


class Needs(NamedTuple):
    """What a trainer setting needs of another one to have an effect."""

    setting: str
    control: str
    works: Callable[[Any], bool]
    where: str


NEEDS: Final = (
    Needs("decay", "lr_scheduler_type", lambda kind: kind == "wsd", "lr_scheduler_type is wsd"),
    Needs("min_lr_rate", "lr_scheduler_type", lambda kind: kind != "constant", "lr_scheduler_type is not constant"),
    Needs("lora_alpha", "lora_rank", lambda rank: rank != 0, "lora_rank is above 0"),
    Needs("lora_target_modules", "lora_rank", lambda rank: rank != 0, "lora_rank is above 0"),
)


def unused_faults(sweep: SweepDefinition) -> Iterator[Fault]:
    """Yields settings that change what a trial is called, but nothing of what it does, and others without any effect."""
    if sweep.trainer.loop == SFT and cell_count(sweep.space, MAX_CELLS) <= MAX_CELLS:
        for need in NEEDS:
            yield from _axis_fault(sweep, need) if need.setting in sweep.axes else _default_fault(sweep, need)
    yield from _tier_faults(sweep)
    yield from _lm_eval_faults(sweep)


def _default_fault(sweep: SweepDefinition, need: Needs) -> Iterator[Fault]:
    """Yields the value of a setting that no axis varies, where no trial uses it."""
    value = getattr(sweep.trainer, need.setting)
    controls = sweep.axis_values(need.control, getattr(sweep.trainer, need.control))
    if value != type(sweep.trainer).model_fields[need.setting].default and not any(map(need.works, controls)):
        yield Fault(
            f"trainer.{need.setting}", f"got {show(value)}, which has no effect; expected it only where {need.where}"
        )


def _axis_fault(sweep: SweepDefinition, need: Needs) -> Iterator[Fault]:
    """Yields an axis some of whose trials differ in nothing but its value. Columns of one zip belong together as they are."""
    axis, free = sweep.axes[need.setting], sampled(sweep.space)
    if any(isinstance(a, Zip) and {need.setting, need.control} <= a.columns.keys() for a in sweep.space.values()):
        return
    for cell in cells(sweep.space):
        if need.setting not in cell and not (need.setting in free and can_be_active(axis, cell, free)):
            continue
        if need.control in cell:
            controls: tuple[Any, ...] = (cell[need.control],)
        elif need.control in free:
            controls = axis.when.get(need.control, free[need.control].samples())
        else:
            controls = (getattr(sweep.trainer, need.control),)
        if not all(map(need.works, controls)):
            given = ", ".join(str(value) for value in controls if not need.works(value))
            why = f"its values make no difference where {need.control} is {given}; expected it only where {need.where}"
            yield Fault(f"space.{need.setting}", f"{why} (`when:` makes an axis conditional)")
            return


def _tier_faults(sweep: SweepDefinition) -> Iterator[Fault]:
    for name, tier in sweep.tiers.items():
        for key in ("columns", "max_bad_rows", "max_long_rows"):
            value = getattr(tier, key)
            if tier.path == "builtin" and value != type(tier).model_fields[key].default:
                yield Fault(
                    f"tiers.{name}.{key}", f"got {show(value)}, which has no effect on a built-in tier; expected a path"
                )


def _lm_eval_faults(sweep: SweepDefinition) -> Iterator[Fault]:
    evaluation = sweep.evaluation
    if not evaluation.suite.startswith("lm-eval:"):
        return
    why = "lm-eval asks and scores by itself; use another suite, or leave it out"
    for key, value in (("test_time", evaluation.test_time), ("judge", evaluation.judge)):
        if value:
            yield Fault(f"evaluation.{key}", f"got {show(value)}, which suite {evaluation.suite} cannot use: {why}")
    if evaluation.keep_replies == "all":
        yield Fault("evaluation.keep_replies", f"got 'all', but suite {evaluation.suite} keeps none: {why}")


def unused_notes(sweep: SweepDefinition) -> list[str]:
    """Returns a line for each part of the file that this sweep does not use, which may be meant."""
    lines = []
    for block, key, default in (("models", "model", sweep.default_model), ("tiers", "data", sweep.default_tier)):
        used = sweep.axis_values(key, default)
        lines += [
            f"{block}.{name} is not used: no trial has this {key}" for name in getattr(sweep, block) if name not in used
        ]
    for name, field in type(sweep.trainer).model_fields.items():
        axis, value = sweep.axes.get(name), getattr(sweep.trainer, name)
        if axis is not None and not axis.when and value != field.default:
            lines.append(f"trainer.{name} {value} is not used: space.{name} gives every trial its own")
    return lines


def in_process_notes(sweep: SweepDefinition) -> list[str]:
    """Returns a line for each setting that a run in one process, without Ray, does not use."""
    lines = []
    for name in map(str, sweep.axis_values("model", sweep.default_model)):
        if (most := sweep.model_source(name).workers) > 1:
            lines.append(f"models.{name}.workers {most} is not used in this process: each trial trains on one")
    defaults = type(sweep.evaluation).model_fields
    for key in ("workers", "cpus_per_worker", "gpus_per_worker", "backlog"):
        if (value := getattr(sweep.evaluation, key)) != defaults[key].default:
            lines.append(
                f"evaluation.{key} {value} is not used in this process: checkpoints are scored one by one as they come"
            )
    if sweep.limits.weight != 1.0:
        lines.append(
            f"limits.weight {sweep.limits.weight:g} is not used in this process: it shares a cluster with other sweeps"
        )
    return lines
