"""Two families of tasks that the shipped suite and tiers do not have, as files for `tiers` and `evaluation.files`.

    logic     a chain of truth values, folded from the left; the reply is every value on the way
              ?t*!f-t=      trace t*!f=t;t-t=f       target tf      (* and, + or, - unequal, > implies, ! not)
    strings   a word and operations on it (r reverse, s swap the ends, d drop the first letter, a append it again)
              abcd:rd=      trace dcba;cba           target cba

Both are written in characters that the tiny models know. A family is trained on short chains; `math/in_domain` asks others of
these, `transfer` longer ones, a variant, and tasks near it that the base model knows, `general` what the base knows of other
kinds. One prompt in six is never trained on (`trainers.data.tiny_study.tasks.held_out`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from trainers.data.sources.datasets import CORRUPTION, replay_pool
from trainers.data.tiny_study.builtin_items import eval_items
from trainers.data.tiny_study.tasks import TASKS, held_out
from trainers.data.tiny_study.vocabulary import reply

ROWS: Final = 4000
FEW: Final = 48
"""Rows of the tier `few`: 400 steps of 1024 tokens see each of them some hundred times."""
ITEMS: Final = 100
CAP: Final = 96
"""New tokens, one a character, that a reply may have; the longest right one has 75."""
TIERS: Final = ("verified", "answer", "corrupted", "few")


class Question(NamedTuple):
    """What is asked, the steps to its answer, and the answer."""

    prompt: str
    trace: str
    target: str


class Family(NamedTuple):
    """A kind of task.

    Attributes:
        make: draws a question with so many operations; True asks for the variant.
        near, far: tasks of the base model that belong to `transfer` and to `general`.
    """

    make: Callable[[random.Random, int, bool], Question]
    near: tuple[str, ...]
    far: tuple[str, ...]


_FOLDS: Final[Mapping[str, Callable[[bool, bool], bool]]] = {
    "*": lambda a, b: a and b,
    "+": lambda a, b: a or b,
    "-": lambda a, b: a != b,
    ">": lambda a, b: not a or b,
}


def _logic(draw: random.Random, operations: int, variant: bool) -> Question:
    """The variant negates every operand."""
    value = draw.random() < 0.5
    text, steps, values = _letter(value), [], []
    for _ in range(operations):
        sign, operand, negated = draw.choice("*+->"), draw.random() < 0.5, variant or draw.random() < 0.3
        term = f"{sign}{'!' if negated else ''}{_letter(operand)}"
        result = _FOLDS[sign](value, operand != negated)
        steps.append(f"{_letter(value)}{term}={_letter(result)}")
        text, value = text + term, result
        values.append(_letter(value))
    return Question(f"?{text}=", ";".join(steps), "".join(values))


def _letter(value: bool) -> str:
    return "t" if value else "f"


_EDITS: Final[Mapping[str, Callable[[str], str]]] = {
    "r": lambda word: word[::-1],
    "s": lambda word: word[-1] + word[1:-1] + word[0],
    "d": lambda word: word[1:],
    "a": lambda word: word + word[0],
}


def _strings(draw: random.Random, operations: int, variant: bool) -> Question:
    """The variant is made of digits; a word keeps three letters at least and six at most."""
    word = "".join(draw.sample("0123456789" if variant else "abcdefghijklmnop", draw.randint(3, 5)))
    text, steps = f"{word}:", []
    for _ in range(operations):
        edit = draw.choice([e for e in _EDITS if 3 <= len(_EDITS[e](word)) <= 6])
        word = _EDITS[edit](word)
        text += edit
        steps.append(word)
    return Question(f"{text}=", ";".join(steps), word)


FAMILIES: Final[Mapping[str, Family]] = {
    "logic": Family(
        _logic, ("knights_knaves", "syllogism"), ("spell_backward", "number_sorting", "prime_factorization")
    ),
    "strings": Family(
        _strings, ("spell_backward", "number_sorting"), ("knights_knaves", "syllogism", "base_conversion")
    ),
}


def write(folder: Path) -> None:
    """Writes `FAMILY/TIER.jsonl` for every tier and `FAMILY/items.jsonl`: the same bytes each time."""
    for name, family in FAMILIES.items():
        home = folder / name
        home.mkdir(parents=True, exist_ok=True)
        questions = _distinct(family, f"{name}/train", (2, 3, 4), trained=True, count=ROWS)
        for tier in TIERS:
            draw = random.Random(f"{name}/{tier}")
            chosen = questions[:FEW] if tier == "few" else questions
            own = [_row(q.prompt, _trace(tier, q.trace, draw), q.target) for q in chosen]
            pool = [{"messages": messages, "replay": True} for messages in replay_pool(0)]
            _write(home / f"{tier}.jsonl", [*own, *pool])
        _write(home / "items.jsonl", _items(name, family))


def _distinct(
    family: Family, seed: str, operations: tuple[int, ...], *, trained: bool, count: int, variant: bool = False
) -> list[Question]:
    """Draws questions with distinct prompts of one side of what is held out."""
    draw = random.Random(seed)
    found: dict[str, Question] = {}
    while len(found) < count:
        question = family.make(draw, draw.choice(operations), variant)
        if held_out(question.prompt) != trained:
            found.setdefault(question.prompt, question)
    return list(found.values())


def _trace(tier: str, trace: str, draw: random.Random) -> str | None:
    if tier == "answer":
        return None
    if tier != "corrupted":
        return trace
    letters = sorted({c for c in trace if c.isalnum()})
    return "".join(draw.choice(letters) if c.isalnum() and draw.random() < CORRUPTION else c for c in trace)


def _row(prompt: str, trace: str | None, target: str) -> dict[str, Any]:
    said = {"role": "assistant", "content": reply(trace, target)}
    return {"messages": [{"role": "user", "content": prompt}, said]}


def _items(name: str, family: Family) -> Iterator[dict[str, Any]]:
    own = {
        ("math", "in_domain"): ((2, 3, 4), False),
        ("transfer", f"{name}_long"): ((5, 6), False),
        ("transfer", f"{name}_variant"): ((2, 3), True),
    }
    for (role, task), (operations, variant) in own.items():
        asked = _distinct(family, f"{name}/{task}", operations, trained=False, count=ITEMS, variant=variant)
        yield from ({"prompt": q.prompt, "answer": q.target, "role": role, "task": task} for q in asked)
    for role, tasks in (("transfer", family.near), ("general", family.far)):
        for task in tasks:
            assert TASKS[task].cap <= CAP
            for item in eval_items(task)[:ITEMS]:
                yield {"prompt": item.prompt, "answer": item.target, "role": role, "task": task}


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
