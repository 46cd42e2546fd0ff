"""Where sweeps are kept: one small interface over a folder, an S3 prefix, or memory.

>>> store = open_store("s3://bucket/sweeps")          # sweeps.storage.factory; or open_store("./runs")
>>> (store / "dip-1a2b3c4d").read("spec.yaml")

Keys are relative paths with forward slashes. A write is whole or not there at all; `create` is the one operation that two
processes can race for, and exactly one of them wins: leases and logs are built on it. A store is cheap to make and pickles
as its address alone; credentials come from the environment or the instance of the process that uses it, never from a
sweep file and never through a pickle.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeAlias, TypeVar

from sweeps.errors import (
    InputError,
    JournalError,
    NoBucket,
    NoCredentials,
    NodeFull,
    NotFound,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
    TrialFailed,
    text_of,
)

T = TypeVar("T")
COMMAND_S: Final = 8.0
"""How long a one-shot command keeps trying while the storage does not answer."""
FOREVER: Final = float("inf")
"""For drivers and workers: an outage pauses them, it never fails them (`sweeps.storage.retry`)."""


class Entry(NamedTuple):
    """One thing that is stored: its key, relative to the store, and its size in bytes."""

    key: str
    size: int


class Store(ABC):
    """A tree of whole files. Every method may raise a StorageError that says what cures it.

    Attributes:
        root: the absolute path or address that keys are relative to.
    """

    root: str

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Returns what is stored under a key. Raises NotFound."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Stores bytes under a key, in place of what was there."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Stores bytes under a key that is free; False, and nothing changed, when it is taken.

        Give data that no other process would write: after a lost answer the only way to know who won is to look, so
        where exactly this data stands already, the answer may be True.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> builtins.list[Entry]:
        """Returns everything below a folder, at any depth, sorted by key; nothing for a folder that is not there."""

    @abstractmethod
    def folders(self, prefix: str = "") -> builtins.list[str]:
        """Returns the names of the folders directly inside a folder, sorted."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes what is stored under a key, if it is there."""

    @abstractmethod
    def delete_tree(self, prefix: str) -> None:
        """Removes everything below a folder. Not atomic: remove first what says that the rest is whole."""

    @abstractmethod
    def upload(self, source: Path, key: str) -> None:
        """Stores a local file under a key."""

    @abstractmethod
    def download(self, key: str, target: Path) -> None:
        """Copies what is stored under a key to a local file whose folder exists. Raises NotFound."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """True when something is stored under exactly this key."""

    def leftovers(self) -> builtins.list[Entry]:
        """Returns writes that were begun and never finished; readers do not see them, but they take room."""
        return []

    def drop_leftover(self, key: str) -> None:
        """Removes what `leftovers` listed under a key."""
        raise NotFound(f"{join(self.root, key)} is no unfinished write")

    def local(self, key: str = "") -> Path | None:
        """Returns the path of a key on this machine, where the store is a folder."""
        return None

    def patiently(self, call: Callable[[], T]) -> T:
        """Returns what a call returns that works on this store's own files, tried as often as the store's calls are."""
        return call()

    @property
    def once(self) -> Store:
        """The same store, without patience: each call is tried once."""
        return self

    @abstractmethod
    def __truediv__(self, part: str) -> Self:
        """Returns the store of a folder in this one."""

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.root.rstrip("/").rpartition("/")[2]

    def __str__(self) -> str:
        return self.root

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root!r})"


Where: TypeAlias = str | Path | Store


def is_url(where: Where) -> bool:
    """True for an address such as s3://bucket/prefix, False for a path."""
    return isinstance(where, str) and "://" in where


def url_fault(url: str) -> str:
    """Returns what is wrong with a storage address, as one sentence; empty when it can be used."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme == "file":
        return "got a file:// address; expected a plain path"
    if scheme != "s3":
        return f"got '{scheme}://'; expected a path or s3://bucket/prefix"
    if "@" in bucket or ":" in bucket:
        return (
            "got credentials or a port inside an s3:// address; expected s3://bucket/prefix alone, credentials and endpoint "
            "through the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL) or the instance"
        )
    if not 3 <= len(bucket) <= 63 or not bucket.replace("-", "").replace(".", "").isalnum() or bucket != bucket.lower():
        return f"got bucket '{bucket}'; expected 3 to 63 lower-case letters, digits, '-' or '.'"
    if any(c in prefix for c in "?#\x00"):
        return "got an s3:// address with '?' or '#'; expected s3://bucket/prefix alone"
    if ".." in prefix.split("/"):
        return f"got {url!r}; expected an address without '..'"
    return ""


def join(root: str, *parts: str) -> str:
    """Returns a path or an address below a root, as text."""
    return "/".join([root.rstrip("/") or "/", *(p.strip("/") for p in parts if p)])


def inside(path: str, root: str) -> str | None:
    """Returns `path` relative to `root`, or None when it does not lie strictly inside."""
    head = root.rstrip("/") + "/"
    rest = path[len(head) :] if path.startswith(head) else ""
    return rest if rest.strip("/") and ".." not in rest.split("/") else None


def checked(key: str) -> str:
    """Returns a key that stays inside its store.

    Raises:
        InputError: it is absolute, empty, or leads upwards.
    """
    if not key or key.startswith("/") or "\x00" in key or any(p in ("", ".", "..") for p in key.split("/")):
        raise InputError(f"got the storage key {key!r}; expected a relative path such as 'log/000000000.jsonl'")
    return key


def folder(prefix: str) -> str:
    """Returns a folder's key without a slash at its end; empty for the whole store."""
    return checked(prefix.rstrip("/")) if prefix.strip("/") else ""


FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
AWAY: Final = frozenset(
    {errno.EROFS, errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.EREMOTEIO, errno.EHOSTDOWN,
     errno.ESHUTDOWN, errno.ENOLINK, errno.ECOMM, errno.ENOMEDIUM, errno.EUCLEAN, errno.EBADMSG, errno.ENOLCK,
     errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED, errno.EKEYREJECTED}
)  # fmt: skip
"""A disk that is read-only, broken or gone, a file server that is away or wants a new ticket: errors of the machine, which may
pass."""
NETWORK: Final = frozenset(
    {errno.ETIMEDOUT, errno.ECONNABORTED, errno.ECONNRESET, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETDOWN,
     errno.ENETUNREACH, errno.EPROTO}
)  # fmt: skip
"""What a file server's client says too; without a file's name it may be any connection of a user's own code."""
_NO_PLACE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.EACCES, errno.EPERM,
     errno.EBUSY, errno.EAGAIN}
)  # fmt: skip
"""A folder is gone, closed to us or in use, or something else stands in its place."""
MANY_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
_NO_TEMPORARY: Final = "No usable temporary directory"  # how Python's tempfile says that each one is full, or read-only
_RAY_DISK_FULL: Final = "OutOfDiskError"  # by name: this package knows nothing of Ray
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)|\bOs \{ code: (\d+)")
"""How libraries in Rust say it, safetensors among them: as text, or as the value itself."""


def storage_error(path: Path, e: OSError) -> StorageError:
    """Returns what an error of the operating system means for the user."""
    why = e.strerror or str(e)
    if e.errno == errno.EFBIG:
        return StorageFull(
            f"{path}: no file may become so large here ({why}); raise the limit (ulimit -f), or use another file system"
        )
    if e.errno in FULL:
        return StorageFull(f"{path}: no room is left on this disk ({why}{_free(path)}); free some")
    if e.errno in AWAY | NETWORK:
        return StorageUnavailable(f"{path}: this disk cannot be used now ({why}); mount it again, or repair it")
    if e.errno in MANY_FILES:
        return StorageUnavailable(f"{path}: {why.lower()}; raise the limit of open files (ulimit -n)")
    if isinstance(e, PermissionError):
        return StorageDenied(f"{path}: this user may not read or write here; change its owner, or use another folder")
    return StorageError(f"{path}: cannot be opened for reading or writing ({why})")


def _free(path: Path) -> str:
    """Returns the free space at a path, as `, 12.0 MB are free`; empty where it is unknown, as of an unnamed place."""
    with contextlib.suppress(OSError, StopIteration):
        there = next(p for p in (path, *path.parents) if p.is_absolute() and p.exists())
        disk = os.statvfs(there)
        if disk.f_files and not disk.f_favail:
            return f", it holds as many files as it can, {disk.f_files:,}"
        return f", {disk.f_bavail * disk.f_frsize / 1e6:.1f} MB are free"
    return ""


def _os_error_number(e: BaseException) -> int | None:
    """Returns the `errno` of an error of the operating system, also where a library in Rust tells of it."""
    if isinstance(e, OSError) and e.errno is not None:
        return e.errno
    said = _OS_ERROR.search(text_of(e))
    return int(said[1] or said[2]) if said else None


def _file_of(e: BaseException) -> Path | None:
    """Returns the file that an error names; None where it names none, or one by its descriptor."""
    name = getattr(e, "filename", None)
    return Path(os.fsdecode(name)) if name and isinstance(name, str | bytes | os.PathLike) else None


def trouble_at(place: Path, e: BaseException) -> StorageError | None:
    """Returns the storage's error behind one of code that works on files of the storage, at `place` where it names no other.

    There a folder that is gone, or may not be written any more, or a file in its place, is no fault of a trial either.
    Memory that ran out, or an argument that makes no sense, is.
    """
    if (trouble := storage_trouble(e)) is not None:
        return trouble
    number = _os_error_number(e)
    if number is None or number not in _NO_PLACE | NETWORK:
        return None
    found = storage_error(_file_of(e) or place, OSError(number, os.strerror(number)))
    return found if isinstance(found, StorageDenied) else StorageUnavailable(str(found))


def storage_trouble(e: BaseException) -> StorageError | None:
    """Returns the storage's error behind an exception of training or scoring code; None when there is none.

    A full disk, one that is gone, a bucket that does not answer or does not let us in: what ran is sound, and can be run
    again when that is cured.
    """
    seen: set[int] = set()
    found: BaseException | None = e
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        # Ray's wrapper of a task's error is an instance of that error's type too, without its arguments.
        if isinstance(inner := getattr(found, "cause", None), BaseException):
            found = inner
            continue
        if isinstance(found, StorageUnavailable | StorageDenied | NoCredentials | NoBucket):
            return found
        if isinstance(found, TrialFailed | JournalError):
            return None
        if type(found).__name__ == _RAY_DISK_FULL or _NO_TEMPORARY in text_of(found):
            return NodeFull(f"this machine: {' '.join(text_of(found).split())[:300]}; free some room, or set TMPDIR")
        where, number = _file_of(found), _os_error_number(found)
        if number is not None and (number in FULL | AWAY | MANY_FILES or (where and number in NETWORK)):
            return storage_error(where or Path("this machine"), OSError(number, os.strerror(number)))
        found = found.__cause__
    return None
