"""Journal rows in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sweeps.journal.history import ENDED, Curve
from sweeps.journal.rows import BASE_PREFIX, JUDGED_ROLES, Row
from sweeps.report.analysis.conditions import contrasts, groups
from sweeps.report.analysis.costs import costs
from sweeps.report.analysis.definition import axes_of, goal_of, varying_of
from sweeps.report.analysis.evidence import Aside, Evidence
from sweeps.report.analysis.findings import Axis, Check, Spent, Summary, Trial
from sweeps.report.analysis.headline import headline, notes
from sweeps.report.analysis.pairing import with_pairs
from sweeps.report.analysis.shape import Measured, Reading, difference_se, read_shape
from sweeps.report.analysis.wording import IN_DOMAIN, SAFETY, label
from sweeps.stopping.base import Constraint, Goal

LESS_IS_BETTER = ("over_refusal", "asr", "loss", "perplexity")
PANELS = (IN_DOMAIN, "transfer/score", "general/score", SAFETY)


def summarize(rows: Iterable[Row]) -> Summary:
    """Reads a sweep's journal and returns what can be said of it.

    Rows may be partial, late, doubled or missing: what was not measured stays unknown, and `Summary.notes` says so.

    Args:
        rows: the journal, in its order.

    Example:
        >>> from sweeps.journal.writer import read_rows
        >>> print(summarize(read_rows(Path("runs/tiers-1a2b3c4d"))).headline)
    """
    evidence = Evidence(rows)
    goal = goal_of(evidence.head.get("spec", {}))
    curves = list(evidence.history.trials())
    axes = axes_of(evidence.head.get("spec", {}), curves)
    bases = _bases(evidence)
    varying = varying_of(curves)
    trials = [_trial(evidence, curve, goal, axes, varying, bases) for curve in curves]
    ranked = _ranked(trials, goal)
    panels = _panels(trials, goal)
    base_scoring = sum((evidence.scoring(t) for t in evidence.history.base), Spent())
    summary = Summary(
        sweep=evidence.sweep_id(),
        name=str(evidence.head.get("name", "")) or evidence.sweep_id() or "sweep",
        version=str(evidence.head.get("version", "")),
        seq=evidence.seq,
        planned=evidence.head.get("trials"),
        headline="",
        suite=evidence.suite,
        objective=goal.metric,
        goal="maximize" if goal.maximize else "minimize",
        top=goal.top,
        axes=axes,
        panels=panels,
        bases=bases,
        trials=tuple(replace(t, rank=ranked.index(t.id) + 1 if t.id in ranked else None) for t in trials),
        best=tuple(ranked[: goal.top]),
        tied=_tied(trials, ranked),
        groups=groups(trials, axes, panels),
        contrasts=contrasts(trials, axes, panels),
        costs=costs(trials, base_scoring),
        notes=(),
        spec=dict(evidence.head.get("spec", {})),
    )
    summary = with_pairs(summary, evidence.answers)
    summary = replace(summary, notes=tuple(notes(evidence, summary)))
    return replace(summary, headline=headline(summary))


def with_driver_note(summary: Summary, hint: str) -> Summary:
    """Returns the summary of a sweep that has not ended and that nobody drives, with that as its first note.

    Args:
        hint: `no driver since …; dipsweep resume ID goes on` (`sweeps.journal.lease.DriverState.message`).
    """
    return replace(summary, notes=(f"This sweep has not ended: {hint}.", *summary.notes))


def _bases(evidence: Evidence) -> dict[str, dict[str, Measured]]:
    """Step-0 scores by model: the shared row, else a trial's own step 0."""
    bases: dict[str, dict[str, Measured]] = {}
    for curve in evidence.history.base.values():
        if 0 in curve.points:
            bases[curve.trial.removeprefix(BASE_PREFIX)] = _scores(curve, 0)
    for curve in evidence.history.trials():
        if curve.model not in bases and 0 in curve.points and curve.points[0].metrics:
            bases[curve.model] = _scores(curve, 0)
    return bases


def _scores(curve: Curve, step: int) -> dict[str, Measured]:
    point = curve.points[step]
    return {m: Measured(step, v, point.se.get(m), point.n.get(m)) for m, v in point.metrics.items()}


def _trial(
    evidence: Evidence,
    curve: Curve,
    goal: Goal,
    axes: Sequence[Axis],
    varying: Sequence[str],
    bases: Mapping[str, Mapping[str, Measured]],
) -> Trial:
    aside = evidence.aside(curve.trial)
    curves = _joined(evidence, curve)
    base = bases.get(curve.model, {})
    state = evidence.state(curve)
    readings = _readings(curves, base, goal, whole=state in ("completed", "scoring"))
    objective = readings[goal.metric].final if goal.metric in readings else None
    checks = tuple(_check(c, curves, base) for c in goal.constraints)
    fork = aside.fork_step if aside.parent is not None else None
    steps = max(_steps_run(curve), fork or 0)
    return Trial(
        id=curve.trial,
        label=label(curve.config, axes, varying, curve.trial),
        config=dict(curve.config),
        state=state,
        reason=evidence.reason(curve),
        phase=curve.phase,
        budget=curve.budget,
        steps_run=steps,
        own_steps=steps - (fork or 0),
        attempts=curve.attempt,
        parent=aside.parent,
        fork_step=fork,
        curves=curves,
        readings=readings,
        invalid=_invalid(curve),
        evals_open=0 if state in ENDED else len(aside.waiting),
        evals_failed=_eval_failures(aside),
        evals_skipped=tuple(sorted(aside.skipped - set(aside.answers))),
        evals_early=tuple((step, *sizes) for step, sizes in sorted(aside.cut_short.items())),
        training=evidence.training(curve.trial),
        scoring=evidence.scoring(curve.trial),
        objective=objective,
        checks=checks,
        meets=_meets(checks),
    )


def _joined(evidence: Evidence, curve: Curve) -> dict[str, tuple[Measured, ...]]:
    """Each metric's scores after step 0: the parents' up to the fork, then the trial's own."""
    columns: dict[str, dict[int, Measured]] = {}
    line = evidence.line(curve.trial)
    for i, part in enumerate(line):
        start = evidence.aside(part.trial).fork_step or 0
        end = evidence.aside(line[i + 1].trial).fork_step if i + 1 < len(line) else None
        for step in sorted(part.points):
            if step <= 0 or step <= start or (end is not None and step > end):
                continue
            for metric, score in _scores(part, step).items():
                columns.setdefault(metric, {})[step] = score
    return {m: tuple(c[s] for s in sorted(c)) for m, c in sorted(columns.items())}


def _readings(
    curves: Mapping[str, tuple[Measured, ...]], base: Mapping[str, Measured], goal: Goal, whole: bool
) -> dict[str, Reading]:
    judged = [m for m in curves if m.split("/")[0] in JUDGED_ROLES or m == goal.metric]
    return {m: read_shape(m, curves[m], base.get(m), sign=_sign(m, goal), whole=whole) for m in judged}


def _sign(metric: str, goal: Goal) -> float:
    if metric == goal.metric:
        return goal.sign
    name = metric.split("/", 1)[1].split("@")[0].split(",")[0]
    return -1.0 if name in LESS_IS_BETTER else 1.0


def _check(c: Constraint, curves: Mapping[str, tuple[Measured, ...]], base: Mapping[str, Measured]) -> Check:
    value = curves[c.metric][-1].value if c.metric in curves else None
    start = base[c.metric].value if c.metric in base else None
    if c.at_least is not None:
        return Check(c.metric, f"at least {c.at_least:g}", value, None if value is None else value >= c.at_least)
    if c.at_most is not None:
        return Check(c.metric, f"at most {c.at_most:g}", value, None if value is None else value <= c.at_most)
    allowed = c.relative_to_base or 0.0
    rule = f"base {allowed:+g} or better"
    return Check(c.metric, rule, value, None if value is None or start is None else value >= start + allowed)


def _meets(checks: Sequence[Check]) -> bool | None:
    if any(c.met is False for c in checks):
        return False
    return None if any(c.met is None for c in checks) else True


def _steps_run(curve: Curve) -> int:
    return max(curve.stopped_at or 0, curve.last_step)


def _invalid(curve: Curve) -> tuple[str, ...]:
    return tuple(
        f"{metric}@{step} = {text}"
        for step in sorted(curve.points)
        for metric, text in curve.points[step].invalid.items()
    )


def _eval_failures(aside: Aside) -> tuple[str, ...]:
    failures = sorted(aside.eval_reasons.items(), key=lambda item: item[0] or 0)
    return tuple(f"step {step}: {reason}" for step, reason in failures)


def _ranked(trials: Sequence[Trial], goal: Goal) -> list[str]:
    """Completed trials that meet every constraint, best first; equal ones in order of appearance."""
    scored = [(t.objective.value, t.id) for t in trials if t.state == "completed" and t.meets and t.objective]
    return [id for value, id in sorted(scored, key=lambda pair: -goal.sign * pair[0])]


def _tied(trials: Sequence[Trial], ranked: Sequence[str]) -> tuple[str, ...]:
    """Ranked trials that 2 standard errors do not tell from the first one, the first not among them."""
    by_id = {t.id: t.objective for t in trials}
    if not ranked or (first := by_id[ranked[0]]) is None:
        return ()
    tied = []
    for id in ranked[1:]:
        other = by_id[id]
        error = difference_se(first, other) if other is not None else None
        if other is not None and error is not None and abs(first.value - other.value) <= 2 * error:
            tied.append(id)
    return tuple(tied)


def _panels(trials: Sequence[Trial], goal: Goal) -> tuple[str, ...]:
    """One metric a role, where anything was scored on it; the objective too when it is none of them."""
    seen = dict.fromkeys(m for t in trials for m in t.curves)
    panels = [m for m in PANELS if m in seen]
    if IN_DOMAIN not in seen and "math/score" in seen:
        panels.insert(0, "math/score")
    for role in JUDGED_ROLES:
        if not any(p.startswith(f"{role}/") for p in panels):
            panels += [m for m in seen if m.startswith(f"{role}/")][:1]
    return tuple(dict.fromkeys([*panels, *([goal.metric] if goal.metric in seen else [])]))
