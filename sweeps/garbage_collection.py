"""Python's cyclic garbage collection, out of the way of imports."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Pauses cyclic garbage collection while modules are imported and a model is loaded.

    Both make objects by the hundred thousand and next to no garbage, and every full collection looks at all that there are:
    a fourth of the CPU seconds from a new process to the first step of a small model (`python -m benchmarks.scale.start_up`).
    Where it is paused already, or turned off by the user, nothing changes.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
