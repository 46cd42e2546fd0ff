"""The report's first sentence, and what a reader has to know before believing the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from sweeps.report.analysis.evidence import Evidence
from sweeps.report.analysis.findings import Summary, Trial
from sweeps.report.analysis.shape import Shape
from sweeps.report.analysis.wording import of, plural, score

ENDED = ("completed", "pruned", "failed", "parked")


def headline(summary: Summary) -> str:
    """Returns one or two sentences: how the curves went, and which trial came out best."""
    if not summary.trials:
        return "The journal holds no trials yet."
    return f"{_dips(summary)} {_best(summary)}"


def dip_metric(summary: Summary) -> str | None:
    """The metric whose dips the headline tells: of transfer, general and objective, the one with most recoveries."""
    counts = {m: _shapes(summary.trials, m) for m in ("transfer/score", "general/score", summary.objective)}
    scored = {m: c for m, c in counts.items() if c.total()}
    return max(scored, key=lambda m: (scored[m][Shape.RECOVERED], scored[m][Shape.NEVER]), default=None)


def _shapes(trials: Sequence[Trial], metric: str) -> Counter[Shape]:
    return Counter(t.readings[metric].shape for t in trials if metric in t.readings)


def _dips(summary: Summary) -> str:
    metric = dip_metric(summary)
    if metric is None:
        return f"{plural(len(summary.trials), 'trial')}, none scored after step 0 yet."
    shapes = _shapes(summary.trials, metric)
    told = {
        Shape.RECOVERED: "came back",
        Shape.NEVER: "never did",
        Shape.LATE_DECLINE: "declined late",
        Shape.NOT_YET: "had not when last scored",
    }
    fell = sum(shapes[shape] for shape in told)
    if not fell:
        return f"No dip on {metric} in {plural(shapes.total(), 'scored trial')}."
    parts = [f"{shapes[shape]} {words}" for shape, words in told.items() if shapes[shape]]
    return f"{of(fell, shapes.total())} fell on {metric}: {', '.join(parts)}."


def _best(summary: Summary) -> str:
    if summary.best:
        best = summary.trial(summary.best[0])
        base = summary.bases.get(str(best.config.get("model", "")), {}).get(summary.objective)
        against = f", base {score(base)}" if base is not None else ""
        tie = ""
        if summary.tied:
            tie = f"; {plural(len(summary.tied), 'other')} within 2 s.e. of it"
        return f"Best by {summary.objective}: {best.label} at {score(best.objective)}{against}{tie}."
    done = [t for t in summary.trials if t.state == "completed"]
    if not done:
        open_ = sum(t.state not in ENDED for t in summary.trials)
        return f"No trial is complete yet; {open_} still open." if open_ else "No trial ran to its budget."
    if all(t.objective is None for t in done):
        return f"No completed trial was scored on the objective {summary.objective}."
    return f"None of {plural(len(done), 'completed trial')} meets all constraints."


def notes(evidence: Evidence, summary: Summary) -> Iterator[str]:
    """Yields one sentence for each thing that limits what the numbers can carry."""
    if evidence.history.sweep is None:
        yield "The journal has no sweep row: objective, axes and constraints are guessed from the trials."
    missing = sorted({str(t.config.get("model", "")) for t in summary.trials} - set(summary.bases))
    if missing and summary.trials:
        yield f"No score of the base model for {', '.join(missing)}: dips of its trials cannot be judged."
    if evidence.other_suite:
        yield (
            f"{plural(evidence.other_suite, 'score row')} of another suite than {evidence.suite} left out: "
            "scores of two suites do not belong on one curve."
        )
    for reason in evidence.interrupts[-1:]:
        yield f"Interrupted {plural(len(evidence.interrupts), 'time')}, last for: {reason}."
    waiting = sum(t.evals_open for t in summary.trials)
    if waiting:
        yield f"{plural(waiting, 'checkpoint')} not scored yet: curves and classes may change."
    failed = sum(len(t.evals_failed) for t in summary.trials)
    if failed:
        yield f"{plural(failed, 'evaluation')} failed; those points are missing."
    skipped = sum(len(t.evals_skipped) for t in summary.trials)
    if skipped:
        yield (
            f"{plural(skipped, 'checkpoint')} between others left unscored, because the evaluators could not keep up: "
            "more of them (evaluation.workers), or a larger evaluation.backlog, would score all."
        )
    early = [sizes for t in summary.trials for sizes in t.evals_early]
    if early:
        unasked, of = sum(of - asked for _, asked, of in early), sum(of for *_, of in early)
        yield (
            f"{plural(len(early), 'evaluation')} ended early (evaluation.stop_early), the checkpoint being out of the "
            f"running: {unasked:,} of {of:,} items were not asked. Those points have the errors of the items asked, "
            "and lean to the bad side."
        )
    invalid = sum(len(t.invalid) for t in summary.trials)
    if invalid:
        yield f"{plural(invalid, 'number')} came out not finite and are shown as missing."
    short = sum(t.objective is not None and t.objective.step < (t.budget or 0) for t in summary.trials if t.rank)
    if short:
        yield f"{plural(short, 'ranked trial')} without a score at the last step: the last one there is stands for it."
    readings = [r for t in summary.trials for r in t.readings.values() if r.final is not None]
    if any(r.final is not None and r.final.se is None for r in readings):
        yield "Some scores came without a standard error: their dips are judged by size alone."
    done = [t for t in summary.trials if t.state == "completed"]
    if done and all(g.seeds <= 1 for g in summary.groups):
        yield "Single seed: no setting was trained twice, so differences between settings include training luck."
