"""A store that fails, or dies, at its n-th call: what a crash between any two steps would leave behind."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from sweeps.errors import StorageError, Unreachable
from sweeps.storage.base import Entry, Store

T = TypeVar("T")
Moment = Literal["before", "after"]


class Died(BaseException):
    """The process is gone: nothing catches this, and nothing is written after it."""


class Calls:
    """Counts the calls of a store and of all stores made from it, and breaks one of them.

    Args:
        at: number of the call that breaks, from 1; 0 breaks none. moment: before it is carried out, or after
            (done, but nobody heard of it). error: what is raised; after `Died` every further call raises it too.
    """

    def __init__(
        self,
        at: int = 0,
        moment: Moment = "before",
        error: Callable[[], BaseException] = Died,
        writes_only: bool = False,
        tear: bool = False,
    ) -> None:
        self.tear = tear  # for whoever writes piece by piece: of the call that breaks, a part gets through
        self.at, self.moment, self.error, self.writes_only = at, moment, error, writes_only
        self.log: list[str] = []
        self.dead = False

    def run(self, name: str, key: str, call: Callable[[], T], *, writes: bool) -> T:
        if self.dead:
            raise Died
        if self.writes_only and not writes:
            return call()
        self.log.append(f"{name} {key}")
        if len(self.log) != self.at:
            return call()
        error = self.error()
        self.dead = isinstance(error, Died)
        if self.moment == "after":
            call()
        raise error


class FaultyStore(Store):
    """A store around another one, with one schedule of faults for itself and all its folders."""

    def __init__(self, inner: Store, calls: Calls | None = None) -> None:
        self.inner, self.calls, self.root = inner, calls or Calls(), inner.root

    def read(self, key: str) -> bytes:
        return self.calls.run("read", key, lambda: self.inner.read(key), writes=False)

    def write(self, key: str, data: bytes) -> None:
        self.calls.run("write", key, lambda: self.inner.write(key, data), writes=True)

    def create(self, key: str, data: bytes) -> bool:
        return self.calls.run("create", key, lambda: self.inner.create(key, data), writes=True)

    def list(self, prefix: str = "") -> builtins.list[Entry]:
        return self.calls.run("list", prefix, lambda: self.inner.list(prefix), writes=False)

    def folders(self, prefix: str = "") -> builtins.list[str]:
        return self.calls.run("folders", prefix, lambda: self.inner.folders(prefix), writes=False)

    def delete(self, key: str) -> None:
        self.calls.run("delete", key, lambda: self.inner.delete(key), writes=True)

    def delete_tree(self, prefix: str) -> None:
        """Key by key: a crash may fall between any two."""
        for entry in self.inner.list(prefix):
            self.delete(entry.key)

    def upload(self, source: Path, key: str) -> None:
        self.calls.run("upload", key, lambda: self.inner.upload(source, key), writes=True)

    def download(self, key: str, target: Path) -> None:
        self.calls.run("download", key, lambda: self.inner.download(key, target), writes=False)

    def exists(self, key: str) -> bool:
        return self.calls.run("exists", key, lambda: self.inner.exists(key), writes=False)

    def __truediv__(self, part: str) -> FaultyStore:
        return FaultyStore(self.inner / part, self.calls)


def out_of_reach() -> StorageError:
    """An outage, as `Calls(error=...)` wants it."""
    return Unreachable("the storage cannot be reached (injected)")
