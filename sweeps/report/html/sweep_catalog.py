"""The sweeps of one storage, read again when their journals have grown."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.errors import DipsweepError, SpecError
from sweeps.journal.lease import DriverState, driver_state
from sweeps.journal.notes import NoteReader, tags_of
from sweeps.journal.rows import LeaseRow, NoteRow, Row, SweepRow
from sweeps.journal.state import SweepState
from sweeps.journal.writer import LogReader, sweeps_in
from sweeps.planning.progress import ProgressMeter, progress_text
from sweeps.report.analysis.conclusions.answer import ENDED, progress, progress_of_counts
from sweeps.report.analysis.findings.summary import Summary
from sweeps.report.analysis.summarize import summarize, with_driver_note, with_notes
from sweeps.storage.base import Where
from sweeps.storage.factory import open_store

DRIVER_CHECK_INTERVAL_S = 20
"""How often a driver's state is read: of another machine's driver that can take seconds."""
CPU_REST_FACTOR = 20
"""Seconds between two summaries of a sweep, as a multiple of the CPU seconds that the last one took: 5 % of a core."""
MIN_SUMMARY_INTERVAL_S = 2.0
PROGRESS_INTERVAL_S = 5.0
"""How often the time that is left is worked out."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One sweep of the storage: its state, or why its journal cannot be read.

    Attributes:
        summary: None before one was made, and where the journal cannot be read. rows: of the journal, that it is made of.
        begun, since: start of its first driver, and of its last, by the journal. counts: its progress in a few words.
        tags: those that people gave it.
    """

    id: str
    summary: Summary | None = None
    trouble: str = ""
    rows: int = 0
    begun: str = ""
    since: str = ""
    counts: str = ""
    open: bool = False
    hint: str = ""
    name: str = ""
    tags: tuple[str, ...] = ()

    @property
    def progress(self) -> str:
        """Its progress, and whether a driver runs."""
        return f"{self.counts}; {self.hint}" if self.open and self.hint else self.counts


@dataclass(slots=True)
class _Metered:
    """Progress of a sweep after its first `rows` rows; `text` is renewed every `PROGRESS_INTERVAL_S` seconds."""

    state: SweepState
    meter: ProgressMeter | None
    rows: int = 0
    text: str = ""
    asked: float = float("-inf")


def _meter(rows: list[Row]) -> _Metered:
    state = SweepState()
    head = next((r for r in rows if isinstance(r, SweepRow) and r.spec), None)
    try:
        plan = None if head is None else Plan(Sweep(**head.spec))
    except SpecError:
        plan = None
    return _Metered(state, None if plan is None else ProgressMeter(plan, state))


class SweepCatalog:
    """The sweeps of one storage, for several threads; each sweep is read by one thread at a time."""

    def __init__(self, storage: Where) -> None:
        self.storage = open_store(storage)
        self._readers: dict[str, LogReader] = {}
        self._notes: dict[str, NoteReader] = {}
        self._known: dict[str, CatalogEntry] = {}
        self._quick: dict[str, CatalogEntry] = {}
        self._made: dict[str, tuple[float, float]] = {}  # when a summary was ready, and its CPU seconds
        self._meters: dict[str, _Metered] = {}
        self._drivers: dict[str, tuple[float, DriverState]] = {}
        self._locks: dict[tuple[str, str], threading.Lock] = {}

    def ids(self) -> list[str]:
        """Sweep ids by name."""
        return [home.name for home in sweeps_in(self.storage)]

    def sweep(self, id: str) -> CatalogEntry | None:
        """Returns a sweep by id; None when there is none. Only names that the storage itself lists are ever opened."""
        return self._with_notes(self._with_driver(self._with_summary(id))) if id in self.ids() else None

    def all(self) -> list[CatalogEntry]:
        """Returns all sweeps, the one with the latest driver first; a headline only where one is ready."""
        found = [self._with_notes(self._with_driver(self._without_summary(id))) for id in self.ids()]
        return sorted(found, key=lambda s: s.since, reverse=True)

    def rows(self, id: str) -> list[Row]:
        """Returns the rows of a sweep that the storage lists.

        Raises:
            DipsweepError: its journal cannot be read.
        """
        with self._lock(id):
            reader = self._readers.setdefault(id, LogReader(self.storage / id))
            try:
                return reader.rows()
            except DipsweepError:
                self._readers.pop(id)
                raise

    def is_summary_due(self, id: str, rows: int) -> bool:
        """True when there are new rows, and the last summary is old enough for another one."""
        ready, took = self._made.get(id, (float("-inf"), 0.0))
        known = self._known.get(id)
        stale = known is None or known.rows != rows
        return stale and time.monotonic() - ready >= max(CPU_REST_FACTOR * took, MIN_SUMMARY_INTERVAL_S)

    def _lock(self, id: str, what: str = "rows") -> threading.Lock:
        return self._locks.setdefault((id, what), threading.Lock())

    def _with_summary(self, id: str) -> CatalogEntry:
        with self._lock(id, "summary"):
            try:
                rows = self.rows(id)
            except DipsweepError as e:
                return CatalogEntry(id, trouble=str(e), counts="unreadable")
            known = self._known.get(id)
            if known is None or known.rows != len(rows):
                began = time.thread_time()
                summary = summarize(rows)
                self._made[id] = time.monotonic(), time.thread_time() - began
                where, entry = progress(summary), _entry(id, rows)
                known = replace(entry, summary=summary, counts=where, open=where != "ended")
                self._known[id] = known
            return known

    def _without_summary(self, id: str) -> CatalogEntry:
        """Returns a sweep's state without a new analysis; it keeps the last headline that was made."""
        try:
            rows = self.rows(id)
        except DipsweepError as e:
            return CatalogEntry(id, trouble=str(e), counts="unreadable")
        for kept in (self._known.get(id), self._quick.get(id)):
            if kept is not None and kept.rows == len(rows):
                return kept
        known, where = self._known.get(id), _counts(SweepState(rows))
        found = replace(_entry(id, rows), summary=known.summary if known else None, counts=where, open=where != "ended")
        self._quick[id] = found
        return found

    def _with_driver(self, entry: CatalogEntry) -> CatalogEntry:
        if not entry.open or not (hint := self._driver(entry.id).message(entry.id)):
            return entry
        summary = with_driver_note(entry.summary, hint) if entry.summary is not None else None
        return replace(entry, hint=hint, summary=summary)

    def _with_notes(self, entry: CatalogEntry) -> CatalogEntry:
        notes = self.notes(entry.id)
        if not notes:
            return entry
        summary = with_notes(entry.summary, notes) if entry.summary is not None else None
        return replace(entry, tags=tags_of(notes), summary=summary)

    def notes(self, id: str) -> list[NoteRow]:
        """Returns the notes on a sweep that the storage lists; none while the storage does not answer."""
        with self._lock(id, "notes"):
            try:
                return self._notes.setdefault(id, NoteReader(self.storage / id)).rows()
            except DipsweepError:
                return []

    def _driver(self, id: str) -> DriverState:
        looked, state = self._drivers.get(id, (float("-inf"), DriverState("none")))
        if time.monotonic() - looked >= DRIVER_CHECK_INTERVAL_S:
            looked, state = self._drivers[id] = time.monotonic(), driver_state(self.storage / id)
        return state

    def suite(self, id: str) -> str:
        """The suite whose scores a sweep's page shows; that of the last summary."""
        entry = self._known.get(id) or self._with_summary(id)
        return entry.summary.suite if entry.summary is not None else ""

    def rows_summarized(self, id: str) -> int:
        """Rows that the last summary was made of; -1 before there was one."""
        return self._known[id].rows if id in self._known else -1

    def driver_message(self, id: str) -> str:
        """Returns a sweep's progress while a driver runs, else that none does."""
        driver = self._driver(id)
        return self._progress_text(id) if driver.alive else driver.message(id)

    def _progress_text(self, id: str) -> str:
        """`12 % done; 40 min left (30 min to 1.1 h); …`; empty for a sweep whose definition this version does not read."""
        with self._lock(id, "progress"):
            rows = self.rows(id)
            known = self._meters.get(id)
            if known is None or known.rows > len(rows):
                known = self._meters[id] = _meter(rows)
            if known.meter is None:
                return ""
            try:
                for row in rows[known.rows :]:
                    known.state.apply(row)
                    known.meter.apply(row)
            except KeyError:  # configurations of another version, without the settings that the time depends on
                known.meter = None
                return ""
            known.rows = len(rows)
            if time.monotonic() - known.asked >= PROGRESS_INTERVAL_S:
                known.text, known.asked = progress_text(known.meter.progress()), time.monotonic()
            return known.text


def _counts(state: SweepState) -> str:
    """What `answer.progress` says, from the journal alone."""
    states = [state.trial_status(c.trial) for c in state.history.trials()]
    head = state.history.sweep
    return progress_of_counts(
        len(states), sum(s not in ENDED for s in states), head.trials if head is not None else None
    )


def _entry(id: str, rows: list[Row]) -> CatalogEntry:
    times = [r.since for r in rows if isinstance(r, LeaseRow)]
    head = next((r for r in rows if isinstance(r, SweepRow)), None)
    return CatalogEntry(
        id, rows=len(rows), begun=min(times, default=""), since=max(times, default=""), name=head.name if head else ""
    )
