"""Updates of a live page between two summaries: new rows of the journal as small changes of the page's data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sweeps.journal.rows import BASE_PREFIX, AttemptRow, EndRow, ReportRow, Row, TrialRow
from sweeps.journal.vocabulary import EndOf


def changes(rows: Iterable[Row], suite: str) -> Iterator[dict[str, Any]]:
    """Yields one change for each row that a page shows at once; the others wait for the next summary.

    Args:
        suite: whose scores the page shows; those of another one are left out, as in the report.
    """
    for row in rows:
        if not row.trial:
            continue
        if row.trial.startswith(BASE_PREFIX) or isinstance(row, TrialRow):
            yield {"new": row.trial}
        elif isinstance(row, ReportRow) and row.step and row.metrics and row.suite in ("", suite):
            yield {
                "trial": row.trial,
                "step": row.step,
                "values": dict(row.metrics),
                "se": dict(row.se),
                "n": dict(row.n),
            }
        elif isinstance(row, AttemptRow):
            yield {"trial": row.trial, "state": "running"}
        elif isinstance(row, EndRow):
            state = str(row.status)
            yield {
                "trial": row.trial,
                "state": "scoring" if row.of is EndOf.TRAINING and state == "completed" else state,
            }
