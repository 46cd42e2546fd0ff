"""Where a machine keeps what it is about to upload, or has downloaded: nothing there is the only copy of anything."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sweeps.errors import InputError

SCRATCH: Final = "DIPSWEEP_SCRATCH"
GIB: Final = "DIPSWEEP_SCRATCH_GIB"


def scratch(*parts: str) -> Path:
    """Returns a folder of this machine's scratch, made when missing and closed to other users.

    It is $DIPSWEEP_SCRATCH, or `dipsweep-<user id>` in the system's folder for temporary files.
    """
    root = Path(os.environ.get(SCRATCH) or Path(tempfile.gettempdir()) / f"dipsweep-{os.getuid()}").expanduser()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    if root.stat().st_uid != os.getuid():
        raise InputError(f"scratch folder {root} belongs to another user; set {SCRATCH} to one of your own")
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lets one process of this machine at a time fill a folder; the lock is a file beside it, and ends with its holder."""
    with open(folder.with_name(f".{folder.name}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def room() -> int:
    """Returns how many bytes of checkpoints may wait for their upload on this machine.

    It is $DIPSWEEP_SCRATCH_GIB, or half of what is free now. One checkpoint may always wait.
    """
    given = os.environ.get(GIB)
    if given is None:
        return shutil.disk_usage(scratch()).free // 2
    try:
        return int(float(given) * 2**30)
    except (ValueError, OverflowError):
        raise InputError(f"{GIB}: got {given!r}; expected a number of GiB such as 50") from None
