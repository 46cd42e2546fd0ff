"""Can this storage keep a sweep? Asked before anything starts, and on every machine that is to use it."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sweeps.errors import NodeTrouble, NotFound, StorageError
from sweeps.storage.base import Store, Where, is_url
from sweeps.storage.factory import open_store
from sweeps.storage.retry import RetryingStore
from sweeps.storage.s3 import S3Store

PROBE_S: Final = 5.0
MARKER: Final = ".marker"


def storage_fault(where: Where) -> str:
    """Lists, writes, reads, creates twice and deletes; returns what is wrong as one sentence, or an empty string.

    No credentials, refused credentials, no bucket, no answer within 5 s, and a server that ignores conditional writes are
    distinguished. What the probe wrote is removed afterwards.
    """
    try:
        if is_url(where):
            return _probe(RetryingStore(S3Store(str(where), PROBE_S), PROBE_S))
        if isinstance(where, Store):
            return _probe(where)
        path = Path(where).expanduser().absolute()
        return _probe(open_store(next(p for p in (path, *path.parents) if p.exists())))  # nothing is made by looking
    except StorageError as e:
        return str(e)


def _probe(store: Store) -> str:
    name = f".probe-{secrets.token_hex(6)}"
    store.list(name)
    try:
        mine, theirs = secrets.token_bytes(8), secrets.token_bytes(8)
        if not store.create(f"{name}/a", mine) or store.create(f"{name}/a", theirs) or store.read(f"{name}/a") != mine:
            return (
                f"{store}: this storage ignores conditional writes (If-None-Match), so two drivers could overwrite each "
                "other's log; use S3 itself, or a server that keeps them, such as SeaweedFS or MinIO"
            )
        store.write(f"{name}/a", theirs)
        if store.read(f"{name}/a") != theirs:
            return f"{store}: what was written was not what is read back; this storage cannot keep a sweep"
    finally:
        store.delete_tree(name)
    return ""


def write_marker(home: Store) -> str:
    """Writes a marker into a sweep's folder and returns its content; `verify_marker` looks for it on another machine."""
    token = secrets.token_hex(8)
    home.write(MARKER, token.encode())
    return token


def verify_marker(home: Where, token: str) -> None:
    """Makes sure that this machine sees the folder that the driver sees.

    Raises:
        NodeTrouble: it does not, or not any more; the message names the machine.
    """
    try:
        if open_store(home).read(MARKER).decode() == token:
            return
    except (NotFound, UnicodeDecodeError):
        pass
    raise NodeTrouble(
        f"node {socket.gethostname()} does not see {home} as the driver does; mount it there, or give a folder that is shared by "
        "all nodes, or s3://bucket/prefix"
    )


class VerifyStorageBefore:
    """A function that works on machines of a cluster, and only on those that see the sweep's folder."""

    def __init__(self, work: Callable[..., Any], home: str, token: str) -> None:
        self.work, self.home, self.token = work, home, token

    @property
    def reuse(self) -> bool:
        """Whether the process may run another attempt afterwards: what the function itself says."""
        return bool(getattr(self.work, "reuse", False))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        verify_marker(self.home, self.token)
        return self.work(*args, **kwargs)
