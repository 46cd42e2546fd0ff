"""The sweep's definition as the report needs it, read from the journal's first row or, without one, from the trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.config.objective import Constraint, Goal, combined, is_met
from sweeps.journal.history import Curve
from sweeps.report.analysis.findings.axes import Axis
from sweeps.report.analysis.findings.trials import Check
from sweeps.setting_names import current_names

LESS_IS_BETTER = ("over_refusal", "asr", "loss", "perplexity")
MAX_LEVELS = 12  # an axis with more levels is a scale, not a condition


def goal_of(spec: Mapping[str, Any]) -> Goal:
    """Returns the sweep's objective; the schema's defaults where the journal has none."""
    objective = spec.get("objective", {})
    return Goal(
        metric=str(objective.get("metric", "transfer/score")),
        maximize=objective.get("goal", "maximize") != "minimize",
        top=int(spec.get("stopping", {}).get("top", 3)),
        constraints=tuple(Constraint(**c) for c in spec.get("constraints", ())),
        at="best" if objective.get("at") == "best" else "end",
    )


def less_is_better(metric: str) -> bool:
    """Whether a smaller number of this metric is the better one, by its name without `@k` and `,cap=`."""
    return metric.partition("/")[2].split("@")[0].split(",")[0] in LESS_IS_BETTER


def axes_of(spec: Mapping[str, Any], curves: Sequence[Curve]) -> tuple[Axis, ...]:
    """Axes with listed levels, from the sweep file; without one, the settings in which the trials differ."""
    axes = current_names(spec.get("space", {}))
    listed = [pair for name, axis in axes.items() for pair in _levels(name, axis)]
    if spec:
        return tuple(Axis(name, tuple(levels)) for name, levels in listed if levels and len(levels) <= MAX_LEVELS)
    found = [(name, levels_of(curves, name)) for name in varying_of(curves)]
    return tuple(Axis(name, levels) for name, levels in found if len(levels) <= MAX_LEVELS)


def _levels(name: str, axis: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Returns the listed values of an axis of the sweep file; the columns of a zip are axes of their own."""
    if "zip" in axis:
        return [(column, list(dict.fromkeys(values))) for column, values in current_names(axis["zip"]).items()]
    return [(name, axis.get("grid") or axis.get("choice"))]


def levels_of(curves: Sequence[Curve], name: str) -> tuple[Any, ...]:
    """The values of a setting in order of first appearance; equal numbers of two types are two levels."""
    seen = {repr(c.config[name]): c.config[name] for c in curves if name in c.config}
    return tuple(seen.values())


def varying_of(curves: Sequence[Curve]) -> list[str]:
    """Returns the settings in which the trials differ, in order of first appearance."""
    names = dict.fromkeys(name for c in curves for name in c.config)
    return [name for name in names if len(levels_of(curves, name)) > 1]


def scaled_of(spec: Mapping[str, Any], curves: Sequence[Curve]) -> dict[str, bool]:
    """Returns the settings that vary on a scale of numbers, and whether that scale is logarithmic.

    Axes sampled from a range, and listed ones with more than `MAX_LEVELS` numbers. Without a sweep file, numbers with that
    many levels, taken as logarithmic where all are positive and they span more than a factor of 20.
    """
    found = {}
    for name in varying_of(curves):
        axis = spec.get("space", {}).get(name, {})
        values = [c.config[name] for c in curves if name in c.config]
        if name == "seed" or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            continue
        wide = min(values) > 0 and max(values) / min(values) > 20
        if "loguniform" in axis:
            found[name] = True
        elif "uniform" in axis or "randint" in axis:
            found[name] = False
        elif len(levels_of(curves, name)) > MAX_LEVELS:
            found[name] = wide
    return found


def check(c: Constraint, value: float | None, base: float | None) -> Check:
    """Checks one constraint on a last score; unknown when either number it needs is."""
    if c.at_least is not None:
        rule = f"at least {c.at_least:g}"
    elif c.at_most is not None:
        rule = f"at most {c.at_most:g}"
    else:
        rule = f"base {c.relative_to_base or 0.0:+g} or better"
    return Check(c.metric, rule, value, is_met(c, value, base))


def meets(checks: Sequence[Check]) -> bool | None:
    """Whether all constraints are met; None where that is not known."""
    return combined(c.met for c in checks)
