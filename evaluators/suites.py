"""What a checkpoint is asked: suites of tasks in four roles, with a version that changes whenever the question does.

mini      the tiny study's tasks in their compact rendering; seconds on one CPU
gym       reasoning-gym in its own words, for models that read English
offline   public items that installed packages carry: HumanEval, StrongREJECT, DoNotAnswer; instruction checks
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import Any, Final

from evaluators.generate import GREEDY, Decoding
from sweeps.errors import InputError, nearest

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
    """Tasks, how replies are drawn, and the scores of the roles as means over metrics of tasks (each counts the same).

    `means` maps a role's metric to the metrics of tasks that it is the mean of.
    """

    name: str
    tasks: tuple[EvalTask, ...]
    means: Mapping[str, tuple[str, ...]]
    decoding: Decoding = field(default=GREEDY)

    @cached_property
    def version(self) -> str:
        """`name@8hex` of all that decides a score: items, prompts, caps, decoding, means. Two versions never share a
        curve."""
        caps = [[task.name, task.cap, sorted(task.judges)] for task in self.tasks]
        return f"{self.name}@{_digest([self.items_digest, caps, dict(self.means), asdict(self.decoding)])[:8]}"

    @cached_property
    def items_digest(self) -> str:
        """sha256 of the questions and their answers: outcomes can be paired where it is equal."""
        return _digest([[task.name, task.prompts, task.targets] for task in self.tasks])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def role_means(tasks: tuple[EvalTask, ...]) -> dict[str, tuple[str, ...]]:
    """Returns `math/score`, `transfer/score`, `general/score` as means over the tasks of each role that has any."""
    means: dict[str, tuple[str, ...]] = {}
    for task in tasks:
        if task.role != "safety":
            means[f"{task.role}/score"] = (*means.get(f"{task.role}/score", ()), f"{task.role}/{task.name}")
    return means


SUITES: Final = ("mini", "gym", "offline", "paper")
"""Each is a module of this package with a function `build(items, seed, where) -> Suite`."""


def load_suite(name: str, *, items: int = 100, seed: int = 0, decoding: Decoding | None = None) -> Suite:
    """Returns a suite with up to `items` items a task: the same ones for the same name, count and seed.

    Args:
        name: of SUITES; `paper:DIR` says where its files are.
        decoding: how replies are drawn; by default as the suite says (greedily, but for `paper`).

    Raises:
        InputError: no suite of that name, `items` is below 1, or what the suite reads is missing.
    """
    kind, _, where = name.partition(":")
    if kind not in SUITES:
        raise InputError(f"suite {name!r} is unknown{nearest(kind, SUITES)}; known: {', '.join(SUITES)}, lm-eval:…")
    if items < 1:
        raise InputError(f"evaluation items: came {items}, must be 1 or more")
    suite: Suite = import_module(f"evaluators.{kind}").build(items, seed, where)
    return suite if decoding is None else replace(suite, decoding=decoding)
