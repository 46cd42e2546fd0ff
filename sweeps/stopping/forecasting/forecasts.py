"""Forecasts of one metric of all trials: beliefs about where each will end, learning from each other.

Two views stand side by side. In the first `FORM_DRAWS` possible outcomes of the sweep a trial ends where its forecast says, from
which ways curves go. In the other `LEVEL_DRAWS` only its present level counts, and what the sweep's runs still gained from
there: trials at equal step compare by their levels. How the sweep's finished runs turned out decides how much each view
counts (`sweeps.stopping.forecasting.self_check`).

Trials of one sweep dip alike. What the others' curves have made likely (which family, first movement after how many
steps) therefore re-weights the library for each trial: `POOL` pseudo-trials of prior against every trial seen. Each tells what
its own curve says by itself, not what it has been told.

Units: inside, a score is in standard errors of one report, measured from the base model, larger is better. The unit is
fixed by the first report; where no standard error is reported it is estimated from how rough all curves are.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sweeps.journal.history import Curve, History, Point
from sweeps.journal.rows import ReportRow, Row
from sweeps.stopping.diagnostics import SPOILT, TRUNCATED, normal_truncation
from sweeps.stopping.forecasting.curve_library import FAMILIES, Array, library
from sweeps.stopping.forecasting.experience import Experience, experience_of
from sweeps.stopping.forecasting.forecast import Belief, Forecast, Forecasts, GainCache, Noise, view_of
from sweeps.stopping.forecasting.self_check import Prediction, SelfCheck
from sweeps.stopping.forecasting.shared_gain import (
    KNOTS,
    WIDTHS,
    Prior,
    Revision,
    SharedGain,
    ahead,
    normal_quantiles,
    schedule_time,
)
from sweeps.stopping.noise import RESOLUTION, SMALLEST, as_number, estimate, standard_error, usable
from sweeps.stopping.phases import DEEP, PhaseTracker

DECAY = 0.2  # share of the budget in which a WSD rate falls, where the settings do not say it
POOL = 6.0
PATIENCE_POOL = 4.0
MADE_GOOD = 0.5  # share of its fall that a dip has to make good within the patience, to be worth waiting for
LEAST_PATIENCE = 0.5  # of the patience as set, where the dips of this sweep were not made good
BINS = 24  # octaves of the time of the first movement, in steps
FORM_DRAWS, LEVEL_DRAWS = 64, 32
DRAWS = FORM_DRAWS + LEVEL_DRAWS  # possible outcomes of a sweep: where forecasts hold, and where only levels count
LEAST_REVISED = 0.3  # standard errors that a forecast is taken to change by where it claims to be surer than that
LEAST_SCALE = 3.0  # the sweep's own spread is at least this many standard errors
FINEST_SD = 1e-9  # of a forecast, in standard errors of a report: what others add to its variance is divided by it
MOST_OWN = 1e6  # the sweep's spread counts as this many of a forecast's own standard deviations at most
FAR = 30.0  # prior standard deviation of the base score where nobody measured it, in standard errors
CENSORED = 30.0  # a reply cut off may have been right: a rise of truncation by 10 % makes a report 4 times vaguer
CUT_OFF_SD = 12**-0.5  # standard deviation of what a share may gain by that, in the share cut off: none of it to all
FURTHEST = 1e6  # a score further from the base than this, in standard errors, says no more than that it is far away
SHARE_ERROR = 0.012  # standard error at which a share's movements are sized as in the library: dips of 2.4 to 58 points
MOST_SIZED = 8.0  # ... and never by more than this either way
OWN_LEFT = 0.3  # share of what a run's forecasts will change by beside all others that they do not foresee themselves
MOST_MOVED = 3.0  # a change of level beyond this many of its standard deviations counts as that many
PREDICT_FROM = 0.06  # schedule time from which on the check keeps what was expected
RETURN = 0.25  # chance that a late fall is made good, to start with: a quarter to a half of recorded ones were
RETURN_POOL = 4.0  # ... and falls that it counts for beside the sweep's own
RETURN_WITHIN = 0.2  # ... and the share of the budget within which it shows
_U: Array = (np.arange(FORM_DRAWS) + 0.5) / FORM_DRAWS
_NORMAL: Array = normal_quantiles(LEVEL_DRAWS)
_KNOTS: list[float] = KNOTS.tolist()
_sum = np.add.reduce  # over the first axis; the method of an array costs twice as much for a few numbers
_TAIL: Array = np.array([0.5 * math.erfc((i / 100.0 - 6.0) / math.sqrt(2.0)) for i in range(1201)])
_TAIL_STEP: Array = np.diff(_TAIL)
_SEEN: Array = normal_quantiles(DRAWS)
_LEVELS = Prior(sd=0.3, own=0.5, decay_own=0.0, doubt=2.0, common=2.0, least=0.001, early=True)


@dataclass(slots=True)
class TrialForecast:
    """One trial's curve of one metric, read up to `last`, and what is expected of its `final` score.

    `horizon` is the number of steps that the library's time axis stands for. `base` is in the metric's unit with its
    sign turned so that larger is better; `mass` is what its own curve says of the pooling cells; `order` shuffles the draws.

    `kind` is the schedule's, and the octave of the budget where the rate follows that: 400 steps gain more in a tenth of a run
    than 100 do. `decay_start` is the schedule fraction at which its decay begins. `now` and `end` are where the run
    is, and where its budget ends, on the common time axis of `sweeps.stopping.forecasting.shared_gain`; `anchor` is the last knot
    there that it passed, with the mean and variance of its forecast then, and `revisions` what it has told of the
    intervals; `mark` is the level at that knot, and `moves` its changes from knot to knot. `predictions`
    are what was expected of its final score, one an interval. `reach` is how far its scores have been from its base.
    `level`, `level_sd`: where it stands, in `unit`s from its base. That is what `phase` makes of it, or the last score itself
    where so many of its replies were cut off that no phase is read from it.
    """

    trial: str
    budget: int
    horizon: int
    suite: str
    base: float
    base_known: bool
    unit: float
    belief: Belief
    phase: PhaseTracker
    last: int = 0
    reports: int = 0
    level: float = 0.0
    level_sd: float = 1.0
    row: int = 0
    kind: str = ""
    decay_start: float | None = None
    now: float = 0.0
    end: float = 1.0
    anchor: tuple[int, float, float] | None = None
    revisions: list[Revision] = field(default_factory=list)
    mark: float = 0.0
    moves: list[Revision] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    reach: float = 0.0
    mass: Array = field(default_factory=lambda: np.zeros(0))
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    final: Forecast | None = None

    def in_unit(self, z: float) -> float:
        return self.base + self.unit * z


@dataclass(frozen=True, slots=True)
class Cells:
    """Pooling cells of the library for one budget: index of every entry; prior mass of every cell, as it is pooled with what
    was seen, and never quite 0."""

    index: np.ndarray
    pool: Array
    floored: Array


class Gained(NamedTuple):
    """What runs of a kind gain in every interval: in every possible outcome of the sweep, [INTERVALS, DRAWS], and how far
    changes of forecasts and of levels scatter, [INTERVALS]."""

    outcomes: Array
    spread: Array
    level_spread: Array


class CurveForecaster:
    """Forecasts one metric of all trials of one sweep.

    Args:
        metric, sign: name, and +1 where larger is better.
        history: the sweep's history; read, never written.
        patience, cap: of the phase trackers (`sweeps.stopping.phases`).
        best: where a trial is worth its best checkpoint. Then a "final" score is the highest still to come, here as in all that
            this is asked, and `kept` the highest that there has been.
        counts: whether a checkpoint of a trial may be its best (it meets what the sweep demands); by default all may.
    """

    def __init__(
        self,
        metric: str,
        sign: float,
        history: History,
        *,
        patience: float,
        cap: float,
        noise: Noise | None = None,
        best: bool = False,
        counts: Callable[[str, Point], bool] = lambda trial, point: True,
    ) -> None:
        self.metric, self.sign, self.history = metric, sign, history
        self.patience, self.cap, self.noise = patience, cap, noise or Noise()
        self.best, self.counts = best, counts
        self.library = library()
        self.cache = GainCache(self.library, self.noise)
        self.trials: dict[str, TrialForecast] = {}
        self.ratios: dict[str, tuple[float, ...]] = {}
        self.made_good: dict[str, dict[str, bool]] = {}  # by kind: runs whose dip had the whole patience
        self._ratio: dict[str, float] = {}  # patience as these make it, by kind; empty where they changed
        self.unit, self.estimated = 0.0, False
        self.changed: set[str] = set()  # trials whose possible outcomes are new; whoever keeps outcomes empties it
        self.finals = Forecasts()
        self.longest = 1  # budget of any trial that was scored, in steps
        self._looked, self._look_at = 0, 1.0
        self.gains: dict[str, SharedGain] = {}
        self.quantiles = np.empty((32, FORM_DRAWS))
        self.shift, self.spread = np.zeros((32, DRAWS)), np.ones(32)
        self.moves: dict[str, SharedGain] = {}
        self.level, self.level_sd, self.level_error = np.zeros(32), np.ones(32), np.ones(32)
        self.level_draws = np.zeros((32, LEVEL_DRAWS))
        # Highest level of any checkpoint so far, -inf before the first, with its error; and draws of a normal number.
        self.seen, self.seen_error = np.full(32, -np.inf), np.zeros(32)
        self.own, self.own_error = np.full(32, -np.inf), np.zeros(32)  # likewise, of what a trial trained itself
        self.seen_draws = np.zeros((32, DRAWS))
        # Chance that a late fall is made good, and level before it.
        self.back, self.back_to = np.zeros(32), np.zeros(32)
        self.variance = np.ones(32)  # of the final, as the forecast alone says
        self.late_falls: dict[int, list[int]] = {}  # begun, made good
        self._falls = [0, 0]  # the same of all trials together
        self.ahead = np.zeros((32, len(KNOTS) - 1))
        self.time = np.zeros(32, dtype=np.int64)  # equal where kind, `now` and `end` are: `_times` numbers these
        self._times: dict[tuple[str, float, float], int] = {}
        self._behind: TrialForecast | None = None  # has a new forecast, but not yet what the shared gains add to it
        self._gains_of: dict[str, tuple[tuple[int, int, float], Gained]] = {}  # state of the gains, and `_gained`
        self.reach = np.zeros(32)
        self.scale = 0.0  # the sweep's own spread: how far a run's scores go from its base, in the metric's unit
        # Version of the shared gains, scale, and the check's width that `shift` and `spread` are of.
        self._shifted = 0, 0.0, 1.0
        self._weighed = math.nan, np.zeros(DRAWS)  # weight of levels, and what `weights` made of it
        self.pooled = np.zeros(len(FAMILIES) * BINS)
        self._cells: dict[int, Cells] = {}
        self.check = SelfCheck()
        self.experience = Experience()
        self._forms, self._formed = np.zeros_like(self.pooled), 0.0

    def expect(self, experience: Experience) -> None:
        """Begins from what finished sweeps say; before the first score of this one."""
        self.experience = experience
        self._ratio.clear()
        self._forms, self._formed = experience.forms(len(self.pooled))

    def current(self, trial: str) -> TrialForecast | None:
        """Returns a trial's forecast; None where it has none, or none but that of an attempt whose scores were dropped."""
        forecast = self.trials.get(trial)
        point = self.history.curves[trial].points.get(forecast.last) if forecast is not None else None
        return forecast if point is not None and self.metric in point.metrics else None

    def as_experience(self) -> dict[str, Any]:
        """Returns what this sweep says of another (`sweeps.stopping.forecasting.experience`), as JSON."""
        known = experience_of(self.gains, self.moves, self.scale, self.pooled)
        good = [good for runs in self.made_good.values() for good in runs.values()]
        dips = [sum(good), len(good)]
        return {**known, "curves": len(self.trials), "dips": dips}

    # --- rows in ---------------------------------------------------------------------------------------------------

    def observe(self, row: Row) -> None:
        """Brings the beliefs up to date with a row that `history` has already folded in."""
        self._catch_up()
        if row.kind == "attempt":
            forecast = self.trials.get(row.trial)
            if forecast is not None and forecast.last > (row.step or 0):
                self._rebuild(row.trial)
        if not isinstance(row, ReportRow) or row.step is None or not usable(row.metrics.get(self.metric, math.nan)):
            return
        if row.trial in self.history.base:
            for trial in [t for t, c in self.history.curves.items() if f"base-{c.model}" == row.trial]:
                self._rebuild(trial)
        elif row.step == 0:
            self._rebuild(row.trial)
        else:
            self._report(row.trial, row.step)

    def _report(self, trial: str, step: int) -> None:
        curve = self.history.curves[trial]
        self._settle_unit(curve, step)
        if not self.unit:
            return
        forecast = self.trials.get(trial)
        point = curve.points[step]
        if forecast is None or step <= forecast.last or point.suite != forecast.suite or forecast.unit != self.unit:
            self._rebuild(trial)
        else:
            self._absorb(forecast, point)
            self._refresh(forecast)

    def _settle_unit(self, curve: Curve, step: int) -> None:
        if self.unit and not self.estimated:
            return
        se = standard_error(curve.points[step].se.get(self.metric))
        if se:
            self.unit, self.estimated = (
                max(se, RESOLUTION * abs(curve.points[step].metrics[self.metric]), SMALLEST),
                False,
            )
            self._size(curve.points[step])
            return
        self._looked += 1
        if self._looked >= self._look_at and len(curve.points) >= 3:
            self._look_at = 1.25 * self._looked  # every curve is read: not at every report
            rough = estimate(self.history.curves.values(), self.metric)
            if not (self.unit and 0.75 < rough / self.unit < 1.33):
                self.unit, self.estimated = rough, True

    def _size(self, point: Point) -> None:
        """Sizes the library in points where scores are shares of right answers: reported with their items, in [0, 1]."""
        if self._is_share(point):
            factor = min(max(SHARE_ERROR / self.unit, 1.0 / MOST_SIZED), MOST_SIZED)
            self.library = library().sized(factor)
            self.cache = GainCache(self.library, self.noise)

    def _is_share(self, point: Point) -> bool:
        """Whether the score is a share of right answers."""
        return self.metric in point.n and 0.0 <= point.metrics[self.metric] <= 1.0

    def _rebuild(self, trial: str) -> None:
        """Absorbs a trial's curve anew: after a late or corrected row, a new suite, a new unit."""
        self._catch_up()
        curve = self.history.curves.get(trial)
        steps = self._scored(curve) if curve else []
        if curve is None or not steps or not self.unit or not _budget(curve):
            return
        suite = curve.points[steps[-1]].suite
        old = self.trials.get(trial)
        forecast = self._begin(curve, suite, old.row if old else len(self.trials))
        if old is not None:
            self.pooled -= old.mass
            if old.revisions or old.moves:
                others = [t for t in self.trials.values() if t is not old and t.kind == old.kind]
                self.gains[old.kind].tell_again([r for t in others for r in t.revisions])
                self.moves[old.kind].tell_again([r for t in others for r in t.moves])
            self.check.forget(trial)
            self.made_good.get(old.kind, {}).pop(trial, None)
            self.ratios.pop(trial, None)
            self._ratio.clear()
        self.trials[trial] = forecast
        for step in steps:
            if curve.points[step].suite == suite:
                self._absorb(forecast, curve.points[step])
        self._refresh(forecast)

    def _scored(self, curve: Curve) -> list[int]:
        """Returns the steps of a curve, ascending, at which it has a score that can be calculated with."""
        return [s for s in curve.steps(self.metric) if s > 0 and usable(curve.points[s].metrics[self.metric])]

    def _begin(self, curve: Curve, suite: str, row: int) -> TrialForecast:
        base = self.history.base_point(curve.trial)
        known = base is not None and usable(base.metrics.get(self.metric, math.nan)) and base.suite in ("", suite)
        first = next(p for p in map(curve.points.__getitem__, self._scored(curve)) if p.suite == suite)
        anchor = base if known and base is not None else first
        value = self.sign * anchor.metrics[self.metric]
        sd = self._error(anchor, self.unit) if known else FAR
        config = curve.config
        schedule, budget = _schedule(config), _budget(curve)
        start = 1.0 - _decay(config) if schedule == "wsd" else None
        kind = schedule if schedule == "constant" else f"{schedule}@{round(math.log2(budget))}"
        self.longest = max(self.longest, budget)
        while row >= len(self.quantiles):
            self._grow()
        phase = PhaseTracker(0.0 if known else None, sd if known else 1.0, budget, ratio=self.patience, cap=self.cap)
        order = np.random.default_rng(zlib.crc32(curve.trial.encode())).permutation(FORM_DRAWS)
        horizon = self._horizon(curve, budget)
        forecast = TrialForecast(
            trial=curve.trial,
            budget=budget,
            horizon=horizon,
            suite=suite,
            base=value,
            base_known=known,
            unit=self.unit,
            belief=Belief(self.cache, sd, budget / horizon),
            phase=phase,
            row=row,
            order=order,
        )
        self.level_draws[row] = _NORMAL[order[order < LEVEL_DRAWS]]
        again = np.random.default_rng([zlib.crc32(curve.trial.encode()), 1])
        self.seen[row], self.seen_draws[row] = -np.inf, _SEEN[again.permutation(DRAWS)]
        self.own[row] = -np.inf
        forecast.kind, forecast.decay_start, forecast.end = kind, start, schedule_time(budget / horizon, start)
        if kind not in self.gains:
            self.gains[kind] = SharedGain(schedule == "wsd", FORM_DRAWS)
            self.moves[kind] = SharedGain(schedule == "wsd", LEVEL_DRAWS, _LEVELS)
            self.experience.teach(self.gains[kind], schedule, "forecasts")
            self.experience.teach(self.moves[kind], schedule, "levels")
        return forecast

    def _grow(self) -> None:
        """Makes room for twice as many trials."""
        names = ["quantiles", "shift", "spread", "ahead", "reach", "level", "level_sd", "level_error", "level_draws"]
        names += ["variance", "back", "back_to", "time", "seen", "seen_error", "own", "own_error", "seen_draws"]
        for name in names:
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))

    def _horizon(self, curve: Curve, budget: int) -> int:
        """The sweep's longest budget where the rate does not follow the trial's own budget, else that budget.

        A cosine or WSD run of half the budget is a whole run in half the time. Under a constant rate, or where the
        schedule is not known, it is the first half of the longer run.
        """
        if _schedule(curve.config) != "constant":
            return budget
        return max([budget, *map(_budget, self.history.curves.values())])

    def _absorb(self, forecast: TrialForecast, point: Point) -> None:
        z = (self.sign * point.metrics[self.metric] - forecast.base) / forecast.unit
        z = min(max(z, -FURTHEST), FURTHEST)
        sd = self._error(point, forecast.unit)
        cut_off = 0.0
        if TRUNCATED in point.metrics:
            cut_off = max(0.0, point.metrics[TRUNCATED] - normal_truncation(self.history, forecast.trial))
        left = cut_off if point.step < forecast.budget else 0.0  # what has ended is worth the score that it has
        forecast.belief.update(point.step / forecast.horizon, z, sd * (1.0 + CENSORED * left))
        forecast.phase.ratio = self.ratio(forecast.kind)
        if cut_off > SPOILT:
            forecast.phase.skip(point.step)
            vague = CUT_OFF_SD * left / forecast.unit if self._is_share(point) else CENSORED * left * sd
            forecast.level, forecast.level_sd = z, math.hypot(sd, vague)
        else:
            forecast.phase.update(point.step, z, sd)
            forecast.level, forecast.level_sd = forecast.phase.level, math.sqrt(forecast.phase.var)
            self._see(forecast, point)
            self._learn_patience(forecast, sd)
        recovered = tuple(forecast.phase.recovered)
        if recovered and recovered != self.ratios.get(forecast.trial):
            self.ratios[forecast.trial] = recovered
            self._ratio.clear()
        forecast.last, forecast.reports = point.step, forecast.reports + 1
        forecast.now = min(schedule_time(point.step / forecast.horizon, forecast.decay_start), forecast.end)
        forecast.reach = max(forecast.reach, abs(z) * forecast.unit)

    def _see(self, forecast: TrialForecast, point: Point) -> None:
        """Keeps the highest level so far: filtered, so that a single lucky score is not taken at its word."""
        level, row = forecast.in_unit(forecast.phase.level), forecast.row
        if level <= min(self.seen[row], self.own[row]) or not self.counts(forecast.trial, point):
            return
        error = forecast.unit * math.sqrt(forecast.phase.var)
        if level > self.seen[row]:
            self.seen[row], self.seen_error[row] = level, error
        if level > self.own[row] and not point.inherited:
            self.own[row], self.own_error[row] = level, error

    def kept(self, rows: np.ndarray) -> Array:
        """Returns the highest score that each trial has had, in every possible outcome of the sweep, [rows, DRAWS]."""
        return np.asarray(self.seen[rows, None] + self.seen_error[rows, None] * self.seen_draws[rows])

    def kept_own(self, rows: np.ndarray) -> Array:
        """Returns likewise the highest score of a checkpoint that each trial trained itself: those that a branch has of its trunk
        take a place for that one alone."""
        return np.asarray(self.own[rows, None] + self.own_error[rows, None] * self.seen_draws[rows])

    def _error(self, point: Point, unit: float) -> float:
        """Returns a report's standard error in `unit`, 1 where it came without; between 0.3 and `FURTHEST`."""
        return min(max((standard_error(point.se.get(self.metric)) or unit) / unit, 0.3), FURTHEST)

    def _learn_patience(self, forecast: TrialForecast, sd: float) -> None:
        """Keeps whether a run made good half of its opening dip within the patience as it was set."""
        phase, runs = forecast.phase, self.made_good.setdefault(forecast.kind, {})
        known = runs.get(forecast.trial)
        fallen = phase.onset is not None and not phase.late and phase.peak - phase.trough_raw >= DEEP * sd
        good = bool(phase.recovered)
        if not good:
            if known is not None or not fallen or phase.step < phase.patience_ends(self.patience):
                return
            good = phase.level - phase.trough > MADE_GOOD * (phase.peak - phase.trough)
        if good is not known:
            runs[forecast.trial] = good
            self._ratio.clear()

    def ratio(self, kind: str) -> float:
        """Patience with a dip of runs of a kind, in multiples of its trough step: as set, moved towards what dips of this sweep
        took, and down to half of it where most dips of the kind were not made good by then."""
        if kind not in self._ratio:
            seen = [math.log(r) for ratios in self.ratios.values() for r in ratios]
            mean = (PATIENCE_POOL * math.log(self.patience) + sum(seen)) / (PATIENCE_POOL + len(seen))
            (earlier_good, earlier), runs = self.experience.dips(), self.made_good.get(kind, {})
            good, had = sum(runs.values()) + earlier_good, len(runs) + earlier
            chance = (0.5 * PATIENCE_POOL + good) / (PATIENCE_POOL + had)
            patience = math.exp(mean) * min(2.0 * chance, 1.0)
            self._ratio[kind] = min(max(patience, LEAST_PATIENCE * self.patience), 3.0 * self.patience)
        return self._ratio[kind]

    # --- beliefs out -----------------------------------------------------------------------------------------------

    def _refresh(self, forecast: TrialForecast) -> None:
        self.changed.add(forecast.trial)
        cells = self._cells_of(forecast.horizon)
        if forecast.mass.size:
            self.pooled -= forecast.mass
        others = len(self.trials) - 1
        seen = self._forms + np.maximum(self.pooled, 0.0)
        pooled = (cells.pool + seen) / (POOL + self._formed + others)
        ratio = np.maximum(pooled, 1e-7) / cells.floored
        alone = forecast.belief.weights(self.library.log_weight)
        weights = alone * ratio[cells.index]
        weights /= weights.sum()
        # What others made likely is not told to them again: else each would confirm the next, and all the first.
        forecast.mass = np.asarray(np.bincount(cells.index, alone, minlength=len(self.pooled)), np.float64)
        self.pooled += forecast.mass
        end = final = forecast.belief.forecast(weights)
        if self.best and forecast.last < forecast.budget:
            final = forecast.belief.best_to_come(weights)
        forecast.final = final
        self.variance[forecast.row] = (forecast.unit * max(final.sd, FINEST_SD)) ** 2
        self.finals.put(forecast.row, final, forecast.base, forecast.unit)
        self.quantiles[forecast.row] = forecast.base + forecast.unit * final.quantiles(_U)[forecast.order]
        self.ahead[forecast.row], self.reach[forecast.row] = ahead(forecast.now, forecast.end), forecast.reach
        self.time[forecast.row] = self._times.setdefault((forecast.kind, forecast.now, forecast.end), len(self._times))
        self.level[forecast.row] = forecast.in_unit(forecast.level)
        self.level_error[forecast.row] = (forecast.unit * forecast.level_sd) ** 2
        self._late_fall(forecast)
        self._revise(forecast, forecast.in_unit(end.mean), (forecast.unit * end.sd) ** 2)
        self._behind = forecast
        self._predict(forecast)

    def _late_fall(self, forecast: TrialForecast) -> None:
        """A late fall may be a dip as well: with a chance that is learnt, and fades while it does not turn."""
        phase, row = forecast.phase, forecast.row
        if self.late_falls.get(row) != phase.late_falls:
            before = self.late_falls.get(row, [0, 0])
            self._falls = [n + now - then for n, now, then in zip(self._falls, phase.late_falls, before, strict=True)]
            self.late_falls[row] = list(phase.late_falls)
        begun, good = self._falls
        left = 1.0 - (forecast.last - (phase.onset or 0)) / (RETURN_WITHIN * forecast.budget)
        chance = max((RETURN * RETURN_POOL + good) / (RETURN_POOL + begun), 0.5 * RETURN)
        self.back[row] = chance * max(left, 0.0) if phase.late else 0.0
        self.back_to[row] = forecast.in_unit(phase.peak)

    def _predict(self, forecast: TrialForecast) -> None:
        """Keeps what both views expect of a run, once an interval; when it has finished, the check learns from it."""
        row, final = forecast.row, forecast.final
        if forecast.last >= forecast.budget:
            self._catch_up()
            value, error = float(self.level[row]), float(self.level_error[row])
            if self.best and self.seen[row] > value:
                value, error = float(self.seen[row]), float(self.seen_error[row] ** 2)
            self.check.finish(forecast.trial, forecast.predictions, value, error)
        elif (
            final and forecast.anchor and forecast.now > PREDICT_FROM and len(forecast.predictions) < forecast.anchor[0]
        ):
            self._catch_up()
            if self.best:
                forecast.predictions.append(self._best_predicted(row))
                return
            middle, variance = mean_and_variance(self.shift[row, :FORM_DRAWS])
            level, level_variance = mean_and_variance(self.shift[row, FORM_DRAWS:])
            spread = self.spread[row] / self.check.wider
            forecast.predictions.append(
                Prediction(
                    float(self.finals.mean[row] + middle),
                    float((spread * forecast.unit * final.sd) ** 2 + variance),
                    float(self.level[row] + level),
                    float(self.level_sd[row] ** 2 + level_variance),
                )
            )

    def _best_predicted(self, row: int) -> Prediction:
        """What both views expect of the best of a whole run: the highest so far, or still to come."""
        rows = np.array([row])
        best = np.maximum(self.outcomes(rows), self.kept(rows))[0]
        forms, levels = best[:FORM_DRAWS], best[FORM_DRAWS:]
        variance = float(forms.var()) / self.check.wider**2
        return Prediction(float(forms.mean()), variance, float(levels.mean()), float(levels.var()))

    def _revise(self, forecast: TrialForecast, mean: float, variance: float) -> None:
        """Tells the shared gains how a run's forecast changed over every interval that it has passed since the last knot."""
        knot = bisect_right(_KNOTS, forecast.now + 1e-9) - 1
        level = float(self.level[forecast.row])
        if forecast.anchor is None:
            forecast.anchor, forecast.mark = (knot, mean, variance), level
            self.scale = self._measure_scale()
            return
        passed, before, variance_before = forecast.anchor
        if knot <= passed:
            return
        least = max((LEAST_REVISED * forecast.unit) ** 2, 0.01 * variance_before)
        resolved = max(variance_before - variance, least)
        widths, gains = WIDTHS[passed:knot], self.gains[forecast.kind]
        own = (self.scale**2 * gains.own_variance[passed:knot]).tolist()
        for k, share in enumerate((widths / widths.sum()).tolist()):
            revision = Revision(passed + k, share * (mean - before), share * resolved + own[k], share)
            forecast.revisions.append(revision)
            gains.add(revision)
        self._move(forecast, passed, knot)
        forecast.anchor, forecast.mark = (knot, mean, variance), level
        self.scale = self._measure_scale()

    def _move(self, forecast: TrialForecast, passed: int, knot: int) -> None:
        """Tells how far a run's level changed over intervals `passed` to `knot`, split as the prior's variance is."""
        moves, level = self.moves[forecast.kind], float(self.level[forecast.row])
        variances = self.scale**2 * moves.own_variance[passed:knot]
        total = float(variances.sum())
        bound = MOST_MOVED * math.sqrt(total)
        change = min(max(level - forecast.mark, -bound), bound)
        for k, variance in enumerate(variances):
            move = Revision(passed + k, float(change * variance / total), float(variance), float(variance / total))
            forecast.moves.append(move)
            moves.add(move)

    def _shift(self, rows: np.ndarray, kind: str) -> None:
        """Brings what the shared gains add to the forecasts of trials of one kind up to date: once for all that are at
        equal time."""
        gains, moves = self.gains[kind], self.moves[kind]
        gained, spread, level_spread = self._gained(kind)
        _, first, same = np.unique(self.time[rows], return_index=True, return_inverse=True)
        left = self.ahead[rows[first]]
        # Sums and no matrix product: one row or all of them, the last digit is the same.
        self.shift[rows] = (left[:, :, None] * gained).sum(1)[same]
        own = (left * moves.own_variance * level_spread).sum(1)[same]
        self.level_sd[rows] = np.sqrt(self.scale**2 * own + self.level_error[rows])
        weight = left * gains.prior_variance
        total = weight.sum(1)
        wider = self.check.wider**2 * (weight * spread).sum(1) / np.maximum(total, 1e-12)
        own = (left * gains.own_variance).sum(1)[same]
        told = np.minimum(self.scale / np.sqrt(self.variance[rows]), MOST_OWN)
        wider = np.sqrt(wider[same] * (1.0 + OWN_LEFT * own * told * told))
        self.spread[rows] = np.where((total > 0.0)[same], wider, 1.0)  # a final that is known is as sure as its scores

    def _shift_one(self, row: int, kind: str) -> None:
        """The same for one trial, which is what most reports ask for: to the last digit, in half the time."""
        gains, moves = self.gains[kind], self.moves[kind]
        gained, spread, level_spread = self._gained(kind)
        left = self.ahead[row]
        self.shift[row] = _sum(left[:, None] * gained)
        own = _sum(left * moves.own_variance * level_spread)
        self.level_sd[row] = math.sqrt(self.scale**2 * own + self.level_error[row])
        weight = left * gains.prior_variance
        total = _sum(weight)
        wider = self.check.wider**2 * _sum(weight * spread) / max(total, 1e-12)
        own = _sum(left * gains.own_variance)
        told = min(self.scale / math.sqrt(self.variance[row]), MOST_OWN)
        wider = math.sqrt(wider * (1.0 + OWN_LEFT * own * told * told))
        self.spread[row] = wider if total > 0.0 else 1.0

    def _catch_up(self) -> None:
        """Brings the trial that reported last up to date, with what the shared gains were at its report."""
        if self._behind is not None:
            self._shift_one(self._behind.row, self._behind.kind)
            self._behind = None

    def _gained(self, kind: str) -> Gained:
        """Returns every interval's gain in every possible outcome of the sweep, and how far forecasts and levels scatter."""
        gains, moves = self.gains[kind], self.moves[kind]
        state = gains.version, moves.version, self.scale
        known = self._gains_of.get(kind)
        if known is None or known[0] != state:
            (forms, spread), (levels, level_spread) = gains.outcomes(self.scale), moves.outcomes(self.scale)
            known = self._gains_of[kind] = state, Gained(np.concatenate([forms, levels], axis=1), spread, level_spread)
        return known[1]

    def _measure_scale(self) -> float:
        n, reach = len(self.trials), np.sort(self.reach[: len(self.trials)])
        return max(float(reach[(n - 1) // 2] + reach[n // 2]) / 2.0, LEAST_SCALE * self.unit)

    def follow(self) -> None:
        """Brings all trials up to date with the shared gains; where these are not what they were, all have changed."""
        version = sum(g.version for g in (*self.gains.values(), *self.moves.values())), self.scale, self.check.wider
        if version == self._shifted:
            self._catch_up()
            return
        self._shifted, self._behind = version, None
        by_kind: dict[str, list[int]] = {}
        for forecast in self.trials.values():
            by_kind.setdefault(forecast.kind, []).append(forecast.row)
        for kind, rows in by_kind.items():
            if len(rows) == 1:
                self._shift_one(rows[0], kind)
            else:
                self._shift(np.array(rows), kind)
        self.changed.update(self.trials)

    def outcomes(self, rows: np.ndarray) -> Array:
        """Returns the final scores of trials in every possible outcome of the sweep, [rows, DRAWS]."""
        self._catch_up()
        at = view_of(rows)
        mean = self.finals.mean[at, None]
        forms = mean + self.spread[at, None] * (self.quantiles[at] - mean)
        levels = self.level[at, None] + self.level_sd[at, None] * self.level_draws[at]
        return np.asarray(np.concatenate([forms, levels], axis=1) + self.shift[at])

    def probabilities_above(self, rows: np.ndarray, marks: Array) -> Array:
        """Returns the probability that each trial ends above its mark in every possible outcome, [rows, DRAWS].

        Args:
            rows: of the trials. marks: signed scores, [rows, DRAWS] or anything that stretches to it.
        """
        self._catch_up()
        at = view_of(rows)
        own = marks - self.shift[at]
        mean = self.finals.mean[at, None]
        forms = mean + (own[:, :FORM_DRAWS] - mean) / self.spread[at, None]
        levels = (own[:, FORM_DRAWS:] - self.level[at, None]) / self.level_sd[at, None]
        odds = np.concatenate([self.finals.above(rows, forms), upper_tail(levels)], axis=1)
        (fallen,) = self.back[at].nonzero()
        if len(fallen):
            low = rows[fallen]
            returned = upper_tail((own[fallen] - self.back_to[low, None]) / self.level_sd[low, None])
            odds[fallen] = np.maximum(odds[fallen], self.back[low, None] * returned)
        return np.asarray(odds)

    def weights(self) -> Array:
        """Returns how much every possible outcome counts, [DRAWS], summing to 1."""
        w = self.check.levels
        if w != self._weighed[0]:
            parts = [(1.0 - w) / FORM_DRAWS, w / LEVEL_DRAWS]
            self._weighed = w, np.repeat(parts, [FORM_DRAWS, LEVEL_DRAWS])
        return self._weighed[1]

    def _cells_of(self, horizon: int) -> Cells:
        if horizon not in self._cells:
            octave = np.clip(np.floor(np.log2(self.library.timing * horizon)), 0, BINS - 1).astype(np.int64)
            index = self.library.family * BINS + octave
            prior = np.bincount(index, np.exp(self.library.log_weight), minlength=len(self.pooled)).astype(np.float64)
            self._cells[horizon] = Cells(index, POOL * prior, np.maximum(prior, 1e-12))
        return self._cells[horizon]

    def probability_above(self, forecast: TrialForecast, threshold: float) -> float:
        """Returns the probability that the trial ends above `threshold` (signed metric unit)."""
        return float((self.probabilities_above(np.array([forecast.row]), np.array([[threshold]])) @ self.weights())[0])

    def span(self, forecast: TrialForecast) -> Array:
        """Returns the 10 %, 50 % and 90 % quantiles of the trial's final score (signed metric unit)."""
        ends = self.outcomes(np.array([forecast.row]))[0]
        order = np.argsort(ends)
        mass = np.cumsum(self.weights()[order])
        return np.asarray(np.interp((0.1, 0.5, 0.9), mass - 0.5 * self.weights()[order], ends[order]))


def mean_and_variance(values: Array) -> tuple[float, float]:
    """As NumPy's mean and var, without what these do for other kinds of arrays."""
    mean = _sum(values) / len(values)
    apart = values - mean
    return mean, _sum(apart * apart) / len(values)


def upper_tail(z: Array) -> Array:
    """Returns the probability that a standard normal number exceeds `z`."""
    place = np.minimum(np.maximum((z + 6.0) * 100.0, 0.0), 1199.999)
    i = place.astype(np.int64)
    return np.asarray(_TAIL[i] + (place - i) * _TAIL_STEP[i])


def _schedule(config: Mapping[str, Any]) -> str:
    """Returns the kind of a trial's learning-rate schedule; one that is not known is taken as constant."""
    kind = str(config.get("lr_scheduler_type", config.get("schedule", "constant")))
    return "wsd" if kind == "warmup_stable_decay" else "constant" if kind.startswith("constant") else kind


def _decay(config: Mapping[str, Any]) -> float:
    """Returns the share of the budget in which the rate falls; as it is by default where a setting of that name is no share."""
    share = as_number(config.get("decay", DECAY))
    return share if share is not None and 0.0 < share <= 1.0 else DECAY


def _budget(curve: Curve) -> int:
    """Steps of the whole run, 0 where nobody said."""
    steps = curve.config.get("steps")
    return curve.budget or (steps if isinstance(steps, int) else 0)
