"""Tokenised rows, flat in memory: one array of ids, one of label flags, and where each row begins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """R rows of N tokens in all.

    Attributes:
        flat_ids: int32 [N]. flat_learn: bool [N], True where the token is a label (its prediction is trained).
        starts: int64 [R + 1], row i is `flat[starts[i]:starts[i + 1]]`.
    """

    flat_ids: NDArray[np.int32]
    flat_learn: NDArray[np.bool_]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[tuple[Sequence[int] | NDArray[np.int32], Sequence[bool] | NDArray[np.bool_]]]) -> Rows:
        """Builds the table from (ids, learn) pairs of equal length."""
        pairs = [(np.asarray(ids, np.int32), np.asarray(learn, np.bool_)) for ids, learn in rows]
        starts = np.zeros(len(pairs) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids, _ in pairs], out=starts[1:])
        ids = np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in pairs)])
        learn = np.concatenate([np.zeros(0, np.bool_), *(learn for _, learn in pairs)])
        return cls(ids, learn, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            np.concatenate([self.flat_ids, other.flat_ids]),
            np.concatenate([self.flat_learn, other.flat_learn]),
            np.concatenate([self.starts, other.starts[1:] + self.starts[-1]]),
        )

    def ids(self, row: int) -> NDArray[np.int32]:
        """Token ids of a row."""
        return self.flat_ids[self.starts[row] : self.starts[row + 1]]

    def learn(self, row: int) -> NDArray[np.bool_]:
        """Label flags of a row."""
        return self.flat_learn[self.starts[row] : self.starts[row + 1]]

    def length(self, row: int) -> int:
        """Tokens of a row."""
        return int(self.starts[row + 1] - self.starts[row])

    def lengths(self) -> list[int]:
        """Tokens of every row."""
        return [int(end - start) for start, end in pairwise(self.starts.tolist())]

    def labels(self) -> list[int]:
        """Labels of every row (its first token never is one)."""
        before = np.concatenate([[0], np.cumsum(self.flat_learn)])
        return [int(before[end] - before[start + 1]) for start, end in pairwise(self.starts.tolist())]

    def fingerprint(self) -> str:
        """Returns 16 hex digits that change with any token, flag or row boundary."""
        digest = hashlib.sha256()
        for part in (self.flat_ids, self.flat_learn, self.starts):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:16]
