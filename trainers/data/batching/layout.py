"""Where the rows of a pack begin, in the forms that the attention kernels want."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import torch
from torch import Tensor

SHORT: Final = 128
"""Rows up to here share a bucket whatever their lengths: their attention is cheaper than one more call (measured)."""


class Bucket(NamedTuple):
    """Neighbouring rows that share one batched call.

    `tokens` is the slice of the pack they fill. With unequal lengths, `gather` (int64 [rows * longest]) maps the padded
    block to tokens of the slice and `scatter` (int64 [tokens]) maps them back; both are None when no padding is needed.
    """

    tokens: slice
    rows: int
    longest: int
    gather: Tensor | None
    scatter: Tensor | None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rows of a pack begin.

    Attributes:
        lengths: tokens of each row, in order.
        bounds: int32 [rows + 1], cumulative lengths, for the CUDA kernels.
        buckets: groups of rows for the batched kernel.
    """

    lengths: tuple[int, ...]
    bounds: Tensor
    buckets: tuple[Bucket, ...]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Layout:
        """Builds the layout of rows of these lengths; buckets are few when like lengths are neighbours."""
        bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return cls(tuple(lengths), bounds, tuple(_buckets(lengths)))

    @property
    def longest(self) -> int:
        return max(self.lengths)

    def to(self, device: torch.device) -> Layout:
        moved = tuple(
            b
            if b.gather is None or b.scatter is None
            else b._replace(
                gather=b.gather.to(device, non_blocking=True), scatter=b.scatter.to(device, non_blocking=True)
            )
            for b in self.buckets
        )
        return replace(self, bounds=self.bounds.to(device, non_blocking=True), buckets=moved)


def _buckets(lengths: Sequence[int]) -> list[Bucket]:
    groups: list[list[int]] = []
    for length in lengths:
        group = groups[-1] if groups else []
        longest, shortest = max([*group, length]), min([*group, length])
        if group and (longest <= SHORT or 10 * shortest >= 9 * longest):
            group.append(length)
        else:
            groups.append([length])
    ends = torch.tensor([sum(g) for g in groups]).cumsum(0).tolist()
    return [_bucket(end - sum(group), group) for end, group in zip(ends, groups, strict=True)]


def _bucket(start: int, lengths: Sequence[int]) -> Bucket:
    rows, longest, total = len(lengths), max(lengths), sum(lengths)
    tokens = slice(start, start + total)
    if rows * longest == total:
        return Bucket(tokens, rows, longest, None, None)
    widths = torch.tensor(lengths)
    column = torch.arange(longest)
    real = column < widths[:, None]  # [rows, longest]
    first = (widths.cumsum(0) - widths)[:, None]
    gather = torch.where(real, first + column, first)  # padding repeats a row's own first token; nobody reads it
    return Bucket(tokens, rows, longest, gather.flatten(), real.flatten().nonzero().flatten())
