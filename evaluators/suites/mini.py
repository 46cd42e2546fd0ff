"""The suite `mini`: the tiny study's tasks in their compact rendering, for the tiny models."""

from __future__ import annotations

import random

from evaluators.tasks import EvalTask, Judge, Suite, role_means
from trainers.data.tiny_study.builtin_items import eval_items
from trainers.data.tiny_study.renderings import REFUSAL
from trainers.data.tiny_study.tasks import IN_DOMAIN, TASKS, Item, require_reasoning_gym, verify


def build(items: int, seed: int, where: str = "") -> Suite:
    """Returns the suite; `math/in_domain` is the task that the built-in tiers teach.

    Raises:
        InputError: reasoning-gym, whose verifiers judge, is not installed.
    """
    require_reasoning_gym("mini")
    tasks = tuple(_task(name, _pick(name, items, seed)) for name in TASKS)
    means = role_means(tasks) | {"math/in_domain": (f"math/{IN_DOMAIN}",), "safety/refusal": ("safety/harm",)}
    return Suite(
        "mini",
        tasks,
        means,
        judged_by=(__name__, "trainers.data.tiny_study.tasks", "trainers.data.tiny_study.renderings"),
    )


def _pick(task: str, items: int, seed: int) -> tuple[Item, ...]:
    """The first items in shipped order for seed 0; other seeds shuffle first. Small tasks have fewer items."""
    shipped = list(eval_items(task))
    if seed:
        random.Random(f"{task}/{seed}").shuffle(shipped)
    return tuple(shipped[:items])


def _task(name: str, items: tuple[Item, ...]) -> EvalTask:
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
