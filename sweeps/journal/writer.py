"""The sweep's log while a driver holds it: append-only rows, one writer.

A row is on the disk, or in the bucket, when `append` returns; what follows from it (a launch, a stop flag, an evaluation) happens
after that. Inside `with journal.batch():` rows are gathered and written together at its end: take in what happened
there, and act on it afterwards.

The log is its own fence. In a folder a driver appends to one segment of its own and looks after each write whether a newer
segment exists; in a bucket each write is a new object, created if absent. Either way a driver that was taken for dead and
overtaken learns it before it can act, and nobody reads what it wrote (`sweeps.journal.reader`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Protocol, Self, TypeVar, overload

from sweeps.errors import Fenced, JournalError, StorageError, SweepBusy
from sweeps.journal.codec import decode
from sweeps.journal.compaction import LOG, Packer, segment_key
from sweeps.journal.lease import LEASE_S, Holder, Lease, boot_id, driving_user
from sweeps.journal.lines import sealed
from sweeps.journal.reader import LogReader, is_sweep, read_rows, segments
from sweeps.journal.rows import LeaseRow, Row
from sweeps.storage.base import Store, Where, storage_error
from sweeps.storage.factory import open_store

__all__ = ["LOG", "Journal", "LogReader", "MemoryJournal", "SweepJournal", "is_sweep", "read_rows", "sweeps_in"]
T = TypeVar("T")
START_TRIES: Final = 20  # a log that others go on with between our read and our write that often is not ours


class Journal(Protocol):
    """Where a driver writes rows; `append` returns the row with its `seq`."""

    def append(self, row: Row) -> Row: ...

    def rows(self) -> list[Row]: ...

    def batch(self) -> contextlib.AbstractContextManager[None]:
        """Rows appended in this block are durable when it ends, not before."""


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

    def batch(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class SweepJournal:
    """The driver's log of one sweep, held by a lease while it is open. Its first row says who holds it.

    Args:
        home: the sweep's folder, address or store, `<storage>/<sweep id>`; made when missing.
        say: takes a line for a person (while an old lease is watched).
        lease_s: how long a holder may be silent. beating: keep a heartbeat (tests beat by hand).

    Raises:
        SweepBusy: another driver holds the sweep. StorageError: the storage cannot be written.
    """

    def __init__(
        self,
        home: Where,
        *,
        say: Callable[[str], None] = lambda line: None,
        lease_s: float = LEASE_S,
        beating: bool = True,
    ) -> None:
        self.store = open_store(home)
        self._rows: list[Row] = []
        self._pending: list[bytes] = []
        self._depth = 0
        self._broken = False
        path = self.store.local()
        self._lock = self.store.patiently(lambda: _exclusive(path / "driver.lock")) if path is not None else None
        # A lock that the kernel gave us means that no process of this kernel holds the sweep, in whatever container.
        gone: Callable[[Holder], bool] = Holder.gone
        if self._lock is not None:
            gone = _same_kernel
        self.lease = Lease(self.store, gone=gone, lease_s=lease_s, beating=beating, say=say)
        self._file: _Segment | None = None
        self._packer: Packer | None = None
        try:
            self.lease.take()
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """Continues the log by one row of our own: from then on it is ours, and what we have read is all of it."""
        for _ in range(START_TRIES):
            reader = LogReader(self.store, keep_loose=True)
            self._rows = reader.rows()
            first = len(self._rows)
            holder = self.lease.holder
            row = LeaseRow(
                self.store.name,
                host=holder.host,
                pid=holder.pid,
                since=holder.since,
                lease=self.lease.number,
                token=holder.token,
                user=driving_user(),
            ).at(first)
            if not self.store.create(segment_key(first), sealed(row.line())):
                if (torn := self.store.local(segment_key(first))) is not None:
                    _patiently(self.store, torn, partial(_drop_torn, torn))
                continue
            path = self.store.local(segment_key(first))
            if path is not None and _patiently(self.store, path, partial(_withdrawn, self.store, first)):
                continue
            self._rows.append(row)
            self.lease.rows = len(self._rows)
            if path is not None:
                self._file = _Segment(self.store, path)
            else:
                self._packer = Packer(self.store, reader.packed, reader.loose)
                self._packer.add(sealed(row.line()))
            return
        raise SweepBusy(f"{self.store}: other drivers are writing this sweep's log; stop them first")

    def append(self, row: Row) -> Row:
        """Writes one row through to the storage (inside `batch`: at its end) and returns it with its place in the log.

        Raises:
            JournalError: it is not written: it could not be read back, or the log cannot be written.
        """
        if self._broken:
            raise JournalError(f"{self.store}: a write was interrupted; open the journal again before writing more")
        row = row.at(len(self._rows))
        text = row.line()
        decode(text)  # what cannot be read is never written
        line = sealed(text)
        self._broken = True  # until the row is where it belongs: an interrupt may fall anywhere in between
        self._rows.append(row)
        self._pending.append(line)
        if not self._depth:
            self._write()
        self._broken = False
        return row

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Gathers the rows of a block and writes them at its end, all in one go."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._pending and not self._broken:
                self._broken = True
                self._write()
                self._broken = False

    def _write(self) -> None:
        if self.lease.fenced_by is not None:
            raise self._fenced(self.lease.fenced_by)
        first = len(self._rows) - len(self._pending)
        data = b"".join(self._pending)
        try:
            written = self._put(first, data)
        except StorageError as e:  # for longer than the store's patience, or one that no waiting cures
            raise JournalError(f"{e}; the sweep's log cannot be written now; resume the sweep once it can") from e
        if not written:
            raise self._fenced(None)
        self._pending.clear()
        self.lease.rows = len(self._rows)
        if self._packer is not None:
            self._packer.add(data)

    def _put(self, first: int, data: bytes) -> bool:
        """Stores rows that begin with number `first`; False when another driver has continued the log."""
        if self._file is None:
            return self.store.create(segment_key(first), data)
        self._file.append(data)
        return not self._file.overtaken()

    def _fenced(self, by: Holder | None) -> Fenced:
        return Fenced(
            f"{self.store}: {by or 'another driver'} has taken this sweep over; this one writes nothing more. It "
            "was out of touch with the storage for longer than its lease; the sweep goes on there"
        )

    def rows(self) -> list[Row]:
        return list(self._rows)

    def close(self) -> None:
        """Gives the sweep back."""
        if self._file is not None:
            self._file.close()
        self.lease.release()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _same_kernel(holder: Holder) -> bool:
    return holder.boot == boot_id()


class _Segment:
    """A segment in a folder, open for appending."""

    def __init__(self, store: Store, path: Path) -> None:
        self.store, self.path = store, path
        self._first = int(path.stem)
        self._file = _patiently(store, path, partial(_open_for_append, path))
        self._size = os.fstat(self._file.fileno()).st_size  # bytes of whole rows
        self._torn = False

    def append(self, data: bytes) -> None:
        """Appends whole rows; they are on disk when it returns. What a failed write left is truncated first."""
        _patiently(self.store, self.path, partial(self._append, data))

    def _append(self, data: bytes) -> None:
        if self._torn:
            self._file.close()  # a disk that was away may have come back as another mount
            self._file = _open_for_append(self.path)
            if (size := os.fstat(self._file.fileno()).st_size) < self._size:  # truncating would fill it up with zeros
                raise JournalError(
                    f"{self.path} came back with {size} of {self._size} bytes: its last rows are missing; restore it from a copy"
                )
            os.ftruncate(self._file.fileno(), self._size)
        self._torn = True
        rest = memoryview(data)
        while rest:  # a disk that fills up takes a part first
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())
        self._size += len(data)
        self._torn = False

    def overtaken(self) -> bool:
        """True when another driver has continued the log after this segment, or has replaced it."""
        return _patiently(self.store, self.path, self._overtaken)

    def _overtaken(self) -> bool:
        try:
            names, there = os.listdir(self.path.parent), self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        stems = (Path(name).stem for name in names if name.endswith(".jsonl"))
        if any(stem.isdecimal() and int(stem) > self._first for stem in stems):
            return True
        mine = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)

    def close(self) -> None:
        self._file.close()


def _open_for_append(path: Path) -> FileIO:
    """Opens an existing segment for appending; one that was removed is not created again."""
    return FileIO(os.open(path, os.O_WRONLY | os.O_APPEND), "ab")


def _patiently(store: Store, path: Path, call: Callable[[], T]) -> T:
    """Returns what a call returns that works on a file of a store, tried as often as the store's own calls are."""

    def attempt() -> T:
        try:
            return call()
        except OSError as e:
            raise storage_error(path, e) from e

    return store.patiently(attempt)


def _drop_torn(path: Path) -> None:
    """Removes a segment without one whole row; only for whoever holds the lease.

    On a file system without hard links a segment is made in place: a driver that was killed there, or found no room, leaves
    it empty or cut, and nobody could ever continue the log.
    """
    with contextlib.suppress(FileNotFoundError):
        if b"\n" not in path.read_bytes():
            path.unlink()


def _withdrawn(store: Store, first: int) -> bool:
    """Takes our first row back where the driver before us wrote between our reading and our creating: it may have acted on that.

    True when it did, and the log is to be read again.
    """
    before = [f for f in segments(store) if f < first]
    if not before:
        return False
    mine, last = store.local(segment_key(first)), store.local(segment_key(before[-1]))
    assert mine is not None
    assert last is not None
    if last.read_bytes().count(b"\n") <= first - before[-1]:
        return False
    mine.unlink(missing_ok=True)
    return True


def _exclusive(path: Path) -> IO[str] | None:
    """Opens and locks a file; the kernel lets go of it when the process dies, however it dies. None without locks."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path, "a+", errors="replace")  # noqa: SIM115 - its life is the lock
    except OSError as e:
        raise storage_error(path, e) from e
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise SweepBusy(
            f"{path.parent}: driver {holder} is running this sweep; stop it first, or wait until it ends"
        ) from None
    except OSError:  # a file system without locks: the lease alone decides
        lock.close()
        return None
    with contextlib.suppress(OSError):  # of a full disk: the lock holds all the same, and only a message lacks the name
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), f"pid {os.getpid()} on {os.uname().nodename}".encode())
    return lock


@overload
def sweeps_in(storage: Path) -> Iterator[Path]: ...
@overload
def sweeps_in(storage: str | Store) -> Iterator[Store]: ...
def sweeps_in(storage: Where) -> Iterator[Path | Store]:
    """Yields the homes of all sweeps under a storage root, by name: folders for a path, stores for an address."""
    store = open_store(storage)
    for name in store.folders():
        home = store / name
        if not name.startswith(".") and is_sweep(home):
            yield Path(home.root) if isinstance(storage, Path) else home
