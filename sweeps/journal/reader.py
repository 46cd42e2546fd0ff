"""A sweep's log as it is stored: segments of JSON lines, each named by the `seq` of its first row.

    log/000000000.jsonl   rows 0 … 41, of the first driver
    log/000000042.jsonl   rows 42 …, of the one that went on

A segment is created if absent, so nobody can continue a log where somebody else has done so already. Rows of a segment that a
later one has overtaken (seq >= the later one's first) are no part of the log: a driver that was cut off and still
writes changes nothing. A last line without its newline was cut by a crash and does not count. In a bucket there are also
packs, copies of many segments in one object (`sweeps.journal.compaction`).
"""

from __future__ import annotations

import gc
import math
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from sweeps.errors import JournalError, NotFound, StorageDenied, StorageError
from sweeps.journal.codec import NewerRow, decode
from sweeps.journal.compaction import LOG, listed, pack_key, segment_key
from sweeps.journal.lease import FOLDER, known_rows
from sweeps.journal.lines import unsealed
from sweeps.journal.rows import Row
from sweeps.storage.base import Store, Where, join, storage_error
from sweeps.storage.factory import open_store
from sweeps.storage.local import read_file

_ID: Final = re.compile(r".+-[0-9a-f]{8}")  # a folder of such a name holds the rows of the sweep of that id
READERS: Final = 16  # segments of an S3 log that are fetched at once


def segments(store: Store) -> list[int]:
    """Returns the first rows of all segments, ascending."""
    return listed(store)[0]


def read_rows(home: Where) -> list[Row]:
    """Reads a sweep's log without taking the sweep: for reports and replays, also while it runs.

    Args:
        home: the sweep's folder, its address, or its store.

    Raises:
        StorageError: there is no log. JournalError: a line in its middle is damaged, or its end is missing.
    """
    store = open_store(home)
    rows = LogReader(store).rows()
    if not rows and not segments(store):
        raise StorageError(
            f"{store}: no sweep here (no {LOG}/); give the folder of a sweep, such as runs/NAME-1a2b3c4d"
        )
    return rows


class _Piece(NamedTuple):
    """What is fetched in one go: a segment, or a pack of several. `end` is the first row after it."""

    key: str
    first: int
    end: float
    packed: tuple[int, ...] = ()


class LogReader:
    """A log that is read again and again while it grows; each call reads only what is new.

    Attributes:
        packed, loose: up to which row there are packs, and the bytes of the segments after it; kept with `keep_loose`.
    """

    def __init__(self, home: Where, *, keep_loose: bool = False) -> None:
        self.store = open_store(home)
        self.packed, self.loose, self.keep_loose = 0, list[bytes](), keep_loose
        self._sweep = self.store.name if _ID.fullmatch(self.store.name) else ""
        self._rows: list[Row] = []
        self._read: dict[int, int] = {}  # first row of a segment -> bytes of it that were taken

    def rows(self) -> list[Row]:
        """Returns all rows of the log as it is now."""
        known = 0 if self._rows else known_rows(self.store)  # before the log, which may grow meanwhile
        with no_collector():
            firsts, packs = listed(self.store)
            if not self._read.keys() <= set(firsts):  # a driver withdrew its first row: it had read too little
                self._rows, self._read = [], {}
            for first in firsts:
                if first not in self._read and first < len(self._rows):
                    del self._rows[first:]  # what an overtaken driver wrote
            self._read_pieces(list(self._pieces(firsts, packs)))
        if len(self._rows) < known:
            raise JournalError(
                f"{join(self.store.root, LOG)}: the log ends after {len(self._rows)} rows, and its driver had written {known}: "
                f"restore the rest from a copy; to go on without it, remove {join(self.store.root, FOLDER)}"
            )
        return list(self._rows)

    def _pieces(self, firsts: Sequence[int], packs: Mapping[int, int]) -> Iterator[_Piece]:
        """Yields what is still to be fetched, in order: a pack where there is one."""
        covered = 0
        for i, first in enumerate(firsts):
            end = firsts[i + 1] if i + 1 < len(firsts) else math.inf
            if first < covered:
                continue
            if first in packs and first >= len(self._rows):
                covered = packs[first]
                inside = tuple(firsts[i : bisect_left(firsts, covered)])
                yield _Piece(pack_key(first, covered), first, covered, inside)
            elif end > len(self._rows) and not self._sealed(first):
                yield _Piece(segment_key(first), first, end)

    def _read_pieces(self, pieces: Sequence[_Piece]) -> None:
        for piece, data in zip(pieces, self._data(pieces), strict=True):
            if not piece.packed:
                self._segment(piece, data)
            elif not self._unpack(piece, data):
                self._read_pieces(list(self._pieces([*piece.packed, int(piece.end)], {}))[: len(piece.packed)])

    def _unpack(self, pack: _Piece, data: bytes) -> bool:
        """Takes a pack in; False, and nothing taken, when it is not what it says it is."""
        lines = data.split(b"\n")[:-1]
        if pack.first != len(self._rows) or len(lines) != pack.end - pack.first:
            return False
        try:
            self._rows += parse_lines(lines, pack.first, join(self.store.root, pack.key), 0, self._sweep)
        except JournalError:
            return False
        self._read |= dict.fromkeys(pack.packed, 0)
        self.packed, self.loose = int(pack.end), []
        return True

    def _sealed(self, first: int) -> bool:
        """An object never grows; a file may."""
        return first in self._read and self.store.local() is None

    def _data(self, pieces: Sequence[_Piece]) -> Iterator[bytes]:
        if self.store.local() is not None or len(pieces) < 2:
            yield from map(self._rest, pieces)
            return
        with ThreadPoolExecutor(READERS) as pool:
            yield from pool.map(self._rest, pieces)

    def _rest(self, piece: _Piece) -> bytes:
        """Returns the whole lines of a segment that were not read yet, or of a pack."""
        path, taken = self.store.local(piece.key), self._read.get(piece.first, 0)
        try:
            data = self.store.read(piece.key)[taken:] if path is None else read_file(path, taken)
        except (NotFound, FileNotFoundError):  # withdrawn by the driver that made it; or a pack that somebody removed
            if path is None and not piece.packed:
                raise
            if path is not None and path.is_symlink():
                raise JournalError(f"{path} is a link that leads nowhere; restore the file that it named") from None
            data = b""
        except OSError as e:
            raise storage_error(Path(piece.key) if path is None else path, e) from e
        return data[: data.rfind(b"\n") + 1]

    def _segment(self, piece: _Piece, data: bytes) -> None:
        first, end = piece.first, piece.end
        where = join(self.store.root, segment_key(first))
        if first not in self._read and first > len(self._rows):
            raise JournalError(
                f"{where}: the log has no rows {len(self._rows)} to {first - 1}; restore them from a copy"
            )
        lines = data.split(b"\n")[:-1]
        room = end - len(self._rows)
        if len(lines) > room:
            lines = lines[: int(room)]
        line_before = len(self._rows) - first
        self._rows += parse_lines(lines, len(self._rows), where, line_before, self._sweep)
        self._read[first] = self._read.get(first, 0) + len(data)
        if self.keep_loose and self.store.local() is None:
            self.loose.append(data)


def parse_lines(lines: Sequence[bytes], seq: int, where: str, before: int, sweep: str = "") -> list[Row]:
    """Returns the rows of lines that are numbered from `seq`; `before` lines stand above them in the file.

    Args:
        sweep: whose rows these must be; empty where that is not known.

    Raises:
        JournalError: a line is no row, has changed, has another number, or is of another sweep; the message names the line.
    """
    rows = []
    for i, line in enumerate(lines):
        body = line
        try:
            body = unsealed(line)
            row = decode(body)
        except JournalError as e:
            raise _unreadable(where, before + i + 1, e, as_written=body is not line) from e
        if sweep and row.sweep != sweep:
            raise JournalError(
                f"{where}:{before + i + 1}: a row of sweep {row.sweep or '(none)'} in the log of {sweep}: the file is another "
                "sweep's; restore this sweep's own from a copy"
            )
        if row.seq != seq + i:
            raise JournalError(
                f"{where}:{before + i + 1}: row has seq {row.seq}, expected {seq + i}; rows are missing or doubled; "
                "restore the file from a copy"
            )
        rows.append(row)
    return rows


def _unreadable(where: str, number: int, e: JournalError, *, as_written: bool) -> JournalError:
    """Returns what to do about a line that is no row: what a newer version wrote must not be cut off."""
    if as_written or isinstance(e, NewerRow):
        return JournalError(
            f"{where}:{number}: not a row of this version ({e}); it stands as it was written: read it with the dipsweep "
            "that wrote it, or with a newer one"
        )
    return JournalError(
        f"{where}:{number}: not a journal row ({e}); restore the file from a copy, or cut it before this line"
    )


@contextmanager
def no_collector() -> Iterator[None]:
    """A hundred thousand new objects with nothing to collect among them: the collector would double the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def is_sweep(home: Where) -> bool:
    """True when there is a sweep's log at an address, be it one that cannot be read: reading says why."""
    store = open_store(home)
    try:
        return bool(segments(store))
    except NotFound:
        return False
    except (JournalError, StorageDenied):
        return _ID.fullmatch(store.name) is not None
