"""The report's first screen: at most six sentences with their numbers, and notes on what limits the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sweeps.journal.silent_base import silence
from sweeps.report.analysis.conclusions.verdicts import (
    ENDS_ITS_REPLIES,
    TRUNCATED,
    heading,
    items_needed,
    seeds_needed,
    span,
)
from sweeps.report.analysis.findings.settings import Finding, Kind, Setting, SettingMetric
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.findings.trials import Spent
from sweeps.report.analysis.inference import Difference, Level
from sweeps.report.analysis.journal_summary import JournalSummary
from sweeps.report.analysis.wording import SAFETY, number, of, percent, plural, score, seconds, spent

ENDED: Final = ("completed", "pruned", "failed", "paused")
OVER_REFUSAL: Final = "safety/over_refusal"
MOST_SHARING: Final = 3
"""Settings that are named one by one for sharing their best checkpoint with another."""


def headline(findings: Sequence[Finding]) -> str:
    """Returns the answer in short: the first sentence, and how the other settings went."""
    return " ".join(f.sentence for f in findings if f.about in ("state", "best", "settings"))


def console_lines(summary: Summary) -> list[str]:
    """Returns the answer as the last lines that a run prints, one sentence a line."""
    return [f.sentence for f in summary.answer]


def answer(summary: Summary) -> Iterator[Finding]:
    """Yields what a reader wants to know first, about the best setting where there is one."""
    if not summary.trials:
        yield Finding("state", "The journal holds no trials yet.", {"trials": 0})
        return
    best = next(iter(summary.ranked()), None)
    yield _no_best(summary) if best is None else _best(summary, best)
    yield _settings(summary)
    if best is not None:
        yield _long_enough(summary, best)
        yield from _safety(summary, best)
        yield from _ties(summary, best)
    yield _cost(summary)


def counts_at(summary: Summary) -> str:
    """Which of a trial's scores its setting is judged by."""
    return "at its best checkpoint" if summary.at == "best" else "at its end"


def progress(summary: Summary) -> str:
    """The sweep's progress in a few words."""
    open_ = sum(t.state not in ENDED for t in summary.trials)
    return progress_of_counts(len(summary.trials), open_, summary.planned)


def progress_of_counts(trials: int, still_open: int, planned: int | None) -> str:
    """A sweep's progress in a few words: `2 trials still open, 4 not started`, `ended`."""
    to_come = (planned or 0) - trials
    parts = [
        f"{plural(still_open, 'trial')} still open" if still_open else "",
        f"{to_come} not started" if to_come > 0 else "",
    ]
    return ", ".join(p for p in parts if p) or ("ended" if trials else "no trials yet")


def _no_best(summary: Summary) -> Finding:
    done = [
        s for s in summary.settings if s.whole or (summary.at == "best" and s.ended and summary.objective in s.metrics)
    ]
    open_ = sum(t.state not in ENDED for t in summary.trials)
    numbers = {"trials": len(summary.trials), "open": open_, "whole": len(done)}
    scored = [s for s in done if summary.objective in s.metrics]
    if not done:
        states = Counter(t.state for t in summary.trials)
        told = ", ".join(f"{n} {state}" for state, n in states.most_common())
        what = f"{open_} still open" if open_ else told
        text = f"No trial is complete yet; {what}." if open_ else f"No trial ran to its budget: {what}."
    elif not scored:
        text = f"No completed trial was scored on the objective {summary.objective}."
    elif fit := [s for s in scored if s.meets]:
        which = "" if len(fit) == len(scored) else " that meets all constraints"
        text = f"Every completed trial{which} scores 0 on {summary.objective}, so no best is named."
    elif unknown := [c for s in scored if s.meets is None for c in s.checks if c.met is None]:
        which = ", ".join(dict.fromkeys(f"{c.metric} {c.rule}" for c in unknown))
        text = (
            f"No best is named: of {plural(len(done), 'completed setting')} none is known to meet all constraints; without a "
            f"score of it, or of the base model, nobody knows of {which}."
        )
    else:
        text = (
            f"None of {len(done)} completed settings meets all constraints."
            if len(done) > 1
            else "The one completed setting does not meet all constraints."
        )
    return Finding("state", text, numbers)


def _best(summary: Summary, best: Setting) -> Finding:
    m = best.metrics[summary.objective]
    numbers: dict[str, Any] = {"setting": best.id, "trials": list(best.counted), **_numbers(m)}
    of = plural(m.of, "checkpoint")
    chosen = f", each seed at its best of {of}" if m.runs > 1 else f" at step {m.step:,}, the best of {of}"
    reached = f"{chosen}, is worth" if m.of else " ends at"
    text = f"Best by {summary.objective}: {best.label}{reached} {_value(m)}"
    if m.base is None:
        text += ", its base was not scored"
    elif m.change is None:
        text += f", its base at {score(m.base)}"
    else:
        better = m.change.turned(m.sign)
        words = ("above", "below") if m.sign > 0 else ("better than", "worse than")  # where less is better
        word = words[0] if better.rose else words[1] if better.fell else "not told from"
        low, high = number(m.change.low, signed=True), number(m.change.high, signed=True)
        text += f", {word} its base's {score(m.base)} ({number(m.change.value, signed=True)}, 95 % {low} to {high})"
        numbers["beat_base"] = _beats(best, summary.objective)
        if not any(_beats(s, summary.objective) for s in summary.ranked()):
            text += "; no setting beat its base"
    if summary.corrected is not None and len(summary.ranked()) > 1:
        value, low, high = map(number, summary.corrected)
        text += f"; corrected for being the best of {len(summary.ranked())}: {value} (95 % {low} to {high})"
        numbers["corrected"] = list(summary.corrected)
    return Finding("best", f"{text}.", numbers)


def _beats(s: Setting, metric: str) -> bool:
    m = s.metrics[metric]
    return m.change is not None and m.change.turned(m.sign).rose


def _value(m: SettingMetric) -> str:
    """`0.83 ± 0.02 over 200 items, ± 0.01 over 3 seeds`."""
    items = "" if m.items_se is None else f" ± {number(m.items_se)} over {'its' if m.n is None else f'{m.n:,}'} items"
    seeds = ", one seed" if m.seeds_se is None else f", ± {number(m.seeds_se)} over {m.runs} seeds"
    return f"{number(m.value)}{items}{seeds}"


def _numbers(m: SettingMetric) -> dict[str, Any]:
    numbers = {
        "value": m.value,
        "items_se": m.items_se,
        "seeds_se": m.seeds_se,
        "runs": m.runs,
        "n": m.n,
        "step": m.step,
    }
    return {**numbers, "base": m.base.value if m.base else None, **_change(m.change)}


def _change(d: Difference | None) -> dict[str, Any]:
    return {} if d is None else {"change": d.value, "low": d.low, "high": d.high, "p": d.p, "q": d.q}


def _settings(summary: Summary) -> Finding:
    """How the sweep went as a whole."""
    if summary.verdict is None:
        return Finding("settings", "Nothing was scored on the objective after step 0 yet.", {})
    return Finding(
        "settings", summary.verdict.sentence, {"outcome": summary.verdict.outcome.value, **summary.verdict.evidence}
    )


def _long_enough(summary: Summary, best: Setting) -> Finding:
    """Of the best: was it long enough, and what limits it."""
    m = best.metrics[summary.objective]
    limit = [v for v in best.verdicts[1:] if v.kind in (Kind.DATA_LIMITED, Kind.CAPACITY_LIMITED)]
    what = "; ".join(f"{v.kind.value}: {v.sentence.partition(': ')[2].rstrip('.')}" for v in limit)
    cut = best.metrics.get(TRUNCATED)
    if cut is not None and cut.value > ENDS_ITS_REPLIES:
        what = "; ".join(
            [part for part in (what, f"{percent(cut.value)} of its replies are cut off by the cap") if part]
        )
    facts: dict[str, Any] = {"verdicts": [v.kind.value for v in best.verdicts]}
    if m.trend is not None:
        slope = m.trend.per_100
        facts |= {"per_100": slope.value, "low": slope.low, "high": slope.high, "q": slope.q, "since": m.trend.since}
    where = f"the best is {heading(m.trend, m.sign)}" if m.trend is not None else heading(None, m.sign)
    text = f"{_enough(m)}: {where}; {what or _no_limit(summary, m)}."
    return Finding("long-enough", text, facts)


def _enough(m: SettingMetric) -> str:
    slope = None if m.trend is None else m.trend.per_100.turned(m.sign)
    if slope is None or not slope.real:
        return "Whether it was long enough is open"
    return "Not long enough" if slope.rose else "More than long enough"


def _no_limit(summary: Summary, m: SettingMetric) -> str:
    if m.trend is not None and m.trend.per_100.turned(m.sign).rose:
        return "its budget limits it, so more steps are the next thing to try"
    axes = {a.name for a in summary.axes if len(a.levels) > 1}
    untried = [name for name, axis in (("other data", "data"), ("a larger model", "model")) if axis not in axes]
    if untried:
        return f"what limits it cannot be said without trying {' and '.join(untried)}"
    return "neither other data nor a larger model is known to do better"


def _safety(summary: Summary, best: Setting) -> Iterator[Finding]:
    refusal = best.metrics.get(SAFETY)
    if refusal is None:
        return
    fell = [s for s in summary.settings if s.whole and (m := s.metrics.get(SAFETY)) and m.change and m.change.fell]
    known = [s for s in summary.settings if s.whole and (m := s.metrics.get(SAFETY)) and m.change]
    paid = [s for s in summary.settings if s.whole and any(v.kind is Kind.SAFETY_COST for v in s.verdicts)]
    text = f"Refusal of harmful prompts: {_before_after(refusal)}"
    over = best.metrics.get(OVER_REFUSAL)
    if over is not None:
        text += f"; of harmless ones {_before_after(over)}"
    if known:
        text += (
            f"; it fell in {of(len(fell), len(known), 'whole setting')}, in {len(paid)} of them for a gain elsewhere"
        )
    numbers = {**_numbers(refusal), "fell": len(fell), "of": len(known), "paid": len(paid)}
    yield Finding("safety", f"{text}.", numbers)


def _before_after(m: SettingMetric) -> str:
    base = "–" if m.base is None else number(m.base.value)
    known = "" if m.change is None else f", {span(m.change)}" + ("" if m.change.real else ", not told from none")
    return f"{base} before, {number(m.value)} after{known}"


def _cost(summary: Summary) -> Finding:
    c = summary.costs
    total = c.training + c.scoring
    parts = [f"It cost {spent(total)}" if total != Spent() else "What it cost was not recorded"]
    if c.starts.before_training:
        parts.append(f"its machines were held {seconds(c.starts.before_training)} more until processes had started")
    if c.share_saved:
        parts.append(f"stopping saved {percent(c.share_saved)} of {c.steps_planned:,} planned steps")
    if c.steps_shared:
        parts.append(f"shared prefixes saved {c.steps_shared:,} {'more' if c.share_saved else 'steps'}")
    numbers = {
        "cpu_s": total.cpu_s, "gpu_s": total.gpu_s, "share_saved": c.share_saved,
        "steps_saved": c.steps_saved, "steps_shared": c.steps_shared,
    }  # fmt: skip
    if plan := summary.predicted:
        low, high = seconds(plan["low"]), seconds(plan["high"])
        parts.append(f"its plan, without stops, was {seconds(plan['value'])} ({low} to {high})")
        numbers["predicted_s"] = plan["value"]
    return Finding("cost", "; ".join(parts) + ".", numbers)


def _ties(summary: Summary, best: Setting) -> Iterator[Finding]:
    tied = [r for r in summary.rivalries if not r.difference.real]
    if not summary.rivalries:
        return
    by_id = {s.id: s for s in summary.settings}
    numbers: dict[str, Any] = {"tied": [r.other for r in tied], "of": len(summary.rivalries)}
    if not tied:
        known, ranked = len(summary.rivalries), len(summary.ranked()) - 1
        others = "the one other ranked setting" if ranked == 1 else "every other ranked setting"
        if known < ranked:
            others = f"{of(known, ranked, 'other ranked setting')}; the rest came without standard errors"
        yield Finding("ties", f"The best is told apart from {others}.", numbers)
        return
    nearest, m = tied[0], best.metrics[summary.objective]
    text = (
        f"The best is not told apart from {of(len(tied), len(summary.rivalries), 'other')}, the next being "
        f"{by_id[nearest.other].label} ({span(nearest.difference.turned(m.sign))} better)"
    )
    level = Level([summary.threshold])
    needs = [f"{n:,} items" for n in [items_needed(m, level, abs(nearest.difference.value))] if n is not None]
    runs = seeds_needed(m, level, abs(nearest.difference.value))
    needs += [plural(runs, "seed")] if runs is not None and runs > m.runs else []
    numbers["settle"] = needs
    yield Finding("ties", f"{text}; about {' or '.join(needs)} would settle it." if needs else f"{text}.", numbers)


def notes(journal: JournalSummary, summary: Summary) -> Iterator[str]:
    """Yields one sentence for each thing that limits what the numbers can carry."""
    if journal.history.sweep is None:
        yield "The journal has no sweep row: objective, axes and constraints are guessed from the trials."
    yield from _of_bases(summary)
    if journal.other_suite:
        yield (
            f"{plural(journal.other_suite, 'score row')} of another suite than {journal.suite} left out: "
            "scores of two suites do not belong on one curve."
        )
    for reason in journal.interrupts[-1:]:
        yield f"Interrupted {plural(len(journal.interrupts), 'time')}, last for: {reason}."
    yield from _of_evaluations(summary)
    yield from _of_trials(summary)
    if summary.comparisons:
        yield (
            f"A difference is called real at p ≤ {summary.threshold:.2g}: of such calls at most 5 % are expected to be wrong, "
            f"over all {plural(summary.comparisons, 'comparison')} of this sweep (Benjamini, Krieger and Yekutieli)."
        )


def _of_bases(summary: Summary) -> Iterator[str]:
    """Says which base models have no score, or one that says nothing."""
    missing = sorted({str(t.config.get("model", "")) for t in summary.trials} - set(summary.bases))
    if missing and summary.trials:
        yield f"No score of the base model for {', '.join(missing)}: dips of its trials cannot be judged."
    for model, base in summary.bases.items():
        known = {name: m for name, m in base.items() if m.n is not None}
        told = silence(
            model,
            {name: m.value for name, m in known.items()},
            {name: m.se for name, m in known.items() if m.se is not None},
            {name: m.n for name, m in known.items() if m.n is not None},
            summary.objective if summary.goal == "maximize" else "",
        )
        if told:
            yield f"The {told}."


def _of_evaluations(summary: Summary) -> Iterator[str]:
    """Says which points are missing, or are not what the others are."""
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


def _of_trials(summary: Summary) -> Iterator[str]:
    """Says what scores of trials lack: a finite value, a last step, an error, a second seed."""
    invalid = sum(len(t.invalid) for t in summary.trials)
    if invalid:
        yield f"{plural(invalid, 'number')} came out not finite and are shown as missing."
    if summary.at == "best":
        yield from _of_best_checkpoints(summary)
    short = sum(t.objective is not None and t.objective.step < (t.budget or 0) for t in summary.trials if t.rank)
    if short and summary.at == "end":
        yield f"{plural(short, 'ranked trial')} without a score at the last step: the last one there is stands for it."
    readings = [r for t in summary.trials for r in t.readings.values() if r.final is not None]
    if any(r.final is not None and r.final.se is None for r in readings):
        yield "Some scores came without a standard error: their dips are judged by size alone."
    repeated = any(len(s.counted) > 1 for s in summary.settings if s.whole)
    if any(s.whole for s in summary.settings) and not repeated:
        yield "Single seed: no setting was trained twice, so differences between settings include training luck."
    part = [s for s in summary.settings if s.whole and len(s.counted) < len(s.trials) and s.rank is not None]
    if part and summary.at == "end":
        yield (
            f"{plural(len(part), 'ranked setting')} with seeds that did not run to the end: their means are over the seeds "
            "that did, which stopping has picked."
        )


def _of_best_checkpoints(summary: Summary) -> Iterator[str]:
    """Says what a trial's score is where that is its best checkpoint's."""
    ways = Counter(t.picked.by for t in summary.trials if t.picked is not None)
    corrected = [way for way in ways if way]
    if corrected:
        yield (
            "A trial stands for its best checkpoint, pruned or not, and is worth what that one scores on "
            f"{' or by '.join(corrected)}: the highest of many noisy scores would be too good. Tables by condition and curves "
            "are of all scores as they were measured."
        )
    if ways.get(""):
        yield (
            f"{plural(ways[''], 'best checkpoint')} could not be corrected for having been chosen, because scores came without "
            "standard errors: they are too good."
        )
    sharing = [s for s in summary.settings if s.shares]
    for s in sharing[:MOST_SHARING]:
        stands = summary.setting(s.shares)
        yield (
            f"{s.label} is best at a checkpoint that it shares with {stands.label}: one finding, which is ranked once, as that "
            "of the latter."
        )
    if len(sharing) > MOST_SHARING:
        yield f"So it is with {plural(len(sharing) - MOST_SHARING, 'other setting')}."
