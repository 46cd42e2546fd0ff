"""Models and data from `s3://` (or any address that fsspec knows), fetched once per machine and shared by its trials.

A copy's folder is named after its address and the sizes and versions of its files, so a file that changes at the source is
fetched anew. It appears whole: fetched aside under a lock, checked, then renamed. A process that dies in between leaves
a lock that nobody holds and a folder that nobody reads. Beside it stands what each file was when it arrived: its SHA-256, and
the state by which one that nobody touched is known again, so that a file is read anew only where somebody did. A copy that
differs is fetched anew. Credentials come from the environment or the instance alone.
What was not used for long can be removed (`cache_gc`); a copy in use is held by a lock until its process ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from sweeps.checkpoints.manifest import MANIFEST, sha256
from sweeps.checkpoints.scratch import folder_lock
from sweeps.errors import InputError, StorageError
from sweeps.storage.base import FOREVER, url_fault
from sweeps.storage.local import user_cache
from sweeps.storage.retry import Patience

log = logging.getLogger(__name__)
_HELD: dict[Path, int] = {}
"""Descriptors of the locks of copies that this process uses; they are closed when it ends."""


class Remote(NamedTuple):
    """A file at the source: where, how many bytes, and what changes whenever its content does (as far as is told)."""

    address: str
    size: int
    version: str


def cache_folder() -> Path:
    """Returns `$DIPSWEEP_CACHE`, or dipsweep's place in the user's cache folder."""
    if chosen := os.environ.get("DIPSWEEP_CACHE"):
        return Path(chosen)
    return user_cache()


def is_remote(path: str) -> bool:
    """True for an address such as `s3://bucket/key`, False for a path."""
    return "://" in path


def listing(url: str, patience_s: float = 0.0) -> dict[str, Remote]:
    """Returns the files at an address by name: those directly in a folder, or the one file that it names.

    Raises:
        InputError: nothing is there, or it cannot be looked at; the message says which.
    """
    fs, path = _file_system(url)
    found = _call(url, lambda: _found(fs, path), patience_s)
    return {name: Remote(str(i["name"]), int(i["size"] or 0), _version(i)) for name, i in sorted(found.items())}


def _found(fs: Any, path: str) -> dict[str, Mapping[str, Any]]:
    fs.invalidate_cache()
    if fs.isfile(path):
        return {path.rpartition("/")[2]: fs.info(path)}
    entries = [entry for entry in fs.ls(path, detail=True) if entry["type"] == "file"]
    return {entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in entries}


def _version(info: Mapping[str, Any]) -> str:
    return str(
        next((info[k] for k in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created") if k in info), "")
    )


def read_remote(url: str, name: str) -> bytes:
    """Returns one file of a remote folder.

    Raises:
        InputError: it is not there or cannot be read.
    """
    return read_range(url, name)


def read_range(url: str, name: str, start: int | None = None, end: int | None = None) -> bytes:
    """Returns bytes `start` to `end` of a file in a remote folder; by default all of it.

    Raises:
        InputError: it is not there or cannot be read.
    """
    fs, path = _file_system(url)
    data: bytes = _call(url, lambda: fs.cat_file(f"{path.rstrip('/')}/{name}", start=start, end=end))
    return data


def fetched(url: str, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """Returns where the files of an address lie on this machine; a path is returned as it is.

    Trials ask for this, so an S3 storage that does not answer is waited for, as long as it takes.

    Args:
        url: of a folder (its own files are fetched, not those of folders in it) or of one file.
        wanted: says by name which files of a folder are needed.

    Raises:
        InputError: it does not exist, cannot be read, or what arrived is not what the source says it is.
    """
    if not is_remote(url):
        return Path(url).expanduser()
    files = {name: remote for name, remote in listing(url, FOREVER).items() if wanted(name)}
    if not files:
        raise InputError(f"{url} holds no file that could be used")
    facts = json.dumps([url, {name: [f.size, f.version] for name, f in files.items()}], sort_keys=True)
    last = url.rstrip("/").rpartition("/")[2]
    home = cache_folder() / "fetched" / f"{hashlib.sha256(facts.encode()).hexdigest()[:16]}-{last}"
    _hold(home)
    if not _is_whole(home, files):
        home.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(home):
            if not _is_whole(home, files):
                _fetch(url, files, home)
    return home / last if set(files) == {last} else home


def use_lock(home: Path) -> Path:
    """Returns the lock file of a copy: shared by the processes that use it, exclusive while it is removed."""
    return home.with_name(f".{home.name}.used")


def _hold(home: Path) -> None:
    """Keeps a copy from being removed until this process ends, and dates its last use; not in a cache that is read-only."""
    with contextlib.suppress(OSError):
        if home not in _HELD:
            home.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(use_lock(home), os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(lock, fcntl.LOCK_SH)
            _HELD[home] = lock
        if home.is_dir():
            os.utime(home)


def record_of(home: Path) -> Path:
    """Returns the file that says what the files of a copy were when they arrived."""
    return home.with_name(f".{home.name}.sha256")


def _is_whole(home: Path, files: Mapping[str, Remote]) -> bool:
    """False where a copy is not there, or is not what was fetched: a power cut, or somebody's hand."""
    try:
        bad = _other_files(home, files)
    except (OSError, ValueError, KeyError, TypeError):
        return _is_all_there_is(home, files)  # it is not there, just put there anew, or nothing says what it was
    if bad:
        log.warning("%s: %s: not what was fetched; fetched anew", home, ", ".join(bad))
    return not bad


def _is_all_there_is(home: Path, files: Mapping[str, Remote]) -> bool:
    """True for a copy without a record in a cache that is read-only, where none can be fetched: an earlier version filled it,
    or it was copied without its hidden files. It has to have the source's files and sizes, and what its manifest says."""
    if os.access(home.parent, os.W_OK):
        return False
    try:
        if set(_files_in(home, files)) != set(files) or _unlike_source(home, files):
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    log.warning("%s: nothing says what was fetched, and the cache is read-only; used by names and sizes alone", home)
    return True


def _files_in(home: Path, files: Mapping[str, Remote]) -> dict[str, Path]:
    """Returns the files of a copy by name, also those that were never fetched, which whoever loads it would read."""
    return {file.name: file for file in home.iterdir() if file.name in files or not file.name.startswith(".")}


def _other_files(home: Path, files: Mapping[str, Remote]) -> list[str]:
    """Returns the files of a copy that are missing, are too many, or hold other bytes than those that arrived.

    Raises:
        OSError, ValueError, KeyError, TypeError: there is no copy, or no record of one.
    """
    there = _files_in(home, files)
    record = json.loads(record_of(home).read_text())
    bad, touched = sorted(set(there) ^ set(files)), False
    for name in set(there) & set(files):
        known, now = record[name], _state(there[name])
        if known["state"] == now:
            continue
        if file_digest(there[name]) == known["sha256"]:
            known["state"], touched = now, True
        else:
            bad.append(name)
    if touched and not bad:
        with contextlib.suppress(OSError):  # a cache that is read-only
            _write(record_of(home), json.dumps(record))
    return bad


def _state(file: Path) -> list[int]:
    """Returns what differs wherever somebody has written to a file, or put another one there: nobody can set all of it."""
    state = file.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def _write(file: Path, text: str) -> None:
    """Writes a file that is whole or not there, also after a power cut."""
    aside = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        with open(aside, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(file)
    except OSError:  # a full disk
        aside.unlink(missing_ok=True)
        raise


def _fetch(url: str, files: Mapping[str, Remote], home: Path) -> None:
    fs, _ = _file_system(url)
    aside = home.with_name(f".{home.name}")
    for old in (home, aside):
        shutil.rmtree(old, ignore_errors=True)
    aside.mkdir()
    log.info("fetching %s (%.2f GB) to %s", url, sum(f.size for f in files.values()) / 1e9, home)
    for name, remote in files.items():
        _call(url, lambda name=name, remote=remote: fs.get_file(remote.address, str(aside / name)), FOREVER)  # type: ignore[misc]
    _check(url, files, aside)
    record = {}
    for name in files:
        with open(aside / name, "rb") as file:
            os.fsync(file.fileno())  # a power cut leaves none of it, or what the record says
        record[name] = {"sha256": sha256(aside / name), "state": _state(aside / name)}
    _write(record_of(home), json.dumps(record))
    aside.rename(home)


_READ: Final[dict[str, str]] = {}
"""Digests of files that this process has read, by what `file_digest` knows them again by."""


def file_digest(file: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal; one that is as it was (path, size, times, inode) is not read again.

    Raises:
        OSError: it cannot be read.
    """
    if not os.access(file, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    facts = "\0".join(map(str, [file.resolve(), *_state(file)]))
    key = hashlib.sha256(facts.encode()).hexdigest()[:32]
    if key in _READ:
        return _READ[key]
    known = cache_folder() / "digests" / key
    try:
        if len(text := known.read_text()) == 64:
            return _READ.setdefault(key, text)
    except (OSError, UnicodeDecodeError):
        pass
    found = _READ[key] = sha256(file)
    aside = known.with_name(f".{known.name}.{os.getpid()}")
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(found)
        aside.replace(known)
    except OSError as e:
        log.debug("a digest was not cached: %s", e)
    return found


def _check(url: str, files: Mapping[str, Remote], folder: Path) -> None:
    if bad := _unlike_source(folder, files):
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"{url}: {', '.join(bad)} did not arrive as the source has it; try again")


def _unlike_source(folder: Path, files: Mapping[str, Remote]) -> list[str]:
    """Returns the files that have not the source's sizes or, where a manifest came along, not its sha256."""
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    short = [name for name, file in files.items() if name not in sizes or (file.size and sizes[name] != file.size)]
    named = json.loads((folder / MANIFEST).read_text())["files"] if MANIFEST in files else {}
    bad = [n for n in named if n in files and sha256(folder / n) != named[n]["sha256"]]
    return short + bad


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    if url.startswith("s3://") and (fault := url_fault(url)):
        raise InputError(fault)
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as e:
        raise InputError(f"{url}: {e}; expected a path or s3://bucket/key") from e
    return fs, path


def _call(url: str, call: Callable[[], Any], patience_s: float = 0.0) -> Any:
    """Calls a file system and turns whatever it raises into one sentence; no message carries a credential."""

    def call_with_clean_error() -> Any:
        try:
            return call()
        except Exception as e:  # each file system has its own errors
            if url.startswith("s3://"):
                from sweeps.storage.s3 import explain

                raise explain(e, url, url.removeprefix("s3://").partition("/")[0]) from e
            raise InputError(f"{url} cannot be read: {type(e).__name__}: {str(e)[:200]}") from e

    try:
        return Patience(patience_s)(call_with_clean_error)
    except StorageError as e:
        raise InputError(str(e)) from e
