"""From an address to the store behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sweeps.errors import InputError
from sweeps.storage.base import COMMAND_S, FOREVER, Store, Where, is_url, url_fault
from sweeps.storage.local import LocalStore
from sweeps.storage.retry import RetryingStore


def open_store(where: Where, *, patience_s: float = COMMAND_S, say: Callable[[str], None] | None = None) -> Store:
    """Opens a store; nothing is touched yet.

    Args:
        where: a path, `s3://bucket/prefix`, or a store (returned as it is).
        patience_s: for how long calls keep trying while the storage cannot be used: a few seconds for a command,
            FOREVER for drivers and workers.
        say: takes a sentence now and then while calls keep trying; by default it is logged.

    Raises:
        InputError: the address is of a kind that is not known, or carries credentials.
    """
    if isinstance(where, Store):
        return where
    if not is_url(where):
        local = LocalStore(Path(where))
        return RetryingStore(local, patience_s, say) if patience_s == FOREVER else local
    if fault := url_fault(str(where)):
        raise InputError(fault)
    from sweeps.storage.s3 import S3Store

    return RetryingStore(S3Store(str(where)), patience_s, say)
