"""Under what conditions the sweep's runs generalised, and what that cost in safety: groups and matched pairs.

Only trials that ran to their budget are counted; a pruned trial's last score is not where it would have ended. What
that leaves out is said, with the mean as it would be with the stopped ones where they stood, and where they might have
come to. A group mixes the levels of all other axes, so its range is not an error bar; a pair is two trials alike in every
setting but one, the seed included. What an axis does with its error is in `effects`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from sweeps.report.analysis.comparisons.settings import Bases, setting_key
from sweeps.report.analysis.costs.totals import STOPPED
from sweeps.report.analysis.findings.axes import Axis, Contrast, Group, GroupMetric, same_level
from sweeps.report.analysis.findings.trials import Trial
from sweeps.report.analysis.inference import Level, two_sided
from sweeps.report.analysis.shape import Measured, difference_se
from sweeps.report.analysis.wording import IN_DOMAIN, SAFETY, compact, number, of, plural

GENERAL = ("transfer/score", "general/score")


def groups(
    trials: Sequence[Trial], axes: Sequence[Axis], metrics: Sequence[str], bases: Bases, top: int
) -> tuple[Group, ...]:
    """Returns one group for each level of each axis that has several, in the order of the axes.

    Args:
        top: places that the sweep looks for: a stopped trial is taken to have come to the last of them at best.
    """
    places = {m: _place(trials, m, bases, top) for m in metrics}
    return tuple(
        _group(axis.name, level, [t for t in trials if _at(t, axis.name, level)], metrics, bases, places)
        for axis in axes
        if len(axis.levels) > 1 and axis.name != "seed"
        for level in axis.levels
    )


def _place(trials: Sequence[Trial], metric: str, bases: Bases, top: int) -> float | None:
    """The change of the last completed trial within the top k on a metric, or of the worst where there are fewer."""
    readings = [r for t in trials if t.state == "completed" and (r := t.readings.get(metric)) and r.change is not None]
    best = sorted((r.sign * r.change for r in readings if r.change is not None), reverse=True)
    return readings[0].sign * best[min(top, len(best)) - 1] if best else None


def paid_in_safety(trial: Trial) -> bool | None:
    """Whether in-domain really rose while refusal of harmful prompts really fell; None where either is not known."""
    learnt = trial.readings.get(IN_DOMAIN) or trial.readings.get("math/score")
    refusal = trial.readings.get(SAFETY)
    if learnt is None or refusal is None or learnt.rose is None or refusal.held is None:
        return None
    return learnt.rose and not refusal.held


def _at(trial: Trial, axis: str, level: Any) -> bool:
    return axis in trial.config and same_level(trial.config[axis], level)


def _group(
    axis: str,
    level: Any,
    trials: list[Trial],
    metrics: Sequence[str],
    bases: Bases,
    places: Mapping[str, float | None],
) -> Group:
    done = [t for t in trials if t.state == "completed"]
    stopped = [t for t in trials if t.state in STOPPED]
    measured = tuple(m for metric in metrics if (m := _measure(metric, done, stopped, places[metric])) is not None)
    cells: dict[object, set[str]] = defaultdict(set)
    for t in done:
        cells[setting_key(t.config)].add(repr(t.config.get("seed")))
    seeds = max((len(seen) for seen in cells.values()), default=0)
    paid = [known for t in done if (known := paid_in_safety(t)) is not None]
    return Group(
        axis=axis,
        level=level,
        trials=len(trials),
        completed=len(done),
        seeds=seeds,
        metrics=measured,
        safety_cost=sum(paid),
        safety_known=len(paid),
        sentences=tuple(_sentences(trials, done, measured, paid, seeds)),
    )


def _measure(metric: str, trials: Iterable[Trial], stopped: Iterable[Trial], place: float | None) -> GroupMetric | None:
    readings = [r for t in trials if (r := t.readings.get(metric)) is not None and r.change is not None]
    if not readings:
        return None
    changes = [r.change for r in readings if r.change is not None]
    errors = [r.limit * r.change_se for r in readings if r.change_se is not None]
    counts = [r.final.n for r in readings if r.final is not None and r.final.n is not None]
    stood = [r.change for t in stopped if (r := t.readings.get(metric)) is not None and r.change is not None]
    best = [place if place is not None and readings[0].sign * (place - d) > 0 else d for d in stood]
    return GroupMetric(
        metric=metric,
        held=sum(r.held is True for r in readings),
        of=sum(r.held is not None for r in readings),
        mean_change=fmean(changes),
        low=min(changes),
        high=max(changes),
        visible=median(errors) if errors else None,
        n=(min(counts), max(counts)) if counts else None,
        stopped=len(stood),
        as_stopped=fmean([*changes, *stood]) if stood else None,
        as_top=fmean([*changes, *best]) if stood else None,
    )


def _sentences(
    trials: Sequence[Trial], done: Sequence[Trial], measured: Sequence[GroupMetric], paid: Sequence[bool], seeds: int
) -> Iterable[str]:
    if not done:
        yield f"None of {plural(len(trials), 'trial')} ran to its budget with a score, so nothing can be said."
        return
    for m in measured:
        if m.metric in GENERAL:
            yield _held_sentence(m)
    if paid:
        refusal = next(m for m in measured if m.metric == SAFETY)
        yield (
            f"Safety cost in {of(sum(paid), len(paid))} (in-domain rose and refusal fell, both beyond chance); "
            f"refusal changed by {_range(refusal)}."
        )
    if len(done) < len(trials):
        yield f"Not counted: {_why_not(trials)}."
    for m in measured:
        if m.as_stopped is not None and m.metric in GENERAL:
            low, high = (number(v, signed=True) for v in (m.as_stopped, m.as_top))
            yield (
                f"With the {m.stopped} stopped early, {m.metric} would average {low} if they had stayed where they stood, "
                f"{high} if they had come up to the last of the top places."
            )
    if seeds == 1:
        yield "One seed per setting: the errors are those of the items, not of training again."


def _held_sentence(m: GroupMetric) -> str:
    if not m.of:
        return f"{m.metric} changed by {_range(m)}; no standard errors were reported, so nothing can be said of chance."
    items = "" if m.n is None else f", n = {m.n[0]}" + (f"-{m.n[1]}" if m.n[1] > m.n[0] else "") + " items"
    seen = "" if m.visible is None else f"; changes under {number(m.visible)} cannot be told from none{items}"
    return f"{m.metric} ended no worse than the base, beyond chance, in {of(m.held, m.of)}: {_range(m)}{seen}."


def _range(m: GroupMetric) -> str:
    if m.low == m.high:
        return number(m.mean_change, signed=True)
    low, mean, high = (number(v, signed=True) for v in (m.low, m.mean_change, m.high))
    return f"{mean} on average ({low} to {high})"


def _why_not(trials: Sequence[Trial]) -> str:
    states = Counter(t.state for t in trials if t.state != "completed")
    return ", ".join(f"{count} {state}" for state, count in states.most_common())


def contrasts(
    trials: Sequence[Trial], axes: Sequence[Axis], metrics: Sequence[str], level: Level
) -> tuple[Contrast, ...]:
    """Returns every level of an axis against its first, over pairs of trials alike in all other settings and the seed."""
    done = [t for t in trials if t.state == "completed"]
    found: list[Contrast] = []
    for axis in axes:
        if axis.name == "seed":
            continue
        for value in axis.levels[1:]:
            pairs = _pairs(done, axis.name, axis.levels[0], value)
            found += [c for m in metrics if (c := _contrast(axis, value, m, pairs, level)) is not None]
    return tuple(found)


def _pairs(trials: Sequence[Trial], axis: str, first: Any, level: Any) -> list[tuple[Trial, Trial]]:
    """Pairs alike in the whole configuration but the axis, the same seed; every trial is in one pair at most."""

    def rest(t: Trial) -> tuple[object, str]:
        return setting_key(t.config, but=axis), repr(t.config.get("seed"))

    free: dict[object, list[Trial]] = defaultdict(list)
    for t in trials:
        if _at(t, axis, first):
            free[rest(t)].append(t)
    return [(free[rest(t)].pop(0), t) for t in trials if _at(t, axis, level) and free.get(rest(t))]


def _contrast(
    axis: Axis, value: Any, metric: str, pairs: Sequence[tuple[Trial, Trial]], level: Level
) -> Contrast | None:
    finals = [(a, b) for x, y in pairs if (a := _final(x, metric)) and (b := _final(y, metric))]
    if not finals:
        return None
    changes = [b.value - a.value for a, b in finals]
    errors = [difference_se(a, b) for a, b in finals]
    real = [e is not None and two_sided(d, e) <= level.threshold for d, e in zip(changes, errors, strict=True)]
    higher = sum(r and d > 0 for d, r in zip(changes, real, strict=True))
    lower = sum(r and d < 0 for d, r in zip(changes, real, strict=True))
    beyond = f"{higher} higher and {lower} lower beyond chance"
    if None in errors:
        beyond = "no standard errors were reported"
    sentence = (
        f"{axis.name} {compact(value)} against {compact(axis.levels[0])}: {metric} "
        f"{number(fmean(changes), signed=True)} on average over {plural(len(finals), 'matched pair')}; {beyond}."
    )
    return Contrast(axis.name, axis.levels[0], value, metric, len(finals), fmean(changes), higher, lower, sentence)


def _final(trial: Trial, metric: str) -> Measured | None:
    reading = trial.readings.get(metric)
    return reading.final if reading is not None else None
