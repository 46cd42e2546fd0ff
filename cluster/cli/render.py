"""Plans and sweeps as text and as JSON, for the command line."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from cluster.cli.output_files import check_output
from cluster.locate import definition
from cluster.run_output import PROGRESS_INTERVAL_S, dated
from sweeps.config.objective import Goal, all_met
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.config.shared_prefix import ENDINGS
from sweeps.config.space import Axis, Grid, Zip, sampled
from sweeps.config.trial import Saved
from sweeps.controller.earlier_sweeps import gather, suite_of
from sweeps.errors import DipsweepError, InputError, NoDriver, SpecError, StorageError, nearest
from sweeps.journal.history import Point
from sweeps.journal.lease import DriverState, driver_state, driver_states
from sweeps.journal.notes import read_notes, tags_of
from sweeps.journal.reader import no_collector
from sweeps.journal.rows import Row, SweepRow
from sweeps.journal.state import SweepState, address_of
from sweeps.journal.vocabulary import SweepStatus, TrialStatus
from sweeps.journal.writer import LogReader, read_rows
from sweeps.output import printable
from sweeps.planning.progress import MACHINES, Progress, ProgressMeter, progress_text
from sweeps.planning.sharing import sharing
from sweeps.report.console import EventFormatter
from sweeps.storage.base import Store

SHOWN: Final = 20
"""Trials of a plan that are listed one by one; `--json` has all."""
DRIVER_CHECK_S: Final = 3.0
"""After so long without a row a follower looks whether somebody still drives the sweep."""


def print_json(data: Any) -> None:
    """Prints JSON with two spaces of indent; numbers that are not finite are an error, never NaN."""
    print(json.dumps(data, indent=2, allow_nan=False))


def plan_json(plan: Plan) -> dict[str, Any]:
    """Returns the plan: id, number of trials, and each trial that is known in advance with its scored steps."""
    return {
        "sweep": plan.sweep_id,
        "trials": plan.total,
        "samples": plan.draws,
        "cells": plan.cells,
        "sampled": {n: a.to_json() for n, a in sampled(plan.sweep.space).items()},
        "steps": sum(t.steps for t in plan.known_trials()) or None,
        "steps_to_run": plan.steps_to_run() or None,
        "sharing": sharing(plan).to_json(),
        "known": [
            {
                "trial": t.id,
                "config": dict(t.config),
                "steps": t.steps,
                "scored_at": list(t.snapshots),
                "branch": branch._asdict() if (branch := plan.branch_of(t.config)) else None,
            }
            for t in plan.known_trials()
        ],
    }


def plan_text(plan: Plan) -> str:
    """Returns the plan as a table a person can read."""
    formatter, known = EventFormatter(plan), plan.known_trials()
    lines = [f"{plan.sweep_id}: {plan.total} trials in {len(plan.cells)} grid cells{_samples_text(plan)}"]
    for trial in known[:SHOWN]:
        branch = plan.branch_of(trial.config)
        trunk = f", from {branch.parent} at step {branch.step}" if branch else ""
        label = formatter.label(trial.id, trial.config)
        lines.append(f"  {label}  {trial.steps} steps{trunk}, scored at {_steps(trial.snapshots)}")
    if len(known) > SHOWN:
        lines.append(f"  … and {len(known) - SHOWN:,} more (--json lists all)")
    for name, axis in plan.sweep.space.items():
        if isinstance(axis, Zip):
            pairs = ("/".join(map(str, row.values())) for row in axis.rows())
            lines.append(f"  {name} pairs {' with '.join(axis.columns)}: {_list(list(pairs))}")
        elif isinstance(axis, Grid) and not known:
            lines.append(f"  a grid of {name}: {_list(list(map(str, axis.values)))}")
    if not known:
        for name, axis in sampled(plan.sweep.space).items():
            where = f" where {_conditions(axis)}" if axis.when else ""
            lines.append(
                f"  {plan.sweep.search.algorithm} samples {name} from {axis.kind} {list(axis.samples())}{where}"
            )
    drawn = ", of random draws" if any(name in plan.free for name in ENDINGS) else ""
    lines.append(f"in all {sharing(plan)}{drawn}; every model is scored once at step 0")
    return "\n".join(lines)


def _samples_text(plan: Plan) -> str:
    """Returns what of a sampled sweep's trials the search draws, and what it tries each draw with."""
    if not plan.free:
        return ""
    budgets = max(Counter(plan.groups).values())
    tried = f", each with {budgets} budgets" if budgets > 1 else ""
    repeats = f", {plan.sweep.search.repeats} times" if plan.sweep.search.repeats > 1 else ""
    return f": {plan.draws} sampled configurations{tried}{repeats}"


def _list(values: list[str]) -> str:
    more = f", … and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return f"{', '.join(values[:SHOWN])}{more}"


def _conditions(axis: Axis) -> str:
    """Returns `lr_scheduler_type is wsd` or `model is a or b`, several joined by `and`."""
    return " and ".join(f"{name} is {' or '.join(map(str, values))}" for name, values in axis.when.items())


def _steps(steps: tuple[int, ...]) -> str:
    return " ".join(map(str, steps)) if len(steps) <= 16 else f"{' '.join(map(str, steps[:14]))} … {steps[-1]}"


def sweep_state(home: Store) -> dict[str, Any]:
    """Returns the status of a sweep: counts by state, and each trial."""
    return _state_at(home, driver_state(home))


def _state_at(home: Store, driver: DriverState) -> dict[str, Any]:
    rows = read_rows(home)  # after the look at the driver: one that ends in between has ended the sweep by then
    sweep, state = _definition(home, rows), SweepState(rows)
    told = {
        **state_of(sweep, state, driver),
        "sweep": home.name,
        "folder": str(home),
        "tags": list(tags_of(read_notes(home))),
    }
    progress = None if state.done or not driver.alive else _progress(Plan(sweep), rows)
    return told if progress is None else {**told, "progress": progress.to_json()}


def _progress(plan: Plan, rows: Iterable[Row]) -> Progress | None:
    """How far a sweep is; None where its configurations lack settings that the time depends on (of another version)."""
    state = SweepState()
    meter = ProgressMeter(plan, state)
    try:
        for row in rows:
            state.apply(row)
            meter.apply(row)
        return meter.progress()
    except KeyError:
        return None


def _definition(home: Store, rows: Sequence[Row]) -> Sweep:
    """Returns a sweep's definition: that in the first row of its log, which is read anyway, or else that of its file."""
    head = next((row for row in rows if isinstance(row, SweepRow) and row.spec), None)
    if head is not None:
        try:
            return Sweep(**head.spec)
        except SpecError:  # of another version: the file says what to do about it
            pass
    return definition(home)


def state_of(sweep: Sweep, state: SweepState, driver: DriverState | None = None) -> dict[str, Any]:
    """Returns how a sweep stands.

    Args:
        state: what its rows say. driver: whether somebody drives it; without it the rows alone say.
    """
    formatter, metric = EventFormatter(Plan(sweep), state), sweep.objective.metric
    lost = driver is not None and not driver.alive
    status = SweepStatus.STOPPED if lost and not state.done else state.status
    trials = [
        {
            "trial": c.trial, "label": formatter.label(c.trial), "state": str(state.trial_status(c.trial, lost=lost)),
            "phase": str(c.phase), "step": c.last_step, "budget": c.budget, "attempt": c.attempt, "reason": c.reason,
            "detail": c.detail, metric: c.values(metric)[-1] if c.steps(metric) else None,
        }
        for c in state.history.trials()
    ]  # fmt: skip
    counts = Counter(str(t["state"]) for t in trials)
    return {
        "sweep": sweep.id,
        "status": str(status),
        "saving": len(state.with_status(TrialStatus.RUNNING)) if status in _SAVING else 0,
        "trials": formatter.count.total,
        "states": dict(counts),
        "objective": metric,
        "goal": sweep.objective.goal,
        "each": trials,
        "driver": _driver_json(driver, state.done) if driver is not None else None,
        "hint": driver.message(sweep.id) if driver is not None and not state.done else "",
    }


_SAVING: Final = frozenset({SweepStatus.PAUSING, SweepStatus.STOPPING})


def _driver_json(driver: DriverState, over: bool) -> dict[str, Any]:
    """Returns a driver as plain JSON; a driver that was lost after the sweep's end has lost nothing."""
    holder = driver.holder
    where = {"host": holder.host, "pid": holder.pid} if holder is not None else {}
    return {"state": "none" if over and not driver.alive else driver.kind, "last_heard": driver.since or None, **where}


def states_or_faults(homes: Iterable[Store]) -> list[dict[str, Any]]:
    """Returns the status of each sweep, or why it cannot be read: one damaged sweep hides no other."""
    stores = list(homes)
    try:
        drivers: Sequence[DriverState | None] = driver_states(stores)
    except StorageError:  # of one of them: then each is asked by itself
        drivers = [None] * len(stores)
    with no_collector():
        return [_state_or_fault(*pair) for pair in zip(stores, drivers, strict=True)]


def _state_or_fault(home: Store, driver: DriverState | None) -> dict[str, Any]:
    try:
        return _state_at(home, driver or driver_state(home))
    except DipsweepError as e:
        return {"sweep": home.name, "folder": str(home), "unreadable": str(e), "tags": []}


def sweep_line(state: dict[str, Any]) -> str:
    """Returns one line for `dipsweep list`."""
    if "unreadable" in state:
        return printable(f"{state['sweep']}  unreadable: {state['unreadable']}")
    hint = f"; {state['hint']}" if state.get("hint") else ""
    tags = f"  [{', '.join(state['tags'])}]" if state.get("tags") else ""
    return printable(f"{state['sweep']}  {headline(state)}{hint}{tags}")


def headline(state: dict[str, Any], what: str = "trials") -> str:
    """Returns how many trials a sweep has, in which states, and what the sweep itself is about to do."""
    counts = ", ".join(f"{n} {s}" for s, n in state["states"].items()) or "nothing started"
    return f"{state['trials']} {what}: {counts}{_about_to(state)}"


def _about_to(state: dict[str, Any]) -> str:
    if state["status"] in (SweepStatus.RUNNING, SweepStatus.DONE):
        return ""
    number = state["saving"]
    saving = f" ({number} trial{'s' if number != 1 else ''} saving)" if number else ""
    return f"; {state['status']}{saving}"


def status_text(state: dict[str, Any]) -> str:
    """Returns the table of `dipsweep status`."""
    lines = [sweep_line(state)]
    if progress := state.get("progress"):
        lines += [progress_text(Progress.from_json(progress))]
        lines += [f"  {trial} waits: {why}" for trial, why in progress["waiting"] if why != MACHINES]
    width = max((len(t["label"]) for t in state["each"]), default=0)
    for t in state["each"]:
        value = t[state["objective"]]
        score = f"{state['objective']} {value:.3f}" if value is not None else "no score yet"
        phase = f" (in {t['phase']})" if t["phase"] not in ("", None, "before", "unknown") else ""
        why = f"  {t['detail'] or t['reason']}" if t["detail"] or t["reason"] else ""
        lines.append(f"  {t['label']:{width}}  {t['state']}{phase}, step {t['step']}/{t['budget']}, {score}{why}")
    return printable("\n".join(lines))


def narrated(home: Store, *, follow: bool = False) -> Iterator[str]:
    """Yields one line per event of a sweep; with `follow`, until the sweep has ended.

    Raises:
        NoDriver: `follow`, and nobody drives the sweep any more.
    """
    plan = Plan(definition(home))
    reader, follower, seen, told = LogReader(home), Follower(home, plan=plan), 0, time.monotonic()
    formatter = EventFormatter(plan)
    while True:
        rows = reader.rows()
        for row in rows[seen:]:
            line = formatter.format(row)
            if line:
                yield printable(line)
        seen = len(rows)
        if not follow or follower.take(rows):
            return
        if time.monotonic() - told >= PROGRESS_INTERVAL_S and (progress := follower.progress()) is not None:
            told = time.monotonic()
            yield dated(progress_text(progress))
        time.sleep(0.5)


class Follower:
    """Follows a sweep: its rows so far, and its lease when no row has come for a while."""

    def __init__(self, home: Store, clock: Callable[[], float] = time.monotonic, plan: Plan | None = None) -> None:
        self.home, self.clock, self.plan = home, clock, plan
        self._begin()
        self._looked, self._live = clock(), False

    def _begin(self) -> None:
        self.state, self._rows = SweepState(), 0
        self.meter = ProgressMeter(self.plan, self.state) if self.plan is not None else None

    def take(self, rows: Sequence[Row]) -> bool:
        """Takes a sweep's rows as they are now; True when it has ended.

        Raises:
            NoDriver: it has not ended, and nobody drives it.
        """
        if len(rows) < self._rows:  # a driver withdrew its first row
            self._begin()
        news = rows[self._rows :]
        now = time.time() if self._live else None  # the first rows were written at any time before
        for row in news:
            self.state.apply(row)
            self._measure(row, now)
        self._live = True
        self._rows = len(rows)
        if self.state.done:
            return True
        if news:
            self._looked = self.clock()
        elif self.state.interrupted or self.clock() - self._looked >= DRIVER_CHECK_S:
            self._look(rows)
        return False

    def _measure(self, row: Row, now: float | None) -> None:
        try:
            if self.meter is not None:
                self.meter.apply(row, now)
        except KeyError:  # a configuration of another version, without the settings that the time depends on
            self.plan = self.meter = None

    def progress(self) -> Progress | None:
        """Returns how far the sweep is; None without a plan, and where its configurations lack settings that it depends on."""
        try:
            return None if self.meter is None else self.meter.progress()
        except KeyError:
            self.plan = self.meter = None
            return None

    def _look(self, rows: Sequence[Row]) -> None:
        driver = driver_state(self.home)
        if driver.alive:
            self._looked = self.clock()
        elif len(LogReader(self.home).rows()) == len(rows):  # else it has just written, the end maybe
            raise NoDriver(f"{self.home.name}: {driver.message(self.home.name)}")


def kept_checkpoint(home: Store, trial: str, step: str) -> Saved:
    """Returns a trial's checkpoint, with its address and digest: `best` by the objective, `last`, or the step given.

    Raises:
        InputError: there is no such trial, or that checkpoint is not kept.
    """
    state, goal = SweepState(read_rows(home)), definition(home).goal
    known = state.trials.get(trial)
    if known is None:
        raise InputError(
            f"no trial '{trial}' in {home.name}; there are {', '.join(state.trials)}{nearest(trial, state.trials)}"
        )
    if not known.kept():
        raise InputError(f"{trial} has no checkpoint yet")
    kept, points = _with_parents(state, trial, home.root)
    scored = [s for s in kept if s in points and goal.metric in points[s].metrics]
    if goal.at == "best":  # as the report ranks them: one that meets all constraints, where any does
        base = state.history.base_scores(trial)
        scored = [s for s in scored if all_met(goal.constraints, points[s].metrics, base)] or scored
    if step == "best" and scored:
        return kept[max(scored, key=lambda s: goal.sign * points[s].metrics[goal.metric])]
    if step in ("best", "last"):
        return kept[max(kept)]
    if not step.isdigit() or int(step) not in kept:
        raise InputError(
            f"got step '{step}'; expected best, last or one that is kept: {', '.join(map(str, sorted(kept)))}"
        )
    return kept[int(step)]


def _with_parents(state: SweepState, trial: str, home: str) -> tuple[dict[int, Saved], dict[int, Point]]:
    """Returns the checkpoints of a trial that are kept, and its scores, by step: up to where it turned off from another run,
    those of that one."""
    kept, points, limit = dict[int, Saved](), dict[int, Point](), None
    for run in state.line(trial):
        own = {s: Saved(s, address_of(c.path, home), c.digest) for s, c in run.kept().items()}
        kept = {s: saved for s, saved in own.items() if limit is None or s <= limit} | kept
        points = {s: p for s, p in run.curve.points.items() if limit is None or s <= limit} | points
        limit = run.fork_step if limit is None else min(limit, run.fork_step)
    return kept, points


def replay_curves(
    curves: Path,
    rules: list[str],
    *,
    metric: str | None,
    goal: str | None,
    workers: int,
    top: int | None,
    orders: int,
    experience: str | None,
    json_out: Path | None,
) -> str:
    """Replays recorded curves under one rule or several; returns what to print, writes JSON (and for several, a page)."""
    from sweeps.report.replay import comparison_page, recorded_goal, replay_all, summaries_of, table
    from sweeps.report.replay import read_rows as recorded

    for path in [json_out, json_out.with_suffix(".html")] if json_out is not None else []:
        check_output(path)
    rows = recorded(curves)
    meant = recorded_goal(rows) or Goal("")
    same = metric in (None, meant.metric)  # constraints belong to the sweep's own question
    settings: dict[str, Any] = {
        "metric": metric or meant.metric,
        "goal": goal or ("maximize" if meant.maximize or not same else "minimize"),
        "workers": workers,
        "top": top or meant.top,
        "constraints": meant.constraints if same else (),
        "orders": orders,
        "at": meant.at if same else "end",
    }
    known = None
    if experience is not None:
        sweeps = [row for row in rows if isinstance(row, SweepRow)]
        objective = Goal(settings["metric"], settings["goal"] == "maximize")
        suite = suite_of(sweeps[0].spec) if sweeps else ""
        known = gather(experience, objective, suite, without={row.sweep for row in rows}, say=print)
    results = replay_all(rows, rules, experience=known, **settings)
    compared = summaries_of(results)
    text = table(compared)
    if json_out is not None:
        whole = results[0] if len(results) == 1 else compared
        json_out.write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        if len(compared) > 1:
            page = json_out.with_suffix(".html")
            page.write_text(comparison_page(compared), encoding="utf-8")
            text += f"\nThe picture: {page}"
    return text
