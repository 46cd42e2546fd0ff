"""Earlier sweeps of a storage as experience of a new one: which of them ask the same, and what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from sweeps.config.objective import Goal
from sweeps.errors import DipsweepError
from sweeps.journal.history import History, rows_of_runs
from sweeps.journal.reader import read_rows
from sweeps.journal.rows import Row, SweepRow
from sweeps.journal.state import SweepState
from sweeps.journal.vocabulary import SweepStatus
from sweeps.journal.writer import sweeps_in

MOST: Final = 20  # sweeps, those with most curves
FEWEST_CURVES: Final = 4


def gather(
    where: str, goal: Goal, suite: str, *, without: Collection[str] = (), say: Callable[[str], None]
) -> dict[str, Any]:
    """Returns the experience of finished sweeps under a storage root for a new one, as its first row holds it.

    Taken are sweeps that have ended, of at least `FEWEST_CURVES` curves, with the same metric, direction and suite: the
    `MOST` with most curves. Each stands with its id, the digest of its rows, and its numbers
    (`sweeps.stopping.forecasting.experience`): a replay of the new sweep needs nothing else.

    Args:
        where: a folder or an s3:// address. goal, suite: of the new sweep; an empty suite takes any. without: sweeps that are
            left out. say: is told what is taken, and what cannot be read.

    Raises:
        StorageError: the root cannot be read.
    """
    found = []
    for name, rows in _alike(where, goal, suite, without, say):
        summary = summed_up(rows, goal)
        if summary["curves"] >= FEWEST_CURVES:
            digest = hashlib.sha256("\n".join(row.line() for row in rows).encode()).hexdigest()
            found.append({**summary, "sweep": name, "digest": digest})
    taken = sorted(found, key=lambda s: (-s["curves"], s["sweep"]))[:MOST]
    named = ", ".join(s["sweep"] for s in taken) or "no finished sweep with this metric and suite"
    say(f"the stop rule begins with experience from {where}: {named}")
    return {"storage": where, "sweeps": taken}


def summed_up(rows: Iterable[Row], goal: Goal) -> dict[str, Any]:
    """Returns what a finished sweep says of another with the same goal: its curves, gains and forms, as JSON."""
    from sweeps.stopping.forecasting.forecasts import CurveForecaster

    history = History()
    forecaster = CurveForecaster(goal.metric, goal.sign, history, patience=4.0, cap=0.5)
    for row in rows_of_runs(rows):
        if history.fold(row):
            forecaster.observe(row)
    return forecaster.as_experience()


def _alike(
    where: str, goal: Goal, suite: str, without: Collection[str], say: Callable[[str], None]
) -> Iterator[tuple[str, list[Row]]]:
    for home in sweeps_in(where):
        if home.name in without:
            continue
        try:
            rows = read_rows(home)
        except DipsweepError as e:
            say(f"no experience from {home.name}: {e}")
            continue
        first = next((row for row in rows if isinstance(row, SweepRow)), None)
        if first is None or not _asks_the_same(first.spec, goal, suite):
            continue
        if SweepState(rows).status in (SweepStatus.DONE, SweepStatus.STOPPED):
            yield home.name, rows


def _asks_the_same(spec: Mapping[str, Any], goal: Goal, suite: str) -> bool:
    """The same metric, direction and suite."""
    objective = spec.get("objective", {})
    same = objective.get("metric") == goal.metric and (objective.get("goal") != "minimize") == goal.maximize
    return bool(same and suite in ("", suite_of(spec)))


def suite_of(spec: Mapping[str, Any]) -> str:
    """Returns the suite that a sweep's definition names."""
    return str(spec.get("evaluation", {}).get("suite", ""))
