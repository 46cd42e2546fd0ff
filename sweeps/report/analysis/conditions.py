"""Under what conditions the sweep's runs generalised, and what that cost in safety: groups and matched contrasts.

Only trials that ran to their budget are counted; a pruned trial's last score is not where it would have ended. A group
mixes the levels of all other axes, so its range is not an error bar; the contrasts compare like with like. Nothing here
is tested across seeds unless there are several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from sweeps.report.analysis.findings import Axis, Contrast, Group, GroupMetric, Trial, same_level
from sweeps.report.analysis.shape import Measured, difference_se
from sweeps.report.analysis.wording import IN_DOMAIN, SAFETY, compact, number, of, plural

GENERAL = ("transfer/score", "general/score")


def groups(trials: Sequence[Trial], axes: Sequence[Axis], metrics: Sequence[str]) -> tuple[Group, ...]:
    """Returns one group for each level of each axis that has several, in the order of the axes."""
    return tuple(
        _group(axis.name, level, [t for t in trials if _at(t, axis.name, level)], axes, metrics)
        for axis in axes
        if len(axis.levels) > 1
        for level in axis.levels
    )


def paid_in_safety(trial: Trial) -> bool:
    """Whether in-domain rose while refusal of harmful prompts fell, both by more than 2 standard errors."""
    learnt = trial.readings.get(IN_DOMAIN) or trial.readings.get("math/score")
    refusal = trial.readings.get(SAFETY)
    return bool(learnt and refusal and learnt.rose and refusal.held is False)


def _at(trial: Trial, axis: str, level: Any) -> bool:
    return axis in trial.config and same_level(trial.config[axis], level)


def _group(axis: str, level: Any, trials: list[Trial], axes: Sequence[Axis], metrics: Sequence[str]) -> Group:
    done = [t for t in trials if t.state == "completed"]
    measured = tuple(m for metric in metrics if (m := _measure(metric, done)) is not None)
    cells = Counter(tuple(compact(t.config.get(a.name)) for a in axes) for t in done)
    seeds = max(cells.values(), default=0)
    cost = sum(paid_in_safety(t) for t in done)
    return Group(
        axis=axis,
        level=level,
        trials=len(trials),
        completed=len(done),
        seeds=seeds,
        metrics=measured,
        safety_cost=cost,
        sentences=tuple(_sentences(trials, done, measured, cost, seeds)),
    )


def _measure(metric: str, trials: Iterable[Trial]) -> GroupMetric | None:
    readings = [r for t in trials if (r := t.readings.get(metric)) is not None and r.change is not None]
    if not readings:
        return None
    changes = [r.change for r in readings if r.change is not None]
    errors = [2 * r.change_se for r in readings if r.change_se is not None]
    counts = [r.final.n for r in readings if r.final is not None and r.final.n is not None]
    return GroupMetric(
        metric=metric,
        held=sum(r.held is True for r in readings),
        of=sum(r.held is not None for r in readings),
        mean_change=fmean(changes),
        low=min(changes),
        high=max(changes),
        visible=median(errors) if errors else None,
        n=(min(counts), max(counts)) if counts else None,
    )


def _sentences(
    trials: Sequence[Trial], done: Sequence[Trial], measured: Sequence[GroupMetric], cost: int, seeds: int
) -> Iterable[str]:
    if not done:
        yield f"None of {plural(len(trials), 'trial')} ran to its budget with a score, so nothing can be said."
        return
    for m in measured:
        if m.metric in GENERAL:
            yield _held_sentence(m)
    known = [t for t in done if (r := t.readings.get(SAFETY)) is not None and r.held is not None]
    if known:
        refusal = next(m for m in measured if m.metric == SAFETY)
        yield (
            f"Safety cost in {of(cost, len(known))} (in-domain rose and refusal fell, both beyond 2 s.e.); "
            f"refusal changed by {_range(refusal)}."
        )
    if len(done) < len(trials):
        yield f"Not counted: {_why_not(trials)}."
    if seeds == 1:
        yield "One seed per setting: the errors are those of the items, not of training again."


def _held_sentence(m: GroupMetric) -> str:
    if not m.of:
        return f"{m.metric} changed by {_range(m)}; no standard errors were reported, so nothing can be said of chance."
    items = "" if m.n is None else f", n = {m.n[0]}" + (f"-{m.n[1]}" if m.n[1] > m.n[0] else "") + " items"
    seen = "" if m.visible is None else f"; changes under {number(m.visible)} cannot be told from none{items}"
    return f"{m.metric} ended no lower than the base within 2 s.e. in {of(m.held, m.of)}: {_range(m)}{seen}."


def _range(m: GroupMetric) -> str:
    if m.low == m.high:
        return number(m.mean_change, signed=True)
    low, mean, high = (number(v, signed=True) for v in (m.low, m.mean_change, m.high))
    return f"{mean} on average ({low} to {high})"


def _why_not(trials: Sequence[Trial]) -> str:
    states = Counter(t.state for t in trials if t.state != "completed")
    return ", ".join(f"{count} {state}" for state, count in states.most_common())


def contrasts(trials: Sequence[Trial], axes: Sequence[Axis], metrics: Sequence[str]) -> tuple[Contrast, ...]:
    """Returns every level of an axis against its first, over pairs of trials alike in all other axes and the seed."""
    done = [t for t in trials if t.state == "completed"]
    names = [a.name for a in axes]
    found: list[Contrast] = []
    for axis in axes:
        for level in axis.levels[1:]:
            pairs = _pairs(done, axis.name, axis.levels[0], level, names)
            found += [c for m in metrics if (c := _contrast(axis, level, m, pairs)) is not None]
    return tuple(found)


def _pairs(
    trials: Sequence[Trial], axis: str, first: Any, level: Any, names: Sequence[str]
) -> list[tuple[Trial, Trial]]:
    def rest(config: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(repr(config.get(n)) for n in (*names, "seed") if n != axis)

    reference = {rest(t.config): t for t in trials if _at(t, axis, first)}
    return [
        (reference[key], t) for t in trials if _at(t, axis, level) and (key := rest(t.config)) in reference
    ]  # fmt: skip


def _contrast(axis: Axis, level: Any, metric: str, pairs: Sequence[tuple[Trial, Trial]]) -> Contrast | None:
    finals = [(a, b) for x, y in pairs if (a := _final(x, metric)) and (b := _final(y, metric))]
    if not finals:
        return None
    changes = [b.value - a.value for a, b in finals]
    errors = [difference_se(a, b) for a, b in finals]
    higher = sum(e is not None and d > 2 * e for d, e in zip(changes, errors, strict=True))
    lower = sum(e is not None and d < -2 * e for d, e in zip(changes, errors, strict=True))
    beyond = f"{higher} higher and {lower} lower beyond 2 s.e"
    if None in errors:
        beyond = "no standard errors were reported"
    sentence = (
        f"{axis.name} {compact(level)} against {compact(axis.levels[0])}: {metric} "
        f"{number(fmean(changes), signed=True)} on average over {plural(len(finals), 'matched pair')}; {beyond}."
    )
    return Contrast(axis.name, axis.levels[0], level, metric, len(finals), fmean(changes), higher, lower, sentence)


def _final(trial: Trial, metric: str) -> Measured | None:
    reading = trial.readings.get(metric)
    return reading.final if reading is not None else None
