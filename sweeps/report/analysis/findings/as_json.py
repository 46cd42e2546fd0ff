"""Findings as plain JSON, with as many digits as mean something.

A curve is written as parallel arrays `step, value, se, n` in order of step (`n` as one number where it is the same at every
step; without `step` where its steps are its trial's `steps`); what was not measured is null or absent, never 0. Of a metric
that nobody judges, such as `train/loss`, at most `MAX_POINTS` points are written; the journal has all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any, Final

from sweeps.journal.rows import TierRow
from sweeps.report.analysis.findings.settings import SettingMetric
from sweeps.report.analysis.findings.trials import Picked
from sweeps.report.analysis.inference import Difference, Winner
from sweeps.report.analysis.shape import Measured, Reading

FORMAT: Final = 3
DIGITS: Final = 6
DERIVED_DIGITS: Final = 4
ERROR_DIGITS: Final = 3
MAX_POINTS: Final = 60  # of a curve that is not judged; scored curves have fewer, training loss has many more


def plain(value: Any) -> Any:
    """Returns dataclasses, mappings, tuples and enums as plain JSON; a tuple of scores as parallel arrays.

    Numbers keep `DIGITS` significant digits, those computed from scores `DERIVED_DIGITS`, errors of curves `ERROR_DIGITS`.
    """
    if isinstance(value, float):
        return rounded(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple) and value and isinstance(value[0], Measured):
        return arrays(value)
    if isinstance(value, Measured | Winner):
        return _derived(value._asdict())
    if isinstance(value, Reading | SettingMetric | Difference):
        return _derived({f.name: v for f in fields(value) if (v := getattr(value, f.name)) is not None})
    if isinstance(value, Picked):
        return _derived({f.name: getattr(value, f.name) for f in fields(value) if f.name != "outcomes"})
    if isinstance(value, TierRow):
        return {k: plain(v) for k, v in value.to_json().items() if k not in ("v", "seq", "kind", "sweep")}
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def _derived(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was computed from scores, with `DERIVED_DIGITS`; the scores themselves stand in the curves."""
    return {
        k: rounded(v, DERIVED_DIGITS) if isinstance(v, float) else plain(v) for k, v in found.items() if k != "limit"
    }


def rounded(value: float | None, digits: int = DIGITS) -> float | None:
    """Returns a number with that many significant digits; what the journal holds has no more that mean anything."""
    return None if value is None else float(f"{value:.{digits}g}")


def with_shared_steps(trial: dict[str, Any]) -> dict[str, Any]:
    """Writes the steps that most curves of a trial have once, beside them: a third of the file was steps."""
    curves: dict[str, dict[str, Any]] = trial["curves"]
    if not curves:
        return trial | {"steps": []}
    common = Counter(tuple(c["step"]) for c in curves.values()).most_common(1)[0][0]
    shared = list(common)
    short = {m: {k: v for k, v in c.items() if k != "step" or v != shared} for m, c in curves.items()}
    return trial | {"steps": shared, "curves": short}


def arrays(points: Sequence[Measured]) -> dict[str, Any]:
    """Returns scores as parallel arrays `step, value, se, n`, without those of which nothing is known.

    `n` is one number when all scores have as many items.
    """
    steps, values, errors, items = zip(*points, strict=True)
    found: dict[str, Any] = {"step": list(steps), "value": [rounded(v) for v in values]}
    if any(e is not None for e in errors):
        found["se"] = [rounded(e, ERROR_DIGITS) for e in errors]
    if any(n is not None for n in items):
        found["n"] = items[0] if len(set(items)) == 1 else list(items)
    return found


def thinned(points: Sequence[Measured]) -> tuple[Measured, ...]:
    """Returns at most `MAX_POINTS` of a long curve, evenly in the logarithm of the step, both ends included."""
    if len(points) <= MAX_POINTS:
        return tuple(points)
    top = math.log(len(points))
    kept = {round(math.exp(top * i / (MAX_POINTS - 1))) - 1 for i in range(MAX_POINTS)}
    return tuple(points[i] for i in sorted(kept))
