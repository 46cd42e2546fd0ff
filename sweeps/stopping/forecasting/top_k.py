"""Who takes place k in every possible outcome of a sweep, kept up to date while forecasts change one by one.

Most reports change the forecast of a trial that is far from the places in most outcomes. So an outcome is looked through
again only when the trial stood, or now stands, as high as place k + 1 in it: a report among a thousand trials costs
little more than one among ten.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sweeps.stopping.forecasting.curve_library import Array


class TopKSamples:
    """The `k`-th and the next best of every outcome, among trials that answer one suite and are still in.

    Args:
        k: the place that counts.
        draws: possible outcomes.

    Attributes:
        kth, beyond: scores at place k and k + 1, [draws]; -inf where fewer trials are in. `settle` brings them up to date.
        members: rows of the trials that are in.
    """

    def __init__(self, k: int, draws: int) -> None:
        self.k, self.members = k, set[int]()
        self.outcomes: Array = np.full((draws, max(32, k + 1)), -np.inf)
        self.kth: Array = np.full(draws, -np.inf)
        self.beyond: Array = np.full(draws, -np.inf)
        self._stale = np.zeros(draws, dtype=bool)

    def put(self, rows: Sequence[int], outcomes: Array) -> None:
        """Sets trials' final scores, [rows, draws]."""
        if not rows:
            return
        while max(rows) >= self.outcomes.shape[1]:
            self.outcomes = np.concatenate([self.outcomes, np.full_like(self.outcomes, -np.inf)], axis=1)
        if self.members <= set(rows):  # every trial that is in: whoever stands at a place is among them
            self._stale[:] = True
            self.outcomes[:, rows] = outcomes.T
        else:
            self._set(list(rows), outcomes.T)
        self.members.update(rows)

    def take_out(self, rows: Sequence[int]) -> None:
        """Takes trials out; those that are not in stay out."""
        inside = [row for row in rows if row in self.members]
        if inside:
            self.members.difference_update(inside)
            self._set(inside, np.full((len(self.kth), 1), -np.inf))

    def _set(self, rows: list[int], now: Array) -> None:
        if len(rows) == 1:
            column, new = self.outcomes[:, rows[0]], now[:, 0]
            self._stale |= np.maximum(column, new) >= self.beyond
            column[:] = new
            return
        self._stale |= (np.maximum(self.outcomes[:, rows], now) >= self.beyond[:, None]).any(axis=1)
        self.outcomes[:, rows] = now

    def of(self, rows: np.ndarray) -> Array:
        """Returns the final scores of trials, [rows, draws]; -inf where they are not in."""
        if len(rows) and rows.max() >= self.outcomes.shape[1]:
            inside = rows < self.outcomes.shape[1]
            return np.where(inside[:, None], self.outcomes[:, np.where(inside, rows, 0)].T, -np.inf)
        return self.outcomes[:, rows].T

    def settle(self) -> None:
        """Looks the outcomes through again that may have changed since the last time."""
        if not self._stale.any():
            return
        last = self.outcomes.shape[1]
        # One place, and the least of those above it: NumPy takes more than twice as long for two places.
        part = np.partition(self.outcomes[self._stale], last - self.k - 1, axis=1)
        self.kth[self._stale] = part[:, last - self.k :].min(axis=1)
        self.beyond[self._stale] = part[:, last - self.k - 1]
        self._stale[:] = False
