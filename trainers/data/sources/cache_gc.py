"""What lies in this machine's cache of downloads and tokenised rows, and removing what was not used for long.

A copy that a process of this machine uses is never removed, whatever its age: the process holds a lock on it until it ends
(`download_cache.fetched`). All of it can be made again: a copy that is gone is fetched when it is next asked for. What a process
that was killed had begun to write lies beside the files that are whole, and goes with the old ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from trainers.data.sources.download_cache import cache_folder, record_of, use_lock

DAY_S: Final = 24 * 3600.0
ASIDE: Final = re.compile(r"\..+\.\d+")
"""Names under which the cache's files and folders are written first: hidden, with the writer's process id at the end."""


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
        # Another process may remove it too, or have finished it.
        with contextlib.suppress(FileNotFoundError), _unused(path) as free:
            unused_s = time.time() - path.stat().st_mtime
            copy = CachedCopy(path, _size(path), unused_s, not free, free and unused_s > older_than_days * DAY_S)
            if apply and copy.goes:
                _remove(path)
            found.append(copy)
    return sorted(found, key=lambda copy: -copy.unused_s)


def _copies() -> Iterator[Path]:
    """Downloads, also those that a process that died left unfinished; files of tokenised rows; whatever else is unfinished."""
    yield from (path for path in cache_folder().glob("fetched/*") if path.is_dir())
    yield from cache_folder().glob("rows/*.safetensors")
    yield from (path for path in cache_folder().glob("*/.*") if _is_aside(path))


def _is_aside(path: Path) -> bool:
    """True for what was being written, and was neither finished nor removed; an unfinished download has a lock of its own."""
    return bool(ASIDE.fullmatch(path.name)) and not (path.parent.name == "fetched" and path.is_dir())


@contextlib.contextmanager
def _unused(path: Path) -> Iterator[bool]:
    """Holds a copy against use meanwhile; False where a process uses it, or may still write it. Rows are read at once, so they
    are always free."""
    if _is_aside(path):
        yield time.time() - path.stat().st_mtime > DAY_S
        return
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
        record_of(path).unlink(missing_ok=True)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    states = [file.lstat() for file in files]  # a link is not its file, and an outline of a model has holes
    return sum(min(state.st_size, 512 * state.st_blocks) for state in states)
