"""A second copy of a log in a bucket, in few objects, for readers alone.

In a bucket each write of a driver is an object of its own, and a sweep of 100,000 rows has some 20,000 of them: two and a
half minutes to fetch. So after every 256 writes a driver puts the same lines into one more object,

    log/000000000-000001311.jsonl   rows 0 … 1310, as they stand in the segments 000000000 … 000001305

Nothing hangs on it. The segments stay, since a driver that was overtaken must find its next key taken; a pack that is
missing or damaged is read from them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Final

from sweeps.errors import JournalError, StorageError
from sweeps.storage.base import Store

PACK: Final = 256  # segments; so many small objects are left to fetch at most
LOG: Final = "log"
_NAME: Final = re.compile(rf"{LOG}/(\d+)(?:-(\d+))?\.jsonl")


def segment_key(first: int) -> str:
    """Returns the key of the segment that begins with row `first`."""
    return f"{LOG}/{first:09d}.jsonl"


def pack_key(first: int, end: int) -> str:
    """Returns the key of the pack of rows `first` up to `end`, which is not in it."""
    return f"{LOG}/{first:09d}-{end:09d}.jsonl"


def listed(store: Store) -> tuple[list[int], dict[int, int]]:
    """Returns the first rows of all segments, ascending, and the packs: first row -> end, the longest of each.

    What stands in the place of a file counts as one, so that reading it says what it is.

    Raises:
        JournalError: the log's folder is a file.
    """
    segments, packs = list[int](), dict[int, int]()
    keys = [entry.key for entry in store.list(LOG)]
    if (log := store.local(LOG)) is not None:
        if log.is_file():
            raise JournalError(f"{log}: got a file; expected the folder of a sweep's log; restore it from a copy")
        keys += [f"{LOG}/{name}" for name in store.folders(LOG)]
    for key in keys:
        if (name := _NAME.fullmatch(key)) is None:
            continue
        first, end = int(name[1]), name[2]
        if end is None:
            segments.append(first)
        else:
            packs[first] = max(int(end), packs.get(first, 0))
    return sorted(segments), packs


class Packer:
    """Gathers the lines of segments that are in no pack yet.

    Args:
        store: the sweep's. first: number of the first row of that. parts: the segments' bytes, in order.
    """

    def __init__(self, store: Store, first: int, parts: Iterable[bytes]) -> None:
        self.store, self.first, self.parts = store, first, list(parts)

    def add(self, data: bytes) -> None:
        """Takes the bytes of a segment that was just written; packs when there are enough."""
        self.parts.append(data)
        if len(self.parts) < PACK:
            return
        whole = b"".join(self.parts)
        first, self.first, self.parts = self.first, self.first + whole.count(b"\n"), []
        with contextlib.suppress(StorageError):  # then readers fetch the segments
            self.store.create(pack_key(first, self.first), whole)
