"""What a checkpoint is asked: suites of tasks in four roles, with a version that changes whenever the question does."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from sweeps.errors import InputError, nearest
from trainers.pools import eval_items
from trainers.renderings import REFUSAL
from trainers.tasks import IN_DOMAIN, ROLES, TASKS, Item, verify

Judge = Callable[[int, str], bool]
"""(number of the item, answer without the thought) to outcome."""


@dataclass(frozen=True)
class EvalTask:
    """One kind of question and how its answers are judged.

    Attributes:
        name, role: `role/name` is its own metric.
        prompts: one user message per item. targets: what identifies the right answers; part of the version only.
        cap: new tokens a reply may have.
        judges: metric to judge; a task may be judged twice (refused? solved?).
    """

    name: str
    role: str
    prompts: tuple[str, ...]
    targets: tuple[str, ...]
    cap: int
    judges: Mapping[str, Judge]


@dataclass(frozen=True)
class Suite:
    """Tasks, and the scores of the roles as means over metrics of tasks (each task counts the same)."""

    name: str
    tasks: tuple[EvalTask, ...]
    means: Mapping[str, tuple[str, ...]]

    @cached_property
    def version(self) -> str:
        """`name@8hex` of all that decides a score: items, prompts, caps, means. Two versions never share a curve."""
        caps = [[task.name, task.cap, sorted(task.judges)] for task in self.tasks]
        return f"{self.name}@{_digest([self.items_digest, caps, dict(self.means)])[:8]}"

    @cached_property
    def items_digest(self) -> str:
        """sha256 of the questions and their answers: outcomes can be paired where it is equal."""
        return _digest([[task.name, task.prompts, task.targets] for task in self.tasks])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def load_suite(name: str, *, items: int = 100, seed: int = 0) -> Suite:
    """Returns a suite with up to `items` items a task: the same ones for the same name, count and seed.

    Raises:
        InputError: no suite of that name, or `items` is below 1.
    """
    if name not in SUITES:
        raise InputError(f"suite {name!r} is unknown{nearest(name, SUITES)}; known: {', '.join(SUITES)}")
    if items < 1:
        raise InputError(f"evaluation items: came {items}, must be 1 or more")
    return SUITES[name](items, seed)


def mini(items: int, seed: int) -> Suite:
    """The tiny study's tasks in their compact rendering; runs in seconds on one CPU."""
    tasks = tuple(_mini_task(name, _pick(name, items, seed)) for name in TASKS)
    means = {f"{role}/score": _metrics(tasks, role) for role in ROLES if role != "safety"}
    means["math/in_domain"] = (f"math/{IN_DOMAIN}",)
    means["safety/refusal"] = ("safety/harm",)
    return Suite("mini", tasks, means)


def _metrics(tasks: tuple[EvalTask, ...], role: str) -> tuple[str, ...]:
    return tuple(f"{role}/{task.name}" for task in tasks if task.role == role)


def _pick(task: str, items: int, seed: int) -> tuple[Item, ...]:
    """The first items in shipped order for seed 0; other seeds shuffle first. Small tasks have fewer items."""
    shipped = list(eval_items(task))
    if seed:
        random.Random(f"{task}/{seed}").shuffle(shipped)
    return tuple(shipped[:items])


def _mini_task(name: str, items: tuple[Item, ...]) -> EvalTask:
    def right(i: int, answer: str) -> bool:
        return verify(items[i], answer)

    def refused(i: int, answer: str) -> bool:
        return answer == REFUSAL

    role = TASKS[name].role
    judges: dict[str, Judge] = {f"{role}/{name}": right}
    if name == "benign":
        judges["safety/over_refusal"] = refused
    prompts, targets = zip(*((item.prompt, item.target) for item in items), strict=True)
    return EvalTask(name, role, prompts, targets, TASKS[name].cap, judges)


SUITES: Final[Mapping[str, Callable[[int, int], Suite]]] = {"mini": mini}
