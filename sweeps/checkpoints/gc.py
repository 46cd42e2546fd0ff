"""What a sweep's storage holds for nothing: found from the journal alone, removed only when asked to.

Kept is what a commit row names and no later row has dropped, and whatever an attempt that may still run is writing. While a
driver holds the sweep nothing of its attempts is touched: it cleans up after itself.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from sweeps.checkpoints.scratch import scratch
from sweeps.checkpoints.transfer import drop_checkpoint
from sweeps.controller.controller import checkpoint_path
from sweeps.errors import SweepBusy
from sweeps.journal.history import History
from sweeps.journal.lease import LEASE_S
from sweeps.journal.rows import Row
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
    """Finds what a sweep keeps for nothing, and removes it with `apply`.

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
    """Yields what can go and how; `driven`: somebody may be running the sweep, so its latest attempts are left out."""
    named, useless = _named(store, rows)
    latest = {r.trial: r.attempt for r in rows if r.kind == "attempt"}
    over = {c.trial for c in History(rows).trials() if c.state in ("completed", "pruned", "failed")}
    for folder, size in sorted(_checkpoints(store).items()):
        if folder in named:
            continue
        _, trial, attempt, _ = folder.split("/")
        open_ = trial in latest and trial not in over and attempt == f"attempt-{latest[trial]}"
        if folder in useless:
            why = useless[folder]
        elif open_ and driven:
            continue
        else:
            why = (
                "its attempt ended before the sweep heard of this checkpoint"
                if trial in latest
                else "of no trial of this sweep"
            )
        yield Garbage(join(store.root, folder), size, why), partial(drop_checkpoint, store, folder)
    for key, size in store.leftovers():
        if not driven:  # while somebody drives, it may just be under way
            yield (
                Garbage(join(store.root, key), size, "a write that was never finished"),
                partial(store.drop_leftover, key),
            )


def _named(store: Store, rows: list[Row]) -> tuple[set[str], dict[str, str]]:
    """Returns the checkpoint folders that the journal counts on, and those that it does not any more, with the reason."""
    named: set[str] = set()
    useless: dict[str, str] = {}
    for row in rows:
        key = inside(checkpoint_path(row, store.root), store.root) if row.kind == "commit" else None
        if key is None:
            continue
        if row.extra.get("dropped"):
            useless[key] = "not among what the sweep keeps of its trial; its removal was cut off"
        elif row.extra.get("damaged"):
            useless[key] = "damaged"
        else:
            named.add(key)
            useless.pop(key, None)
    return named - useless.keys(), useless


def _checkpoints(store: Store) -> dict[str, int]:
    """Returns every folder `trials/<trial>/attempt-N/step-S` with its bytes."""
    sizes: dict[str, int] = {}
    for key, size in store.list("trials"):
        parts = key.split("/")
        if len(parts) >= 5:
            folder = "/".join(parts[:4])
            sizes[folder] = sizes.get(folder, 0) + size
    return sizes
