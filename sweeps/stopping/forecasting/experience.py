"""What finished sweeps say of a new one: how far runs still go from each point of their schedule, and which ways curves take.

A finished sweep is summed up in a few numbers, in its own spread, so that metrics on any scale can be joined: for each kind of
schedule what its runs gained together over every interval and how surely that is known (`shared_gain.py`), and how often
its curves took each family of the library at which time, and how many of their dips were made good (`forecasts.py`).

How much a finished sweep says of another is learnt from how the finished ones differ: their gains are draws around a mean,
and the variance between sweeps is estimated, starting from that of the rule's own prior as two sweeps' worth. One sweep
therefore moves the new one's prior a little, three that agree move it most of the way, and three that disagree leave it as
wide as it was. Finished curves count for half of what curves of the sweep itself do, together for at most `MOST_CURVES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final, NamedTuple

import numpy as np

from sweeps.stopping.forecasting.curve_library import Array
from sweeps.stopping.forecasting.shared_gain import SharedGain

VERSION: Final = 1  # of the numbers below: those of another version are not used
OWN_SWEEPS: Final = 2.0  # finished sweeps that the rule's own prior of the variance between sweeps counts for
LEAST_BETWEEN: Final = 0.1  # sweeps differ at least by this share of the rule's own prior variance
FORMS: Final = 0.5  # what a finished curve of another sweep counts for beside one of the sweep itself
MOST_CURVES: Final = 24.0
MOST_DIPS: Final = 8.0  # the same of dips that had the whole patience
LEAST_REVISIONS: Final = 3.0  # of an interval, before a sweep has a say on it


class Gains(NamedTuple):
    """What the runs of one kind gained together in a finished sweep, per interval, in the sweep's own spread.

    `mean`: as the runs themselves say, without a prior. `variance`: of that mean; infinite where too few runs say anything.
    """

    mean: Array
    variance: Array

    @classmethod
    def of(cls, shared: SharedGain, unit: float) -> Gains:
        spread = shared.learnt(unit)[2]
        weight = np.where(shared.count >= LEAST_REVISIONS, shared.weight, 0.0) * unit**2 / spread
        mean = np.divide(shared.sum, shared.weight, out=np.zeros_like(weight), where=weight > 0.0) / unit
        return cls(mean, np.divide(1.0, weight, out=np.full_like(weight, np.inf), where=weight > 0.0))

    def to_json(self) -> list[list[float | None]]:
        return [[_short(m), _short(v) if np.isfinite(v) else None] for m, v in zip(*self, strict=True)]

    @classmethod
    def from_json(cls, pairs: Sequence[Sequence[float | None]]) -> Gains:
        mean = np.array([float(m or 0.0) for m, _ in pairs])
        return cls(mean, np.array([np.inf if v is None else max(float(v), 1e-6) for _, v in pairs]))


class Experience:
    """What finished sweeps say together; falsy where there are none.

    Args:
        sweeps: as `experience_of` returns them, of any number of finished sweeps.
    """

    def __init__(self, sweeps: Iterable[Mapping[str, Any]] = ()) -> None:
        self.sweeps = [s for s in sweeps if s.get("version") == VERSION]

    def __bool__(self) -> bool:
        return bool(self.sweeps)

    def teach(self, shared: SharedGain, kind: str, view: str) -> None:
        """Moves and narrows the prior of a shared gain by what finished sweeps of its kind say.

        Args:
            kind: of schedule. view: `forecasts` or `levels`.
        """
        said = [Gains.from_json(s["kinds"][kind][view]) for s in self.sweeps if kind in s["kinds"]]
        if said:
            shared.prior_mean, shared.prior_variance = joined(said, shared.prior_mean, shared.prior_variance)

    def dips(self) -> tuple[float, float]:
        """Returns how many dips were made good within their patience, and how many there were, in dips of the sweep itself."""
        told = [s["dips"] for s in self.sweeps if "dips" in s]
        good, count = FORMS * sum(g for g, _ in told), FORMS * sum(n for _, n in told)
        scale = min(1.0, MOST_DIPS / count) if count else 1.0
        return good * scale, count * scale

    def forms(self, size: int) -> tuple[Array, float]:
        """Returns the mass of finished curves over the library's pooling cells, [size], and for how many curves it counts."""
        mass = np.zeros(size)
        for s in self.sweeps:
            for cell, share in s["forms"]:
                if 0 <= int(cell) < size:
                    mass[int(cell)] += FORMS * float(share)
        count = float(mass.sum())
        scale = min(1.0, MOST_CURVES / count) if count else 1.0
        return mass * scale, count * scale


def joined(said: Sequence[Gains], own_mean: Array, own_variance: Array) -> tuple[Array, Array]:
    """Returns mean and variance of a new sweep's gains: the rule's own prior moved by those of finished sweeps.

    A random-effects mean. The variance between sweeps is one share of `own_variance` for all intervals, by moments.

    Args:
        said: what finished sweeps gained. own_mean, own_variance: the rule's own prior, [intervals].
    """
    means = np.stack([g.mean for g in said])
    variances = np.stack([g.variance for g in said])
    weight = 1.0 / (variances + own_variance)
    middle = (own_mean / own_variance + (weight * means).sum(0)) / (1.0 / own_variance + weight.sum(0))
    known = np.isfinite(variances)
    squares = np.where(known, ((means - middle) ** 2 - np.where(known, variances, 0.0)) / own_variance, 0.0)
    seen = known.mean(1).sum()  # in sweeps, a sweep that says something of half of the intervals counting half
    found = squares.sum() / max(known.sum(), 1) * seen
    between = max((OWN_SWEEPS + found) / (OWN_SWEEPS + seen), LEAST_BETWEEN) * own_variance
    weight = 1.0 / (variances + between)
    precision = 1.0 / own_variance + weight.sum(0)
    mean = (own_mean / own_variance + (weight * means).sum(0)) / precision
    variance = np.minimum(between + 1.0 / precision, np.maximum(own_variance, between))
    return mean, np.where(known.any(0), variance, own_variance)


def by_schedule(gains: Mapping[str, SharedGain]) -> dict[str, SharedGain]:
    """Returns shared gains by schedule: those of its kinds, which differ by budget, together."""
    joint: dict[str, SharedGain] = {}
    for kind in sorted(gains):
        schedule = kind.rsplit("@", 1)[0]
        if schedule in joint:
            joint[schedule].join(gains[kind])
        else:
            joint[schedule] = deepcopy(gains[kind])
    return joint


def experience_of(
    gains: Mapping[str, SharedGain], moves: Mapping[str, SharedGain], unit: float, forms: Array
) -> dict[str, Any]:
    """Returns what a sweep says of another, as JSON.

    Args:
        gains, moves: by kind, of forecasts and of levels; what kinds of one schedule gained is told together.
        unit: the sweep's own spread; 0 where it has none yet.
        forms: mass of its curves over the library's pooling cells.
    """
    gains, moves = by_schedule(gains), by_schedule(moves)
    kinds = {
        kind: {"forecasts": Gains.of(gains[kind], unit).to_json(), "levels": Gains.of(moves[kind], unit).to_json()}
        for kind in sorted(gains)
        if unit > 0.0
    }
    mass = [[int(i), _short(forms[i])] for i in np.flatnonzero(forms > 0.01)]
    return {"version": VERSION, "kinds": kinds, "forms": mass}


def _short(value: float) -> float:
    return float(f"{value:.4g}")
