"""Checkpoints reach the disk beside the training, one at a time, and are told of between two steps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from sweeps.config.trial import Hooks, Saved

LOOK_S = 0.1  # how often a run that waits for its last checkpoint looks whether it is to stop
Write = Callable[[Callable[[], bool]], Saved]
"""Writes one checkpoint and returns it; its argument says when to give up waiting for a disk without room."""


class CheckpointWriter:
    """Hands each checkpoint to the hooks when it is whole, in the trainer's own thread.

    Hooks that answer a checkpoint with a score before the next step get it at once. Those with `background_saves` get it after
    a later step, and training goes on meanwhile.

    Args:
        hooks: whom to tell.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self.background = bool(getattr(hooks, "background_saves", False))
        self._giving_up = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if self.background else None
        self._writing: Future[Saved] | None = None

    def write(self, write: Write, *, aside: bool = True) -> None:
        """Writes a checkpoint; waits for the one before.

        Args:
            aside: what it is written from is its own, so that training may go on.

        Raises:
            StorageUnavailable: the disk did not take it, or the one before.
        """
        self._wait()
        if self._pool is None or not aside:
            self._hooks.saved(write(self._hooks.stop_asked))
            return
        self._writing = self._pool.submit(write, self._giving_up.is_set)

    def poll(self) -> None:
        """Tells of a checkpoint that has become whole."""
        if self._writing is not None and self._writing.done():
            self._tell()

    def finish(self) -> None:
        """Waits until everything is written and told."""
        try:
            self._wait()
        finally:
            self.close()

    def close(self) -> None:
        """Waits for what is being written, not for a disk without room; tells of nothing."""
        self._giving_up.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def _wait(self) -> None:
        while self._writing is not None:
            wait([self._writing], timeout=LOOK_S)
            if self._hooks.stop_asked():
                self._giving_up.set()
            self.poll()

    def _tell(self) -> None:
        assert self._writing is not None
        writing, self._writing = self._writing, None
        self._hooks.saved(writing.result())
