"""What no block of a sweep can see alone: names that lead nowhere, axes that fit no setting, schedules that never fire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice, product
from typing import Any

from sweeps.config.blocks import MAX_PATIENCE, TrialSettings, known_axes
from sweeps.config.checks.plugin_settings import plugin_faults, trainer_fields, value_fault
from sweeps.config.checks.space import name_fault, space_faults
from sweeps.config.checks.unused import unused_faults
from sweeps.config.compat import NEEDS, PAPER, paper_faults
from sweeps.config.definition import SweepDefinition
from sweeps.config.known_models import known_model
from sweeps.config.names import BUILTIN_MODELS, BUILTIN_TIERS, is_judged, is_share
from sweeps.config.schema_errors import MAX_FAULTS, dotted, show, unknown_key
from sweeps.config.space import Grid, cell_count, cells, sampled
from sweeps.errors import Fault, InputError, nearest
from sweeps.plugins import RULES, SEARCHERS, SFT
from sweeps.storage.base import is_url, url_fault

MAX_TRIALS = 100_000
MAX_EVALUATIONS = 10_000  # of one trial
LEARNING = ("optuna-tpe", "optuna-gp")  # searches that can begin from results of others
LESS_IS_BETTER = (
    "train/loss",
    "train/grad_norm",
    "safety/asr",
    "safety/over_refusal",
    "length/truncated",
    "ready/self_bleu",
)
NOT_OF_CHECKPOINTS = ("train", "perf")  # roles that the trainer reports at every `logging_steps`


def check(sweep: SweepDefinition) -> list[Fault]:
    """Returns every fault that needs more than one block to be seen, in the order of the file."""
    parts = (
        _names,
        plugin_faults,
        space_faults,
        _search,
        _stopping,
        _objective,
        _constraints,
        _trainer,
        _compat,
        _evaluation,
        _stop_early,
        unused_faults,
        _storage,
    )
    return list(islice(chain.from_iterable(part(sweep) for part in parts), MAX_FAULTS))


def checked_settings(sweep: SweepDefinition, settings: Mapping[str, Any]) -> TrialSettings:
    """Returns the settings of a trial of this sweep, with its defaults for what is not given.

    Raises:
        InputError: a name or a value is not one that a trial of this sweep can have.
    """
    own, loop = trainer_fields(sweep), sweep.trainer.loop
    for name in settings:
        if name == "loop" and settings[name] == loop != SFT:
            continue  # a trial's own settings name the loop that a package adds
        if name == "loop" or (name not in TrialSettings.model_fields and name not in own):
            raise InputError(f"{name}: {unknown_key((name,), [*known_axes(), *own])}")
        if name in own and (fault := value_fault(own[name], settings[name])):
            raise InputError(f"{name}: {fault}")
    defaults = {"model": sweep.default_model, "data": sweep.default_tier, **sweep.trainer.model_dump()}
    found = TrialSettings.from_config({**defaults, **settings})
    for name, value in (("model", found.model), ("data", found.data)):
        if fault := name_fault(sweep, name, value):
            raise InputError(f"{name}: {fault}")
    at = sweep.evaluation.at
    if isinstance(at, Mapping) and (fault := _too_often(int(at["every"]), found.steps)):
        raise InputError(f"evaluation.at: {fault}")
    return found


def _too_often(every: int, steps: int) -> str:
    """Returns why a trial of so many steps cannot be scored at every so many; empty where it can."""
    count = steps // every
    return (
        f"every {every} of {steps:,} steps is {count:,} evaluations a trial; expected at most {MAX_EVALUATIONS:,}"
        if count > MAX_EVALUATIONS
        else ""
    )


def _names(sweep: SweepDefinition) -> Iterator[Fault]:
    for block, builtin in (("models", BUILTIN_MODELS), ("tiers", BUILTIN_TIERS)):
        for name, source in getattr(sweep, block).items():
            if not source.path.isprintable():
                yield Fault(
                    f"{block}.{name}.path", f"got {show(source.path)}; expected a path without control characters"
                )
            if source.path == "builtin" and block == "models" and (known := known_model(name)) is not None:
                yield Fault(
                    f"models.{name}.path",
                    f"missing; {known.repository} does not ship with dipsweep: give the "
                    "folder or s3:// address where it lies",
                )
            elif source.path == "builtin" and name not in builtin:
                yield Fault(
                    f"{block}.{name}.path",
                    f"no built-in of the name '{name}'; built-in: {', '.join(builtin)}"
                    f"{nearest(name, builtin)} Else give its path.",
                )


def _search(sweep: SweepDefinition) -> Iterator[Fault]:
    search, free = sweep.search, sampled(sweep.space)
    if search.algorithm == "grid":
        for name, axis in free.items():
            yield Fault(
                f"space.{name}",
                f"search.algorithm is grid, which cannot sample a {axis.kind} axis; "
                "use grid here, or an algorithm such as random or optuna-tpe",
            )
    elif not free and search.algorithm in SEARCHERS.built_in:
        yield Fault(
            "search.algorithm", f"'{search.algorithm}' has no axis to sample: every axis is a grid; use algorithm grid"
        )
    if (
        search.repeats > 1
        and search.algorithm in SEARCHERS.built_in
        and search.algorithm not in ("grid", "random", "qmc")
    ):
        yield Fault(
            "search.repeats",
            f"got {search.repeats}; expected 1, since '{search.algorithm}' learns from single results",
        )
    if search.points_from and search.algorithm not in LEARNING:
        learns = (
            "learns nothing from results"
            if search.algorithm in ("grid", "random", "qmc")
            else "cannot take those of others"
        )
        yield Fault(
            "search.points_from",
            f"got earlier sweeps, but '{search.algorithm}' {learns}; expected {' or '.join(LEARNING)}",
        )
    if search.promote and sweep.stopping.rule != "dip-aware":
        yield Fault(
            "search.promote",
            f"got true with stopping.rule {sweep.stopping.rule}; expected dip-aware, whose odds decide what goes on",
        )
    yield from _counts(sweep)


def _counts(sweep: SweepDefinition) -> Iterator[Fault]:
    """Checks the number of trials against the number of cells."""
    search, cells = sweep.search, cell_count(sweep.space, MAX_TRIALS)
    total = search.trials or cells * (search.trials_per_cell or 1) * search.repeats
    if total > MAX_TRIALS:
        yield Fault(
            "space", f"{total:,} trials are more than {MAX_TRIALS:,}; narrow a grid, search.trials or search.repeats"
        )
    elif search.algorithm == "grid":
        for name in ("trials", "trials_per_cell"):
            if (value := getattr(search, name)) is not None and (value != 1 or cells > 1 or name == "trials"):
                yield Fault(
                    f"search.{name}",
                    f"got {value}, but algorithm grid runs each cell once ({cells} in all); leave "
                    "it out, or use search.repeats",
                )
    elif search.trials is None:
        return
    elif search.trials_per_cell is not None:
        yield Fault("search.trials_per_cell", "got trials and trials_per_cell; expected one of them")
    elif search.trials % search.repeats:
        yield Fault("search.trials", f"got {search.trials}; expected a multiple of search.repeats, {search.repeats}")
    elif search.trials < cells * search.repeats:
        yield Fault(
            "search.trials",
            f"got {search.trials}, but the grid axes have {cells} cells, and each is run; expected at "
            f"least {cells * search.repeats}, or choice axes instead of grids",
        )
    elif search.trials % (each := _shared_budgets(sweep) * search.repeats):
        more = search.trials + each - search.trials % each
        yield Fault(
            "search.trials",
            f"got {search.trials}, but every configuration is tried with each of the "
            f"{_shared_budgets(sweep)} budgets of steps; expected a multiple of {each}, such as "
            f"{more}",
        )


def _compat(sweep: SweepDefinition) -> Iterator[Fault]:
    """Yields settings of trials under `compat: paper` that do not go with it, each once."""
    free, told = sampled(sweep.space), set[str]()
    if set(sweep.axis_values("compat", sweep.trainer.compat)) == {PAPER} and sweep.search.repeats > 1:
        why = "no row of such a run is drawn by the seed: every repeat would be the same run"
        yield Fault("search.repeats", f"got {sweep.search.repeats} under compat {PAPER}; expected 1, since {why}")
    for cell in cells(sweep.space) if PAPER in sweep.axis_values("compat", sweep.trainer.compat) else ():
        if "compat" not in free and cell.get("compat", sweep.trainer.compat) != PAPER:
            continue
        for name in (need.setting for need in NEEDS if need.setting not in told):
            given = cell.get(name, getattr(sweep.trainer, name))
            for value in free[name].samples() if name in free else (given,):
                if faults := list(paper_faults({name: value})):
                    told.add(name)
                    yield Fault(f"space.{name}" if name in sweep.axes else f"trainer.{name}", faults[0][1])
                    break


def _shared_budgets(sweep: SweepDefinition) -> int:
    """Returns with how many budgets each sampled configuration is tried."""
    steps = sweep.space.get("steps")
    conditions = any("steps" in axis.when for axis in sweep.space.values())
    shared = isinstance(steps, Grid) and not steps.when and not conditions and sweep.search.share_trunk
    return len(steps.values) if shared and isinstance(steps, Grid) else 1


def _stopping(sweep: SweepDefinition) -> Iterator[Fault]:
    rule = sweep.stopping.rule
    uses = {
        "protect": ("dip-aware",),
        "max_lost_winners": ("dip-aware",),
        "risk": ("dip-aware",),
        "experience": ("dip-aware",),
        "patience": ("dip-aware", "patient"),
        "grace": ("asha", "median", "hyperband", "patient"),
        "reduction": ("asha", "hyperband"),
    }
    for name, rules in uses.items():
        value = getattr(sweep.stopping, name)
        if value is not None and rule in RULES.built_in and rule not in rules:
            yield Fault(
                f"stopping.{name}",
                f"got {show(value)}, but rule '{rule}' has no {name}; it belongs to {', '.join(rules)}",
            )
    patience = sweep.stopping.patience
    if patience is not None and rule == "dip-aware" and patience > MAX_PATIENCE:
        yield Fault(
            "stopping.patience", f"got {patience:g}; expected at most {MAX_PATIENCE} times the step of the trough"
        )
    if patience is not None and rule == "patient" and patience != int(patience):
        yield Fault("stopping.patience", f"got {patience:g}; expected a whole number of reports")
    winners, top = sweep.stopping.max_lost_winners, sweep.stopping.top
    if winners is not None and winners >= top:
        yield Fault(
            "stopping.max_lost_winners", f"got {winners:g}, but top is {top}; expected fewer, such as {top / 15:.2g}"
        )
    if winners is not None and sweep.stopping.risk is not None:
        yield Fault("stopping.risk", "got max_lost_winners as well; expected one of them: risk is its old name")
    smallest = min((s for s in sweep.axis_values("steps", sweep.trainer.steps) if isinstance(s, int)), default=1)
    grace = sweep.stopping.grace
    if grace is not None and grace >= smallest:
        yield Fault(
            "stopping.grace", f"got {grace}, but the smallest step budget is {smallest}: the rule would never speak"
        )


def _objective(sweep: SweepDefinition) -> Iterator[Fault]:
    """A trial can only be worth its best checkpoint where it has several, and each of them a score; what is better when it is
    less is not maximized by default."""
    if sweep.objective.metric.partition(",")[0] in LESS_IS_BETTER and "goal" not in sweep.objective.model_fields_set:
        yield Fault(
            "objective.goal",
            f"missing; expected minimize or maximize, since less {sweep.objective.metric} is usually meant",
        )
    if sweep.objective.at != "best":
        return
    metric, where = sweep.objective.metric, "objective.at"
    if metric.partition("/")[0] in NOT_OF_CHECKPOINTS:
        yield Fault(
            where,
            f"got best, but {metric} is measured while training, mostly between checkpoints; expected a metric "
            "of the evaluation, such as transfer/score, or at: end",
        )
    budgets = [b for b in sweep.axis_values("steps", sweep.trainer.steps) if isinstance(b, int)]
    at = sweep.evaluation.at
    listed = [s for s in at if isinstance(s, int)] if isinstance(at, list | tuple) else None
    every = at.get("every") if isinstance(at, Mapping) else None
    alone = [
        b
        for b in budgets
        if (listed is not None and not any(s < b for s in listed)) or (isinstance(every, int) and every >= b)
    ]
    if alone:
        yield Fault(
            where,
            f"got best, but evaluation.at scores nothing before the last of {min(alone)} steps: there is no "
            "choice; score more steps, or leave it out",
        )


def _constraints(sweep: SweepDefinition) -> Iterator[Fault]:
    """Yields bounds that no score can meet, or every one does.

    A base model is scored and not trained, so there is nothing to compare what training reports with.
    """
    floors: dict[str, float] = {}
    for constraint in sweep.constraints:
        if constraint.at_least is not None:
            floors[constraint.metric] = max(constraint.at_least, floors.get(constraint.metric, constraint.at_least))
    for i, constraint in enumerate(sweep.constraints):
        metric, relative = constraint.metric, constraint.relative_to_base
        if constraint.at_most is not None and constraint.at_most < floors.get(metric, constraint.at_most):
            yield Fault(
                f"constraints[{i}].at_most",
                f"got {constraint.at_most:g} beside at_least {floors[metric]:g} for {metric}, which no score meets together",
            )
        if relative is not None and metric.partition("/")[0] in NOT_OF_CHECKPOINTS:
            yield Fault(
                f"constraints[{i}].relative_to_base",
                f"got {relative:g} for {metric}, which no base model has: it is measured while training; expected at_least or "
                "at_most",
            )
        if not is_share(metric) or sweep.evaluation.suite.startswith("lm-eval:"):
            continue
        for name, least in (("at_least", 0), ("at_most", 0), ("relative_to_base", -1)):
            if (bound := getattr(constraint, name)) is not None and not least <= bound <= 1:
                yield Fault(
                    f"constraints[{i}].{name}",
                    f"got {bound:g}; expected {least} to 1, since {metric} is a share (10 points are 0.1)",
                )


def _trainer(sweep: SweepDefinition) -> Iterator[Fault]:
    names, free = ("pack_tokens", "batch_tokens"), sampled(sweep.space)
    if cell_count(sweep.space, MAX_TRIALS) > MAX_TRIALS or not {"pack_tokens"} & {
        *sweep.axes,
        *sweep.trainer.model_fields_set,
    }:
        return

    def values(name: str, cell: Mapping[str, Any]) -> tuple[Any, ...]:
        default = (cell.get(name, getattr(sweep.trainer, name)),)
        return (*free[name].samples(), *default) if name in free else default

    pairs = (pair for cell in cells(sweep.space) for pair in product(*(values(name, cell) for name in names)))
    for pack, batch in pairs:
        if isinstance(pack, int) and isinstance(batch, int) and pack > batch:
            yield Fault(
                "trainer.pack_tokens",
                f"got {pack}, but a step has batch_tokens {batch}; expected at most that, or 0 for all of it",
            )
            return


def _evaluation(sweep: SweepDefinition) -> Iterator[Fault]:
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
        elif fault := _too_often(every, largest):
            yield Fault(where, fault)
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


def _stop_early(sweep: SweepDefinition) -> Iterator[Fault]:
    if sweep.evaluation.stop_early is None:
        return
    where = "evaluation.stop_early"
    if sweep.evaluation.suite.startswith("lm-eval:"):
        yield Fault(where, "lm-eval asks its own items, all at once; use another suite, or leave stop_early out")
    if not is_judged(sweep.objective.metric):
        yield Fault(
            where,
            f"objective {sweep.objective.metric} is no share of right items; stop_early needs a score of math, "
            "transfer, general or safety, without a tail of test_time",
        )


def _storage(sweep: SweepDefinition) -> Iterator[Fault]:
    if is_url(sweep.storage):
        if fault := url_fault(sweep.storage):
            yield Fault("storage", fault)
    elif not sweep.storage.isprintable() or ".." in sweep.storage.split("/"):
        yield Fault("storage", f"got {sweep.storage!r}; expected a path without '..' and control characters")
