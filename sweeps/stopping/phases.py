"""In which phase a noisy curve is, and why: a small filter over (step, score, standard error).

A fine-tuned model's score outside the trained domain often falls first and comes back later. This module says whether a
curve is in such a dip, on its way back, stuck, falling late, or gone, with the numbers behind it. It knows nothing of
other trials and decides nothing: stop rules and reports do.

Time is in optimizer steps. A dip is given *patience*: until `ratio` times its trough step (published dips are made good
after 2 to 24 times the trough step, median 4; arXiv 2604.06628), no longer than a share of the budget. The trough may
only move to `TROUGH_REACH` times the onset: a curve that keeps sinking does not keep buying time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sweeps.stopping.base import Phase

CLEAR = 2.5  # standard deviations that make a fall, or a rise, one that is believed
LIKELY = 1.0  # those that let a rise be hoped for: one flat curve in six shows as much
CHOSEN = 0.5  # standard errors by which a trough is lower than it should be, having been chosen for it
DEEP = 4.0  # standard errors of one report: a dip that others may learn their patience from
TROUGH_REACH = 4.0  # published troughs come at most 4 times later than the first clear fall
LATE_ONSET = 0.30  # a fall that only begins after this share of the budget is no opening dip
DAMPING = 0.85  # of the filter's trend, per report
LEVEL_NOISE, TREND_NOISE = 0.15, 0.35  # of the filter, per report, in standard errors
PROTECTED = (Phase.DIP, Phase.RECOVERY)  # inside the patience
SHOCK = 3.0  # standard deviations of surprise at which the filter stops believing its own level and trend


class Trend:
    """Straight line in log time through a curve's reports from its trough on: does it rise, and how surely?"""

    def __init__(self) -> None:
        self.count = 0
        self.w = self.wx = self.wy = self.wxx = self.wxy = 0.0

    def add(self, step: int, y: float, sd: float) -> None:
        x, w = math.log(step), 1.0 / (sd * sd)
        self.count += 1
        self.w, self.wx, self.wy = self.w + w, self.wx + w * x, self.wy + w * y
        self.wxx, self.wxy = self.wxx + w * x * x, self.wxy + w * x * y

    @property
    def z(self) -> float:
        """Slope in its standard errors; 0 for fewer than three reports."""
        spread = self.wxx - self.wx * self.wx / self.w if self.count > 2 else 0.0
        return (self.wxy - self.wx * self.wy / self.w) / math.sqrt(spread) if spread > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Phase of a curve at its last report, with the evidence. Scores in the metric's unit, larger is better.

    Attributes:
        level, sd: filtered score and its standard deviation; `slope` is its change per report.
        peak: best level so far, the base score included. trough, trough_step: lowest level since `onset`.
        onset: step of the first report that was clearly below the peak; None outside a fall.
        until: step at which patience with this fall ends; 0 outside a fall.
        protected: in the dip, or on the way back, and still inside the patience.
    """

    phase: Phase
    step: int
    level: float
    sd: float
    slope: float
    peak: float
    trough: float
    trough_step: int
    onset: int | None
    until: float
    protected: bool


class PhaseTracker:
    """Follows one curve, report by report, at ascending steps.

    Args:
        base: the base model's score (larger is better), or None when it is not known: the first report stands in.
        sd: standard error of one report, to start with.
        budget: steps of the whole run.
        ratio: patience with a dip, in multiples of its trough step.
        cap: patience never reaches beyond this share of the budget.
    """

    def __init__(self, base: float | None, sd: float, budget: int, *, ratio: float = 4.0, cap: float = 0.5) -> None:
        self.budget, self.ratio, self.cap = budget, ratio, cap
        self.level, self.slope = base or 0.0, 0.0
        self.var, self.cross, self.slope_var = (0.6 * sd) ** 2, 0.0, (0.8 * sd) ** 2
        self.base, self.started = base, base is not None
        self.peak, self.peak_step = self.level, 0
        self.onset: int | None = None
        self.trough, self.trough_step, self.trough_raw = self.level, 0, self.level
        # Last clear gain since the trough; reports without one.
        self.gained, self.gained_step, self.idle = self.level, 0, 0
        self.trend = Trend()
        self.step, self.reports = 0, 0
        self.recovered: list[float] = []  # ratios (step of return / trough step) of dips that were made good
        self.late_falls = [0, 0]  # begun, made good
        self.phase = Phase.BEFORE

    def update(self, step: int, score: float, sd: float) -> Phase:
        """Takes one report in; returns the phase after it."""
        self.step, self.reports = step, self.reports + 1
        if not self.started:
            self.level = self.peak = score
            self.var, self.started = sd * sd, True
            return self.phase
        self._filter(score, sd)
        level_sd = math.sqrt(self.var)
        if self.level - 0.5 * level_sd > self.peak:
            self.peak, self.peak_step = self.level - 0.5 * level_sd, step
        below = self.peak - self.level > CLEAR * level_sd
        if not below:
            self._back(step, sd)
        elif self.onset is None:
            self.onset = step
            self.late_falls[0] += self.late
            self._sink(step, score, sd)
        elif score < self.trough_raw and self.level < self.trough:
            self._sink(step, score, sd)
        else:
            self.trend.add(step, score, sd)
            self.idle += 1
            if self.level > self.gained + 0.5 * level_sd:
                self.gained, self.gained_step, self.idle = self.level, step, 0
        self.phase = self._phase(level_sd)
        return self.phase

    def skip(self, step: int) -> Phase:
        """Lets time pass without a score: a report that says nothing of it (too many replies cut off)."""
        self.step, self.reports = step, self.reports + 1
        self.phase = self._phase(math.sqrt(self.var))
        return self.phase

    def _filter(self, score: float, sd: float) -> None:
        level, slope = self.level + self.slope, DAMPING * self.slope
        var = self.var + 2 * self.cross + self.slope_var + (LEVEL_NOISE * sd) ** 2
        cross = DAMPING * (self.cross + self.slope_var)
        slope_var = DAMPING**2 * self.slope_var + (TREND_NOISE * sd) ** 2
        noise, surprise = (1.15 * sd) ** 2, score - level
        # A fall of fifty standard errors onto a floor would else be followed by a level far below the floor.
        doubt = max(1.0, ((surprise / SHOCK) ** 2 - noise) / var)
        var, cross, slope_var = doubt * var, doubt * cross, doubt * slope_var
        total = var + noise
        k, k_slope = var / total, cross / total
        self.level, self.slope = level + k * surprise, slope + k_slope * surprise
        self.var, self.cross, self.slope_var = (1 - k) * var, (1 - k) * cross, slope_var - k_slope * cross

    def _sink(self, step: int, score: float, sd: float) -> None:
        """A new low: found in the raw reports, since the filtered level runs on for a report or two after a turn."""
        self.trough, self.trough_step, self.trough_raw = max(self.level, score), step, score
        self.gained, self.gained_step, self.idle = score, step, 0
        self.trend = Trend()
        self.trend.add(step, score + CHOSEN * sd, sd)

    def _back(self, step: int, sd: float) -> None:
        """The fall is made good; how long it took is kept where the fall was deep enough to be no accident."""
        if self.onset is not None and not self.late and self.peak - self.trough_raw > DEEP * sd:
            self.recovered.append(step / self.trough_step)
        self.late_falls[1] += self.late
        self.onset = None

    @property
    def until(self) -> float:
        """Step at which patience with the present fall ends."""
        return self.patience_ends(self.ratio)

    def patience_ends(self, ratio: float) -> float:
        """Returns the step at which a patience of `ratio` times the trough step ends; 0 outside a fall."""
        if self.onset is None:
            return 0.0
        trough = min(self.trough_step, TROUGH_REACH * self.onset)
        return min(ratio * trough, self.cap * self.budget)

    @property
    def late(self) -> bool:
        """The present fall began too late to be the opening dip."""
        return self.onset is not None and self.onset > LATE_ONSET * self.budget

    def _phase(self, level_sd: float) -> Phase:
        if self.onset is None:
            return self._unfallen()
        if self.late:
            return Phase.LATE_DECLINE
        risen = self.trend.z > CLEAR or self.level - self.trough > CLEAR * math.sqrt(2.0) * level_sd
        rising = risen or self.trend.z > LIKELY
        span = max(self.trough_step - self.onset, self.onset)
        stalled = self.idle > 2 and self.step - self.gained_step > max(span, 0.15 * self.budget)
        if rising and not stalled:
            return Phase.RECOVERY
        if self.step < self.until:
            return Phase.DIP if not rising else Phase.PLATEAU
        return Phase.PLATEAU if risen else Phase.COLLAPSE

    def _unfallen(self) -> Phase:
        if self.recovered or self.step > LATE_ONSET * self.budget:
            return Phase.PLATEAU if abs(self.slope) < math.sqrt(self.slope_var) else Phase.BEFORE
        return Phase.BEFORE

    @property
    def protected(self) -> bool:
        """In the dip, or on the way back from it, and inside the patience."""
        return self.phase in PROTECTED and self.step < self.until

    @property
    def overdue(self) -> bool:
        """Still clearly below the base score when patience with an opening dip has run out."""
        low = self.base is None or self.level < self.base - CLEAR * math.sqrt(self.var)
        return self.onset is not None and not self.late and self.step >= self.until and low

    def reading(self) -> Reading:
        """Returns the phase and the numbers behind it."""
        return Reading(
            self.phase,
            self.step,
            self.level,
            math.sqrt(self.var),
            self.slope,
            self.peak,
            self.trough,
            self.trough_step,
            self.onset,
            self.until,
            self.protected,
        )
