"""Journal rows for tests, by kind and keys, in one line."""

from __future__ import annotations

from typing import Any

from sweeps.journal.codec import parse
from sweeps.journal.rows import Row


def make_row(
    kind: str, sweep: str, trial: str = "", attempt: int = 0, step: int | None = None, budget: int | None = None,
    metrics: dict[str, float] | None = None, se: dict[str, float] | None = None, n: dict[str, int] | None = None,
    **keys: Any,
) -> Row:  # fmt: skip
    """Returns a row of a kind; what is None is left out, and `extra` are further keys as they stand in the journal."""
    row = {"kind": kind, "sweep": sweep, "trial": trial, "attempt": attempt, "step": step, "budget": budget,
           "metrics": metrics, "se": se, "n": n, **keys.pop("extra", {}), **keys}  # fmt: skip
    return parse({key: value for key, value in row.items() if value is not None})
