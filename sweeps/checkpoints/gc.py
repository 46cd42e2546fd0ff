"""Files of a sweep that nothing needs: found by the journal alone, removed only on request.

Kept is what a commit row names and no later row has dropped, and whatever an attempt that may still run is writing. While a
driver holds the sweep nothing of its attempts is touched: it cleans up after itself.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from sweeps.checkpoints.scratch import scratch
from sweeps.checkpoints.transfer import drop_checkpoint
from sweeps.errors import SweepBusy
from sweeps.journal.lease import LEASE_S
from sweeps.journal.rows import Row
from sweeps.journal.state import FileStatus, SweepState, address_of
from sweeps.journal.writer import SweepJournal, read_rows, sweeps_in
from sweeps.storage.base import Store, Where, inside, join
from sweeps.storage.factory import open_store

STALE_S = 24 * 3600.0  # scratch that nothing has touched for a day belongs to no running attempt


class Garbage(NamedTuple):
    """One thing that can go: its path or address, its bytes (0 where the storage does not say), and why."""

    what: str
    size: int
    why: str


def collect(home: Where, *, apply: bool = False, lease_s: float = LEASE_S) -> list[Garbage]:
    """Finds files of a sweep that nothing needs, and removes them with `apply`.

    Args:
        home: the sweep's folder, address or store. apply: remove; else only look. lease_s: as of `SweepJournal`.

    Raises:
        SweepBusy: `apply`, and a driver holds the sweep.
        StorageError: there is no sweep.
    """
    store = open_store(home)
    if not apply:
        return [found for found, _ in _garbage(store, read_rows(store), driven=True)]
    with SweepJournal(store, lease_s=lease_s) as journal:  # nobody may start an attempt meanwhile
        out = []
        for found, remove in _garbage(store, journal.rows(), driven=False):
            remove()
            out.append(found)
    return out


def collect_scratch(*, apply: bool = False, now: float | None = None) -> list[Garbage]:
    """Finds what attempts that are long over left on this machine (`sweeps.checkpoints.scratch`), and removes it with `apply`."""
    now, out = time.time() if now is None else now, []
    for kind in ("write", "read", "ray"):
        for folder in sorted(scratch(kind).iterdir()):
            files = [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else [folder]
            newest = max((p.lstat().st_mtime for p in [folder, *files]), default=0.0)
            if now - newest < STALE_S:
                continue
            size = sum(p.lstat().st_size for p in files)
            out.append(Garbage(str(folder), size, "scratch that nothing has touched for a day"))
            if apply:
                shutil.rmtree(folder, ignore_errors=True) if folder.is_dir() else folder.unlink(missing_ok=True)
    return out


def collect_all(storage: Where, *, apply: bool = False) -> list[Garbage]:
    """Collects from every sweep of a storage root that no driver holds, and from this machine's scratch."""
    out = []
    for home in sweeps_in(open_store(storage)):
        with contextlib.suppress(SweepBusy):
            out += collect(home, apply=apply)
    return out + collect_scratch(apply=apply)


def _garbage(store: Store, rows: list[Row], *, driven: bool) -> Iterator[tuple[Garbage, Callable[[], None]]]:
    """Yields what can be removed, and how; `driven`: a driver may be running, so the latest attempts are left out."""
    state = SweepState(rows)
    files = {inside(address_of(path, store.root), store.root): status for path, status in state.files.items()}
    for folder, size in sorted(_checkpoints(store).items()):
        if files.get(folder) is FileStatus.KEPT:
            continue
        _, trial, attempt, _ = folder.split("/")
        known = state.trials.get(trial)
        open_ = known is not None and known.attempt and not known.ended and attempt == f"attempt-{known.attempt}"
        if folder in files:
            why = _USELESS[files[folder]]
        elif open_ and driven:
            continue
        else:
            why = (
                "its attempt ended before the sweep heard of this checkpoint"
                if known is not None and known.attempt
                else "of no trial of this sweep"
            )
        yield Garbage(join(store.root, folder), size, why), partial(drop_checkpoint, store, folder)
    for key, size in store.leftovers():
        if not driven:  # while somebody drives, it may just be under way
            yield (
                Garbage(join(store.root, key), size, "a write that was never finished"),
                partial(store.drop_leftover, key),
            )


_USELESS: Final = {
    FileStatus.DELETED: "not among what the sweep keeps of its trial; its removal was cut off",
    FileStatus.DAMAGED: "damaged",
}


def _checkpoints(store: Store) -> dict[str, int]:
    """Returns every folder `trials/<trial>/attempt-N/step-S` with its bytes."""
    sizes: dict[str, int] = {}
    for key, size in store.list("trials"):
        parts = key.split("/")
        if len(parts) >= 5:
            folder = "/".join(parts[:4])
            sizes[folder] = sizes.get(folder, 0) + size
    return sizes
