"""The page's short texts: tiles, costs, the meaning of its words, where it comes from."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from sweeps.report.analysis.conclusions.answer import counts_at
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.shape import BACK_AT, MIN_FALL, MIN_POINTS, Shape
from sweeps.report.analysis.wording import IN_DOMAIN, SAFETY, number, of, percent, plural, score, spent

PANEL_NAMES = {
    IN_DOMAIN: "the task it was trained on",
    "math/score": "in-domain",
    "transfer/score": "reasoning it was not trained on",
    "general/score": "other abilities",
    SAFETY: "harmful prompts refused",
}


VERDICTS = (
    ("under-optimised", "ends really below the base and really rises over its last stretch"),
    ("over-trained", "ends really below its best score, which beat the base or followed a dip made good"),
    ("collapsed", "ends really below the base, not rising, half of the base or more lost; worse: with less lost"),
    ("recovered", "really fell, and ends at 90 % of the base or more with half of the loss regained"),
    ("improved", "ends really above the base"),
    ("unchanged", "the 95 % range of the change lies within 5 % of the base"),
    ("data-limited", "no longer rises, and another tier ends really higher, all else alike"),
    (
        "capacity-limited",
        "no longer rises, learned its own task, and a larger model gains really more from the same data",
    ),
    ("safety-cost", "refusal of harmful prompts really fell while in-domain or the objective really rose"),
    ("inconclusive", "none of these could be said; beside it stands what would settle it"),
)


class Tile(NamedTuple):
    what: str
    value: str
    more: str


def tiles(summary: Summary) -> list[Tile]:
    """The few things to see first; a tile without one is left out."""
    if not summary.trials:
        return []
    states = Counter(t.state for t in summary.trials)
    found = [Tile("Trials", str(len(summary.trials)), ", ".join(f"{n} {s}" for s, n in states.most_common()))]
    for best in summary.ranked()[:1]:
        found.append(Tile(f"Best {summary.objective}", number(best.metrics[summary.objective].value), best.label))
    if summary.verdict is not None:
        found.append(Tile("The sweep as a whole", summary.verdict.outcome.value, f"on {summary.objective}"))
    costs = summary.costs
    if costs.share_saved:
        more = f"{costs.steps_saved:,} of {plural(costs.steps_planned, 'step')} not run"
        found.append(Tile("Saved by stopping", percent(costs.share_saved), more))
    return found


def costs(summary: Summary) -> list[tuple[str, str]]:
    c = summary.costs
    failed = sum(t.state == "failed" for t in summary.trials)
    facts = [
        ("Training", spent(c.training)),
        ("Scoring", f"{spent(c.scoring)} (base models included)"),
        ("Steps of ended trials", f"{c.steps_run:,} run of {c.steps_planned:,} that full budgets would have taken"),
    ]
    if c.share_saved is not None:
        estimate = spent(c.estimated_saved)
        worth = "" if estimate == "not recorded" else f"; about {estimate} at each trial's own cost per step"
        facts.append(("Saved by stopping", f"{plural(c.steps_saved, 'step')} ({percent(c.share_saved)}){worth}"))
    if c.steps_shared:
        facts.append(
            ("Shared trunks", f"{plural(c.steps_shared, 'step')} taken from a parent's checkpoint, not run again")
        )
    if c.steps_lost:
        facts.append(("Not run after failures", f"{plural(c.steps_lost, 'step')} of {plural(failed, 'trial')}"))
    if c.starts.attempts:
        facts.append(("Starts of attempts", str(c.starts)))
    again = sum(max(t.attempts - 1, 0) for t in summary.trials)
    if again:
        facts.append(("Started again", f"{plural(again, 'attempt')} beyond the first, their cost included"))
    return facts


def glossary(summary: Summary) -> list[tuple[str, str]]:
    at_best = summary.at == "best"
    counted = "scores at best checkpoints" if at_best else "last scores"
    which = "ended settings" if at_best else "complete settings"
    below = (
        f"below the base by at least {percent(MIN_FALL)} of it and by more standard errors than the lowest of so many "
        "scores would be by luck, at the error level of the whole sweep"
    )
    return [
        (
            Shape.RECOVERED,
            f"fell {below}; later back at {percent(BACK_AT)} of the base with at least half of the loss regained, "
            "and still there, within 2 standard errors, at the last score",
        ),
        (
            Shape.NOT_BACK,
            f"fell {below}, and was not back at its last score; a verdict on its setting says whether it still rose",
        ),
        (
            Shape.LATE_DECLINE,
            "first really below the base in the second half of its steps, or fell after it was back or at a peak",
        ),
        (Shape.NO_DIP, "at no step really below the base"),
        (Shape.TOO_FEW, f"fewer than {MIN_POINTS} scores after step 0, or no base score"),
        *VERDICTS,
        *(
            [("Below, rises", f"of {summary.objective}, of which less is better: above, falls")]
            if summary.goal == "minimize"
            else []
        ),
        ("Setting", f"all seeds of one configuration; ranked by the mean of their {counted}"),
        (
            "±",
            "one standard error over the items of a score; bands in the figures are two; training luck is not in it",
        ),
        ("Back at", "the first scored step that is back: a bracket, since nothing is known between two scored steps"),
        (
            "Best",
            f"by the mean of {counted} on {summary.objective} ({summary.goal}), among {which} that meet all constraints",
        ),
        (
            "Real",
            "told from none by the one test of this page, at the one error level that all comparisons of the sweep share; "
            "confidence is one less the share of calls this strong that are expected to be wrong",
        ),
    ]


def provenance(summary: Summary) -> list[tuple[str, str]]:
    facts = [
        ("Sweep", summary.sweep or "unknown"),
        ("Journal", _journal(summary)),
        ("Suite", summary.suite or "not recorded"),
        ("Objective", f"{summary.objective} {counts_at(summary)}, {summary.goal}, top {summary.top}"),
        ("Base models", "; ".join(_base(summary, m) for m in summary.bases) or "not scored"),
        (
            "Again",
            "dipsweep run SWEEP.yaml with the file below trains the same trials; dipsweep report DIR writes this page",
        ),
    ]
    checks = [c for t in summary.trials[:1] for c in t.checks]
    if checks:
        met = of(sum(t.meets is True for t in summary.trials), len(summary.trials))
        rules = ", ".join(f"{c.metric} {c.rule}" for c in checks)
        facts.insert(4, ("Constraints", f"{rules}; met by {met}"))
    return facts


def _journal(summary: Summary) -> str:
    rows = f"read up to row {summary.seq}" if summary.seq >= 0 else "rows without a place in the log"
    return f"version {summary.version}, {rows}" if summary.version else rows


def _base(summary: Summary, model: str) -> str:
    scores = summary.bases[model]
    return f"{model}: " + ", ".join(f"{m} {score(scores[m])}" for m in summary.panels if m in scores)
