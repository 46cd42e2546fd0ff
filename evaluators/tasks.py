"""What a checkpoint is asked: suites of tasks in four roles, with a version that changes whenever the question does.

mini      the tiny study's tasks in their compact rendering; seconds on one CPU
gym       reasoning-gym in its own words, for models that read English
offline   public items that installed packages carry: HumanEval, StrongREJECT, DoNotAnswer; instruction checks
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from evaluators.decoding import GREEDY, Decoding
from evaluators.digest import folder_digest
from trainers.data.chat.template import TEMPLATE_DATE

Judge = Callable[[int, str], float]
"""(number of the item, answer without the thought) to its outcome in [0, 1]: True or False where it is right or wrong."""
Message = Mapping[str, str]
"""`{"role": …, "content": …}`."""
Prompt = str | tuple[Message, ...]
"""What is asked: the text of one user message, or a conversation that ends with the user's turn."""


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    """Returns a prompt as a chat template takes it."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]


def text_of(prompt: Prompt) -> str:
    """Returns a prompt as one text, for people, judges and comparisons."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(m["content"] if m["role"] == "user" else f"[{m['role']}] {m['content']}" for m in prompt)


@dataclass(frozen=True, slots=True)
class Rubric:
    """What a model that judges is asked about a reply, and how its verdict is read.

    Attributes:
        question: with `{prompt}`, `{answer}` and `{target}` to be filled in.
        verdict: the group that counts, of its last match in what the judge says (thoughts aside, case ignored).
        yes: the verdict, in lower case, that makes the metric's outcome true.
    """

    question: str
    verdict: str
    yes: str


@dataclass(frozen=True)
class EvalTask:
    """One kind of question and how its answers are judged.

    Attributes:
        name, role: `role/name` is its own metric.
        prompts: one per item. targets: what identifies the right answers: part of the version, and told to judges.
        cap: new tokens a reply may have.
        judges: metric to judge; a task may be judged twice (refused? solved?).
        samples: replies per item; None is as many as the suite's decoding says.
        rubrics: metrics that a model judges where there is one (`Suite.judge`); a rule of the same metric in `judges` stands
            in for it, one without is not measured otherwise.
        graded: metrics whose outcomes may lie between 0 and 1: they have no pass@k.
        scorer: what tells one state of a scorer of the user's own from another; part of the version.
        refusals: its own metric is the share of refusals.
    """

    name: str
    role: str
    prompts: tuple[Prompt, ...]
    targets: tuple[str, ...]
    cap: int
    judges: Mapping[str, Judge]
    samples: int | None = None
    rubrics: Mapping[str, Rubric] = field(default_factory=dict)
    graded: frozenset[str] = frozenset()
    scorer: str = ""
    refusals: bool = False


@dataclass(frozen=True)
class Suite:
    """Tasks, how replies are drawn, and the scores of the roles as means over metrics of tasks (each counts the same).

    Attributes:
        means: a role's metric to the metrics of tasks that it is the mean of.
        judge: folder of a model that judges what has a rubric; "" leaves that to rules.
        variants: other means at test time with which the same items are answered too (`evaluators.test_time`).
        judged_by: what decides right and wrong: modules of this project (`evaluators.benchmarks.judges`), other distributions
            (`math-verify`). Their code, or version, is part of the suite's version.
    """

    name: str
    tasks: tuple[EvalTask, ...]
    means: Mapping[str, tuple[str, ...]]
    decoding: Decoding = field(default=GREEDY)
    variants: tuple[str, ...] = ()
    judged_by: tuple[str, ...] = ()
    judge: str = ""

    def samples(self, task: EvalTask) -> int:
        """Replies per item of a task."""
        return task.samples or self.decoding.samples

    def greedy_samples(self) -> EvalTask | None:
        """Returns a task to whose items several replies are drawn that would all be the same, if there is one."""
        if self.decoding.temperature:
            return None
        return next((task for task in self.tasks if self.samples(task) > 1), None)

    def metrics(self, task: EvalTask) -> tuple[str, ...]:
        """What a task measures here: what rules judge, and with a judge also what it alone can."""
        return tuple(dict.fromkeys((*task.judges, *(task.rubrics if self.judge else ()))))

    @cached_property
    def version(self) -> str:
        """`name@8hex` of all that decides a score: items, prompts, caps, decoding, means, the scorer's code, and the date
        that chat templates print. Two versions never share a curve."""
        caps = [[t.name, t.cap, sorted(self.metrics(t)), self.samples(t), t.scorer] for t in self.tasks]
        scorer = [code_of(name) for name in ("evaluators.score", "evaluators.readiness", *self.judged_by)]
        drawn = {
            name: value for name, value in asdict(self.decoding).items() if name != "recurrences" or value is not None
        }
        how = [drawn, list(self.variants), _digest_of(self.judge), TEMPLATE_DATE.isoformat()]
        return f"{self.name}@{_digest([self.items_digest, caps, dict(self.means), how, scorer])[:8]}"

    @cached_property
    def items_digest(self) -> str:
        """sha256 of the questions and their answers: outcomes can be paired where it is equal."""
        return _digest([[task.name, task.prompts, task.targets] for task in self.tasks])


OWN: Final = ("sweeps", "trainers", "evaluators")


@cache
def code_of(name: str) -> str:
    """Returns the identity of a scorer's code: a distribution's version, or a digest of a module's code
    (comments, layout and docstrings aside)."""
    if name.partition(".")[0] not in OWN:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    spec = find_spec(name)
    if spec is None or not (spec.origin or "").endswith(".py"):
        return "not installed"
    tree = ast.parse(Path(str(spec.origin)).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return _digest(ast.unparse(tree))


@cache
def _digest_of(judge: str) -> str:
    """Of a judge's files, read once a process: there is a suite to every evaluation."""
    if not judge:
        return ""
    return folder_digest(Path(judge))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def role_means(tasks: tuple[EvalTask, ...]) -> dict[str, tuple[str, ...]]:
    """Returns `math/score`, `transfer/score`, `general/score` as means over the tasks of each role that has any."""
    means: dict[str, tuple[str, ...]] = {}
    for task in tasks:
        if task.role != "safety":
            means[f"{task.role}/score"] = (*means.get(f"{task.role}/score", ()), f"{task.role}/{task.name}")
    return means
