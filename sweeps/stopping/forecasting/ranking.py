"""Who will be in the top k: forecasts of all trials against each other, and against the constraints.

Every trial's forecast is held as `DRAWS` equally likely finals, shuffled by its own id. Column by column they make
`DRAWS` possible outcomes of the sweep; in each, the k-th best of a trial's rivals is the mark it has to beat. What is
infeasible in a column does not compete there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sweeps.config.objective import Constraint, Goal, all_met
from sweeps.journal.history import History, Point
from sweeps.journal.rows import EndRow, Row
from sweeps.journal.vocabulary import EndStatus
from sweeps.stopping.base import Phase
from sweeps.stopping.forecasting.curve_library import Array
from sweeps.stopping.forecasting.experience import Experience
from sweeps.stopping.forecasting.forecasts import DRAWS, CurveForecaster, TrialForecast
from sweeps.stopping.forecasting.top_k import TopKSamples


class TopKProbability(NamedTuple):
    """P(top k) of a trial, median mark for place k (signed so that larger is better), rivals with a forecast."""

    p: float
    cut: float
    rivals: int


class Feasibility(NamedTuple):
    """Whether a trial will meet a constraint: probability at the end, level and floor in the metric's own unit."""

    p: float
    level: float
    floor: float
    phase: Phase
    protected: bool
    until: float


class Limit:
    """One constraint with the forecasts of its metric."""

    def __init__(
        self, constraint: Constraint, history: History, *, patience: float, cap: float, best: bool = False
    ) -> None:
        self.constraint, self.metric = constraint, constraint.metric
        self.sign = -1.0 if constraint.at_most is not None else 1.0
        self.forecaster = CurveForecaster(constraint.metric, self.sign, history, patience=patience, cap=cap, best=best)

    def wanted(self, floor: float) -> str:
        return f"{'at most' if self.sign < 0 else 'at least'} {floor:.4g}"

    def floor(self, forecast: TrialForecast) -> float | None:
        """Returns the limit in the metric's own unit; None where it hangs on a base score that nobody measured."""
        if self.constraint.relative_to_base is None:
            return self.constraint.at_least if self.sign > 0 else self.constraint.at_most
        return forecast.base + self.constraint.relative_to_base if forecast.base_known else None

    def feasibility(self, trial: str) -> Feasibility | None:
        """Returns whether a trial will meet the constraint; None while that cannot be said."""
        forecast = self.forecaster.current(trial)
        floor = self.floor(forecast) if forecast is not None else None
        if forecast is None or floor is None:
            return None
        r = forecast.phase.reading()
        self.forecaster.follow()  # else it would hang on who was asked about before
        p = self.forecaster.probability_above(forecast, self.sign * floor)
        return Feasibility(p, self.sign * forecast.in_unit(forecast.level), floor, r.phase, r.protected, r.until)

    def met(self, trial: str) -> np.ndarray | None:
        """Returns in which of the possible outcomes the trial meets the constraint, [DRAWS] of bool."""
        forecast = self.forecaster.trials.get(trial)
        floor = self.floor(forecast) if forecast is not None else None
        if forecast is None or floor is None:
            return None
        return np.asarray(self.forecaster.outcomes(np.array([forecast.row]))[0] >= self.sign * floor)


class TopKRanking:
    """All trials' forecasts of the goal's metric, who is out, and what place k takes."""

    def __init__(self, goal: Goal, history: History, *, patience: float, cap: float) -> None:
        self.goal, self.best = goal, goal.at == "best"
        self.history = history
        self.forecaster = CurveForecaster(
            goal.metric, goal.sign, history, patience=patience, cap=cap, best=self.best, counts=self._meets
        )
        self.limits = [Limit(c, history, patience=patience, cap=cap, best=self.best) for c in goal.constraints]
        self.out: set[str] = set()
        self._samples: dict[str, TopKSamples] = {}
        self._known: dict[str, float] = {}  # P(top k) of trials that were asked for since anything changed

    def _meets(self, trial: str, point: Point) -> bool:
        """Whether a checkpoint meets every constraint, as far as it was measured."""
        return all_met(self.goal.constraints, point.metrics, self.history.base_scores(trial)) is not False

    def expect(self, experience: Experience) -> None:
        """Begins from what finished sweeps say of the goal's metric."""
        self.forecaster.expect(experience)

    def observe(self, row: Row) -> None:
        """Takes in a row that the history has folded."""
        for forecaster in self._forecasters():
            forecaster.observe(row)
        if isinstance(row, EndRow) and row.status in (EndStatus.PRUNED, EndStatus.FAILED):
            self.out.add(row.trial)
            self.forecaster.changed.add(row.trial)
        elif row.kind == "attempt" and row.trial in self.out:
            self.out.discard(row.trial)
            self.forecaster.changed.add(row.trial)

    def probability(self, forecast: TrialForecast) -> TopKProbability | None:
        """Returns P(top k) of a trial; None while it has fewer than k rivals.

        Where it is worth its best checkpoint it keeps what it has had: P is that of a better one to come, among the top k.
        """
        samples = self._settled(forecast.suite)
        rivals = len(samples.members) - (forecast.row in samples.members)
        if rivals < self.goal.top:
            return None
        marks = self._marks(samples, np.array([forecast.row]))
        p = float(self._probabilities([forecast], marks)[0])
        return TopKProbability(p, _median(marks[0], self.forecaster.weights()), rivals)

    def probabilities(self, forecasts: Sequence[TrialForecast]) -> Array:
        """Returns P(top k) of trials that answer one suite, [len(tracks)]; 1 while there are fewer than k rivals."""
        samples = self._settled(forecasts[0].suite)
        if len(samples.members) <= self.goal.top:
            return np.ones(len(forecasts))
        fresh = [t for t in forecasts if t.trial not in self._known]
        if fresh:
            p = self._probabilities(fresh, self._marks(samples, np.array([t.row for t in fresh])))
            self._known.update(zip([t.trial for t in fresh], p.tolist(), strict=True))
        return np.array([self._known[t.trial] for t in forecasts])

    def _probabilities(self, forecasts: Sequence[TrialForecast], marks: Array) -> Array:
        rows = np.array([t.row for t in forecasts], dtype=np.int64)
        if self.best:
            marks = np.maximum(marks, self.forecaster.kept(rows))
        p = self.forecaster.probabilities_above(rows, marks) @ self.forecaster.weights()
        for limit in self.limits:
            for i, forecast in enumerate(forecasts):
                feasible = limit.feasibility(forecast.trial)
                p[i] *= feasible.p if feasible is not None else 1.0
        return np.asarray(np.clip(p, 0.0, 1.0))

    def _marks(self, samples: TopKSamples, rows: np.ndarray) -> Array:
        """Returns what each trial has to beat in every outcome: the k-th best of its rivals, [rows, DRAWS]."""
        own = samples.of(rows)  # -inf where a trial is not in: then it has all that are for rivals
        return np.where(own >= samples.kth, samples.beyond, samples.kth)

    def _settled(self, suite: str) -> TopKSamples:
        """Returns the outcomes of a suite after all that has changed."""
        forecasts = self.forecaster.trials
        changed = set[str]()
        for forecaster in self._forecasters():
            forecaster.follow()
            changed |= forecaster.changed
            forecaster.changed.clear()
        if changed:
            self._known.clear()
            self._update([forecasts[t] for t in changed if t in forecasts])
        samples = self._samples_of(suite)
        samples.settle()
        return samples

    def _forecasters(self) -> list[CurveForecaster]:
        """Returns those of the goal's metric and of every constraint's."""
        return [self.forecaster, *(limit.forecaster for limit in self.limits)]

    def _samples_of(self, suite: str) -> TopKSamples:
        if suite not in self._samples:
            self._samples[suite] = TopKSamples(self.goal.top, DRAWS)
        return self._samples[suite]

    def _update(self, forecasts: Sequence[TrialForecast]) -> None:
        """Puts trials' outcomes among those of their suite; what is infeasible in an outcome does not compete there."""
        for suite in {t.suite for t in forecasts} | set(self._samples):
            inside = [t for t in forecasts if t.suite == suite and (self.best or t.trial not in self.out)]
            if len(inside) < len(forecasts):
                gone = {t.row for t in forecasts} - {t.row for t in inside}
                self._samples_of(suite).take_out(sorted(gone))
            if not inside:
                continue
            rows = [t.row for t in inside]
            outcomes = self.forecaster.outcomes(np.array(rows))
            for limit in self.limits:
                for i, t in enumerate(inside):
                    met = limit.met(t.trial)
                    if met is not None:
                        outcomes[i, ~met] = -math.inf
            if self.best:
                outcomes[[t.trial in self.out for t in inside]] = -math.inf  # nothing of them is to come
                outcomes = np.maximum(outcomes, self.forecaster.kept_own(np.array(rows)))
            self._samples_of(suite).put(rows, outcomes)


def _median(values: Array, weights: Array) -> float:
    order = values.argsort()
    return float(values[order[weights[order].cumsum().searchsorted(0.5)]])
