"""DipAware: prunes what can hardly win any more, and gives a dip time to recover.

For every trial the forecaster (`forecasts.py`) holds what its final score may be, learned from its own curve, from what curves of
fine-tunes look like, and from how the other trials of this sweep went. The rule asks one question, P: how likely is this
trial to end among the top k, against all others? Where P is too small the trial is paused. Two things stand above that
question. What has diverged is stopped. What is in its dip or on its way back, inside a bounded patience
(`sweeps.stopping.phases`), is left alone (`protect: strict`), or P must be several times smaller (`protect: soft`).

Pausing is provisional. Before every trial had its turn the bar for pausing is higher (`FIRST_PAUSE_MARGIN`): a trial of
middling odds gives way, and comes back when its rivals are known and its odds have held. So compute goes first to where
it decides most, and the budget of lost winners binds on what stays paused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from sweeps.config.blocks import MAX_PATIENCE
from sweeps.config.objective import Goal
from sweeps.errors import InputError, nearest
from sweeps.journal.history import Point
from sweeps.journal.rows import AttemptRow, ControlRow, Row, SweepRow, VerdictRow
from sweeps.journal.vocabulary import ControlAction
from sweeps.stopping.base import Action, Phase, StopRule, Verdict
from sweeps.stopping.diagnostics import cut_off, signals
from sweeps.stopping.forecasting.curve_library import Array
from sweeps.stopping.forecasting.experience import Experience
from sweeps.stopping.forecasting.forecasts import TrialForecast
from sweeps.stopping.forecasting.ranking import TopKProbability, TopKRanking
from sweeps.stopping.noise import as_number, usable
from sweeps.stopping.phases import Reading

MIN_REPORTS = 3  # no verdict on rank from fewer
LOSS_JUMP = 0.7  # nats above the lowest train loss, twice in a row: diverged
INFEASIBLE_P = 0.01  # chance below which a constraint counts as missed for good, or a collapse as final
HOLD_P = 0.9  # chance below which a constraint in its dip keeps a trial from being ranked
HALFWAY = 0.5  # a collapsed run that will not make good this share of its fall is given up even without rivals
FIRST_PAUSE_MARGIN = 3.0  # a trial is paused for the first time at this multiple of the bar: it may come back
OVERDUE_MIN_P = 0.4  # among 2 k trials or fewer, odds that a trial still needs when its patience ran out below the base
MAX_LOST_SHARE = 1 / 15  # share of the top k that may be lost where nothing is set: 0.2 winners of 3
FIRST_LOST_SHARE = 1 / 30  # the same in sweeps whose first row does not say it: they began when that was the default
SHARES_PER_TRIAL = 3.0  # equal shares of the budget that one trial may take: most trials leave all of theirs
LEAST_SHARES = 8  # equal shares of the budget at least: in a small sweep one would else be a good part of it
REMAINING_BUDGET_SCALE = 1.5  # the bar at the start of the longest budget; it falls with the root of what is left
RESUME_MARGIN = 1.5  # a paused trial is resumed at this multiple of the bar: pausing and resuming cost a resume

Protect = Literal["strict", "soft"]


class DipAware(StopRule):
    """The dip-aware stop rule.

    Args:
        goal: metric, direction, top k, constraints.
        protect: `strict` never pauses or stops a trial in its dip or recovery inside the patience; `soft` only makes it
            `soft_protection_factor` times harder.
        max_lost_winners: the sweep's budget of risk: how many of the top k may be expected among what is given up for good.
            A trial is paused at up to three equal shares of it, more where much compute is left to save, less near the end.
            Paused trials come back, best odds first, until what stays paused is within the budget; where there is no
            pausing, nothing is stopped beyond it. By default 0.2 of a top 3, and in proportion.
        risk: the same under its old name, as a share of the top k: `max_lost_winners` is a third of risk * k.
        patience: with a dip, in multiples of its trough step, to start with: it moves to what this sweep's own dips take, and
            down to half of it where they were not made good by then.
        cap: patience ends at this share of the budget at the latest.
        soft_protection_factor: by how much the bar is lowered in a dip or recovery under `protect: soft`.
        pause: False where a paused trial cannot be resumed: then STOP at the plain bar, never earlier.
        trials: how many trials the sweep will have, where that is known before their rows are.
    """

    name = "dip-aware"

    def __init__(
        self,
        goal: Goal,
        *,
        protect: Protect = "strict",
        max_lost_winners: float | None = None,
        risk: float | None = None,
        patience: float = 4.0,
        cap: float = 0.5,
        soft_protection_factor: float = 2.0,
        pause: bool = True,
        trials: int = 0,
    ) -> None:
        super().__init__(goal)
        if risk is not None and max_lost_winners is not None:
            raise InputError("stopping sets both max_lost_winners and risk, its old name; give one of them")
        _check(protect, risk=(0.0 if risk is None else risk, 0.0, 1.0))
        is_default = max_lost_winners is None and risk is None
        if max_lost_winners is None:
            max_lost_winners = goal.top * (MAX_LOST_SHARE if risk is None else risk / SHARES_PER_TRIAL)
        self.kept_defaults = {"max_lost_winners": max_lost_winners} if is_default else {}
        _check(
            protect,
            max_lost_winners=(max_lost_winners, 0.0, float(goal.top)),
            patience=(patience, 1.0, MAX_PATIENCE),
            cap=(cap, 0.01, 1.0),
            soft_protection_factor=(soft_protection_factor, 1.0, 1e9),
            trials=(trials, 0, 10**9),
        )
        if not isinstance(pause, bool):
            raise InputError(f"stopping setting pause is {pause!r}, but must be true or false")
        self.protect, self.max_lost_winners, self.pause, self.trials = protect, max_lost_winners, pause, trials
        self.soft_protection_factor = soft_protection_factor
        self.ranking = TopKRanking(goal, self.history, patience=patience, cap=cap)
        self.paused_before: set[str] = set()
        self.collapsed: set[str] = set()  # paused for their own fall, when there were too few rivals to rank them
        self.given_up: dict[str, None] = {}  # what is paused or stopped now, in that order

    def observe(self, row: Row) -> bool:
        fresh = super().observe(row)
        if fresh:
            if isinstance(row, SweepRow):
                self._begin(row)
            self.ranking.observe(row)
            if isinstance(row, VerdictRow) and row.action is not Action.CONTINUE:
                if "p_top" in row.evidence:  # given up for its odds, and not because it diverged
                    self.given_up[row.trial] = None
                if row.action is Action.PAUSE:
                    self.paused_before.add(row.trial)
                    if "p_halfway" in row.evidence:
                        self.collapsed.add(row.trial)
            elif isinstance(row, AttemptRow) or _goes_on(row):
                self.given_up.pop(row.trial, None)
                self.collapsed.discard(row.trial)
        return fresh

    def _begin(self, row: SweepRow) -> None:
        """Takes what the first row of a sweep says: its experience, and the defaults that it began with."""
        if row.experience:
            self.ranking.expect(Experience(row.experience.get("sweeps", ())))
        if self.kept_defaults and row.version is not None:
            earlier = self.goal.top * FIRST_LOST_SHARE
            self.max_lost_winners = float(row.rule.get("max_lost_winners", earlier))

    def bars(self, forecasts: Sequence[TrialForecast]) -> list[float]:
        """Returns the P below which each trial is not worth its machine; protection lowers it, and so does a near end."""
        top, known = self.goal.top, len(self.history.curves)
        rivals = max(max(known, self.trials) - top, top + 1, LEAST_SHARES)
        share = SHARES_PER_TRIAL * self.max_lost_winners / rivals
        bars = []
        for forecast in forecasts:
            left = (forecast.budget - forecast.last) / self.ranking.forecaster.longest
            bar = REMAINING_BUDGET_SCALE * math.sqrt(max(left, 1e-3)) * share
            if forecast.phase.protected:
                bar /= self.soft_protection_factor
            elif self._overdue(forecast):
                bar = max(bar, OVERDUE_MIN_P)
            bars.append(bar)
        return bars

    def _overdue(self, forecast: TrialForecast) -> bool:
        """Whether its patience ran out in a sweep so small that this alone may give it up: where the places can be taken by
        runs that have not fallen. Where all fall, having fallen says nothing of rank."""
        if max(len(self.history.curves), self.trials) > 2 * self.goal.top:
            return False
        if forecast.phase.protected or not forecast.phase.overdue:
            return False
        others = (t.phase for t in self.ranking.forecaster.trials.values() if t is not forecast)
        return sum(p.onset is None and p.reports >= MIN_REPORTS for p in others) >= self.goal.top

    def spent(self) -> float:
        """Returns how many of the top k are expected among the trials that are paused or stopped, as odds stand now.

        In a sweep of at most 2 k trials, those that were given up because their patience ran out do not count.
        """
        known = map(self.ranking.forecaster.trials.get, self.given_up)
        forecasts = [t for t in known if t is not None and not self._overdue(t)]
        return float(self._probabilities(forecasts).sum()) if forecasts else 0.0

    def _probabilities(self, forecasts: Sequence[TrialForecast]) -> Array:
        """Returns P(top k) of trials of any suites."""
        suites = dict.fromkeys(t.suite for t in forecasts)
        if len(suites) == 1:
            return self.ranking.probabilities(forecasts)
        odds = np.zeros(len(forecasts))
        for suite in suites:
            same = [i for i, t in enumerate(forecasts) if t.suite == suite]
            odds[same] = self.ranking.probabilities([forecasts[i] for i in same])
        return odds

    # --- verdicts --------------------------------------------------------------------------------------------------

    def decide(self, trial: str) -> Verdict:
        gone = self._diverged(trial)
        if gone:
            return gone
        forecast = self.ranking.forecaster.current(trial)
        if forecast is None:
            return Verdict(Action.CONTINUE, f"no {self.goal.metric} yet that could be judged", Phase.UNKNOWN)
        reading = forecast.phase.reading()
        if forecast.last >= forecast.budget or forecast.reports < MIN_REPORTS:
            why = (
                "the budget is run"
                if forecast.last >= forecast.budget
                else f"{forecast.reports} of {MIN_REPORTS} reports needed"
            )
            return Verdict(Action.CONTINUE, f"{why}: {self._level(forecast, reading)}", reading.phase)
        return self._infeasible(forecast) or self._ranked(forecast, reading)

    def _diverged(self, trial: str) -> Verdict | None:
        """Train loss not finite or risen for good, or two scores in a row not finite."""
        curve = self.history.curves.get(trial)
        last = curve.points.get(curve.last_step) if curve is not None else None
        if curve is None or last is None:
            return None
        if not (last.invalid or "train/loss" in last.metrics or self._lost(last)):
            return None
        points = [curve.points[s] for s in sorted(curve.points) if s]
        bad = [p for p in points if "train/loss" in p.invalid]
        scores = [p for p in points if self.goal.metric in p.metrics or self.goal.metric in p.invalid]
        lost = len(scores) >= 2 and all(map(self._lost, scores[-2:]))
        losses = [(p.step, p.metrics["train/loss"]) for p in points if "train/loss" in p.metrics]
        low = min((v for _, v in losses), default=0.0)
        if bad:
            reason = f"diverged: train loss is {bad[-1].invalid['train/loss']} at step {bad[-1].step}"
        elif lost:
            reason = f"diverged: {self.goal.metric} is not finite at steps {scores[-2].step} and {scores[-1].step}"
        elif len(losses) >= 3 and all(v > low + LOSS_JUMP for _, v in losses[-2:]):
            reason = f"diverged: train loss {losses[-1][1]:.3g} at step {losses[-1][0]} after a low of {low:.3g}"
        else:
            return None
        return Verdict(Action.STOP, reason, Phase.DIVERGED, {"low_loss": low})

    def _lost(self, point: Point) -> bool:
        """The score came out not finite, or too large to calculate with."""
        return self.goal.metric in point.invalid or not usable(point.metrics.get(self.goal.metric, 0.0))

    def _infeasible(self, forecast: TrialForecast) -> Verdict | None:
        """A constraint that the trial will not meet; inside that metric's own dip it is left alone."""
        for limit in self.ranking.limits:
            feasible = limit.feasibility(forecast.trial)
            if feasible is None or feasible.p >= (HOLD_P if feasible.protected else INFEASIBLE_P):
                continue
            said = (
                f"{limit.metric} {feasible.level:.4g} against {limit.wanted(feasible.floor)}, "
                f"P(met {self._when(forecast)}) {feasible.p:.2g}"
            )
            evidence = {"constraint": limit.metric, "p_feasible": feasible.p, "floor": feasible.floor}
            if feasible.protected and self.protect == "strict":
                said = f"infeasible for now, in its {feasible.phase} until step {feasible.until:.0f}: {said}"
                return Verdict(Action.CONTINUE, said, feasible.phase, {**evidence, "held": True})
            if feasible.p < INFEASIBLE_P / (self.soft_protection_factor if feasible.protected else 1.0):
                if feasible.phase is Phase.RECOVERY and not feasible.protected:
                    said += f", and the patience with its recovery ended at step {feasible.until:.0f}"
                return Verdict(Action.STOP, f"infeasible for good: {said}", feasible.phase, evidence)
        return None

    def _ranked(self, forecast: TrialForecast, reading: Reading) -> Verdict:
        top_k = self.ranking.probability(forecast)
        if top_k is None:
            return self._alone(forecast, reading)
        (bar,) = self.bars([forecast])
        evidence = self._evidence(forecast, reading, top_k, bar)
        odds = f"{self._question()} {top_k.p:.2g}"
        if self.ranking.forecaster.check.basis == "levels":
            odds += " by levels at equal step (forecasts did worse in this sweep)"
        first = self.pause and not reading.protected and forecast.trial not in self.paused_before
        if top_k.p >= bar * (FIRST_PAUSE_MARGIN if first else 1.0):
            said = f"{self._level(forecast, reading)}; {odds} is above the bar of {bar:.2g}"
            return Verdict(Action.CONTINUE, said, reading.phase, evidence)
        cut = self._shown(top_k.cut)
        place = f"place {self.goal.top} at {cut:.4g}" if math.isfinite(cut) else f"place {self.goal.top} still open"
        ends = f"forecast {self._span(forecast)} {self._when(forecast)}, {place}"
        if reading.protected and self.protect == "strict":
            said = f"{self._level(forecast, reading)}; protected until step {reading.until:.0f} though {odds} ({ends})"
            return Verdict(Action.CONTINUE, said, reading.phase, {**evidence, "held": True})
        spent = self.spent()
        evidence |= {"lost_winners": spent, "max_lost_winners": self.max_lost_winners}
        if not self.pause and spent + top_k.p > self.max_lost_winners and not self._overdue(forecast):
            said = (
                f"{self._level(forecast, reading)}; {odds} is below the bar of {bar:.2g}, but what was given up may hold "
                f"{spent:.2g} winners already, of {self.max_lost_winners:g} allowed"
            )
            return Verdict(Action.CONTINUE, said, reading.phase, evidence)
        turn = " before its turn comes again" if top_k.p >= bar else ""
        said = f"{self._level(forecast, reading)}{_patience(reading)}; {ends}: {odds}, bar {bar:.2g}{turn}"
        return Verdict(Action.PAUSE if self.pause else Action.STOP, said, reading.phase, evidence)

    def _alone(self, forecast: TrialForecast, reading: Reading) -> Verdict:
        """With fewer rivals than places rank says nothing; a collapse that will not make good half its fall is given up."""
        level = self._level(forecast, reading)
        if reading.phase in (Phase.COLLAPSE, Phase.LATE_DECLINE) and not reading.protected:
            halfway = forecast.in_unit(reading.peak - HALFWAY * (reading.peak - reading.trough))
            wanted, what = halfway, "half-way back"
            if self.ranking.best:
                wanted, what = max(halfway, float(self.ranking.forecaster.seen[forecast.row])), "better than its best"
            p = self.ranking.forecaster.probability_above(forecast, wanted)
            if p < INFEASIBLE_P:
                back = f"P({self._shown(wanted):.4g}, {what}, {self._when(forecast)}) {p:.2g}"
                said = f"{level}{_patience(reading)}; {back}"
                return Verdict(Action.PAUSE if self.pause else Action.STOP, said, reading.phase, {"p_halfway": p})
        few = f"fewer than {self.goal.top} rivals with a forecast"
        return Verdict(Action.CONTINUE, f"{level}; {few}", reading.phase)

    def may_return(self, paused: Sequence[str]) -> list[TrialForecast]:
        """Returns paused trials of which odds are known; none that collapsed while it has fewer rivals than places."""
        forecasts = [t for t in map(self.ranking.forecaster.trials.get, paused) if t is not None]
        return [t for t in forecasts if t.trial not in self.collapsed or self.ranking.probability(t) is not None]

    def choose_trial_to_resume(self, paused: Sequence[str]) -> str | None:
        """Returns the paused trial with the best odds against its bar, if they are `RESUME_MARGIN` times above it.

        It also comes back where more winners may have been given up than allowed: rivals fell behind, and odds rose.
        """
        forecasts = self.may_return(paused)
        if not forecasts:
            return None
        bars, odds = np.array(self.bars(forecasts)), self._probabilities(forecasts)
        hopes = np.divide(odds, bars, out=np.zeros(len(forecasts)), where=bars > 0.0)
        best = int(np.argmax(hopes))
        if hopes[best] >= RESUME_MARGIN:
            return forecasts[best].trial
        owed = hopes[best] > 0.0 and not self._overdue(forecasts[best]) and self.spent() > self.max_lost_winners
        return forecasts[best].trial if owed else None

    # --- words -----------------------------------------------------------------------------------------------------

    def _shown(self, value: float) -> float:
        """Turns a signed score back into the metric's own direction."""
        return self.goal.sign * value

    def _question(self) -> str:
        """What the odds are of."""
        return f"P({'a better checkpoint to come, among the ' if self.ranking.best else ''}top {self.goal.top})"

    def _when(self, forecast: TrialForecast) -> str:
        return f"{'at best until' if self.ranking.best else 'at'} step {forecast.budget}"

    def _level(self, forecast: TrialForecast, r: Reading) -> str:
        level, sd = self._shown(forecast.in_unit(forecast.level)), forecast.level_sd * forecast.unit
        at = f"{level:.4g} +- {sd:.2g} at step {r.step}"
        at += cut_off(self.history, forecast.trial, r.step, ended=forecast.last >= forecast.budget)
        if r.onset is None:
            base = f", base {self._shown(forecast.base):.4g}" if forecast.base_known else ""
            return f"{r.phase}: {at}{base}"
        trough, peak = self._shown(forecast.in_unit(r.trough)), self._shown(forecast.in_unit(r.peak))
        return f"{r.phase}: {at}, trough {trough:.4g} at step {r.trough_step}, before it {peak:.4g}"

    def _span(self, forecast: TrialForecast) -> str:
        low, mid, high = map(self._shown, self.ranking.forecaster.span(forecast))
        return f"{mid:.4g} ({min(low, high):.4g} to {max(low, high):.4g})"

    def _evidence(self, forecast: TrialForecast, r: Reading, top_k: TopKProbability, bar: float) -> dict[str, Any]:
        return {
            "p_top": top_k.p,
            "basis": self.ranking.forecaster.check.basis,
            "check": self.ranking.forecaster.check.evidence(),
            "bar": bar,
            "cut": self._shown(top_k.cut) if math.isfinite(top_k.cut) else None,
            "rivals": top_k.rivals,
            "level": self._shown(forecast.in_unit(forecast.level)),
            "step": r.step,
            "budget": forecast.budget,
            "onset": r.onset,
            "trough_step": r.trough_step if r.onset is not None else None,
            "until": r.until,
            "protected": r.protected,
            "noise": "estimated" if self.ranking.forecaster.estimated else "reported",
            "signals": signals(self.history, forecast.trial, forecast.last),
        }


def _goes_on(row: Row) -> bool:
    """True where a trial waits for machines again, such as a branch whose trunk was resumed."""
    return isinstance(row, ControlRow) and row.action in (ControlAction.RETRY, ControlAction.YIELD) and not row.refused


def _patience(r: Reading) -> str:
    """Says, of a trial that is given up, why a fall that may be a dip no longer holds it; empty where there is none."""
    if r.onset is None or r.phase is Phase.LATE_DECLINE:
        return ""
    if r.protected:
        return f", in its patience until step {r.until:.0f}, where the bar is lower"
    return ", its recovery has stalled" if r.step < r.until else f", its patience ended at step {r.until:.0f}"


def _check(protect: str, **ranges: tuple[float, float, float]) -> None:
    if protect not in ("strict", "soft"):
        close = nearest(str(protect), ("strict", "soft"))
        raise InputError(f"protect is {protect!r}, but must be strict or soft{close}")
    for name, (value, low, high) in ranges.items():
        number = as_number(value)
        if number is None or not low <= number <= high:
            raise InputError(f"stopping setting {name} is {value!r}, but must lie between {low:g} and {high:g}")
