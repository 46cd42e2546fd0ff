"""What a checkpoint holds, in this process's own memory.

A branch that begins in the process that trained its trunk takes its weights, moments and random states from here instead
of from the storage. The storage remains the truth: a snapshot stands for a checkpoint only while the checkpoint's manifest,
with the digest of every file, is the one that was written from this very snapshot.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from sweeps.checkpoints.manifest import MANIFEST
from trainers.model.estimates.memory import available_host_bytes

KEPT: Final = 2
"""Snapshots of a process, at most. Budgets of 100, 200 and 400 steps leave a trunk at two steps."""
SHARE: Final = 8
"""The snapshots of a process take no more than one part in so many of the memory that is available to it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run after a step. Its tensors lie on the CPU.

    Attributes:
        weights: of the plain network, by name. state: moments, adapters and random states, as `trainer.safetensors` has them.
        facts: what `trainer.json` has.
    """

    step: int
    weights: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(t.nbytes for tensors in (self.weights, self.state) for t in tensors.values())


class SnapshotCache:
    """The last snapshots that others may go on from, of one process."""

    def __init__(self) -> None:
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()

    def put(self, checkpoint: str | Path, snapshot: Snapshot) -> None:
        """Keeps what a whole checkpoint was written from, where there is room; the oldest go first.

        Nobody may change the snapshot's tensors any more.
        """
        room = available_host_bytes() // SHARE
        if snapshot.size > room:
            return
        while self._snapshots and (len(self._snapshots) >= KEPT or self.size + snapshot.size > room):
            self._snapshots.popitem(last=False)
        self._snapshots[_key(checkpoint)] = snapshot

    def get(self, checkpoint: str | Path) -> Snapshot | None:
        """Returns what is in memory of the checkpoint in a folder; None when it must be read."""
        if not self._snapshots:
            return None
        try:
            return self._snapshots.get(_key(checkpoint))
        except OSError:
            return None  # reading it will say what is wrong

    def holds(self, manifest: bytes) -> bool:
        """True when what a manifest names is in memory."""
        return _digest(manifest) in self._snapshots

    def clear(self) -> None:
        """Forgets all of them."""
        self._snapshots.clear()

    @property
    def size(self) -> int:
        """Bytes of all snapshots."""
        return sum(snapshot.size for snapshot in self._snapshots.values())


SNAPSHOTS: Final = SnapshotCache()
"""Those of this process."""


def _key(checkpoint: str | Path) -> str:
    return _digest((Path(checkpoint) / MANIFEST).read_bytes())


def _digest(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()
