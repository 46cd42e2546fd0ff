"""Patience with a storage that cannot be used just now: one budget, exponential back-off with jitter, a sentence a minute.

Only `StorageUnavailable` is worth waiting for: no answer, a full disk, a disk that is gone. Everything else (403, no
bucket, wrong credentials) fails at once.
"""

from __future__ import annotations

import builtins
import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from sweeps.errors import StorageUnavailable
from sweeps.storage.base import FOREVER, Entry, Store

FIRST_S: Final = 0.2
LONGEST_S: Final = 20.0
QUIET_S: Final = 5.0  # shorter troubles are not worth a sentence
SAY_EVERY_S: Final = 60.0
PAUSED_S: Final = 600.0  # up to here it is a disturbance; from here on the sweep is called paused
log = logging.getLogger(__name__)
T = TypeVar("T")


class Patience:
    """Repeats a call while the storage is unavailable.

    Args:
        patience_s: for how long one call may go on trying; FOREVER for drivers and workers.
        say: takes one sentence, after a few seconds of trouble and then once a minute; logged by default.
        clock, sleep: monotonic seconds of this process alone, and how to wait.
    """

    def __init__(
        self,
        patience_s: float,
        say: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.patience_s, self.say, self.clock, self.sleep = patience_s, say or log.warning, clock, sleep
        self._lock = threading.Lock()
        self._said = -FOREVER

    def __call__(self, call: Callable[[], T]) -> T:
        """Returns what the call returns.

        Raises:
            StorageUnavailable: it stayed so for longer than patience lasts.
        """
        started, wait, tries = self.clock(), FIRST_S, 0
        while True:
            try:
                return call()
            except StorageUnavailable as e:
                tries, passed = tries + 1, self.clock() - started
                if passed + wait > self.patience_s:
                    if tries == 1:
                        raise
                    raise type(e)(f"{e}; tried {tries} times in {passed:.0f} s") from e
                self._tell(passed, str(e))
            self.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, LONGEST_S)

    def _tell(self, passed: float, why: str) -> None:
        with self._lock:
            if passed < QUIET_S or self.clock() - self._said < SAY_EVERY_S:
                return
            self._said = self.clock()
        if passed < PAUSED_S:
            self.say(f"{why}; trying again, for {_span(passed)} so far")
        else:
            self.say(f"paused: {why}, for {_span(passed)} now; everything goes on by itself when that is over")


class RetryingStore(Store):
    """A store whose calls are repeated while it is unavailable; arguments as of `Patience`."""

    def __init__(
        self,
        inner: Store,
        patience_s: float,
        say: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.inner, self.root = inner, inner.root
        self._patience = Patience(patience_s, say, clock, sleep)

    def __reduce__(self) -> tuple[Any, ...]:
        return (RetryingStore, (self.inner, self._patience.patience_s))

    def read(self, key: str) -> bytes:
        return self._patience(lambda: self.inner.read(key))

    def write(self, key: str, data: bytes) -> None:
        self._patience(lambda: self.inner.write(key, data))

    def create(self, key: str, data: bytes) -> bool:
        return self._patience(lambda: self.inner.create(key, data))

    def list(self, prefix: str = "") -> builtins.list[Entry]:
        return self._patience(lambda: self.inner.list(prefix))

    def folders(self, prefix: str = "") -> builtins.list[str]:
        return self._patience(lambda: self.inner.folders(prefix))

    def delete(self, key: str) -> None:
        self._patience(lambda: self.inner.delete(key))

    def delete_tree(self, prefix: str) -> None:
        self._patience(lambda: self.inner.delete_tree(prefix))

    def upload(self, source: Path, key: str) -> None:
        self._patience(lambda: self.inner.upload(source, key))

    def download(self, key: str, target: Path) -> None:
        self._patience(lambda: self.inner.download(key, target))

    def exists(self, key: str) -> bool:
        return self._patience(lambda: self.inner.exists(key))

    def leftovers(self) -> builtins.list[Entry]:
        return self._patience(self.inner.leftovers)

    def drop_leftover(self, key: str) -> None:
        self._patience(lambda: self.inner.drop_leftover(key))

    def local(self, key: str = "") -> Path | None:
        return self.inner.local(key)

    def patiently(self, call: Callable[[], T]) -> T:
        return self._patience(call)

    @property
    def once(self) -> Store:
        return self.inner

    def __truediv__(self, part: str) -> RetryingStore:
        p = self._patience
        return RetryingStore(self.inner / part, p.patience_s, p.say, p.clock, p.sleep)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
