"""What the starts of attempts took, from launch to first step, and what processes that outlive attempts saved of that."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sweeps.journal.rows import AttemptRow, ReportRow, Row, TrialRow

PARTS: Final = ("process", "imports", "data", "model", "first_step")
"""Of a start, in order: `perf/start_up/<part>_s`. The first step itself is beside the start, not in it."""


@dataclass(frozen=True, slots=True)
class StartUps:
    """The starts of a sweep, in seconds of wall clock of a worker.

    Attributes:
        attempts: whose start is known. reused: of them, those that went on in the processes of an attempt before.
        seconds: of all of them, times the workers that waited. before_training: of them, those that no
            trial's training counts. saved: how much more new processes would have taken for those
            reused, by the median of the same model on as many workers; an estimate.
        new, again: median start in new processes, and in processes that went on; None where there was none.
        parts: medians of the parts of a start in new processes.
    """

    attempts: int = 0
    reused: int = 0
    seconds: float = 0.0
    before_training: float = 0.0
    saved: float = 0.0
    new: float | None = None
    again: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.attempts:
            return "not recorded"
        said = f"{self.attempts} attempt{'s' if self.attempts != 1 else ''} took {self.seconds:,.1f} s from launch to first step"
        if self.new is not None:
            said += f", {self.new:.2f} s each in new processes"
        if self.again is not None:
            said += f"; {self.reused} went on in the processes of another, {self.again:.2f} s each"
        return f"{said}, which saved about {self.saved:,.0f} s" if self.saved else said


@dataclass(frozen=True, slots=True)
class Start:
    """The start of one attempt, in seconds of wall clock. `key`: its model, and its workers."""

    key: tuple[str, int]
    seconds: float
    reused: bool
    parts: Mapping[str, float]

    @property
    def before_training(self) -> float:
        """Seconds from the launch until the trainer's own clock began, which counts data and model as training."""
        return max(0.0, self.seconds - sum(self.parts.get(part, 0.0) for part in ("data", "model")))


class StartUpMeter:
    """Collects the starts of one sweep, row by row; `starts` are by trial and attempt."""

    def __init__(self) -> None:
        self._configs: dict[str, Mapping[str, Any]] = {}
        self._workers: dict[tuple[str, int], int] = {}
        self.starts: dict[tuple[str, int], Start] = {}

    def apply(self, row: Row) -> None:
        """Takes one row in."""
        match row:
            case TrialRow():
                self._configs[row.trial] = row.config
            case AttemptRow():
                self._workers[row.trial, row.attempt] = row.workers or 1
            case ReportRow(suite="") if "perf/start_up_s" in row.metrics:
                self.starts.setdefault((row.trial, row.attempt), self._start(row))

    def _start(self, row: ReportRow) -> Start:
        model = str(self._configs.get(row.trial, {}).get("model", ""))
        found = {part: row.metrics.get(f"perf/start_up/{part}_s") for part in PARTS}
        return Start(
            (model, self._workers.get((row.trial, row.attempt), 1)),
            row.metrics["perf/start_up_s"],
            bool(row.metrics.get("perf/reused_processes")),
            {part: seconds for part, seconds in found.items() if seconds is not None},
        )

    def read(self) -> StartUps:
        """Returns what is known by now."""
        starts = list(self.starts.values())
        new = {key: [s.seconds for s in starts if s.key == key and not s.reused] for key in {s.key for s in starts}}
        again = [s for s in starts if s.reused]
        saved = sum(max(0.0, statistics.median(new[s.key]) - s.seconds) * s.key[1] for s in again if new[s.key])
        return StartUps(
            attempts=len(starts),
            reused=len(again),
            seconds=sum(s.seconds * s.key[1] for s in starts),
            before_training=sum(s.before_training * s.key[1] for s in starts),
            saved=saved,
            new=_median(s.seconds for s in starts if not s.reused),
            again=_median(s.seconds for s in again),
            parts={
                p: m
                for p in PARTS
                if (m := _median(s.parts[p] for s in starts if not s.reused and p in s.parts)) is not None
            },
        )


def _median(values: Iterator[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None
