"""What lies in this machine's cache of downloads and tokenised rows, and removing what was not used for long.

A copy that a process of this machine uses is never removed, whatever its age: the process holds a lock on it until it ends
(`download_cache.fetched`). All of it can be made again: a copy that is gone is fetched when it is next asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from trainers.data.sources.download_cache import cache_folder, record_of, use_lock

DAY_S: Final = 24 * 3600.0


class CachedCopy(NamedTuple):
    """A copy in the cache: its path, its bytes, seconds since its last use, and whether it goes."""

    path: Path
    size: int
    unused_s: float
    in_use: bool
    goes: bool


def collect_cache(older_than_days: float, *, apply: bool = False) -> list[CachedCopy]:
    """Lists all copies, the one that was not used for longest first; with `apply`, removes those that go.

    Args:
        older_than_days: a copy goes when it was not used for longer than that and no process of this machine uses it.
    """
    found = []
    for path in _copies():
        with _unused(path) as free, contextlib.suppress(FileNotFoundError):  # another process removes it too
            unused_s = time.time() - path.stat().st_mtime
            copy = CachedCopy(path, _size(path), unused_s, not free, free and unused_s > older_than_days * DAY_S)
            if apply and copy.goes:
                _remove(path)
            found.append(copy)
    return sorted(found, key=lambda copy: -copy.unused_s)


def _copies() -> Iterator[Path]:
    """Downloads, also those that a process that died left unfinished, and files of tokenised rows."""
    yield from (path for path in cache_folder().glob("fetched/*") if path.is_dir())
    yield from cache_folder().glob("rows/*.safetensors")


@contextlib.contextmanager
def _unused(path: Path) -> Iterator[bool]:
    """Holds a copy against use meanwhile; False where a process uses it. Rows are read at once, so they are always free."""
    if path.is_file():
        yield True
        return
    with open(use_lock(path.with_name(path.name.removeprefix("."))), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink()
        return
    shutil.rmtree(path)
    if not path.name.startswith("."):  # an unfinished one lies beside a copy, or beside none
        record = record_of(path)
        record.unlink(missing_ok=True)
        for aside in path.parent.glob(f"{glob.escape(record.name)}.*"):  # of a process that died while it wrote one
            aside.unlink(missing_ok=True)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
