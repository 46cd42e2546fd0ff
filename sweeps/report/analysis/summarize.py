"""Journal rows in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sweeps.config.objective import Goal, all_met
from sweeps.journal.history import ENDED, Curve
from sweeps.journal.notes import tags_of
from sweeps.journal.reader import no_collector
from sweeps.journal.rows import BASE_PREFIX, NoteRow, Row
from sweeps.report.analysis.best_checkpoint import best_checkpoint, path_of
from sweeps.report.analysis.comparisons.conditions import contrasts, groups
from sweeps.report.analysis.conclusions.answer import answer, headline, notes
from sweeps.report.analysis.conclusions.outcome import sweep_verdict
from sweeps.report.analysis.costs.totals import costs
from sweeps.report.analysis.definition import axes_of, check, goal_of, meets, scaled_of, varying_of
from sweeps.report.analysis.findings.axes import Axis
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.findings.trials import Picked, Spent, Trial, UserNote
from sweeps.report.analysis.journal_summary import JournalSummary, TrialExtras
from sweeps.report.analysis.shape import Measured
from sweeps.report.analysis.study import Study
from sweeps.report.analysis.wording import label
from sweeps.statistics import wander


def summarize(rows: Iterable[Row]) -> Summary:
    """Reads a sweep's journal and returns what can be said of it.

    Rows may be partial, late, doubled or missing: what was not measured stays unknown, and `Summary.notes` says so. Every
    comparison is made first; then one error level is set for all of them, and everything that is said keeps to it.

    Args:
        rows: the journal, in its order.

    Example:
        >>> from sweeps.journal.writer import read_rows
        >>> print(summarize(read_rows(Path("runs/tiers-1a2b3c4d"))).headline)
    """
    with no_collector():
        return _summary(JournalSummary(rows))


def _summary(journal: JournalSummary) -> Summary:
    spec = journal.head.spec
    goal = goal_of(spec)
    curves = list(journal.history.trials())
    axes = axes_of(spec, curves)
    bases = _bases(journal)
    varying = [v for v in varying_of(curves) if v != "seed"]
    joined = [_joined(journal, curve) for curve in curves]
    picks = _picks(journal, curves, joined, goal, bases)
    trials = [
        _trial(journal, curve, scores, picked, goal=goal, axes=axes, varying=varying, bases=bases)
        for curve, scores, picked in zip(curves, joined, picks, strict=True)
    ]
    study = Study(journal, goal, trials, axes, scaled_of(spec, curves), bases)
    trials = study.trials_with_ranks()
    by_id = {t.id: t for t in trials}
    best = study.examples(by_id)
    rivals = study.rivals(best, by_id)
    base_scoring = sum((journal.scoring(t) for t in journal.history.base), Spent())
    summary = Summary(
        sweep=journal.sweep_id(),
        name=journal.head.name or journal.sweep_id() or "sweep",
        version=str(journal.head.version or ""),
        seq=journal.seq,
        planned=journal.head.trials,
        headline="",
        suite=journal.suite,
        objective=goal.metric,
        goal="maximize" if goal.maximize else "minimize",
        top=goal.top,
        axes=axes,
        panels=study.panels,
        bases=bases,
        trials=tuple(trials),
        best=best,
        tied=study.tied(best),
        groups=groups(trials, axes, study.panels, bases, goal.top),
        contrasts=contrasts(trials, axes, study.panels, study.level),
        costs=costs(trials, base_scoring, journal.sweep.start_ups.read()),
        notes=(),
        spec=dict(spec),
        rivals=rivals,
        settings=study.settings,
        rivalries=study.rivalries,
        corrected=study.corrected,
        effects=study.effects,
        importances=study.importances,
        verdict=sweep_verdict(study.settings, goal.metric, study.importances),
        comparisons=study.level.comparisons,
        threshold=study.level.threshold,
        at=goal.at,
        predicted=dict(journal.head.predicted.get("device_seconds", {})),
        spread={m: s.variance**0.5 for m, s in study.spread.items()},
        tiers=tuple(journal.sweep.tiers.values()),
    )
    summary = replace(summary, notes=tuple(notes(journal, summary)))
    findings = tuple(answer(summary))
    return replace(summary, answer=findings, headline=headline(findings))


def with_driver_note(summary: Summary, hint: str) -> Summary:
    """Returns the summary of a sweep that has neither ended nor a driver, or a suspended one, with that as its first note.

    Args:
        hint: `no driver since …; dipsweep resume ID goes on` (`sweeps.journal.lease.DriverState.message`).
    """
    return replace(summary, notes=(f"This sweep has not ended: {hint}.", *summary.notes))


def with_notes(summary: Summary, notes: Sequence[NoteRow]) -> Summary:
    """Returns the summary with what people wrote on the sweep and its trials, their tags among them."""
    if not notes:
        return summary
    written = tuple(UserNote(n.trial, n.text, n.who, n.when) for n in notes if n.text)
    trials = tuple(replace(t, tags=tags_of(notes, t.id)) for t in summary.trials)
    return replace(summary, trials=trials, user_notes=written, tags=tags_of(notes))


def _bases(journal: JournalSummary) -> dict[str, dict[str, Measured]]:
    """Step-0 scores by model: the shared row, else a trial's own step 0."""
    bases: dict[str, dict[str, Measured]] = {}
    for curve in journal.history.base.values():
        if 0 in curve.points:
            bases[curve.trial.removeprefix(BASE_PREFIX)] = _scores(curve, 0)
    for curve in journal.history.trials():
        if curve.model not in bases and 0 in curve.points and curve.points[0].metrics:
            bases[curve.model] = _scores(curve, 0)
    return bases


def _scores(curve: Curve, step: int) -> dict[str, Measured]:
    point = curve.points[step]
    return {m: Measured(step, v, point.se.get(m), point.n.get(m)) for m, v in point.metrics.items()}


def _trial(
    journal: JournalSummary,
    curve: Curve,
    curves: Mapping[str, tuple[Measured, ...]],
    picked: Picked | None,
    *,
    goal: Goal,
    axes: Sequence[Axis],
    varying: Sequence[str],
    bases: Mapping[str, Mapping[str, Measured]],
) -> Trial:
    extras = journal.extras_of(curve.trial)
    base = bases.get(curve.model, {})
    state = journal.state(curve)
    at = picked.step if picked is not None else None
    objective = picked.score if picked is not None else _at(curves, goal.metric, None)
    checks = tuple(check(c, _value(_at(curves, c.metric, at)), _value(base.get(c.metric))) for c in goal.constraints)
    fork = journal.fork_step(curve.trial) if journal.parent(curve.trial) is not None else None
    steps = max(_steps_run(curve), fork or 0)
    return Trial(
        id=curve.trial,
        label=label(curve.config, axes, varying, curve.trial),
        config=dict(curve.config),
        state=state,
        reason=journal.reason(curve),
        phase=curve.phase,
        budget=curve.budget,
        steps_run=steps,
        own_steps=steps - (fork or 0),
        attempts=curve.attempt,
        parent=journal.parent(curve.trial),
        fork_step=fork,
        curves=curves,
        readings={},
        invalid=_invalid(curve),
        evals_open=0 if state in ENDED else len(extras.waiting),
        evals_failed=_eval_failures(extras),
        evals_skipped=tuple(sorted(extras.skipped - set(extras.answers))),
        evals_early=tuple((step, *sizes) for step, sizes in sorted(extras.cut_short.items())),
        training=journal.training(curve.trial),
        scoring=journal.scoring(curve.trial),
        objective=objective,
        checks=checks,
        meets=meets(checks),
        decisions=tuple(extras.decisions),
        picked=picked,
        runs=journal.runs(curve),
    )


def _at(curves: Mapping[str, tuple[Measured, ...]], metric: str, step: int | None) -> Measured | None:
    """Returns a score at a step; the last one where none is given."""
    points = curves.get(metric, ())
    return next((p for p in reversed(points) if step in (None, p.step)), None)


def _picks(
    journal: JournalSummary,
    curves: Sequence[Curve],
    joined: Sequence[Mapping[str, tuple[Measured, ...]]],
    goal: Goal,
    bases: Mapping[str, Mapping[str, Measured]],
) -> list[Picked | None]:
    """Returns each trial's best checkpoint, where trials are worth theirs: of those that meet all constraints, if any do."""
    if goal.at != "best":
        return [None] * len(curves)
    wandering = wander([path_of(scores.get(goal.metric, ()), goal.sign) for scores in joined])
    found: list[Picked | None] = []
    for curve, scores in zip(curves, joined, strict=True):
        base, points = bases.get(curve.model, {}), scores.get(goal.metric, ())
        if not points:
            found.append(None)
            continue
        at_base = {metric: measured.value for metric, measured in base.items()}
        constrained = {c.metric: scores.get(c.metric, ()) for c in goal.constraints}
        fine = [p for p in points if all_met(goal.constraints, _values_at(constrained, p.step), at_base)]
        answers = {p.step: journal.answers(curve.trial, p.step) for p in points}
        kept = {s: o for s, a in answers.items() if a is not None and (o := a.of(goal.metric)) is not None}
        picked = best_checkpoint(goal.metric, fine or points, kept, sign=goal.sign, wandering=wandering)
        found.append(replace(picked, trained_by=journal.trained_by(curve.trial, picked.step)))
    return found


def _values_at(scores: Mapping[str, tuple[Measured, ...]], step: int) -> dict[str, float]:
    return {metric: found.value for metric in scores if (found := _at(scores, metric, step)) is not None}


def _value(point: Measured | None) -> float | None:
    return None if point is None else point.value


def _joined(journal: JournalSummary, curve: Curve) -> dict[str, tuple[Measured, ...]]:
    """Each metric's scores after step 0: the parents' up to the fork, then the trial's own."""
    columns: dict[str, list[Measured]] = {}
    line = journal.line(curve.trial)
    for i, part in enumerate(line):
        start = journal.fork_step(part.trial) or 0
        end = journal.fork_step(line[i + 1].trial) if i + 1 < len(line) else None
        for step in sorted(part.points):
            if step <= 0 or step <= start or (end is not None and step > end):
                continue
            point = part.points[step]
            for m, value in point.metrics.items():
                columns.setdefault(m, []).append(Measured(step, value, point.se.get(m), point.n.get(m)))
    return {m: tuple(columns[m]) for m in sorted(columns)}


def _steps_run(curve: Curve) -> int:
    return max(curve.stopped_at or 0, curve.last_step)


def _invalid(curve: Curve) -> tuple[str, ...]:
    return tuple(
        f"{metric}@{step} = {text}"
        for step in sorted(curve.points)
        for metric, text in curve.points[step].invalid.items()
    )


def _eval_failures(extras: TrialExtras) -> tuple[str, ...]:
    failures = sorted(extras.eval_reasons.items(), key=lambda item: item[0] or 0)
    return tuple(f"step {step}: {reason}" for step, reason in failures)
