"""A search that starts from the trials of earlier sweeps: which of them fit its space, and what the sampler is told of them.

A trial fits where its model, its data and every axis have values that this sweep could try. Where all else is the same
too (settings, sources, objective, evaluation), its result is one of this sweep's own: the search is told it as a finished trial.
Where something else differs, the numbers do not compare, but what was best there is worth a try here: its settings are
tried first. What was used stands in the sweep's first row; a resume or a replay reads nothing else.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from sweeps.config.blocks import TrainerBlock
from sweeps.config.objective import Goal, all_met
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.config.shared_prefix import ENDINGS, shared_steps
from sweeps.config.space import Axis, Choice, LogUniform, RandInt, Uniform
from sweeps.errors import DipsweepError, InputError
from sweeps.journal.history import History
from sweeps.journal.reader import read_rows
from sweeps.journal.rows import Row, SweepRow
from sweeps.journal.state import SweepState, TrialState
from sweeps.journal.vocabulary import EndStatus, TrialStatus
from sweeps.journal.writer import is_sweep, sweeps_in
from sweeps.setting_names import current_names
from sweeps.statistics import PathPoint, best_of_path, wander
from sweeps.storage.base import Store, Where, is_url
from sweeps.storage.factory import open_store

MOST_TRIED: Final = 5  # points of earlier sweeps tried first in one group of cells
TRIED_SHARE: Final = 0.25  # ... and no more than this share of its configurations


class Fit(NamedTuple):
    """Where a trial belongs in the plan: its group of cells, and the values of the axes that a search samples."""

    group: int
    params: Mapping[str, Any]


@dataclass(slots=True)
class _Found:
    """What one sweep gives: results to be told, points to be tried as (score, fit, trial), and why the others give none."""

    told: list[dict[str, Any]] = field(default_factory=list)
    tried: list[tuple[float, Fit, str]] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)


def best_score(history: History, trial: str, goal: Goal) -> float | None:
    """Returns what a trial's best checkpoint is worth, less what it owes to having been chosen; None without scores.

    As in the report, the best of those that meet all constraints, if any does.
    """
    points = [p for s, p in sorted(history.curves[trial].points.items()) if s > 0 and goal.metric in p.metrics]
    if not points:
        return None
    base = history.base_scores(trial)
    fine = [p for p in points if all_met(goal.constraints, p.metrics, base)] or points
    path, whole = (
        [PathPoint(p.step, goal.sign * p.metrics[goal.metric], p.se.get(goal.metric)) for p in some]
        for some in (fine, points)
    )
    return goal.sign * best_of_path(path, wander([whole])).value


def gather_points(plan: Plan, places: Sequence[str], root: Where, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns what earlier sweeps give to a new search, as its first row holds it.

    Args:
        places: sweeps by id (in `root`) or by folder or address; a storage stands for all of its sweeps.
        say: is told, for each sweep, what was used and what did not fit.

    Returns:
        `{"sweeps": [{sweep, digest, told, tried, left: {why: trials}}], "told": [{sweep, trial, group, params, by_step, status,
        best}], "tried": [{sweep, trial, group, params}]}`.

    Raises:
        InputError: there is no sweep at a place. StorageError: it cannot be read.
    """
    sweeps: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    tried: list[dict[str, Any]] = []
    for home in _homes(places, root, plan.sweep_id):
        try:
            rows = read_rows(home)
            found = _of_sweep(plan, rows)
        except DipsweepError as e:
            if isinstance(e, InputError) and not is_sweep(home):
                raise
            say(f"search.points_from: nothing from {home.name}: {e}")
            continue
        first = [_point(plan, home.name, fit, trial) for _, fit, trial in sorted(found.tried, key=_by_score)]
        told += [{"sweep": home.name, **one} for one in found.told]
        tried += first
        digest = hashlib.sha256("\n".join(row.line() for row in rows).encode()).hexdigest()
        sweeps.append(
            {
                "sweep": home.name,
                "digest": digest,
                "told": len(found.told),
                "tried": len(first),
                "left": dict(found.left),
            }
        )
    tried = _first_ones(plan, tried)
    for one in sweeps:
        one["tried"] = sum(point["sweep"] == one["sweep"] for point in tried)
        say(_said(one))
    return {"sweeps": sweeps, "told": told, "tried": tried}


def _by_score(one: tuple[float, Fit, str]) -> tuple[float, str]:
    return -one[0], one[2]


def _said(one: Mapping[str, Any]) -> str:
    parts = []
    if one["told"]:
        parts.append(f"{one['told']} told to the search as finished trials")
    if one["tried"]:
        parts.append(f"{one['tried']} of its best settings to be tried first")
    most = sorted(one["left"].items(), key=lambda item: -item[1])[:3]
    left = "; ".join(f"{n} result{'s' if n != 1 else ''} left out: {why}" for why, n in most)
    return f"search.points_from: {one['sweep']}: {', '.join(parts) or 'nothing used'}{'; ' if left else ''}{left}"


def sweeps_at(place: str, root: Where, own: str) -> list[Where]:
    """Returns the sweeps that a place of `search.points_from` names: one, or all of a storage.

    Args:
        root: the sweep's own storage, of which places without `/` are ids. own: the sweep's id.

    Raises:
        InputError: there is none. StorageError: the storage cannot be read.
    """
    home = open_store(root) / place if "/" not in place else open_store(place)
    inside: list[Where] = [home] if is_sweep(home) else list(sweeps_in(home.root)) if "/" in place else []
    if not inside:
        names = [found.name for found in sweeps_in(open_store(root).root)]
        known = ", ".join([name for name in names if name != own][:8])
        raise InputError(
            f"got {place!r}, where there is no sweep; expected the id of one in the sweep's own storage"
            f"{f' ({known})' if known else ''}, or the folder or address of a sweep or of a storage"
        )
    return inside


def _homes(places: Sequence[str], root: Where, own: str) -> Iterator[Store]:
    seen = set()
    for place in places:
        try:
            inside = sweeps_at(place, root, own)
        except InputError as e:
            raise InputError(f"search.points_from: {e}") from None
        for found in inside:
            store = open_store(found)
            where = store.root if is_url(store.root) else os.path.realpath(store.root)
            if where not in seen and store.name != own:
                seen.add(where)
                yield store


def _of_sweep(plan: Plan, rows: Sequence[Row]) -> _Found:
    head = next((row for row in rows if isinstance(row, SweepRow)), None)
    if head is None:
        raise InputError("its journal has no first row, so nothing is known of its settings")
    sweep, state, found = Sweep.recorded(head.spec), SweepState(rows), _Found()
    other = _other_question(plan.sweep, sweep)
    for trial in state.trials.values():
        config = {**dict(TrainerBlock()), **current_names(trial.row.config)}
        fit, why = place_of(plan, config)
        if fit is None:
            found.left[why] += 1
            continue
        differs = other or _other_run(plan, sweep, config, fit) or _other_start(state, trial)
        if differs:
            found.left[f"{differs}, so scores do not compare"] += 1
            score = _own_score(sweep, state, trial)
            if score is not None:
                found.tried.append((score, fit, trial.id))
        elif (result := _result(plan, state, trial)) is None:
            found.left["it did not end with a score"] += 1
        else:
            found.told.append({"trial": trial.id, "group": fit.group, "params": dict(fit.params), **result})
    return found


def place_of(plan: Plan, config: Mapping[str, Any]) -> tuple[Fit | None, str]:
    """Returns where a trial's settings belong in a plan; or None, and the first thing that does not fit.

    A trial of another budget belongs where it would with this sweep's: its settings fit, its result does not.
    """
    why = "it is of no cell of the grid"
    ends = [i for i in range(len(plan.cells)) if i == plan.longest_cell(plan.groups[i])]
    same = [i for i in ends if plan.cells[i].get("steps") == config.get("steps")]
    for i in (*same, *(i for i in ends if i not in same)):
        wanted = {"model": plan.sweep.default_model, "data": plan.sweep.default_tier, **plan.cells[i]}
        fixed = {n: v for n, v in wanted.items() if n != "steps" and n not in plan.free}
        off = next((n for n, v in fixed.items() if config.get(n) != v), None)
        if off is not None:
            why = f"{off} {config.get(off)} is not {'a value' if off in plan.sweep.axes else 'that'} of this sweep"
            continue
        params, outside = _params(plan, plan.cells[i], config)
        return (None, f"{outside} lies outside of this sweep's") if outside else (Fit(plan.groups[i], params), "")
    return None, why


def _params(plan: Plan, cell: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Returns a trial's values of the sampled axes that are active in a cell, and the name of one that lies outside."""
    settings, params = dict(cell), dict[str, Any]()
    for name, axis in plan.free.items():
        if axis.is_active(settings):
            settings[name] = params[name] = config.get(name)
            if not _holds(axis, params[name]):
                return params, name
    return params, ""


def _holds(axis: Axis, value: Any) -> bool:
    """Whether a value is one that a search could draw from an axis."""
    if isinstance(axis, Choice):
        return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in axis.values)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(axis, RandInt):
        return value == int(value) and axis.low <= value <= axis.high
    assert isinstance(axis, Uniform | LogUniform)
    return axis.low <= value <= axis.high


def _other_question(ours: Sweep, theirs: Sweep) -> str:
    """Returns what two sweeps ask differently, as half a sentence; empty where scores of both are of one kind."""
    if ours.objective != theirs.objective:
        return "the objective differs"
    mine, its = (
        e.model_dump(include={"suite", "items", "test_time", "judge", "files"})
        for e in (ours.evaluation, theirs.evaluation)
    )
    return next((f"evaluation.{name} differs" for name in mine if mine[name] != its[name]), "")


def _other_run(plan: Plan, theirs: Sweep, config: Mapping[str, Any], fit: Fit) -> str:
    """Returns what makes a trial another run than the same settings would be here; empty where nothing does."""
    cell = plan.cells[plan.longest_cell(fit.group)]
    ours = {**dict(TrainerBlock()), **plan.config(cell, fit.params, 0)}
    off = next((n for n in (*ours, *config) if n != "seed" and config.get(n) != ours.get(n)), None)
    if off is not None:
        return f"{off} differs"
    model, tier = str(config["model"]), str(config["data"])
    mine, its = plan.sweep.model_source(model), theirs.model_source(model)
    if (mine.path, mine.chat_template) != (its.path, its.chat_template):
        return f"model {model} differs"
    return "" if plan.sweep.tier_source(tier) == theirs.tier_source(tier) else f"tier {tier} differs"


def _other_start(state: SweepState, trial: TrialState) -> str:
    """Returns that a trial began as a run of other settings, such as a warm clone; empty where its start is its own."""
    line = list(state.line(trial.id))
    whole = not line[-1].parent
    for own, parent in pairwise(line):
        configs = [{**dict(TrainerBlock()), **current_names(one.row.config)} for one in (own, parent)]
        alike = all(configs[0].get(n) == configs[1].get(n) for n in {*configs[0], *configs[1]} - {*ENDINGS})
        whole = whole and alike and own.fork_step <= min(map(shared_steps, configs))
    return "" if whole else "it began from a run of other settings"


def _own_score(sweep: Sweep, state: SweepState, trial: TrialState) -> float | None:
    """What a trial came to by its own sweep's objective, more being better; None where that is not known."""
    goal, values = sweep.goal, trial.curve.values(sweep.goal.metric)
    at_best = goal.at == "best"
    if not values or trial.status not in (TrialStatus.COMPLETED, *((TrialStatus.PRUNED,) if at_best else ())):
        return None
    worth = best_score(state.history, trial.id, goal) if at_best else values[-1]
    return None if worth is None else goal.sign * worth


def _result(plan: Plan, state: SweepState, trial: TrialState) -> dict[str, Any] | None:
    """Returns a trial's result as the search takes it (`sweeps.controller.searcher.Result`)."""
    goal = plan.sweep.goal
    by_step = {s: v for s, v in zip(trial.curve.steps(goal.metric), trial.curve.values(goal.metric), strict=True) if s}
    if trial.status not in (TrialStatus.COMPLETED, TrialStatus.PRUNED) or not by_step:
        return None
    best = best_score(state.history, trial.id, goal) if goal.at == "best" else None
    return {
        "status": EndStatus(trial.status.value).value,
        "by_step": {str(s): v for s, v in by_step.items()},
        "best": best,
    }


def _point(plan: Plan, sweep: str, fit: Fit, trial: str) -> dict[str, Any]:
    return {"sweep": sweep, "trial": trial, "group": fit.group, "params": dict(fit.params)}


def _first_ones(plan: Plan, tried: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the points to be tried: of each sweep its best ones, sweeps in turn, no settings twice."""
    groups = len(set(plan.groups))
    most = max(1, min(MOST_TRIED, int(TRIED_SHARE * plan.samples / len(plan.cells))))
    by_sweep: dict[str, list[dict[str, Any]]] = {}
    for point in tried:
        by_sweep.setdefault(point["sweep"], []).append(point)
    found: list[dict[str, Any]] = []
    for group in range(groups):
        lines = [[p for p in points if p["group"] == group] for points in by_sweep.values()]
        order = [line[i] for i in range(max(map(len, lines), default=0)) for line in lines if i < len(line)]
        kept: list[dict[str, Any]] = []
        for point in order:
            if len(kept) < most and all(point["params"] != other["params"] for other in kept):
                kept.append(point)
        found += kept
    return found
