"""The verdict on a sweep as a whole, by a stated rule, from the verdicts on its settings.

Counted are settings that were judged on the objective; a setting that is known to miss a constraint can neither gain nor
keep. The first rule that applies:

1. gained: at least one setting ends really above its base (`improved`).
2. kept: none does, and at least one recovered or is unchanged.
3. not-yet: neither, and at least one is under-optimised: below its base and still rising.
4. lost: every counted setting is worse, collapsed or over-trained, or misses a constraint.
5. inconclusive: none of these.

An axis decides when its share of the objective's variation is real and the largest (`effects`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sweeps.report.analysis.findings.axes import Importance
from sweeps.report.analysis.findings.settings import Kind, Outcome, Setting, SweepVerdict, Verdict
from sweeps.report.analysis.wording import percent, plural

LOST: Final = (Kind.WORSE, Kind.COLLAPSED, Kind.OVER_TRAINED)
KEPT: Final = (Kind.RECOVERED, Kind.UNCHANGED)
COUNTED: Final = {
    Kind.IMPROVED: "above the base",
    Kind.RECOVERED: "recovered (fell, and is back at 90 % of the base)",
    Kind.UNCHANGED: "unchanged",
    Kind.UNDER_OPTIMISED: "not back yet and still rising",
    Kind.OVER_TRAINED: "past its best",
    Kind.WORSE: "below the base and not rising for certain",
    Kind.COLLAPSED: "collapsed",
    Kind.INCONCLUSIVE: "undecided",
}
LESS_IS_BETTER: Final = {
    Kind.IMPROVED: "better than the base",
    Kind.RECOVERED: "recovered (rose, and is back within 10 % of the base)",
    Kind.UNDER_OPTIMISED: "not back yet and still falling",
    Kind.WORSE: "worse than the base and not falling for certain",
}
"""Other words for an objective that is minimized."""
MEANING: Final = {
    Outcome.GAINED: "training gained",
    Outcome.KEPT: "training kept what the base could do, and gained nothing that could be told",
    Outcome.NOT_YET: "not yet: no setting is back at its base, and some still get better",
    Outcome.LOST: "training lost",
    Outcome.INCONCLUSIVE: "undecided",
}


def sweep_verdict(
    settings: Sequence[Setting], objective: str, importances: Sequence[Importance]
) -> SweepVerdict | None:
    """Returns the verdict on the sweep; None while nothing was scored on the objective."""
    judged = [(s, s.verdicts[0]) for s in settings if objective in s.metrics and s.verdicts]
    if not judged:
        return None
    outcome, behind = _outcome(judged)
    counts = Counter(v.kind for _, v in judged)
    more = judged[0][0].metrics[objective].sign > 0
    words = COUNTED if more else {**COUNTED, **LESS_IS_BETTER}
    told = ", ".join(f"{counts[kind]} {said}" for kind, said in words.items() if counts[kind])
    missed = sum(s.meets is False for s, _ in judged)
    told += f"; {missed:,} of them {'misses' if missed == 1 else 'miss'} a constraint" if missed else ""
    axis = _deciding(importances, objective)
    decides = "" if axis is None else f"; {' and '.join(axis.axes)} decides ({_share(axis.share)} of the variation)"
    sure = [v.confidence for v in behind if v.confidence is not None]
    return SweepVerdict(
        outcome,
        f"On {objective} {MEANING[outcome]}: of {plural(len(judged), 'setting')}, {told}{decides}.",
        (min(sure) if outcome is Outcome.LOST else max(sure)) if sure else None,
        {"kinds": {kind.value: n for kind, n in counts.items()}, "axis": list(axis.axes) if axis else None},
    )


def _outcome(judged: Sequence[tuple[Setting, Verdict]]) -> tuple[Outcome, list[Verdict]]:
    """The rules of this module; and the verdicts behind the one that applies."""
    fit = [v for s, v in judged if s.meets is not False]
    for outcome, kinds in (
        (Outcome.GAINED, (Kind.IMPROVED,)),
        (Outcome.KEPT, KEPT),
        (Outcome.NOT_YET, (Kind.UNDER_OPTIMISED,)),
    ):
        found = [v for v in fit if v.kind in kinds]
        if found:
            return outcome, found
    if all(v.kind in LOST or s.meets is False for s, v in judged):
        return Outcome.LOST, [v for _, v in judged if v.kind in LOST]
    return Outcome.INCONCLUSIVE, []


def _deciding(importances: Sequence[Importance], objective: str) -> Importance | None:
    real = [i for i in importances if i.metric == objective and i.real and len(i.axes) == 1]
    return max(real, key=lambda i: i.share, default=None)


def _share(share: float) -> str:
    return "> 99 %" if share > 0.99 else percent(share)
