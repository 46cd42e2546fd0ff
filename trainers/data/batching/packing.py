"""From rows to tensors: which rows share a forward pass, and how they lie in it.

A pack is several rows laid end to end without padding and without an attention mask: positions restart at 0 for each
row, attention is told where rows begin (`trainers.model.attention`), and no row predicts the first token of the next.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.data.batching.layout import Layout
from trainers.data.chat.rows import Rows


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs items into as few bins as best-fit-decreasing finds, longest items first.

    The free space of open bins is kept as a sorted list of distinct values (at most `capacity` of them), so an item
    costs one bisection: 100,000 log-normal lengths into 2,048 take about 0.1 s.

    Args:
        lengths: item lengths, each at most `capacity`.

    Returns:
        Bins as lists of indices into `lengths`, each bin in order of falling length.
    """
    bins: list[list[int]] = []
    with_room: defaultdict[int, list[int]] = defaultdict(list)  # free space -> bins that have exactly that much
    rooms: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[item]
        assert 0 < length <= capacity, f"item of length {length} cannot go into a bin of {capacity}"
        at = bisect_left(rooms, length)
        if at == len(rooms):
            target, room = len(bins), capacity
            bins.append([])
        else:
            room = rooms[at]
            target = with_room[room].pop()
            if not with_room[room]:
                rooms.pop(at)
        bins[target].append(item)
        if left := room - length:
            if not with_room[left]:
                insort(rooms, left)
            with_room[left].append(target)
    return bins


def split_step(lengths: Sequence[int], pack_tokens: int, world: int, apart: int = 0) -> list[list[list[int]]]:
    """Splits one optimizer step into packs, and distributes these over the workers.

    Every worker gets the same number of packs (sharded training needs them to walk in step); a worker without enough
    rows gets empty ones. The step itself, and so the update, is the same for any `world`.

    Args:
        apart: rows longer than this share no pack with others (`trainers.model.packable`); 0 for any.

    Returns:
        For each worker its packs, as lists of indices into `lengths`.
    """
    fair_share = max(max(lengths), -(-sum(lengths) // world))
    packs: list[list[int]] = []
    for long in (False, True):
        group = [i for i, length in enumerate(lengths) if (apart > 0 and length > apart) == long]
        bins = best_fit_decreasing([lengths[i] for i in group], min(pack_tokens, fair_share))
        packs += [[group[i] for i in pack] for pack in bins]
    packs.sort(key=lambda pack: -sum(lengths[i] for i in pack))
    packs += [[] for _ in range(-len(packs) % world)]
    return [packs[rank::world] for rank in range(world)]


@dataclass(frozen=True, slots=True)
class Pack:
    """The tensors of one forward pass over T tokens with N labels.

    Attributes:
        input_ids, position_ids: int64 [1, T].
        predicting: int64 [N], the positions whose next token is a label.
        targets: int64 [N], those labels.
        layout: where rows begin.
        weights: float32 [N], what each label counts; None: all the same, 1.
    """

    input_ids: Tensor
    position_ids: Tensor
    predicting: Tensor
    targets: Tensor
    layout: Layout
    weights: Tensor | None = None

    def to(self, device: torch.device) -> Pack:
        """Returns the pack on a device, copied without waiting."""
        if device.type == "cpu":
            return self
        ids, positions, predicting, targets = (
            t.to(device, non_blocking=True) for t in (self.input_ids, self.position_ids, self.predicting, self.targets)
        )
        weights = None if self.weights is None else self.weights.to(device, non_blocking=True)
        return Pack(ids, positions, predicting, targets, self.layout.to(device), weights)


def collate(rows: Rows, chosen: Sequence[int], weights: Mapping[int, float] | None = None) -> Pack:
    """Lays the chosen rows end to end, longest first (so that rows of like length are neighbours).

    An empty choice gives one token without a label: its loss and gradients are zero. `weights` says of each row what a label of
    it counts, where that is not 1.
    """
    if not chosen:
        nothing, one = torch.empty(0, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long)
        return Pack(one, one, nothing, nothing, Layout.of([1]))
    ordered = sorted(chosen, key=lambda i: -rows.length(i))
    ids = np.concatenate([rows.ids(i) for i in ordered]).astype(np.int64)
    learn = np.concatenate([rows.learn(i) for i in ordered])
    lengths = [rows.length(i) for i in ordered]
    positions = np.concatenate([np.arange(n) for n in lengths])
    learn = learn & (positions > 0)  # nobody predicts the first token of a row, least of all the row before it
    labels = np.flatnonzero(learn)
    return Pack(
        input_ids=torch.from_numpy(ids)[None],
        position_ids=torch.from_numpy(positions)[None],
        predicting=torch.from_numpy(labels - 1),
        targets=torch.from_numpy(ids[labels]),
        layout=Layout.of(lengths),
        weights=None
        if weights is None
        else torch.from_numpy(np.repeat([weights[i] for i in ordered], lengths)[labels]).float(),
    )
