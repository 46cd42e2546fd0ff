"""What a report says of axes and of conditions: effects, importances, groups, contrasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sweeps.report.analysis.inference import Difference


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting that was crossed in full, with its levels in the order of the sweep file."""

    name: str
    levels: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """What an axis does to the change from the base, all other axes held: a coefficient of one least-squares fit.

    Attributes:
        contrast: `level against reference` for listed levels, `x 10` or `+ 0.1` for a number on a scale.
        runs: trials in the fit. spare: runs less coefficients; the error is estimated from the residuals when there are
            at least three, else from the items alone (`over: residuals | items`).
    """

    axis: str
    contrast: str
    metric: str
    difference: Difference
    runs: int
    spare: int
    over: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Importance:
    """How much of a metric's variation between trials an axis, or the interplay of two, accounts for.

    Attributes:
        axes: one name, or two for an interaction. share: of the sum of squares, of what it explains beyond all other axes
            (type II). p: of the F test. q, real: as in `inference.Difference`.
    """

    axes: tuple[str, ...]
    metric: str
    share: float
    p: float
    q: float = 1.0
    real: bool = False


@dataclass(frozen=True, slots=True)
class GroupMetric:
    """One metric over the completed trials of a group.

    Attributes:
        held: trials whose last score is no more than 2 standard errors below the base, `of` those where this is known.
        mean_change, low, high: last score minus base, mean and range over the trials.
        visible: a typical change that these items can tell from nothing (2 standard errors, median over the trials).
        n: fewest and most items behind a score.
        stopped: pruned and paused trials that were scored, which the mean leaves out. as_stopped, as_top: what the mean
            would be if those had stayed where they stood, and if they had come up to the worst of the top k.
    """

    metric: str
    held: int
    of: int
    mean_change: float
    low: float
    high: float
    visible: float | None
    n: tuple[int, int] | None
    stopped: int = 0
    as_stopped: float | None = None
    as_top: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The trials at one level of one axis, and what can be said of them in sentences.

    Attributes:
        trials: all. completed: those that ran to their budget and are scored; only they are counted in `metrics`.
        seeds: most seeds behind one setting. safety_cost: completed trials whose in-domain score rose and whose refusal
            fell, both by more than 2 standard errors, of the `safety_known` where both are known.
    """

    axis: str
    level: Any
    trials: int
    completed: int
    seeds: int
    metrics: tuple[GroupMetric, ...]
    safety_cost: int
    safety_known: int
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two levels of one axis, compared between trials that are alike in all other settings.

    Attributes:
        pairs: matched pairs. mean_change: `level` minus `reference`. higher, lower: pairs that differ by more than 2
            standard errors.
    """

    axis: str
    reference: Any
    level: Any
    metric: str
    pairs: int
    mean_change: float
    higher: int
    lower: int
    sentence: str


def same_level(a: Any, b: Any) -> bool:
    """Whether two settings are one level: 1 and 1.0 are, 1 and true are not."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)
