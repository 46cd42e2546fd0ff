"""Which rows each optimizer step sees: a pure function of the seed, the same for any number of workers.

Steps are drawn from the shuffled stream, not packed by length over a whole epoch: best-fit-decreasing puts rows of one
length together (with rows of 25 tokens and steps of 1,000, whole steps of long rows, then whole steps of short ones),
and what a step teaches should not depend on how long its rows are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice

LOOK_AHEAD = 64
"""Rows that may fill the gap at the end of a step; 64 fills steps of 2,048 tokens from log-normal rows to 99 %."""


def shuffled_forever(n: int, name: str) -> Iterator[int]:
    """Yields 0 … n-1 in a new order for every epoch.

    Only `random.random()` seeded by a string is used: Python promises that it gives the same numbers in every version.
    """
    for epoch in range(10**9):
        draw = random.Random(f"{name}/{epoch}").random
        keys = [draw() for _ in range(n)]
        yield from sorted(range(n), key=keys.__getitem__)


def mixed(num_primary: int, num_replay: int, share: float, seed: int) -> Iterator[int]:
    """Yields row numbers; replay rows are numbered after the primary ones.

    After any number of draws the count of replay rows is within one of `share` of them.
    """
    primary = shuffled_forever(num_primary, f"{seed}/primary")
    replay = shuffled_forever(num_replay, f"{seed}/replay")
    drawn = given = 0
    while True:
        drawn += 1
        if given + 0.5 < share * drawn:
            given += 1
            yield num_primary + next(replay)
        else:
            yield next(primary)


def same_rows(stream: Iterator[int], num: int) -> Iterator[list[int]]:
    """Groups a stream into steps of `num` rows each, whatever their lengths: tiers held at equal rows."""
    while True:
        yield list(islice(stream, num))


def fill_steps(stream: Iterator[int], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Groups a stream of rows into steps of at most `budget` tokens.

    A step takes rows in order until the next one does not fit, then closes its gap with the longest rows that do
    among the next few. The row at the head of the queue always opens the next step, so nothing waits for ever.

    Args:
        stream: row numbers, endless.
        lengths: tokens of every row, each at most `budget`.
    """
    queue: list[int] = []
    while True:
        taken: list[int] = []
        room = budget
        while True:
            queue.extend(islice(stream, LOOK_AHEAD - len(queue)))
            if lengths[queue[0]] > room:
                break
            room -= lengths[queue[0]]
            taken.append(queue.pop(0))
        while fitting := [i for i, row in enumerate(queue) if lengths[row] <= room]:
            best = max(fitting, key=lambda i: lengths[queue[i]])
            room -= lengths[queue[best]]
            taken.append(queue.pop(best))
        yield taken
