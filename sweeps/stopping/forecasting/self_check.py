"""The rule's check of itself: what it predicted of runs that have since finished, and how that turned out.

Two views of a sweep foretell every final. *Forecasts* know which ways curves go (`forecast.py`); *levels* only know where a run
stands and what runs still gained from there in this sweep: a comparison at equal step. Which of the two was nearer to the
finals, by their log likelihood, decides how much each counts. How far finals lay from their forecasts makes the next ones wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

LEVELS = 0.2  # what levels count for before a run has finished
LEAST = 0.1  # neither view ever counts for less
TRUST = 0.5  # a finished run's log likelihood ratio counts for this much: runs of one sweep are wrong together
MOST = 2.0  # ... and is no larger than this
DOUBT = 6.0  # finished runs that the forecasts' own word on their error counts for
FAR = 9.0  # largest squared error, in variances
NORMAL_SPAN = 1.2816  # standard deviations from the middle to the 10 % and 90 % quantiles


class Prediction(NamedTuple):
    """Mean and variance of a final by both views, at one time of its run."""

    forecast: float
    forecast_variance: float
    level: float
    level_variance: float


class Outcome(NamedTuple):
    """A finished run: log likelihood of its final under forecasts minus that under levels, mean squared error of its
    forecasts in variances, and the share of their 10-90 % spans that held it."""

    ratio: float
    squared: float
    held: float


class SelfCheck:
    """All finished runs of a sweep under one metric.

    Attributes:
        levels: weight of levels against forecasts, between `LEAST` and 1 - `LEAST`.
        wider: what the forecasts' standard deviation is multiplied by: at least 1.
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._settle()

    def finish(self, trial: str, predictions: Sequence[Prediction], final: float, variance: float) -> None:
        """Takes in a finished run: what was predicted of it, its final score, and how surely that is known."""
        ratio = squared = held = 0.0
        for t in predictions:
            forecast = (final - t.forecast) ** 2 / (t.forecast_variance + variance)
            level = (final - t.level) ** 2 / (t.level_variance + variance)
            scales = math.log((t.forecast_variance + variance) / (t.level_variance + variance))
            ratio -= 0.5 * (min(forecast, FAR) - min(level, FAR) + scales)
            squared += min(forecast, FAR)
            held += forecast < NORMAL_SPAN**2
        if predictions:
            n = len(predictions)
            self.outcomes[trial] = Outcome(min(max(ratio / n, -MOST), MOST), squared / n, held / n)
            self._settle()

    def forget(self, trial: str) -> None:
        if self.outcomes.pop(trial, None) is not None:
            self._settle()

    def _settle(self) -> None:
        """Says what the finished runs come to: asked for far more often than one finishes."""
        evidence = TRUST * math.fsum(o.ratio for o in self.outcomes.values())
        odds = LEVELS / (1.0 - LEVELS) * math.exp(-min(max(evidence, -9.0), 9.0))
        found = math.fsum(o.squared for o in self.outcomes.values())
        self.levels = min(max(odds / (1.0 + odds), LEAST), 1.0 - LEAST)
        self.wider = math.sqrt(max((DOUBT + found) / (DOUBT + len(self.outcomes)), 1.0))

    @property
    def basis(self) -> str:
        """What verdicts stand on mostly: `forecasts`, or `levels` where these did better."""
        return "levels" if self.levels > 0.5 else "forecasts"

    def evidence(self) -> dict[str, float]:
        """Returns the numbers for a verdict."""
        held = [o.held for o in self.outcomes.values()]
        share = {"held": math.fsum(held) / len(held)} if held else {}
        return {"finished": len(held), **share, "weight_of_levels": self.levels, "widened": self.wider}
