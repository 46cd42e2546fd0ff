"""Data tiers: the same prompts with answers of different quality, and the general replay pool mixed into them.

    verified-long-cot   every step of every trace is right, and so is the answer
    answer-only         the answer alone
    corrupted-cot       four digits in ten of the trace are drawn anew; the answer is still right
    concise-cot         of each step its result alone: 3+4=7;7-2=5 becomes 7;5
    few-long-cot        an eighth of the rows of verified-long-cot, seen eight times as often in as many steps
    own files           JSONL, Parquet or Arrow of messages (`trainers.data.sources.user_files`)

A tier holds plain messages with the thought in <think> tags, so that it trains any model with a chat template.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Final

from sweeps.config.trial import TierSource
from sweeps.errors import InputError, nearest
from trainers.data.sources.user_files import read
from trainers.data.tiny_study.builtin_items import REPLAY_TASKS, training_items
from trainers.data.tiny_study.tasks import IN_DOMAIN, Item
from trainers.data.tiny_study.vocabulary import reply
from trainers.data.types import Conversation, TierData

CORRUPTION: Final = 0.4
"""Share of a trace's digits that the tier corrupted-cot draws anew."""
FEW: Final = 8
"""The tier few-long-cot has one in so many of the rows (arXiv 2604.06628, table 1: 2.5k rows eight times against 20k once)."""
REPLAY_ROWS: Final = 500
"""Replay conversations per task; 400 steps of 32 rows at a replay share of 0.3 draw nearly all of them once."""
REPLAY_REASONED: Final = 0.5
"""Share of the replay rows that show their trace, where the task has one."""


def load(name: str, source: TierSource, *, seed: int) -> TierData:
    """Returns the conversations of a tier; the same ones for the same name, source and seed.

    Args:
        name: a built-in tier when `source.path` is `builtin`; any name otherwise.
        source: `builtin`, or a JSONL, Parquet or Arrow file (local, or any address that fsspec knows).
        seed: draws the corrupted digits, the few rows and the replay pool; the prompts and right answers of all other
            tiers do not depend on it.

    Raises:
        InputError: no such built-in tier, or the file cannot be read, or too many of its rows.
    """
    if source.path != "builtin":
        return read(source)
    if name not in BUILTIN:
        raise InputError(
            f"data tier {name!r} does not ship with dipsweep{nearest(name, BUILTIN)}; "
            f"shipped: {', '.join(BUILTIN)}; your own needs `path`: a JSONL or Parquet file of messages"
        )
    draw = random.Random(f"{name}/{seed}")
    items = [item for item, _ in training_items(IN_DOMAIN)]
    if name == "few-long-cot":
        items = draw.sample(items, len(items) // FEW)
    primary = [_conversation(item, BUILTIN[name](item, draw)) for item in items]
    return TierData(primary, replay_pool(seed), source=source)


def replay_pool(seed: int) -> list[Conversation]:
    """Returns REPLAY_ROWS conversations of each transfer and general task of the base mix; nothing about safety."""
    draw = random.Random(f"replay/{seed}")
    rows = []
    for task in REPLAY_TASKS:
        items, counts = zip(*training_items(task), strict=True)
        for item in draw.choices(items, counts, k=REPLAY_ROWS):
            rows.append(_conversation(item, item.trace if draw.random() < REPLAY_REASONED else None))
    return rows


def _conversation(item: Item, trace: str | None) -> Conversation:
    return [
        {"role": "user", "content": item.prompt},
        {"role": "assistant", "content": reply(trace, item.target)},
    ]


def _verified(item: Item, draw: random.Random) -> str | None:
    return item.trace


def _answer_only(item: Item, draw: random.Random) -> str | None:
    return None


def _corrupted(item: Item, draw: random.Random) -> str | None:
    return corrupt(item.trace or "", draw)


def _concise(item: Item, draw: random.Random) -> str | None:
    return ";".join(step.partition("=")[2] for step in (item.trace or "").split(";"))


BUILTIN: Final[dict[str, Callable[[Item, random.Random], str | None]]] = {
    "verified-long-cot": _verified,
    "answer-only": _answer_only,
    "corrupted-cot": _corrupted,
    "concise-cot": _concise,
    "few-long-cot": _verified,
}


def corrupt(trace: str, draw: random.Random) -> str:
    """Draws a share CORRUPTION of the digits anew; signs, order and length stay."""
    return "".join(str(draw.randint(0, 9)) if c.isdigit() and draw.random() < CORRUPTION else c for c in trace)


def steps_hold(trace: str, target: str) -> bool:
    """Says whether a sum's trace is right: each step adds up, goes on from the last, and ends in the answer."""
    result: int | None = None
    for step in trace.split(";"):
        found = re.fullmatch(r"(-?\d+)([+-]\d+)=(-?\d+)", step)
        if found is None:
            return False
        start, term, total = map(int, found.groups())
        if start + term != total or (result is not None and start != result):
            return False
        result = total
    return str(result) == target
