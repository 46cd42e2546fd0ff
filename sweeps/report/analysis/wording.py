"""Numbers and names as a reader wants to see them; one place, so that page, JSON sentences and figures agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.report.analysis.findings.axes import Axis
from sweeps.report.analysis.findings.trials import Spent
from sweeps.report.analysis.shape import Measured

SAFETY, IN_DOMAIN = "safety/refusal", "math/in_domain"


def number(value: float | None, *, signed: bool = False) -> str:
    """`0.83`, `+0.83`, `412`, `0.0030`: about three significant digits; a dash when there is none."""
    if value is None:
        return "–"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.095 or size == 0 else 3 if size >= 0.0095 else 4
    return f"{value:{'+' if signed else ''}.{digits}f}"


def score(point: Measured | None) -> str:
    """`0.83 ± 0.02`; the error is one standard error."""
    if point is None:
        return "–"
    return number(point.value) if point.se is None else f"{number(point.value)} ± {number(point.se)}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def of(count: int, total: int, noun: str = "trial") -> str:
    """`2 of 3 trials`."""
    return f"{count} of {plural(total, noun)}"


def plural(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def seconds(value: float) -> str:
    """`42 s`, `12.5 min`, `3.1 h`."""
    if value < 120:
        return f"{value:.0f} s" if value >= 10 or value == 0 else f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def spent(cost: Spent) -> str:
    """`12.5 min CPU, 3.1 h GPU`; `not recorded` when nothing was."""
    parts = [f"{seconds(v)} {k}" for v, k in ((cost.cpu_s, "CPU"), (cost.gpu_s, "GPU")) if v > 0]
    return ", ".join(parts) or "not recorded"


def label(config: Mapping[str, Any], axes: Sequence[Axis], varying: Sequence[str], trial: str) -> str:
    """The settings that distinguish a trial from the others: `verified-long-cot · 400 · replay 0.1`."""
    names = [a.name for a in axes if len(a.levels) > 1] + [v for v in varying if v not in {a.name for a in axes}]
    parts = [setting(name, config[name]) for name in names if name in config]
    return " · ".join(parts) or trial


def setting(name: str, value: Any) -> str:
    """A setting in few words: text alone, a number with its name."""
    if isinstance(value, str):
        return value
    return f"{name} {compact(value)}"


def compact(value: Any) -> str:
    """A setting's value without noise digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
