"""Tasks from the user's own items (`evaluation.files`): one JSON object a line, alone or beside a suite's own tasks.

    {"prompt": "What is 2 + 2?", "answer": 4}
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of Peru?"}], "answer": "Lima"}
    {"prompt": "Which is a metal?", "choices": ["iron", "wood"], "answer": "iron", "role": "general", "task": "materials"}

A file is one task, or as many as its items name in `task`. `role`, `task` and `scorer` of an item stand before those of the
file (`evaluators.scorers` lists the scorers). Every item of every file is checked, whichever of them are drawn.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from evaluators.scorers import CHOOSE, LETTERS, Scorer, is_blank, scorer_of
from evaluators.tasks import EvalTask, Judge, Message, Prompt, Suite, role_means, text_of
from sweeps.config.trial import EvalFile
from sweeps.errors import InputError, nearest
from trainers.data.sources.download_cache import fetched
from trainers.data.sources.row_files import rows
from trainers.data.tiny_study.tasks import ROLES

KEYS: Final = ("prompt", "messages", "role", "task", "scorer", "choices", "answer", "tests", "criteria")
JUDGED_BY: Final = (
    "evaluators.scorers",
    "evaluators.number_reading",
    "trainers.rl_reward",
    "evaluators.benchmarks.humaneval",
    "evaluators.benchmarks.judges",
    "evaluators.sandbox.child",
    "math-verify",
)
NOTES: Final = ("id", "source", "category", "comment", "metadata")
"""Keys that an item may have for its author's sake: they decide nothing."""
SHOWN: Final = 20
"""Faults of a file that are told; the rest are counted."""


@dataclass(frozen=True, slots=True)
class OwnItem:
    """One item of a file, checked."""

    role: str
    task: str
    scorer: Scorer
    prompt: Prompt
    values: Mapping[str, Any]

    @property
    def target(self) -> str:
        """What is right, in the words that a judge is told; the whole item for a function of the user's own."""
        if self.scorer.score is None:
            told = {"right answer": self.values.get("answer"), "criteria": self.values.get("criteria")}
            return "\n".join(f"{name}: {value}" for name, value in told.items() if value)
        keys = ("answer", "choices", "tests") if self.scorer.takes is not None else tuple(self.values)
        return json.dumps({key: self.values[key] for key in keys if key in self.values}, sort_keys=True, default=str)


def with_files(suite: Suite, files: Sequence[EvalFile], items: int, seed: int) -> Suite:
    """Returns a suite with tasks of the user's own files beside its own; each task counts the same in its role.

    Args:
        items: items per task, at most. seed: which ones, and in which order they are asked.

    Raises:
        InputError: a file cannot be read, items of it cannot be used (all files' faults at once), or a task stands twice.
    """
    faults: list[str] = []
    own: list[EvalTask] = []
    for file in files:
        found, wrong = read_items(file)
        faults += wrong
        if not wrong:
            own += _tasks(file, found, items, seed)
    if faults:
        raise InputError("\n".join(faults))
    tasks = (*suite.tasks, *own)
    names = [f"{task.role}/{task.name}" for task in tasks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        beside = f", or in suite {suite.name!r} too" if suite.name else ""
        raise InputError(f"evaluation.files: task {twice[0]} stands in two files{beside}; rename one")
    name = "+".join(part for part in (suite.name, "files") if part)
    judged_by = tuple(dict.fromkeys((*suite.judged_by, *JUDGED_BY)))
    return replace(suite, name=name, tasks=tasks, means=_means(suite, own), judged_by=judged_by)


def _means(suite: Suite, own: Sequence[EvalTask]) -> dict[str, tuple[str, ...]]:
    """Adds own tasks to the scores of their roles; of safety those that look for refusals to `safety/refusal`."""
    means = {metric: tuple(parts) for metric, parts in suite.means.items()}
    added = role_means(tuple(own))
    for task in own:
        if task.role == "safety":
            metric = "safety/refusal" if task.refusals else "safety/score"
            added[metric] = (*added.get(metric, ()), f"safety/{task.name}")
    return means | {metric: (*means.get(metric, ()), *parts) for metric, parts in added.items()}


def read_items(file: EvalFile) -> tuple[list[OwnItem], list[str]]:
    """Returns the items of a file, and what is wrong with those that cannot be used, each with its line.

    Raises:
        InputError: the file cannot be read at all, or holds no items.
    """
    place = fetched(file.path)
    if not Path(place).is_file():
        raise InputError(f"evaluation.files: no file {file.path}; expected a JSONL file of items")
    found: list[OwnItem] = []
    faults: list[str] = []
    first: dict[tuple[str, str, str, str], int] = {}
    for row in rows(place):
        try:
            if row.value is None:
                raise ValueError(row.fault)
            item = _item(row.value, file)
            before = first.setdefault((item.role, item.task, text_of(item.prompt), item.target), row.number)
            if before != row.number:
                raise ValueError(f"the item of line {before} again; standard errors hold for items that are asked once")
            found.append(item)
        except RecursionError:
            faults.append(f"{file.path}:{row.number}: nested too deeply")
        except ValueError as e:  # InputError is one
            faults.append(f"{file.path}:{row.number}: {e}")
    if len(faults) > SHOWN:
        faults = [*faults[:SHOWN], f"{file.path}: and {len(faults) - SHOWN} more items that cannot be used"]
    if not found and not faults:
        raise InputError(f"evaluation.files: {file.path} holds no items; expected one JSON object a line")
    return found, faults


def _item(row: Mapping[str, Any], file: EvalFile) -> OwnItem:
    role, task = row.get("role", file.role or None), row.get("task", file.task or Path(file.path).name.split(".")[0])
    if role not in ROLES:
        came = "no role, here or for the file" if role is None else f"role {role!r}"
        raise ValueError(f"got {came}; expected one of {', '.join(ROLES)}")
    if not isinstance(task, str) or not task or not all(c.isalnum() or c in "_.-" for c in task):
        raise ValueError(f"got task {task!r}; expected letters, digits, '_', '.' or '-'")
    scorer = scorer_of(_named(row, file))
    missing = [key for key in scorer.needs if is_blank(row.get(key))]
    if missing:
        raise ValueError(f"no {missing[0]!r}, which scorer {scorer.name!r} needs")
    if scorer.takes is not None:
        takes = {"prompt", "messages", "role", "task", "scorer", *scorer.needs, *scorer.takes, *NOTES}
        for key in row:
            if key not in takes and row[key] is not None:
                why = f"scorer {scorer.name!r} does not use it" if key in KEYS else f"unknown key{nearest(key, KEYS)}"
                raise ValueError(f"{key!r}: {why}; notes belong under {', '.join(NOTES)}")
    scorer.check(row)
    return OwnItem(role, task, scorer, _prompt(row, scorer), dict(row))


def _named(row: Mapping[str, Any], file: EvalFile) -> str:
    named = row.get("scorer") or file.scorer or ("choice" if "choices" in row else "exact")
    if not isinstance(named, str):
        raise ValueError(f"got scorer {named!r}; expected a name")
    if named != file.scorer and ":" in named:
        raise ValueError(f"got scorer {named!r}; a function is named for the whole file, in the sweep file")
    return named


def _prompt(row: Mapping[str, Any], scorer: Scorer) -> Prompt:
    if ("prompt" in row) == ("messages" in row):
        raise ValueError("expected either prompt or messages")
    prompt: Prompt
    if "prompt" in row:
        if not isinstance(row["prompt"], str) or not row["prompt"].strip():
            raise ValueError(f"prompt: got {row['prompt']!r}; expected a text")
        prompt = row["prompt"]
    else:
        prompt = _messages(row["messages"])
    return _with_choices(prompt, row["choices"]) if scorer.name == "choice" else prompt


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"messages: got {value!r}; expected a list that ends with the user's turn")
    for at, message in enumerate(value):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise ValueError(f"messages[{at}]: expected an object of role and content alone")
        if message["role"] not in ("system", "user", "assistant") or not isinstance(message["content"], str):
            raise ValueError(f"messages[{at}]: expected role system, user or assistant, and content that is text")
    if value[-1]["role"] != "user":
        raise ValueError(f"messages: the last one is of role {value[-1]['role']!r}; expected 'user'")
    return tuple(value)


def _with_choices(prompt: Prompt, choices: Sequence[Any]) -> Prompt:
    lines = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    if isinstance(prompt, str):
        return f"{prompt}\n\n{lines}{CHOOSE}"
    last = prompt[-1]
    return (*prompt[:-1], {**last, "content": f"{last['content']}\n\n{lines}{CHOOSE}"})


def _tasks(file: EvalFile, found: Sequence[OwnItem], items: int, seed: int) -> Iterator[EvalTask]:
    """Yields the tasks of a file. Items are asked in an order drawn once: files are sorted, and an evaluation that ends
    early asks the first ones only."""
    by_task: dict[tuple[str, str], list[OwnItem]] = {}
    for item in found:
        by_task.setdefault((item.role, item.task), []).append(item)
    for (role, name), own in by_task.items():
        drawn = random.Random(f"{name}/{seed}").sample(own, min(items, len(own)))
        yield _task(role, name, drawn, own, file.max_new_tokens)


def _task(role: str, name: str, drawn: Sequence[OwnItem], every: Sequence[OwnItem], cap: int) -> EvalTask:
    metric = f"{role}/{name}"
    rubrics = {item.scorer.rubric for item in every}
    if len(rubrics) > 1:
        names = ", ".join(sorted({item.scorer.name for item in every}))
        raise InputError(
            f"evaluation.files: task {metric} mixes the scorers {names}; of judge and refusal a task has one alone"
        )
    rubric = rubrics.pop()

    def judge(i: int, answer: str) -> float:
        score = drawn[i].scorer.score
        assert score is not None
        return score(answer, drawn[i].values)

    scorers = [f"{item.scorer.name} {item.scorer.digest}".strip() for item in drawn]
    judges: dict[str, Judge] = {} if every[0].scorer.score is None else {metric: judge}
    return EvalTask(
        name,
        role,
        tuple(item.prompt for item in drawn),
        tuple(item.target for item in drawn),
        cap,
        judges,
        rubrics={} if rubric is None else {metric: rubric},
        graded=frozenset({metric} if any(item.scorer.graded for item in every) else ()),
        scorer=scorers[0] if len(set(scorers)) == 1 else "; ".join(scorers),
        refusals=all(item.scorer.name == "refusal" for item in every),
    )
