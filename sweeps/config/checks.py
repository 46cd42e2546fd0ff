"""What no block of a sweep can see alone: names that lead nowhere, axes that fit no setting, schedules that never fire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from sweeps.config.blocks import TrainerBlock, TrialSettings, known_axes
from sweeps.config.known_models import known_model
from sweeps.config.names import BUILTIN_MODELS, BUILTIN_TIERS, is_judged, suggest
from sweeps.config.schema_errors import MAX_FAULTS, dotted, explain, show, unknown_key
from sweeps.config.space import Axis, Choice, Grid, RandInt, cell_count, sampled
from sweeps.errors import Fault, InputError, nearest
from sweeps.setting_names import RENAMED
from sweeps.storage.base import is_url, url_fault

if TYPE_CHECKING:
    from sweeps.config.schema import Sweep

MAX_TRIALS = 100_000
MAX_EVALUATIONS = 10_000  # of one trial


def check(sweep: Sweep) -> list[Fault]:
    """Returns every fault that needs more than one block to be seen, in the order of the file."""
    parts = (_names, _space, _search, _stopping, _trainer, _evaluation, _stop_early, _storage)
    return list(islice(chain.from_iterable(part(sweep) for part in parts), MAX_FAULTS))


def checked_settings(sweep: Sweep, settings: Mapping[str, Any]) -> TrialSettings:
    """Returns the settings of a trial of this sweep, with its defaults for what is not given.

    Raises:
        InputError: a name or a value is not one that a trial of this sweep can have.
    """
    for name in settings:
        if name not in TrialSettings.model_fields:
            raise InputError(f"{name}: {unknown_key((name,), known_axes())}")
    defaults = {"model": sweep.default_model, "data": sweep.default_tier, **sweep.trainer.model_dump()}
    found = TrialSettings.from_config({**defaults, **settings})
    for name, value in (("model", found.model), ("data", found.data)):
        if fault := _name_fault(sweep, name, value):
            raise InputError(f"{name}: {fault}")
    return found


def _name_fault(sweep: Sweep, axis: str, value: Any) -> str:
    """Returns why a trial cannot have this model or data tier; empty if it can."""
    block, known = {
        "model": ("models", {*sweep.models, *BUILTIN_MODELS}),
        "data": ("tiers", {*sweep.tiers, *BUILTIN_TIERS}),
    }[axis]
    if value in known:
        return ""
    listed = ", ".join(sorted(known))
    return f"'{value}' is unknown; known: {listed}{nearest(str(value), known)} A new one goes under {block}."


def _names(sweep: Sweep) -> Iterator[Fault]:
    for block, builtin in (("models", BUILTIN_MODELS), ("tiers", BUILTIN_TIERS)):
        for name, source in getattr(sweep, block).items():
            if not source.path.isprintable():
                yield Fault(
                    f"{block}.{name}.path", f"got {show(source.path)}; expected a path without control characters"
                )
            if source.path == "builtin" and block == "models" and (known := known_model(name)) is not None:
                yield Fault(f"models.{name}.path", f"missing; {known.repository} does not ship with dipsweep: give the "
                                                   "folder or s3:// address where it lies")  # fmt: skip
            elif source.path == "builtin" and name not in builtin:
                yield Fault(f"{block}.{name}.path", f"no built-in of the name '{name}'; built-in: {', '.join(builtin)}"
                                                    f"{nearest(name, builtin)} Else give its path.")  # fmt: skip


def _space(sweep: Sweep) -> Iterator[Fault]:
    for name, axis in sweep.space.items():
        where = f"space.{name}"
        if name in RENAMED:
            yield Fault(where, f"is now space.{RENAMED[name]}")
            continue
        if name not in known_axes():
            hint = " (seeds come from search.repeats)" if name == "seed" else ""
            yield Fault(
                where, f"unknown axis '{name}'{hint}; known: {', '.join(known_axes())}{suggest(name, known_axes())}"
            )
            continue
        faults = list(axis.faults())
        yield from (Fault(where, message) for message in faults)
        if not faults:
            yield from _axis_values(sweep, name, axis)


def _axis_values(sweep: Sweep, name: str, axis: Axis) -> Iterator[Fault]:
    where = f"space.{name}"
    if name in ("model", "data"):
        if not isinstance(axis, Grid | Choice):
            yield Fault(where, f"{axis.kind} makes no sense for names; use grid or choice")
            return
        for value in axis.samples():
            if fault := _name_fault(sweep, name, value):
                yield Fault(where, fault)
        return
    field = TrainerBlock.model_fields[name]
    if _is_whole(field) and not isinstance(axis, Grid | Choice | RandInt):
        yield Fault(where, f"{axis.kind} gives fractions, but {name} is a whole number; use randint, grid or choice")
        return
    adapter: TypeAdapter[Any] = TypeAdapter(_annotated(field))
    for value in axis.samples():
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as e:
            yield Fault(where, explain(e)[0].message)


def _is_whole(field: FieldInfo) -> bool:
    return field.annotation is int


def _annotated(field: FieldInfo) -> Any:
    from typing import Annotated

    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _search(sweep: Sweep) -> Iterator[Fault]:
    search, free = sweep.search, sampled(sweep.space)
    if search.algorithm == "grid":
        for name, axis in free.items():
            yield Fault(f"space.{name}", f"search.algorithm is grid, which cannot sample a {axis.kind} axis; "
                                         "use grid here, or an algorithm such as random or optuna-tpe")  # fmt: skip
        if search.trials != 1:
            yield Fault(
                "search.trials", f"got {search.trials}, but algorithm grid runs each cell once; use search.repeats"
            )
    elif not free:
        yield Fault(
            "search.algorithm", f"'{search.algorithm}' has no axis to sample: every axis is a grid; use algorithm grid"
        )
    if search.repeats > 1 and search.algorithm not in ("grid", "random", "qmc"):
        yield Fault(
            "search.repeats",
            f"got {search.repeats}; expected 1, since '{search.algorithm}' learns from single results",
        )
    total = cell_count(sweep.space) * search.trials * search.repeats
    if total > MAX_TRIALS:
        yield Fault(
            "space", f"{total:,} trials are more than {MAX_TRIALS:,}; narrow a grid, search.trials or search.repeats"
        )


def _stopping(sweep: Sweep) -> Iterator[Fault]:
    rule = sweep.stopping.rule
    uses = {"risk": ("dip-aware",), "patience": ("dip-aware", "patient"), "grace": ("asha", "median", "hyperband", "patient"),
            "reduction": ("asha", "hyperband")}  # fmt: skip
    for name, rules in uses.items():
        value = getattr(sweep.stopping, name)
        if value is not None and rule not in rules:
            yield Fault(
                f"stopping.{name}",
                f"got {show(value)}, but rule '{rule}' has no {name}; it belongs to {', '.join(rules)}",
            )
    smallest = min((s for s in sweep.axis_values("steps", sweep.trainer.steps) if isinstance(s, int)), default=1)
    grace = sweep.stopping.grace
    if grace is not None and grace >= smallest:
        yield Fault(
            "stopping.grace", f"got {grace}, but the smallest step budget is {smallest}: the rule would never speak"
        )


def _trainer(sweep: Sweep) -> Iterator[Fault]:
    packs, batches = (
        [v for v in sweep.axis_values(name, getattr(sweep.trainer, name)) if isinstance(v, int)]
        for name in ("pack_tokens", "batch_tokens")
    )
    if packs and batches and max(packs) > min(batches):
        yield Fault(
            "trainer.pack_tokens",
            f"got {max(packs)}, but a step has batch_tokens {min(batches)}; expected at most that, or 0 for all of it",
        )


def _evaluation(sweep: Sweep) -> Iterator[Fault]:
    at, budgets = sweep.evaluation.at, sweep.axis_values("steps", sweep.trainer.steps)
    where = "evaluation.at"
    largest = max((b for b in budgets if isinstance(b, int)), default=1)
    if at == "log":
        return
    if isinstance(at, dict) and set(at) == {"every"}:
        every = at["every"]
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            yield Fault(dotted(("evaluation", "at", "every")), f"got {show(every)}; expected a whole number >= 1")
        elif every > largest:
            yield Fault(where, f"every {every} steps is never reached within the largest budget of {largest} steps")
        elif largest // every > MAX_EVALUATIONS:
            yield Fault(where, f"every {every} of {largest:,} steps is {largest // every:,} evaluations a trial; expected at "
                               f"most {MAX_EVALUATIONS:,}")  # fmt: skip
    elif isinstance(at, list | tuple) and at:
        bad = [s for s in at if isinstance(s, bool) or not isinstance(s, int) or s < 1]
        if bad:
            yield Fault(
                where, f"got {show(bad[0])} in the list; expected whole numbers >= 1 (step 0 is the base model)"
            )
        elif max(at) > largest:
            yield Fault(where, f"step {max(at)} lies beyond the largest budget of {largest} steps")
    else:
        yield Fault(where, f"got {show(at)}; expected log, {{every: n}} or a list of steps")


def _stop_early(sweep: Sweep) -> Iterator[Fault]:
    if sweep.evaluation.stop_early is None:
        return
    where = "evaluation.stop_early"
    if sweep.evaluation.suite.startswith("lm-eval:"):
        yield Fault(where, "lm-eval asks its own items, all at once; use another suite, or leave stop_early out")
    if not is_judged(sweep.objective.metric):
        yield Fault(where, f"objective {sweep.objective.metric} is no share of right items; stop_early needs a score of math, "
                           "transfer, general or safety, without a tail of test_time")  # fmt: skip


def _storage(sweep: Sweep) -> Iterator[Fault]:
    if is_url(sweep.storage):
        if fault := url_fault(sweep.storage):
            yield Fault("storage", fault)
    elif not sweep.storage.isprintable() or ".." in sweep.storage.split("/"):
        yield Fault("storage", f"got {sweep.storage!r}; expected a path without '..' and control characters")
