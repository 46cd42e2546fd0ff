"""Storage that lives as long as its process: simulations and tests."""

from __future__ import annotations

import builtins
import threading
from pathlib import Path

from sweeps.errors import NotFound
from sweeps.storage.base import Entry, Store, checked, folder

_ONE_AT_A_TIME = threading.Lock()


class MemoryStore(Store):
    """Files in a dict. `root` is only a name; a store made by `/` shares its parent's files."""

    def __init__(self, root: str = "memory://sweeps", files: dict[str, bytes] | None = None) -> None:
        self.root = root
        self.files = {} if files is None else files

    def _at(self, key: str) -> str:
        return f"{self.root}/{checked(key)}"

    def read(self, key: str) -> bytes:
        try:
            return self.files[self._at(key)]
        except KeyError:
            raise NotFound(f"{self._at(key)} does not exist") from None

    def write(self, key: str, data: bytes) -> None:
        self.files[self._at(key)] = bytes(data)

    def create(self, key: str, data: bytes) -> bool:
        with _ONE_AT_A_TIME:
            if self._at(key) in self.files:
                return False
            self.write(key, data)
            return True

    def list(self, prefix: str = "") -> builtins.list[Entry]:
        top = f"{self.root}/{folder(prefix)}".rstrip("/") + "/"
        cut = len(self.root) + 1
        return [Entry(k[cut:], len(v)) for k, v in sorted(self.files.items()) if k.startswith(top)]

    def folders(self, prefix: str = "") -> builtins.list[str]:
        cut = len(folder(prefix)) + 1 if folder(prefix) else 0
        return sorted({e.key[cut:].split("/")[0] for e in self.list(prefix) if "/" in e.key[cut:]})

    def delete(self, key: str) -> None:
        self.files.pop(self._at(key), None)

    def delete_tree(self, prefix: str) -> None:
        for entry in self.list(checked(prefix.rstrip("/"))):
            self.delete(entry.key)

    def upload(self, source: Path, key: str) -> None:
        self.write(key, source.read_bytes())

    def download(self, key: str, target: Path) -> None:
        target.write_bytes(self.read(key))

    def exists(self, key: str) -> bool:
        return self._at(key) in self.files

    def __truediv__(self, part: str) -> MemoryStore:
        return MemoryStore(self._at(part), self.files)
