"""What each axis does, listed or sampled: one least-squares fit of the change from the base on all axes at once.

    change = intercept + sum over listed axes of its level's coefficient + sum over scaled axes of slope * (log10 of) value

Every run that came to its end with a score is one observation; the axes need not be crossed. The error comes from the
residuals (so it holds training luck, and whatever the axes do together), with Student's t; it is never taken to be less
than what the items alone give. With fewer than three spare runs the items' error stands in, and `Effect.over` says so. The
share of an axis is its type II sum of squares: what it explains beyond all others. An interaction is the same for the
products of two axes' columns. Two-way tables and slopes need no more than `numpy.linalg.lstsq`; a package for linear
models would bring pandas and a formula language along for these sixty lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from sweeps.journal.history import ENDED
from sweeps.report.analysis.findings.axes import Axis, Effect, Importance
from sweeps.report.analysis.findings.trials import Trial
from sweeps.report.analysis.inference import Level, difference
from sweeps.report.analysis.shape import Measured, error_of
from sweeps.report.analysis.wording import compact, number, plural

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MIN_SPARE: Final = 3
MAX_PAIRED_AXES: Final = 6  # interactions are looked for between so many axes


@dataclass(frozen=True, slots=True)
class Observation:
    """One run: its configuration, its change from the base, and the squared error of its last score over items."""

    config: Mapping[str, Any]
    change: float
    variance: float | None


@dataclass(frozen=True, slots=True)
class Factor:
    """An axis as columns of the fit. `levels`: listed ones, the first is the reference; empty for a scale."""

    name: str
    levels: tuple[Any, ...] = ()
    log: bool = False

    @property
    def columns(self) -> int:
        return max(len(self.levels) - 1, 1)

    def contrasts(self) -> list[str]:
        """What each coefficient is the difference of."""
        if self.levels:
            return [f"{compact(level)} against {compact(self.levels[0])}" for level in self.levels[1:]]
        return ["x 10" if self.log else "+ 1"]

    def encode(self, observations: Sequence[Observation]) -> Array:
        """Returns the columns, shape (runs, columns)."""
        import numpy as np

        values = [o.config[self.name] for o in observations]
        if self.levels:
            return np.array([[float(repr(v) == repr(level)) for level in self.levels[1:]] for v in values])
        return np.array([[math.log10(v) if self.log else float(v)] for v in values])


def observations(
    trials: Sequence[Trial], metric: str, bases: Mapping[str, Mapping[str, Measured]]
) -> list[Observation]:
    """Returns the runs that came to their end with a score and have a base to compare with."""
    found = []
    for t in trials:
        point = t.judged_score(metric)
        base = bases.get(str(t.config.get("model", "")), {}).get(metric)
        over = t.state == "completed" or (t.picked is not None and t.state in ENDED)
        if over and point is not None and base is not None:
            error = error_of(point)
            found.append(Observation(t.config, point.value - base.value, None if error is None else error**2))
    return found


def factors(axes: Sequence[Axis], scaled: Mapping[str, bool], runs: Sequence[Observation]) -> list[Factor]:
    """Returns the axes that differ between these runs."""
    found = [Factor(name, log=log) for name, log in scaled.items() if all(name in o.config for o in runs)]
    for axis in axes:
        if axis.name in scaled or axis.name == "seed" or not all(axis.name in o.config for o in runs):
            continue
        seen = {repr(o.config[axis.name]) for o in runs}
        found.append(Factor(axis.name, tuple(level for level in axis.levels if repr(level) in seen)))
    values = {f.name: {repr(o.config[f.name]) for o in runs} for f in found}
    return [f for f in found if len(values[f.name]) > 1]


def effects(runs: Sequence[Observation], found: Sequence[Factor], metric: str) -> tuple[list[Effect], list[Importance]]:
    """Fits one metric; returns the effects and importances, not yet judged.

    Nothing when there are no more runs than coefficients, or two axes cannot be told apart.
    """
    import numpy as np

    if len(runs) < 2 or not found:
        return [], []
    y = np.array([o.change for o in runs])
    blocks = [np.ones((len(runs), 1)), *(f.encode(runs) for f in found)]
    x = np.hstack(blocks)
    if np.linalg.matrix_rank(x) < x.shape[1] or len(runs) <= x.shape[1]:
        return [], []
    known = [o.variance for o in runs if o.variance is not None]
    items = sum(known) / len(runs) if len(known) == len(runs) else None
    noise = _noise(_residual(x, y), len(runs) - x.shape[1], items)
    if noise is None:
        return [], []
    return (
        _coefficients(x, y, found, metric, noise),
        _importances(blocks, y, found, metric, noise, items),
    )


@dataclass(frozen=True, slots=True)
class _Noise:
    variance: float
    df: float
    spare: int

    @property
    def over(self) -> str:
        return "items" if math.isinf(self.df) else "residuals"


def _noise(residual: float, spare: int, items: float | None) -> _Noise | None:
    """The variance of one observation: from the residuals where there are enough, and never below that of the items."""
    if spare >= MIN_SPARE and (items is None or residual / spare > items):
        return _Noise(residual / spare, spare, spare)
    return None if items is None else _Noise(items, math.inf, spare)


def _residual(x: Array, y: Array) -> float:
    import numpy as np

    fitted = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(((y - fitted) ** 2).sum())


def _coefficients(x: Array, y: Array, found: Sequence[Factor], metric: str, noise: _Noise) -> list[Effect]:
    import numpy as np

    inverse = np.linalg.inv(x.T @ x)
    coefficients = inverse @ x.T @ y
    out, column = [], 1
    for factor in found:
        for name in factor.contrasts():
            se = math.sqrt(noise.variance * inverse[column, column])
            estimate = difference(float(coefficients[column]), se, noise.df)
            out.append(Effect(factor.name, name, metric, estimate, len(y), noise.spare, noise.over, ""))
            column += 1
    return out


def _importances(
    blocks: Sequence[Array], y: Array, found: Sequence[Factor], metric: str, noise: _Noise, items: float | None
) -> list[Importance]:
    import numpy as np

    total = float(((y - y.mean()) ** 2).sum())
    if total <= 0:
        return []
    main = _residual(np.hstack(blocks), y)
    out = []
    for i, factor in enumerate(found, start=1):
        gained = _residual(np.hstack([b for j, b in enumerate(blocks) if j != i]), y) - main
        out.append(Importance((factor.name,), metric, gained / total, _f_test(gained, factor.columns, noise)))
    for (i, a), (j, b) in combinations(list(enumerate(found, start=1))[:MAX_PAIRED_AXES], 2):
        products = np.einsum("ni,nj->nij", blocks[i], blocks[j]).reshape(len(y), -1)
        both = np.hstack([*blocks, products])
        spare = len(y) - both.shape[1]
        if spare < MIN_SPARE or np.linalg.matrix_rank(both) < both.shape[1]:
            continue
        left = _residual(both, y)
        error = _noise(left, spare, items)
        if error is not None:
            p = _f_test(main - left, products.shape[1], error)
            out.append(Importance((a.name, b.name), metric, max(main - left, 0.0) / total, p))
    return out


def _f_test(gained: float, columns: int, noise: _Noise) -> float:
    """P-value of "these columns explain nothing": by F, or by chi-square where the error is taken as known."""
    from scipy.special import chdtrc, fdtrc

    if noise.variance <= 0:
        return 1.0 if gained <= 0 else 0.0
    ratio = max(gained, 0.0) / noise.variance
    return float(chdtrc(columns, ratio) if math.isinf(noise.df) else fdtrc(columns, noise.df, ratio / columns))


def judged_effect(effect: Effect, level: Level) -> Effect:
    """Returns the effect judged, with its sentence."""
    d = effect.difference.judged(level)
    low, high = number(d.low, signed=True), number(d.high, signed=True)
    verdict = "" if d.real else "; not told from no effect"
    source = "" if effect.over == "residuals" else "; error over items alone, training luck is not in it"
    sentence = (
        f"{effect.axis} {effect.contrast}: {effect.metric} {number(d.value, signed=True)} (95 % {low} to {high}), all other "
        f"axes held, over {plural(effect.runs, 'run')}{verdict}{source}."
    )
    return replace(effect, difference=d, sentence=sentence)


def judged_importance(found: Importance, level: Level) -> Importance:
    q = level.q(found.p)
    return replace(found, q=q, real=q <= 0.05)
