"""Replay: what a stop rule would have done with curves that were recorded to the end.

The trials of a recorded sweep start in order of first appearance on a number of machines, each step takes as long as it
cost, and the rule decides as it would have (`sweeps.executors.simulated`). What it pruned is then held against how those runs in
fact ended: a lost winner belongs to the final top k and was not run to its budget.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.config.objective import At, Constraint, Goal, all_met
from sweeps.errors import InputError, JournalError
from sweeps.executors.simulated import Outcome, Recording, simulate
from sweeps.journal.codec import parse
from sweeps.journal.history import Curve, History, Point, rows_of_runs
from sweeps.journal.reader import read_rows as read_log
from sweeps.journal.rows import ReportRow, Row, SweepRow, TrialRow
from sweeps.report.analysis.best_checkpoint import Candidate, who_stands
from sweeps.report.analysis.definition import goal_of
from sweeps.report.html.pareto_page import pareto_page
from sweeps.stopping.base import StopRule
from sweeps.stopping.registry import parse_rule
from sweeps.storage.base import is_url


def read_rows(path: str | Path) -> list[Row]:
    """Reads journal rows from a JSONL file (packed where its name ends in .gz), or from the log of a sweep (folder or address).

    Raises:
        InputError: the file cannot be read, or a line is not a row. StorageError: there is no sweep at that place.
    """
    if is_url(path) or Path(path).is_dir():
        return read_log(path)
    rows = []
    try:
        opened = gzip.open if str(path).endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, text in enumerate(lines, 1):
                if text.strip():
                    rows.append(_row(text, f"{path}:{number}"))
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise InputError(f"{path} is not UTF-8 text: {e}") from e
    return rows


def _row(text: str, where: str) -> Row:
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise InputError(f"{where}: a row must be a JSON object, not {type(data).__name__}")
        return parse(data)
    except (json.JSONDecodeError, JournalError) as e:
        raise InputError(f"{where}: {e}") from e


def replay(
    rows: Iterable[Row],
    rule: str,
    *,
    metric: str = "",
    goal: str = "maximize",
    workers: int = 8,
    top: int = 3,
    constraints: Sequence[Constraint] = (),
    orders: int = 1,
    at: At = "end",
    experience: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Replays recorded sweeps under one rule.

    Args:
        rows: journal rows of any number of sweeps; only what was measured is used, old verdicts are not.
        rule: `NAME` or `NAME:key=value,...`, as on the command line.
        metric: what the sweep looked for; empty takes the only metric that was scored.
        goal: `maximize` or `minimize`.
        workers: machines. top: places that count as winners. at: what a trial is worth, as `objective.at`.
        constraints: what a winner meets at its end; rules that know of constraints decide by them too.
        orders: in how many orders the trials start, one after another: as recorded, then shuffled by a fixed seed. Shares
            and costs are means over them, `trials` is of the first.
        experience: what earlier sweeps say (`sweeps.controller.earlier_sweeps.gather`), for a rule that begins from it.

    A branch is replayed as a run of its own from step 0, with its trunk's scores up to the fork; costs are steps then.

    Returns:
        `{"rule", "sweeps": {id: {"trials": {id: {"stopped_at", "paused", "phase", "reason", "p_top"}}, "compute_saved",
        "places", "winners", "lost_winners", "lost_in", "protection_cost"}}, "summary"}`. `stopped_at` is null for a trial
        that ran to its budget. `winners` holds all that tie for the last of the `places`; `lost_in` says in how many orders
        each lost one was lost, and at which steps. Costs are shares of running everything.

    Raises:
        InputError: rule, metric, goal or a number is not usable, or nothing was recorded.
    """
    direction = {"maximize": True, "max": True, "minimize": False, "min": False}.get(goal)
    if direction is None:
        raise InputError(f"goal is {goal!r}, but must be maximize or minimize")
    if workers < 1 or top < 1 or orders < 1:
        raise InputError(f"workers is {workers}, top {top} and orders {orders}, but each must be at least 1")
    histories = histories_of(rows)
    wanted = Goal(metric or _only_metric(histories.values()), direction, top, tuple(constraints), at)
    sweeps = {}
    for name, history in histories.items():
        recordings, shared = recorded(history, wanted.metric)
        if recordings:
            outcomes = [
                simulate(order, _ready(rule, wanted, experience), sweep=name, workers=workers, shared=shared)
                for order in _orders(recordings, orders)
            ]
            sweeps[name] = _judged(history, recordings, outcomes, wanted)
    if not sweeps:
        raise InputError(
            f"no trial has {wanted.metric!r} beyond step 0; scored are: {', '.join(_metrics(histories.values()))}"
        )
    return {"rule": rule, "sweeps": sweeps, "summary": _summary(sweeps, wanted, workers)}


def _ready(rule: str, goal: Goal, experience: Mapping[str, Any] | None) -> StopRule:
    made = parse_rule(rule, goal)
    if experience:
        made.observe(SweepRow("", experience=experience))
    return made


def recorded_goal(rows: Iterable[Row]) -> Goal | None:
    """Returns a recorded sweep's objective, where its rows have one and all the same."""
    specs = [row.spec for row in rows if isinstance(row, SweepRow)]
    goals = {goal_of(spec) for spec in specs}
    said = all(spec.get("objective", {}).get("metric") for spec in specs)
    return goals.pop() if len(goals) == 1 and said else None


def _orders(recordings: Sequence[Recording], number: int) -> list[list[Recording]]:
    draw = random.Random(0)
    return [list(recordings), *(draw.sample(recordings, len(recordings)) for _ in range(number - 1))]


def histories_of(rows: Iterable[Row]) -> dict[str, History]:
    """Folds what was measured, sweep by sweep: verdicts and ends of the recorded run would only repeat its decisions."""
    out: dict[str, History] = {}
    for row in rows_of_runs(rows):
        if row.kind in ("trial", "attempt", "report"):
            out.setdefault(row.sweep, History()).fold(row)
    return out


def _metrics(histories: Iterable[History]) -> list[str]:
    return sorted({m for h in histories for c in h.curves.values() for p in c.points.values() for m in p.metrics})


def _only_metric(histories: Iterable[History]) -> str:
    names = _metrics(histories)
    scores = [m for m in names if m.split("/")[0] not in ("train", "length", "perf")]
    if len(scores) != 1:
        raise InputError(f"which metric? {len(scores)} are scored: {', '.join(scores) or 'none'}; name one")
    return scores[0]


# --- recordings -------------------------------------------------------------------------------------------------------


def recorded(history: History, metric: str) -> tuple[list[Recording], list[ReportRow]]:
    """Returns the recordings of all trials in which `metric` was scored beyond step 0, and the shared base scores."""
    curves = [c for c in history.trials() if any(s > 0 and metric in p.metrics for s, p in c.points.items())]
    points = [p for curve in curves for step, p in curve.points.items() if step > 0]
    unit = next((u for u in ("gpu_s", "cpu_s") if all(p.cost.get(u, 0.0) > 0 for p in points)), "")
    recordings = [_recording(curve, unit) for curve in curves]
    shared = [_report(curve, curve.points[0]) for curve in history.base.values() if 0 in curve.points]
    return recordings, shared


def _recording(curve: Curve, unit: str) -> Recording:
    points = [curve.points[s] for s in sorted(curve.points) if s > 0]
    base = (_report(curve, curve.points[0]),) if 0 in curve.points else ()
    start = TrialRow("", curve.trial, budget=_budget(curve), config=curve.config)
    return Recording(curve.trial, start, tuple(_report(curve, p) for p in points), _seconds(points, unit), base)


def _budget(curve: Curve) -> int:
    """The budget as recorded, else as configured, else the last step."""
    steps = curve.config.get("steps")
    return curve.budget or (steps if isinstance(steps, int) and steps > 0 else curve.last_step)


def _report(curve: Curve, p: Point) -> ReportRow:
    return ReportRow(
        "",
        curve.trial,
        step=p.step,
        budget=_budget(curve) if p.step else None,
        metrics=p.metrics,
        se=p.se,
        n=p.n,
        invalid=p.invalid,
        suite=p.suite,
        cost=p.cost,
        progress=p.progress,
        inherited=p.inherited,
    )


def _seconds(points: Sequence[Point], unit: str) -> tuple[float, ...]:
    """Cost of the way to each point: from the cumulative cost of its attempt, where all trials have one; else 1 a step."""
    out, last, attempt, step = [], 0.0, -1, 0
    for p in points:
        total = p.cost.get(unit, 0.0)
        grown = total - last if p.attempt == attempt else total
        out.append(max(grown, 1e-9) if unit else float(p.step - step))
        last, attempt, step = total, p.attempt, p.step
    return tuple(out)


# --- judgement --------------------------------------------------------------------------------------------------------


def finals(history: History, goal: Goal) -> dict[str, float]:
    """Returns the last score of every trial that was recorded to its budget, signed so that larger is better.

    A trial that does not meet a constraint at its end, or of which that is not known, is left out, and so is one whose last
    score is not finite. Where trials are worth their best checkpoint, the scores are theirs, and one checkpoint that several are
    worth stands once.
    """
    if goal.at == "best":
        steps_of, stands = best_steps(history, goal), _who_stands(history, goal)
        ends = {t: history.curves[t].points[steps_of[t]].metrics[goal.metric] for t in stands if stands[t] == t}
        return {trial: goal.sign * value for trial, value in ends.items()}
    out = {}
    for curve in history.trials():
        steps = curve.steps(goal.metric)
        whole = steps and steps[-1] > 0 and curve.last_step >= _budget(curve)
        if whole and any(goal.metric in p.invalid for step, p in curve.points.items() if step > steps[-1]):
            continue  # it ended with a score that is not finite, and is not worth an earlier one
        if whole and all_met(goal.constraints, _last_scores(curve, goal), history.base_scores(curve.trial)):
            out[curve.trial] = goal.sign * curve.points[steps[-1]].metrics[goal.metric]
    return out


def best_steps(history: History, goal: Goal) -> dict[str, int]:
    """Returns the step of the best checkpoint of every trial, among those that meet all constraints."""
    out = {}
    for curve in history.trials():
        base = history.base_scores(curve.trial)
        steps = [
            s for s in curve.steps(goal.metric) if s > 0 and all_met(goal.constraints, curve.points[s].metrics, base)
        ]
        if steps:
            out[curve.trial] = max(steps, key=lambda s: goal.sign * curve.points[s].metrics[goal.metric])
    return out


def _who_stands(history: History, goal: Goal) -> dict[str, str]:
    """Returns, for every trial that was recorded to its budget, which one stands for its best checkpoint."""
    found = []
    for trial, step in best_steps(history, goal).items():
        curve, owner = history.curves[trial], history.trained_by(trial, step)
        if curve.last_step >= _budget(curve):
            found.append(Candidate(trial, (owner, step), owner == trial, _budget(curve)))
    return who_stands(found)


def _last_scores(curve: Curve, goal: Goal) -> dict[str, float]:
    """Returns the last score after step 0 of each metric that a constraint is on."""
    last = {c.metric: step for c in goal.constraints for step in curve.steps(c.metric)[-1:] if step > 0}
    return {metric: curve.points[step].metrics[metric] for metric, step in last.items()}


def winners(ends: Mapping[str, float], top: int) -> list[str]:
    """Returns the trials at places 1 to `top`, best first, with all that tie with the last of them."""
    order = sorted(ends, key=lambda t: -ends[t])
    return [t for t in order if ends[t] >= ends[order[min(top, len(order)) - 1]]]


def lost_winners(ends: Mapping[str, float], top: int, completed: Collection[str]) -> list[str]:
    """Returns the winners that are missing among the `completed`: at most `top`.

    Trials that tie for the last places stand in for each other: as many of them as there are places are needed, no matter
    which.
    """
    won = winners(ends, top)
    ahead = [t for t in won if ends[t] > ends[won[-1]]]
    tied = [t for t in won if t not in ahead]
    spare = len(won) - min(top, len(ends))
    return [t for t in ahead if t not in completed] + [t for t in tied if t not in completed][spare:]


def _judged(
    history: History, recordings: Sequence[Recording], outcomes: Sequence[Outcome], goal: Goal
) -> dict[str, Any]:
    ends = finals(history, goal)
    of = {r.trial: r for r in recordings}
    trials = {trial: _fate(of[trial], outcomes[0]) for trial in of}
    bests, stands = (best_steps(history, goal), _who_stands(history, goal)) if goal.at == "best" else ({}, {})
    losses = [lost_winners(ends, goal.top, _safe(ends, outcome, of, bests, stands)) for outcome in outcomes]
    lost_in = {
        trial: {
            "orders": count,
            "steps": [
                _fate(of[trial], o)["stopped_at"] for o, lost in zip(outcomes, losses, strict=True) if trial in lost
            ],
            "label": _label(of[trial], recordings),
            "final": goal.sign * ends[trial],
        }
        for trial, count in Counter(t for lost in losses for t in lost).most_common()
    }
    return {
        "trials": trials,
        "unfinished": sum((r.reports[-1].step or 0) < (r.start.budget or 0) for r in recordings if r.reports),
        "branches": sum(any(row.inherited for row in r.reports) for r in recordings),
        "compute_saved": sum(o.saved for o in outcomes) / len(outcomes),
        "places": min(goal.top, len(ends)),
        "winners": winners(ends, goal.top),
        "lost_winners": losses[0],
        "lost_in": lost_in,
        "orders": len(outcomes),
        "protection_cost": sum(sum(r.held for r in o.runs.values()) / o.full for o in outcomes) / len(outcomes),
        "compute": outcomes[0].full,
    }


def _safe(
    ends: Mapping[str, float],
    outcome: Outcome,
    of: Mapping[str, Recording],
    bests: Mapping[str, int],
    stands: Mapping[str, str],
) -> set[str]:
    """Returns the trials that lost nothing: run to their budget, or, where bests count, past their best checkpoint, themselves or
    by a trial for whose checkpoint they stand."""

    def reached(trial: str) -> int:
        done = outcome.runs[trial].done
        return of[trial].reports[done - 1].step or 0 if done else 0

    safe = {t for t in of if outcome.completed(t) or (t in bests and reached(t) >= bests[t])}
    return {t for t in ends if t in safe or any(stands.get(other) == t for other in safe)}


def _label(recording: Recording, among: Sequence[Recording]) -> str:
    """What distinguishes a trial: the settings that vary, else its id."""
    config = recording.start.config
    varied = [k for k in config if any(r.start.config.get(k) != config[k] for r in among)]
    return " ".join(f"{k}={config[k]}" for k in varied) or recording.trial


def _fate(recording: Recording, outcome: Outcome) -> dict[str, Any]:
    run = outcome.runs[recording.trial]
    v = run.verdict
    return {
        "stopped_at": None if outcome.completed(recording.trial) else recording.reports[run.done - 1].step,
        "paused": run.paused,
        "phase": str(v.phase) if v else "unknown",
        "reason": v.reason if v else "",
        "p_top": v.evidence.get("p_top") if v else None,
    }


def _summary(sweeps: dict[str, dict[str, Any]], goal: Goal, workers: int) -> dict[str, Any]:
    trials = [t for s in sweeps.values() for t in s["trials"].values()]
    winners = sum(s["places"] * s["orders"] for s in sweeps.values())
    lost = sum(loss["orders"] for s in sweeps.values() for loss in s["lost_in"].values())
    return {
        "metric": goal.metric,
        "goal": "maximize" if goal.maximize else "minimize",
        "top": goal.top,
        "places": max(s["places"] for s in sweeps.values()),
        "at": goal.at,
        "workers": workers,
        "sweeps": len(sweeps),
        "trials": len(trials),
        "unfinished": sum(s["unfinished"] for s in sweeps.values()),
        "branches": sum(s["branches"] for s in sweeps.values()),
        "completed": sum(t["stopped_at"] is None for t in trials),
        "paused": sum(t["paused"] for t in trials),
        "winners": winners,
        "lost_winners": lost,
        "lost_share": lost / winners if winners else None,
        "compute_saved": sum(s["compute_saved"] for s in sweeps.values()) / len(sweeps),
        "protection_cost": sum(s["protection_cost"] for s in sweeps.values()) / len(sweeps),
    }


# --- comparison -------------------------------------------------------------------------------------------------------


def compare(
    rows: Sequence[Row], rules: Sequence[str], *, experience: Mapping[str, Any] | None = None, **settings: Any
) -> list[dict[str, Any]]:
    """Replays several rules; returns one summary a rule, with `rule`, `lost` and `pareto` (no other saves more and loses less).

    Args:
        rows, settings: as for `replay`. `lost` is the `lost_in` of all sweeps.
        experience: where given, the dip-aware rules are replayed again with it, as `RULE with experience`.
    """
    return summaries_of(replay_all(rows, rules, experience=experience, **settings))


def replay_all(
    rows: Sequence[Row], rules: Sequence[str], *, experience: Mapping[str, Any] | None = None, **settings: Any
) -> list[dict[str, Any]]:
    """Replays several rules; returns what `replay` does for each. Arguments are those of `compare`."""
    with_it = [r for r in rules if experience and r.partition(":")[0] == "dip-aware"]
    return [
        *(replay(rows, rule, **settings) for rule in rules),
        *({**replay(rows, r, experience=experience, **settings), "rule": f"{r} with experience"} for r in with_it),
    ]


def summaries_of(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns one summary for each of what `replay` returned for the same rows, as `compare` does."""
    out = []
    for result in results:
        sweeps = result["sweeps"]
        lost = {f"{name}/{t}": loss for name, s in sweeps.items() for t, loss in s["lost_in"].items()}
        orders = max(s["orders"] for s in sweeps.values())
        out.append({"rule": result["rule"], **result["summary"], "orders": orders, "lost": lost})
    for row in out:
        row["pareto"] = not any(_better(other, row) for other in out)
    return out


def _better(a: dict[str, Any], b: dict[str, Any]) -> bool:
    x, y = (a["compute_saved"], -(a["lost_share"] or 0)), (b["compute_saved"], -(b["lost_share"] or 0))
    return x != y and x[0] >= y[0] and x[1] >= y[1]


def table(summaries: Sequence[dict[str, Any]]) -> str:
    """Returns a comparison as plain text, best savers first, with what its columns mean."""
    wide = max(len(s["rule"]) for s in summaries)
    lines = [f"{'rule':{wide}}  winners lost  compute saved  protection cost  best at its loss"]
    for s in sorted(summaries, key=lambda s: -s["compute_saved"]):
        lost = f"{s['lost_winners']}/{s['winners']}"
        lines.append(
            f"{s['rule']:{wide}}  {lost:>12}  {s['compute_saved']:13.1%}  {s['protection_cost']:15.1%}"
            f"  {'yes' if s['pareto'] else 'no'}"
        )
    return "\n".join(
        [*lines, *(line for s in summaries for line in _losses(s)), *_spared(summaries), "", *_legend(summaries[0])]
    )


def _losses(summary: dict[str, Any]) -> list[str]:
    """Which winners a rule would have ended, and when; of many sweeps the table says enough."""
    if summary["sweeps"] > 1:
        return []
    said, own = [], "at its best checkpoint" if summary["at"] == "best" else "at its own end"
    for loss in summary["lost"].values():
        steps = sorted({str(s) for s in loss["steps"]}, key=int)
        when = f" in {loss['orders']} of {summary['orders']} orders of start" if summary["orders"] > 1 else ""
        said.append(
            f"{summary['rule']} would have ended {loss['label']} at step {' or '.join(steps)}{when}; "
            f"{own} it scored {loss['final']:.2f}, among the best {summary['places']}"
        )
    return said


def _spared(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Which rules would have ended no winner; of many sweeps the table says enough."""
    rules = [s["rule"] for s in summaries if s["sweeps"] == 1 and s["winners"] and not s["lost"]]
    if not rules:
        return []
    first = summaries[0]
    orders = f" in any of {first['orders']} orders of start" if first["orders"] > 1 else ""
    *others, last = rules
    named = f"{', '.join(others)} and {last}" if others else last
    what = "lost none" if first["at"] == "best" else "ended none"  # after its best checkpoint a trial may be ended
    return [f"{named} would have {what} of the best {first['places']}{orders}"]


def _legend(summary: dict[str, Any]) -> list[str]:
    times = ", counted once for each order of start" if summary["orders"] > 1 else ""
    best = f"the best {summary['places']} by {summary['metric']}{times}"
    end = "best checkpoint" if summary["at"] == "best" else "end"
    cut = (
        f"{summary['unfinished']} of the {summary['trials']} recorded runs were ended before their last step themselves: what "
        "their rest would have taken is in none of these shares, and none of them counts as a winner, whichever rule ends it"
    )
    shared = (
        f"{summary['branches']} of the {summary['trials']} recorded runs are branches of others: every rule sees each of "
        "them from step 0, by its trunk's scores up to the fork, and the steps that they share count for each"
    )
    return [
        *([cut] if summary["unfinished"] else []),
        *([shared] if summary["branches"] else []),
        f"winners lost: of {best}, those that the rule would not have run to their {end}"
        if summary["winners"]
        else "winners lost: none of these runs came to its last step as the sweep's question asks, so there is none to lose",
        "compute saved: share of what these runs took that the rule would not have spent",
        "protection cost: share spent only because a dip was protected that the odds would have ended",
        "best at its loss: no other rule here saves as much and loses as few",
    ]


def comparison_page(summaries: Sequence[dict[str, Any]]) -> str:
    """Returns a self-contained HTML page: winners lost against compute saved, one point a rule, and the table below."""
    return pareto_page(summaries, table(summaries))
