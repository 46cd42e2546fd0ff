"""How sure a number is: differences with their ranges, one error level for all comparisons of a sweep, fitted lines.

Every claim of the report rests on one kind of test: a two-sided test of "no difference", from a value and its standard
error (with Student's t where that error is itself estimated from few runs). The lowest and the highest of a curve's scores
are tested in their one direction, for having been picked out of so many. All tests of a sweep form one family, and a
difference is called real when its p-value, adjusted by the two stages of Benjamini, Krieger and Yekutieli (2006), is at most
5 %: Benjamini and Hochberg's adjustment (1995) for as many comparisons as are not called real by it already. So at most one
in twenty of the differences called real is expected to be none; in a sweep without any effect, at most one such sweep in
twenty has a false call at all.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Final, NamedTuple

ALPHA: Final = 0.05
POWER: Final = 0.8
LEAST_LEAD: Final = 0.5  # standard errors by which the best of several scores is taken to lead: see `winner`
NEGLIGIBLE: Final = 1e-9
"""P-values below it are not made more exact."""
NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference, or a slope, with its uncertainty.

    Attributes:
        value, se: in the metric's own unit. low, high: 95 % range. df: degrees of freedom of the standard error; None when
            it is as good as known.
        p: two-sided p-value of "no difference". q: the same adjusted over all comparisons of the sweep
            (`Level`). real: q is at most 0.05.
    """

    value: float
    se: float
    low: float
    high: float
    df: float | None
    p: float
    q: float = 1.0
    real: bool = False

    @property
    def rose(self) -> bool:
        return self.real and self.value > 0

    @property
    def fell(self) -> bool:
        return self.real and self.value < 0

    def turned(self, sign: float) -> Difference:
        """Returns the difference times `sign` (+1 or -1)."""
        if sign > 0:
            return self
        return Difference(-self.value, self.se, -self.high, -self.low, self.df, self.p, self.q, self.real)

    def judged(self, level: Level) -> Difference:
        """Returns the difference with `q` and `real` filled in."""
        q = level.q(self.p)
        return Difference(self.value, self.se, self.low, self.high, self.df, self.p, q, q <= ALPHA)


def difference(value: float, se: float, df: float = math.inf, *, p: float | None = None) -> Difference:
    """Returns a difference with its 95 % range and p-value.

    Args:
        df: degrees of freedom of `se`; infinite when it is known. p: an exact p-value, where there is one.
    """
    half = critical(ALPHA, df) * se
    chance = two_sided(value, se, df) if p is None else p
    return Difference(value, se, value - half, value + half, None if math.isinf(df) else df, chance)


def two_sided(value: float, se: float, df: float = math.inf) -> float:
    """Returns P(|T| >= |value| / se) under "no difference", T being Student's t with `df` degrees of freedom."""
    if value == 0:
        return 1.0
    if se <= 0:
        return 0.0
    t = abs(value) / se
    if math.isinf(df):
        return math.erfc(t / math.sqrt(2))
    from scipy.special import stdtr

    return float(2 * stdtr(df, -t))


def critical(level: float, df: float = math.inf) -> float:
    """Returns how many standard errors a two-sided test at `level` asks for."""
    if math.isinf(df):
        return NORMAL.inv_cdf(1 - level / 2)
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - level / 2))


def one_sided(value: float, se: float, df: float = math.inf) -> float:
    """Returns P(T >= value / se) under "no difference": for a direction that was fixed beforehand."""
    half = two_sided(value, se, df) / 2
    return half if value > 0 else 1 - half


def several_looks(p: float, looks: int, shared: float = 0.0) -> float:
    """Returns the p-value of the smallest of `looks` p-values.

    Args:
        p: the smallest of them. shared: share of each difference's variance that all have in common, such as that of one
            base model; the others' errors are independent. 0 is Sidak's bound (1967), which is too large for dependent
            looks; above 0 `p` is one-sided, and the result is that of Dunnett's comparisons with one control (1955).
    """
    bound = float(-math.expm1(max(looks, 1) * math.log1p(-p))) if p < 1 else 1.0
    if looks < 2 or shared <= 0 or not NEGLIGIBLE < bound < 0.5:
        return bound
    import numpy as np
    from scipy.special import log_ndtr, ndtri

    common = np.linspace(-12.0, 12.0, 241)
    density = np.exp(-(common**2) / 2) / math.sqrt(2 * math.pi)
    limit = (-float(ndtri(p)) + math.sqrt(shared) * common) / math.sqrt(1 - shared)
    exceeds = -np.expm1(looks * log_ndtr(limit))
    return min(float((density * exceeds).sum() * (common[1] - common[0])), bound)


class Level:
    """The error level shared by all comparisons of a sweep.

    Args:
        p_values: of every comparison that may be called real.
    """

    def __init__(self, p_values: Iterable[float]) -> None:
        self._sorted = sorted(p_values)
        count, least = len(self._sorted), 1.0
        self._adjusted = [1.0] * count
        for i in range(count - 1, -1, -1):
            least = min(least, self._sorted[i] * count / (i + 1))
            self._adjusted[i] = least
        strict = ALPHA / (1 + ALPHA)
        first = sum(q <= strict for q in self._adjusted)
        self._none = max(count - first, 1) / max(count, 1) * (1 + ALPHA)
        self._adjusted = [min(max(q * self._none, p), 1.0) for p, q in zip(self._sorted, self._adjusted, strict=True)]
        called = sum(q <= ALPHA for q in self._adjusted)
        self.comparisons = count
        self.threshold = min(ALPHA * max(called, 1) / max(count, 1) / self._none, ALPHA)

    def q(self, p: float) -> float:
        """Returns the adjusted p-value; at most 0.05 where `p` is at most the threshold, for members and others alike."""
        place = bisect_left(self._sorted, p)
        larger = self._adjusted[place] if place < self.comparisons else 1.0
        return max(p, min(larger, p * max(self.comparisons, 1) / max(place, 1) * self._none, 1.0))

    @property
    def standard_errors(self) -> float:
        """How many standard errors a difference must be to be called real, its error being known."""
        return critical(self.threshold)

    def detectable(self, se: float) -> float:
        """Returns the smallest true difference that is called real four times in five."""
        return (self.standard_errors + NORMAL.inv_cdf(POWER)) * se

    def needed_se(self, effect: float) -> float:
        """Returns the standard error at which a true difference of this size is called real four times in five."""
        return abs(effect) / (self.standard_errors + NORMAL.inv_cdf(POWER))


class Spread(NamedTuple):
    """What training again with another seed changes, pooled over the settings that were trained several times.

    `variance`: between seeds, beyond what the items explain. `items`: mean squared error over items, which `variance` does
    not hold. `df`: degrees of freedom, runs less settings.
    """

    variance: float
    items: float
    df: int


def between_seeds(settings: Iterable[Sequence[tuple[float, float]]]) -> Spread | None:
    """Returns the variance between seeds (DerSimonian and Laird's moment estimate, pooled); None without repeats.

    Args:
        settings: per setting, the score of each seed and its squared error over items.
    """
    squares = items = 0.0
    df = 0
    for runs in settings:
        if len(runs) > 1:
            mean = fmean(v for v, _ in runs)
            squares += sum((v - mean) ** 2 for v, _ in runs)
            items += (len(runs) - 1) * fmean(e for _, e in runs)
            df += len(runs) - 1
    if not df:
        return None
    return Spread(max(squares / df - items / df, 0.0), items / df, df)


def with_spread(fixed: float, runs: float, spread: Spread | None) -> tuple[float, float]:
    """Returns the standard error of a mean over `runs` seeds, and its degrees of freedom (Satterthwaite).

    Never fewer than those of the spread itself: a setting with smaller errors over items than the others has no less.

    Args:
        fixed: its squared error without training luck.
    """
    if spread is None or spread.variance == 0:
        return math.sqrt(fixed), math.inf
    total = fixed + spread.variance / runs
    estimated = (spread.variance + spread.items) / runs
    return math.sqrt(total), spread.df * max(total / estimated, 1.0) ** 2


class Line(NamedTuple):
    """A straight line through scores, `middle + slope * (step - at)`; `middle` and `slope` are independent."""

    at: float
    middle: float
    middle_variance: float
    slope: float
    slope_variance: float

    def crosses(self, target: float, target_variance: float) -> tuple[float, float, float] | None:
        """Returns the step at which the line reaches a target with its 95 % range (Fieller 1954).

        None when the slope is not told from zero at this level: then no step can be excluded.
        """
        t2 = critical(ALPHA) ** 2
        gap = target - self.middle
        a = self.slope**2 - t2 * self.slope_variance
        if a <= 0:
            return None
        b = gap * self.slope
        c = gap**2 - t2 * (self.middle_variance + target_variance)
        root = math.sqrt(max(b * b - a * c, 0.0))
        return self.at + gap / self.slope, self.at + (b - root) / a, self.at + (b + root) / a


def fit_line(points: Sequence[tuple[float, float, float]]) -> Line:
    """Fits a line by weighted least squares to (step, score, squared error); errors are taken as known."""
    weights = [1 / max(v, 1e-12) for _, _, v in points]
    total = sum(weights)
    at = sum(w * x for w, (x, _, _) in zip(weights, points, strict=True)) / total
    middle = sum(w * y for w, (_, y, _) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - at) ** 2 for w, (x, _, _) in zip(weights, points, strict=True))
    slope = sum(w * (x - at) * (y - middle) for w, (x, y, _) in zip(weights, points, strict=True)) / spread
    return Line(at, middle, 1 / total, slope, 1 / spread)


class Winner(NamedTuple):
    """The score of what was picked as the best, corrected for having been picked."""

    value: float
    low: float
    high: float


def winner(scores: Sequence[float], errors: Sequence[float]) -> Winner | None:
    """Corrects the highest of several scores for having been picked as the highest.

    Its median-unbiased estimate and the hybrid 95 % range of Andrews, Kitagawa and McCloskey (2024, "Inference on
    winners", Quarterly Journal of Economics 139): given what was picked, the score is a normal one cut off below the
    second best, and within the range that holds for all of them at once.

    Shares of right items come in steps, and settings that answer the same items err together: ties for the first place are
    common, and what a tie says of normal scores is nonsense (the winner would be worth several errors less). So the second
    best counts as at least half an error behind. In simulated sweeps the range then covers 96 % and more, with scores in
    steps of half an error as with exact ones; without it, 43 to 85 % with scores in steps.

    Args:
        scores: more is better; errors independent of each other.
    """
    if not scores:
        return None
    best = max(range(len(scores)), key=lambda i: scores[i])
    y, s = scores[best], errors[best]
    rest = [v for i, v in enumerate(scores) if i != best]
    if not rest or s <= 0:
        half = critical(ALPHA) * s
        return Winner(y, y - half, y + half)
    beta = ALPHA / 10
    reach = NORMAL.inv_cdf((1 + (1 - beta) ** (1 / len(scores))) / 2)
    second = min(max(rest), y - LEAST_LEAD * s)

    def below(mean: float) -> float:
        """P(a score is at most the one seen), this setting having been picked with this true mean."""
        low = NORMAL.cdf(max((second - mean) / s, -reach))
        span = NORMAL.cdf(reach) - low
        return min((NORMAL.cdf((y - mean) / s) - low) / span, 1.0) if span > 1e-15 else 1.0

    tail = (ALPHA - beta) / (1 - beta) / 2
    low, value, high = (_solve(below, p, y - reach * s, y + reach * s) for p in (1 - tail, 0.5, tail))
    return Winner(value, low, high)


def _solve(falling: Callable[[float], float], target: float, low: float, high: float) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > target else (low, middle)
    return (low + high) / 2
