"""The shipped items: what reasoning-gym generated, checked and written down once, because generating costs 12 CPU-s.

python -m trainers.data.tiny_study.builtin_items        builds trainers/assets/items.json.gz again, byte for byte
"""

from __future__ import annotations

import functools
import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from trainers.data.tiny_study.tasks import IN_DOMAIN, TASKS, Item, generate, verifier_score

FILE: Final = Path(__file__).parents[2] / "assets" / "items.json.gz"
EVAL_ITEMS: Final = 400
"""Evaluation items kept for a task; tasks with a small space of questions have fewer."""

REPLAY_TASKS: Final = tuple(name for name, task in TASKS.items() if task.role in ("transfer", "general"))


@functools.cache
def _shipped() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(gzip.decompress(FILE.read_bytes()))
    return data


@functools.cache
def eval_items(task: str) -> tuple[Item, ...]:
    """Returns a task's evaluation items: distinct prompts, up to EVAL_ITEMS, in a fixed order."""
    return tuple(Item(task, *row) for row in _shipped()["eval"][task])


@functools.cache
def training_items(task: str) -> tuple[tuple[Item, int], ...]:
    """Returns (item, how often reasoning-gym drew it) for the SFT task or one of REPLAY_TASKS."""
    return tuple((Item(task, -1, *row), count) for *row, count in _shipped()["train"][task])


def build() -> dict[str, Any]:
    """Generates everything that ships; about 12 CPU-s.

    Raises:
        ValueError: reasoning-gym's verifier does not give 1.0 for an item's own answer.
    """
    return {
        "eval": {task: [list(_eval_row(item)) for item in _distinct(task)] for task in TASKS},
        "train": {
            task: [[*row, count] for row, count in _counted(generate(task, "sft" if task == IN_DOMAIN else "base"))]
            for task in (IN_DOMAIN, *REPLAY_TASKS)
        },
    }


def _distinct(task: str) -> list[Item]:
    first: dict[str, Item] = {}
    for item in generate(task, "eval"):
        first.setdefault(item.prompt, item)
    items = list(first.values())[:EVAL_ITEMS]
    for item in items:
        if verifier_score(item, item.target) != 1.0:
            raise ValueError(f"the verifier of {task} rejects its own answer {item.target!r} to {item.prompt!r}")
    return items


def _eval_row(item: Item) -> tuple[int, str, str | None, str]:
    return item.index, item.prompt, item.trace, item.target


def _counted(items: Iterable[Item]) -> Iterable[tuple[tuple[str, str | None, str], int]]:
    return Counter((item.prompt, item.trace, item.target) for item in items).items()


def main() -> None:
    data = json.dumps(build(), separators=(",", ":")).encode()
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(gzip.compress(data, compresslevel=9, mtime=0))
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
