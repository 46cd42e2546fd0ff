"""Storage in a folder, of one machine or shared by many."""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sweeps.errors import NotFound, StorageError
from sweeps.storage.base import Entry, Store, checked, folder, storage_error

PART: Final = ".part"
"""Ending of a file that is being written; never listed."""


class LocalStore(Store):
    """A folder. It is made when something is first written into it."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.root = str(self.path)

    def read(self, key: str) -> bytes:
        with _translate_os_errors(self.path / key):
            return read_file(self.path / checked(key))

    def write(self, key: str, data: bytes) -> None:
        with self._aside(key) as aside:
            write_through(aside, data)
            os.replace(aside, self.path / key)

    def create(self, key: str, data: bytes) -> bool:
        with self._aside(key) as aside:
            write_through(aside, data)
            try:
                os.link(aside, self.path / key)  # atomic, also on NFS; the file appears whole
            except FileExistsError:  # maybe by ourselves, before something failed and this was tried again
                return (self.path / key).read_bytes() == data
            except OSError as e:
                if e.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise
                return _create_in_place(self.path / key, data)  # a file system without hard links
            return True

    def list(self, prefix: str = "") -> builtins.list[Entry]:
        top = self.path / folder(prefix)
        with _translate_os_errors(top):
            return sorted(e for e in self._walk(top) if not e.key.endswith(PART))

    def _walk(self, top: Path) -> Iterator[Entry]:
        for where, _, names in os.walk(top, onerror=_raise_unless_gone):
            for name in names:
                file = Path(where) / name
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    yield Entry(file.relative_to(self.path).as_posix(), file.lstat().st_size)

    def folders(self, prefix: str = "") -> builtins.list[str]:
        absent = [FileNotFoundError, *([NotADirectoryError] if prefix else [])]  # a store itself is no file
        with _translate_os_errors(self.path / prefix), contextlib.suppress(*absent):
            return sorted(e.name for e in os.scandir(self.path / folder(prefix)) if _is_folder(e))
        return []

    def delete(self, key: str) -> None:
        file = self.path / checked(key)
        self._refuse_link(file.parent)
        with _translate_os_errors(file), contextlib.suppress(FileNotFoundError):
            file.unlink()

    def delete_tree(self, prefix: str) -> None:
        top = self.path / checked(prefix.rstrip("/"))
        self._refuse_link(top)
        with _translate_os_errors(top), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(top)

    def _refuse_link(self, place: Path) -> None:
        """Raises StorageError where a link leads out of this store."""
        try:
            inside = place.resolve().is_relative_to(self.path.resolve())
        except (OSError, RuntimeError):  # links in a circle
            inside = False
        if not inside:
            raise StorageError(f"{place} leads out of {self.path} by a link; nothing there is removed")

    def upload(self, source: Path, key: str) -> None:
        with self._aside(key) as aside:
            shutil.copyfile(source, aside)
            sync(aside)
            os.replace(aside, self.path / key)

    def download(self, key: str, target: Path) -> None:
        with _translate_os_errors(self.path / key):
            shutil.copyfile(self.path / checked(key), target)

    def exists(self, key: str) -> bool:
        file = self.path / checked(key)
        with _translate_os_errors(file), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return stat.S_ISREG(file.stat().st_mode)
        return False

    def leftovers(self) -> builtins.list[Entry]:
        with _translate_os_errors(self.path):
            return sorted(e for e in self._walk(self.path) if e.key.endswith(PART))

    def drop_leftover(self, key: str) -> None:
        if key.endswith(PART):
            self.delete(key)

    def local(self, key: str = "") -> Path | None:
        return self.path / checked(key) if key else self.path

    def __truediv__(self, part: str) -> LocalStore:
        return LocalStore(self.path / checked(part))

    @contextmanager
    def _aside(self, key: str) -> Iterator[Path]:
        """Gives a name beside a key to write under first; the folder's entry is on the disk when the block ends."""
        file = self.path / checked(key)
        aside = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
        with _translate_os_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield aside
                sync(file.parent)
            finally:
                aside.unlink(missing_ok=True)


def _raise_unless_gone(error: OSError) -> None:
    """A folder that may not be read is not an empty folder."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """False also for what cannot be read, such as a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def user_cache() -> Path:
    """Returns dipsweep's place in the user's cache folder; beside temporary files where a container's user has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dipsweep"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"dipsweep-{os.getuid()}" / "cache"


def read_file(path: Path, start: int = 0) -> bytes:
    """Returns a file's content from a byte on; never blocks on a pipe.

    Raises:
        OSError: it cannot be read; also where a pipe, a socket, a device or a folder stands in its place.
    """
    no_file = OSError(errno.EINVAL, "a pipe, a socket, a device or a folder stands in the place of a file", str(path))
    if path.is_socket():  # opening one fails like a disk that is away
        raise no_file
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise no_file
    with os.fdopen(handle, "rb") as file:
        file.seek(start)
        return file.read()


def write_through(file: Path, data: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with open(file, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _create_in_place(file: Path, data: bytes) -> bool:
    """Creates a file that is not whole at once: whoever is killed in here leaves a torn one (`sweeps.journal.writer`)."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return file.read_bytes() == data
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
    except OSError:  # no room: nobody may find a piece of it
        file.unlink(missing_ok=True)
        raise
    return True


@contextmanager
def _translate_os_errors(path: Path) -> Iterator[None]:
    """Turns an error of the operating system into one of ours, which says what cures it."""
    try:
        yield
    except FileNotFoundError as e:
        raise NotFound(f"{path} does not exist") from e
    except NotADirectoryError as e:
        raise StorageError(f"{path}: cannot be opened, a part of this path is a file; give a folder") from e
    except OSError as e:
        raise storage_error(path, e) from e
