"""The sweep's log on disk: append-only rows, one writer, read kindly.

One JSON object a line. A line without its newline was cut by a crash and is dropped; the next writer cuts it off before it
appends, so that a torn tail can never grow into a wrong row.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from sweeps.errors import JournalError, StorageError, SweepBusy
from sweeps.records import Row, parse

LOG = Path("log") / "driver.jsonl"


class Journal(Protocol):
    """Where a driver writes rows; `append` returns the row with its `seq`."""

    def append(self, row: Row) -> Row: ...

    def rows(self) -> list[Row]: ...


class MemoryJournal:
    """A journal that lives as long as its process: simulations and tests."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = list(rows)

    def append(self, row: Row) -> Row:
        row = row.at(len(self._rows))
        row.line()
        self._rows.append(row)
        return row

    def rows(self) -> list[Row]:
        return list(self._rows)


class FileJournal:
    """The driver's log of one sweep folder, held under an exclusive lock while it is open.

    Args:
        folder: the sweep's folder, `<storage>/<sweep id>`; made when missing.

    Raises:
        SweepBusy: another driver holds the sweep. StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOG
        self._rows: list[Row] = []
        self._torn = False  # True while a row is on its way: no row may follow one that was cut off
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _exclusive(folder / "driver.lock")
            self._rows, whole = _read(self.path)
            self._file: IO[bytes] = open(self.path, "ab")  # noqa: SIM115 - lives as long as the journal
            self._file.truncate(whole)
        except OSError as e:
            raise StorageError(f"{self.path}: cannot be opened for writing ({e.strerror or e})") from e

    def append(self, row: Row) -> Row:
        """Writes one row through to the disk and returns it with its place in the log."""
        if self._torn:
            raise JournalError(f"{self.path}: a write was interrupted; open the journal again before writing more")
        row = row.at(len(self._rows))
        self._torn = True
        try:
            self._file.write(row.line().encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            raise JournalError(f"{self.path}: row {row.seq} could not be written ({e.strerror or e})") from e
        self._rows.append(row)
        self._torn = False
        return row

    def rows(self) -> list[Row]:
        return list(self._rows)

    def close(self) -> None:
        self._file.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def read_rows(folder: Path) -> list[Row]:
    """Reads a sweep's log without taking the sweep: for reports and replays, also while it runs.

    Raises:
        StorageError: there is no log in that folder. JournalError: a line in its middle is damaged.
    """
    path = folder / LOG
    if not path.exists():
        raise StorageError(
            f"{folder}: no sweep here (no {LOG}); give the folder of a sweep, such as runs/NAME-1a2b3c4d"
        )
    return _read(path)[0]


def _read(path: Path) -> tuple[list[Row], int]:
    """Returns the whole rows and the length of the file in bytes up to the end of the last whole one."""
    rows: list[Row] = []
    whole = 0
    if not path.exists():
        return rows, whole
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            rows.append(_row(path, number, line))
            whole += len(line)
    return rows, whole


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        row = parse(json.loads(line))
    except (ValueError, JournalError) as e:
        raise JournalError(
            f"{path}:{number}: not a journal row ({e}); restore the file from a copy, or cut it before this line"
        ) from e
    if row.seq != number - 1:
        raise JournalError(
            f"{path}:{number}: row has seq {row.seq}, expected {number - 1}; rows are missing or doubled"
        )
    return row


def _exclusive(path: Path) -> IO[str]:
    """Opens and locks a file; the kernel lets go of it when the process dies, however it dies."""
    lock = open(path, "a+")  # noqa: SIM115 - its life is the lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise SweepBusy(
            f"{path.parent}: driver {holder} is running this sweep; stop it first, or wait until it ends"
        ) from None
    lock.truncate(0)
    lock.write(f"pid {os.getpid()}")
    lock.flush()
    return lock


def sweeps_in(storage: Path) -> Iterator[Path]:
    """Yields the folders of all sweeps under a storage root, by name."""
    with contextlib.suppress(FileNotFoundError):
        yield from sorted(p.parent.parent for p in storage.glob(f"*/{LOG}"))
