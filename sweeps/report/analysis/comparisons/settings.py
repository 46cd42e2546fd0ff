"""Settings: the trials of one configuration together, whatever their seed, and what their mean did against the base.

The mean's error has two parts. Over items: every seed's standard error, smaller with more seeds; from outcomes of the same
items where they were kept. Over seeds: the variance between seeds beyond that, pooled over all settings that were repeated.
Without repeats the second part is unknown and left out; `Summary.notes` says so.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, stdev
from typing import NamedTuple

from sweeps.config.objective import Constraint
from sweeps.journal.history import ENDED
from sweeps.report.analysis.comparisons.pairing import Outcomes, mean_outcomes, of_chosen, paired
from sweeps.report.analysis.definition import check, meets
from sweeps.report.analysis.findings.settings import Setting, SettingMetric, Trend
from sweeps.report.analysis.findings.trials import Check, Trial
from sweeps.report.analysis.inference import (
    Difference,
    Level,
    Spread,
    between_seeds,
    difference,
    fit_line,
    one_sided,
    several_looks,
    with_spread,
)
from sweeps.report.analysis.shape import BACK_AT, Measured, error_of

TREND_FROM = 0.5  # share of the steps run at which the last stretch begins
TREND_POINTS = 3

Look = Callable[[Trial, str], Outcomes | None]
"""(trial, metric) to the outcomes behind its last score, item by item; None where they were not kept."""
BaseLook = Callable[[str, str], Outcomes | None]
"""(model, metric) to those of the base model."""
Bases = Mapping[str, Mapping[str, Measured]]


class Point(NamedTuple):
    """A mean over seeds at one step; `fixed` is its squared error over items, None when a seed came without one."""

    step: int
    value: float
    fixed: float | None
    n: int | None


def settings(trials: Sequence[Trial]) -> list[Setting]:
    """Groups trials by their whole configuration but the seed, in order of appearance.

    A trial whose configuration the journal does not hold is a setting of its own.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Trial]] = {}
    for t in trials:
        groups.setdefault(setting_key(t.config) or (("trial", t.id),), []).append(t)
    return [_setting(members) for members in groups.values()]


def setting_key(config: Mapping[str, object], but: str = "") -> tuple[tuple[str, str], ...]:
    """What two trials of one setting share: every hyperparameter but the seed, and but one more where one is given."""
    return tuple(sorted((k, repr(v)) for k, v in config.items() if k not in ("seed", but)))


def _setting(trials: Sequence[Trial]) -> Setting:
    done = [t for t in trials if t.state == "completed"]
    counted = [t for t in trials if t.picked is not None and t.state in ENDED] or done or list(trials)
    labels = {t.label for t in trials}
    return Setting(
        id=trials[0].id,
        label=trials[0].label if len(labels) == 1 else _without_seed(trials[0]),
        config={k: v for k, v in trials[0].config.items() if k != "seed"},
        trials=tuple(t.id for t in trials),
        counted=tuple(t.id for t in counted),
        whole=bool(done),
        states=dict(Counter(t.state for t in trials)),
        metrics={},
    )


def _without_seed(trial: Trial) -> str:
    parts = [p for p in trial.label.split(" · ") if not p.startswith("seed ")]
    return " · ".join(parts) or trial.id


def spreads(
    settings: Sequence[Setting], by_id: Mapping[str, Trial], metrics: Sequence[str], outcomes: Look
) -> dict[str, Spread]:
    """Returns the variance between seeds of each metric that repeated settings were scored on."""
    found = {}
    for metric in metrics:
        runs = [
            _seeds([by_id[id] for id in s.counted], metric, outcomes)
            for s in settings
            if s.whole and len(s.counted) > 1
        ]
        spread = between_seeds(runs)
        if spread is not None:
            found[metric] = spread
    return found


def _seeds(trials: Sequence[Trial], metric: str, outcomes: Look) -> list[tuple[float, float]]:
    """The last score of each seed and its squared error; over the same items, half that of a difference of two seeds."""
    scored = [(t, p) for t in trials if (p := t.judged_score(metric)) is not None]
    kept = [o for t, _ in scored if (o := outcomes(t, metric)) is not None]
    shared = [r.se**2 / 2 for a, b in pairwise(kept) if (r := paired(a, b)) is not None]
    if len(kept) == len(scored) > 1 and len(shared) == len(kept) - 1:
        return [(p.value, fmean(shared)) for _, p in scored]
    return [(p.value, (error_of(p) or 0.0) ** 2) for _, p in scored]


def measured(
    setting: Setting,
    *,
    by_id: Mapping[str, Trial],
    metrics: Sequence[str],
    objective: str,
    bases: Bases,
    signs: Mapping[str, float],
    spread: Mapping[str, Spread],
    outcomes: Look,
    base_outcomes: BaseLook,
) -> Setting:
    """Returns the setting with its metrics, their differences not yet judged."""
    trials = [by_id[id] for id in setting.counted]
    found = {}
    for metric in metrics:
        points = _mean_curve(trials, metric)
        if points:
            base = bases.get(setting.model, {}).get(metric)
            kept = [o for t in trials if (o := outcomes(t, metric)) is not None]
            ours = mean_outcomes(kept) if len(kept) == len(trials) else None
            theirs = base_outcomes(setting.model, metric)
            one = _metric(trials, metric, points, base, signs.get(metric, 1.0), spread.get(metric))
            if metric == objective and one.change is not None and base is not None:
                one = _course(one, points, base, spread.get(metric))
            found[metric] = _on_items(one, theirs, ours, spread.get(metric))
    return replace(setting, metrics=found)


def _mean_curve(trials: Sequence[Trial], metric: str) -> list[Point]:
    """The mean over seeds at each step that all of them were scored at."""
    curves = [points for t in trials if (points := t.curves.get(metric))]
    if len(curves) == 1:
        return [Point(p.step, p.value, None if (e := error_of(p)) is None else e * e, p.n) for p in curves[0]]
    at: dict[int, list[Measured]] = defaultdict(list)
    for points in curves:
        for p in points:
            at[p.step].append(p)
    return [_mean(step, at[step]) for step in sorted(at) if len(at[step]) == len(curves)]


def _mean(step: int, seeds: Sequence[Measured]) -> Point:
    errors = [error_of(p) for p in seeds]
    known = [e * e for e in errors if e is not None]
    fixed = sum(known) / len(seeds) ** 2 if len(known) == len(seeds) else None
    counts = [p.n for p in seeds if p.n is not None]
    return Point(step, fmean(p.value for p in seeds), fixed, min(counts) if counts else None)


def _chosen(finals: Sequence[Measured]) -> Point:
    """The mean over the seeds' best checkpoints, each at a step of its own; its step is the last of them."""
    return _mean(max(p.step for p in finals), finals)


def _metric(
    trials: Sequence[Trial],
    metric: str,
    points: Sequence[Point],
    base: Measured | None,
    sign: float,
    spread: Spread | None,
) -> SettingMetric:
    finals = [p for t in trials if (p := t.judged_score(metric)) is not None]
    last = _chosen(finals) if any(t.picked for t in trials) and finals else points[-1]
    errors = [e for p in finals if (e := error_of(p)) is not None]
    found = SettingMetric(
        metric=metric,
        sign=sign,
        step=last.step,
        runs=len(finals),
        value=last.value,
        items_se=fmean(errors) if len(errors) == len(finals) else None,
        seeds_se=stdev(p.value for p in finals) / len(finals) ** 0.5 if len(finals) > 1 else None,
        n=last.n,
        base=base,
        of=max((t.picked.of for t in trials if t.picked is not None), default=0),
    )
    if base is None or error_of(base) is None or last.fixed is None:
        return found
    return replace(found, change=_from_base(found, last, base, spread))


def _from_base(found: SettingMetric, point: Point, base: Measured, spread: Spread | None) -> Difference:
    """A mean score minus the base."""
    se, df = with_spread((error_of(base) or 0.0) ** 2 + (point.fixed or 0.0), found.runs, spread)
    return difference(point.value - base.value, se, df)


def _picked(
    found: SettingMetric, point: Point, base: Measured, spread: Spread | None, looks: int, way: float
) -> Difference:
    """A mean score minus the base, picked out of `looks` for lying furthest `way` (+1 up, -1 down)."""
    d, shared = _from_base(found, point, base, spread), (error_of(base) or 0.0) ** 2
    chance = one_sided(way * d.value, d.se, d.df or math.inf)
    return difference(
        d.value, d.se, d.df or math.inf, p=several_looks(chance, looks, shared / d.se**2 if d.se else 0.0)
    )


def _course(found: SettingMetric, points: Sequence[Point], base: Measured, spread: Spread | None) -> SettingMetric:
    """What the curve did on its way: lowest, best, back, and where it was heading."""
    if any(p.fixed is None for p in points):
        return found
    sign, last, looks = found.sign, points[-1], len(points)
    low = min(points, key=lambda p: sign * p.value)
    best = max(points, key=lambda p: sign * p.value)
    error = math.sqrt((best.fixed or 0.0) + (last.fixed or 0.0))
    drop = last.value - best.value
    shared = (last.fixed or 0.0) / error**2 if error else 0.0
    chance = several_looks(one_sided(-sign * drop, error), max(looks - 1, 1), shared)
    return replace(
        found,
        fall=_picked(found, low, base, spread, looks, -sign),
        fell_at=low.step,
        gain=_picked(found, best, base, spread, looks, sign),
        best_at=best.step,
        decline=difference(drop, error, p=chance),
        back_at=_back_at(points, low, base, sign),
        trend=_trend(points, base, sign),
    )


def _back_at(points: Sequence[Point], low: Point, base: Measured, sign: float) -> int | None:
    level, lowest = sign * base.value, sign * low.value
    target = max(level - (1 - BACK_AT) * abs(level), (level + lowest) / 2)
    return next((p.step for p in points if p.step > low.step and sign * p.value >= target), None)


def _trend(points: Sequence[Point], base: Measured, sign: float) -> Trend | None:
    """The last stretch: scores of the second half of the steps run, at least the last three."""
    late = [p for p in points if p.step >= TREND_FROM * points[-1].step]
    late = late if len(late) >= TREND_POINTS else list(points[-TREND_POINTS:])
    if len(late) < TREND_POINTS:
        return None
    line = fit_line([(p.step, p.value, p.fixed or 0.0) for p in late])
    slope = difference(100 * line.slope, 100 * line.slope_variance**0.5)
    below = sign * (base.value - points[-1].value) > 0
    reaches = line.crosses(base.value, (error_of(base) or 0.0) ** 2) if below and sign * line.slope > 0 else None
    return Trend(slope, late[0].step, late[-1].step, len(late), reaches)


def _on_items(
    found: SettingMetric, theirs: Outcomes | None, ours: Outcomes | None, spread: Spread | None
) -> SettingMetric:
    """Takes the change from the same items where outcomes were kept: its error is smaller, and it needs no assumption."""
    if theirs is None or ours is None or found.change is None:
        return found
    result = paired(theirs, ours)
    if result is None or abs(result.difference - found.change.value) > 1e-3:
        return found  # outcomes of other items than the scores are of
    if found.of:
        result = of_chosen(result)
    se, df = with_spread(result.se**2, found.runs, spread)
    exact = result.p if spread is None or spread.variance == 0 else None
    return replace(found, change=difference(found.change.value, se, df, p=exact))


def p_values(setting: Setting, objective: str, judged: Sequence[str]) -> list[float]:
    """Returns the p-values of a setting's tests: all of them on the objective, the change alone on other judged metrics.

    A gain is claimed only together with the decline after it, so it is no test of its own.
    """
    found = [m.change.p for name in judged if (m := setting.metrics.get(name)) is not None and m.change is not None]
    m = setting.metrics.get(objective)
    if m is not None:
        slope = m.trend.per_100 if m.trend is not None else None
        found += [d.p for d in (m.fall, m.decline, slope) if d is not None]
    return found


def judged(setting: Setting, level: Level) -> Setting:
    """Returns the setting with every difference judged at the sweep's level."""
    return replace(setting, metrics={name: _judged(m, level) for name, m in setting.metrics.items()})


def _judged(m: SettingMetric, level: Level) -> SettingMetric:
    def at(d: Difference | None) -> Difference | None:
        return None if d is None else d.judged(level)

    trend = None if m.trend is None else replace(m.trend, per_100=m.trend.per_100.judged(level))
    return replace(m, change=at(m.change), fall=at(m.fall), gain=at(m.gain), decline=at(m.decline), trend=trend)


def checked(setting: Setting, constraints: Sequence[Constraint], by_id: Mapping[str, Trial], bases: Bases) -> Setting:
    """Returns the setting with the constraints checked on its mean last scores."""
    checks = tuple(_check(setting, c, by_id, bases) for c in constraints)
    return replace(setting, checks=checks, meets=meets(checks))


def _check(setting: Setting, c: Constraint, by_id: Mapping[str, Trial], bases: Bases) -> Check:
    finals = [p.value for id in setting.counted if (p := by_id[id].judged_score(c.metric)) is not None]
    base = bases.get(setting.model, {}).get(c.metric)
    mean = fmean(finals) if finals and len(finals) == len(setting.counted) else None
    return check(c, mean, None if base is None else base.value)
