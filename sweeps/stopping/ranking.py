"""The race for the top k: forecasts of all trials against each other, and against the constraints.

Every trial's forecast is held as `DRAWS` equally likely finals, shuffled by its own id. Column by column they make
`DRAWS` possible outcomes of the sweep; in each, the k-th best of a trial's rivals is the mark it has to beat. What is
infeasible in a column does not compete there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sweeps.config.objective import Constraint, Goal
from sweeps.errors import InputError
from sweeps.journal.history import History
from sweeps.journal.rows import EndRow, Row
from sweeps.journal.vocabulary import EndStatus
from sweeps.stopping.base import Phase
from sweeps.stopping.curve_library import Array
from sweeps.stopping.experience import Experience
from sweeps.stopping.forecasts import DRAWS, Field, Track
from sweeps.stopping.top_k import Places


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
        if track is None or floor is None:
            return None
        return np.asarray(self.field.outcomes(np.array([track.row]))[0] >= self.sign * floor)


class Race:
    """All trials' forecasts of the goal's metric, who is out, and what place k takes."""

    def __init__(self, goal: Goal, history: History, *, patience: float, cap: float) -> None:
        self.goal = goal
        self.field = Field(goal.metric, goal.sign, history, patience=patience, cap=cap)
        self.limits = [Limit(c, history, patience=patience, cap=cap) for c in goal.constraints]
        self.out: set[str] = set()
        self._places: dict[str, Places] = {}
        self._known: dict[str, float] = {}  # P(top k) of trials that were asked for since anything changed

    def expect(self, experience: Experience) -> None:
        """Begins from what finished sweeps say of the goal's metric."""
        self.field.expect(experience)

    def observe(self, row: Row) -> None:
        """Takes in a row that the history has folded."""
        for f in (self.field, *(limit.field for limit in self.limits)):
            f.observe(row)
        if isinstance(row, EndRow) and row.status in (EndStatus.PRUNED, EndStatus.FAILED):
            self.out.add(row.trial)
            self.field.changed.add(row.trial)
        elif row.kind == "attempt" and row.trial in self.out:
            self.out.discard(row.trial)
            self.field.changed.add(row.trial)

    def standing(self, track: Track) -> Standing | None:
        """Returns P(top k) of a trial; None while it has fewer than k rivals."""
        places = self._settled(track.suite)
        rivals = len(places.members) - (track.row in places.members)
        if rivals < self.goal.top:
            return None
        marks = self._marks(places, np.array([track.row]))
        p = float(self._odds([track], marks)[0])
        return Standing(p, _median(marks[0], self.field.weights()), rivals)

    def odds(self, tracks: Sequence[Track]) -> Array:
        """Returns P(top k) of trials that answer one suite, [len(tracks)]; 1 while there are fewer than k rivals."""
        places = self._settled(tracks[0].suite)
        if len(places.members) <= self.goal.top:
            return np.ones(len(tracks))
        fresh = [t for t in tracks if t.trial not in self._known]
        if fresh:
            p = self._odds(fresh, self._marks(places, np.array([t.row for t in fresh])))
            self._known.update(zip([t.trial for t in fresh], p.tolist(), strict=True))
        return np.array([self._known[t.trial] for t in tracks])

    def _odds(self, tracks: Sequence[Track], marks: Array) -> Array:
        p = self.field.odds_above(np.array([t.row for t in tracks], dtype=np.int64), marks) @ self.field.weights()
        for limit in self.limits:
            for i, track in enumerate(tracks):
                odds = limit.odds(track.trial)
                p[i] *= odds.p if odds is not None else 1.0
        return np.asarray(np.clip(p, 0.0, 1.0))

    def _marks(self, places: Places, rows: np.ndarray) -> Array:
        """Returns what each trial has to beat in every outcome: the k-th best of its rivals, [rows, DRAWS]."""
        own = places.of(rows)  # -inf where a trial is not in: then it has all that are for rivals
        return np.where(own >= places.kth, places.beyond, places.kth)

    def _settled(self, suite: str) -> Places:
        """Returns the places of a suite after all that has changed."""
        fields = (self.field, *(limit.field for limit in self.limits))
        tracks = self.field.tracks
        followed = [field.follow() for field in fields]  # all of them, not up to the first
        if any(followed) or any(field.changed for field in fields):
            changed = set().union(*(field.changed for field in fields))
            self._known.clear()
            self._place(list(tracks.values()) if any(followed) else [tracks[t] for t in changed if t in tracks])
            for field in fields:
                field.changed.clear()
        places = self._places_of(suite)
        places.settle()
        return places

    def _places_of(self, suite: str) -> Places:
        if suite not in self._places:
            self._places[suite] = Places(self.goal.top, DRAWS)
        return self._places[suite]

    def _place(self, tracks: Sequence[Track]) -> None:
        """Puts trials' outcomes among those of their suite; what is infeasible in an outcome does not compete there."""
        for suite in {t.suite for t in tracks} | set(self._places):
            inside = [t for t in tracks if t.suite == suite and t.trial not in self.out]
            if len(inside) < len(tracks):
                gone = {t.row for t in tracks} - {t.row for t in inside}
                self._places_of(suite).take_out(sorted(gone))
            if not inside:
                continue
            rows = [t.row for t in inside]
            outcomes = self.field.outcomes(np.array(rows))
            for limit in self.limits:
                for i, t in enumerate(inside):
                    met = limit.met(t.trial)
                    if met is not None:
                        outcomes[i, ~met] = -math.inf
            self._places_of(suite).put(rows, outcomes)


def _median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), 0.5)])
