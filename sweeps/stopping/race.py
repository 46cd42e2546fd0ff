"""The race for the top k: forecasts of all trials against each other, and against the constraints.

Every trial's forecast is held as `DRAWS` equally likely finals, shuffled by its own id. Column by column they make
`DRAWS` possible outcomes of the sweep; in each, the k-th best of a trial's rivals is the mark it has to beat. What is
infeasible in a column does not compete there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sweeps.errors import InputError
from sweeps.history import History
from sweeps.records import Row
from sweeps.stopping.base import Constraint, Goal, Phase
from sweeps.stopping.field import DRAWS, Field, Track
from sweeps.stopping.prior import Array


class Standing(NamedTuple):
    """P(top k) of a trial, median mark for place k (signed so that larger is better), rivals with a forecast."""

    p: float
    cut: float
    rivals: int


class Odds(NamedTuple):
    """How a trial stands to a constraint: chance of meeting it at the end, level and floor in the metric's own unit."""

    p: float
    level: float
    floor: float
    phase: Phase
    protected: bool
    until: float


class Limit:
    """One constraint with the field of its metric."""

    def __init__(self, constraint: Constraint, history: History, *, patience: float, cap: float) -> None:
        given = [v for v in (constraint.at_least, constraint.at_most, constraint.relative_to_base) if v is not None]
        if len(given) != 1:
            raise InputError(
                f"constraint on {constraint.metric} sets {len(given)} limits; set one of at_least, at_most, relative_to_base"
            )
        self.constraint, self.metric = constraint, constraint.metric
        self.sign = -1.0 if constraint.at_most is not None else 1.0
        self.field = Field(constraint.metric, self.sign, history, patience=patience, cap=cap)

    def wanted(self, floor: float) -> str:
        return f"{'at most' if self.sign < 0 else 'at least'} {floor:.4g}"

    def floor(self, track: Track) -> float | None:
        """Returns the limit in the metric's own unit; None where it hangs on a base score that nobody measured."""
        if self.constraint.relative_to_base is None:
            return self.constraint.at_least if self.sign > 0 else self.constraint.at_most
        return track.base + self.constraint.relative_to_base if track.base_known else None

    def odds(self, trial: str) -> Odds | None:
        """Returns how a trial stands; None while that cannot be said."""
        track = self.field.tracks.get(trial)
        floor = self.floor(track) if track is not None else None
        if track is None or floor is None:
            return None
        r = track.phase.reading()
        p = self.field.probability_above(track, self.sign * floor)
        return Odds(p, self.sign * track.in_unit(r.level), floor, r.phase, r.protected, r.until)

    def met(self, trial: str) -> np.ndarray | None:
        """Returns in which of the possible outcomes the trial meets the constraint, [DRAWS] of bool."""
        track = self.field.tracks.get(trial)
        floor = self.floor(track) if track is not None else None
        return None if track is None or floor is None else self.field.draws[track.row] >= self.sign * floor


class Race:
    """All trials' forecasts of the goal's metric, who is out, and what place k takes."""

    def __init__(self, goal: Goal, history: History, *, patience: float, cap: float) -> None:
        self.goal = goal
        self.field = Field(goal.metric, goal.sign, history, patience=patience, cap=cap)
        self.limits = [Limit(c, history, patience=patience, cap=cap) for c in goal.constraints]
        self.out: set[str] = set()
        self._version: tuple[int, ...] = ()
        self._kth: dict[str, tuple[Array, Array, int]] = {}
        self._marks: dict[str, list[float]] = {}
        self._outcomes: Array = np.empty((0, DRAWS))

    def observe(self, row: Row) -> None:
        """Takes in a row that the history has folded."""
        for f in (self.field, *(limit.field for limit in self.limits)):
            f.observe(row)
        if row.kind == "end" and row.extra.get("status") in ("pruned", "failed"):
            self.out.add(row.trial)
        elif row.kind == "attempt":
            self.out.discard(row.trial)

    def standing(self, track: Track) -> Standing | None:
        """Returns P(top k) of a trial; None while it has fewer than k rivals."""
        self._settle()
        kth, beyond, rivals = self._kth.get(track.suite, (np.empty(0), np.empty(0), 0))
        own_in = track.trial not in self.out
        if rivals - own_in < self.goal.top:
            return None
        own = self._outcomes[track.row]
        mark = np.where(own >= kth, beyond, kth) if own_in else kth
        p = self.field.probability_above(track, mark)
        for limit in self.limits:
            odds = limit.odds(track.trial)
            p *= odds.p if odds is not None else 1.0
        return Standing(p, float(np.sort(mark)[DRAWS // 2]), rivals - own_in)

    def at_most(self, track: Track, *, finely: bool = False) -> float:
        """Returns a cheap upper bound of a trial's P(top k): as if it only had to beat the lowest mark of all.

        `finely`: the lowest mark of each eighth of the possible outcomes, for eight times the cost.
        """
        self._settle()
        assert track.forecast is not None
        marks = self._marks.get(track.suite, [-math.inf])
        marks = marks if finely else marks[:1]
        return sum(track.forecast.above_one((m - track.base) / track.unit) for m in marks) / len(marks)

    def _settle(self) -> None:
        """Finds the k-th and the next best of every possible outcome, once for each change of the field."""
        version = (self.field.version, len(self.out), *(limit.field.version for limit in self.limits))
        if version == self._version:
            return
        self._version, self._kth = version, {}
        tracks = self.field.tracks.values()
        self._outcomes = self.field.draws[: len(tracks)].copy()
        for limit in self.limits:
            for track in tracks:
                met = limit.met(track.trial)
                if met is not None:
                    self._outcomes[track.row, ~met] = -math.inf
        for suite in {t.suite for t in tracks}:
            rows = [t.row for t in tracks if t.suite == suite and t.trial not in self.out]
            kth, beyond = _kth_and_next(self._outcomes[rows], self.goal.top)
            self._kth[suite] = kth, beyond, len(rows)
            self._marks[suite] = np.sort(beyond)[:: DRAWS // 8].tolist()


def _kth_and_next(outcomes: Array, k: int) -> tuple[Array, Array]:
    """Returns the k-th and the (k+1)-th largest of each column; -inf where there are fewer rows."""
    n = len(outcomes)
    if n <= k:
        none = np.full(DRAWS, -math.inf)
        return (outcomes.min(axis=0) if n == k else none), none
    part = np.partition(outcomes, (n - k - 1, n - k), axis=0)
    return part[n - k], part[n - k - 1]
