"""The sweep's definition as the report needs it, read from the journal's first row or, without one, from the trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.journal.history import Curve
from sweeps.report.analysis.findings import Axis
from sweeps.stopping.base import Constraint, Goal

MAX_LEVELS = 12  # an axis with more levels is a scale, not a condition


def goal_of(spec: Mapping[str, Any]) -> Goal:
    """Returns what the sweep looks for; the schema's own defaults where the journal does not say."""
    objective = spec.get("objective", {})
    return Goal(
        metric=str(objective.get("metric", "transfer/score")),
        maximize=objective.get("goal", "maximize") != "minimize",
        top=int(spec.get("stopping", {}).get("top", 3)),
        constraints=tuple(Constraint(**c) for c in spec.get("constraints", ())),
    )


def axes_of(spec: Mapping[str, Any], curves: Sequence[Curve]) -> tuple[Axis, ...]:
    """Axes with listed levels, from the sweep file; without one, the settings in which the trials differ."""
    listed = [(n, a.get("grid") or a.get("choice")) for n, a in spec.get("space", {}).items()]
    if spec:
        return tuple(Axis(name, tuple(levels)) for name, levels in listed if levels and len(levels) <= MAX_LEVELS)
    found = [(name, levels_of(curves, name)) for name in varying_of(curves)]
    return tuple(Axis(name, levels) for name, levels in found if len(levels) <= MAX_LEVELS)


def levels_of(curves: Sequence[Curve], name: str) -> tuple[Any, ...]:
    """The values of a setting in order of first appearance; equal numbers of two types are two levels."""
    seen = {repr(c.config[name]): c.config[name] for c in curves if name in c.config}
    return tuple(seen.values())


def varying_of(curves: Sequence[Curve]) -> list[str]:
    """Returns the settings in which the trials differ, in order of first appearance."""
    names = dict.fromkeys(name for c in curves for name in c.config)
    return [name for name in names if len(levels_of(curves, name)) > 1]
