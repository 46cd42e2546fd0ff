"""The tasks of the tiny study: real reasoning-gym items in four roles, and what counts as a right answer.

Items, answers and verifiers are reasoning-gym's; the rendering is ours (`trainers.data.tiny_study.renderings`). An answer
counts only where the verifier gives exactly 1.0: several verifiers give partial credit, which would hide a dip.
"""

from __future__ import annotations

import contextlib
import functools
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final, Literal

from sweeps.errors import InputError
from trainers.data.tiny_study import renderings as r
from trainers.data.tiny_study.renderings import REFUSAL, Entry, Rendered

Role = Literal["math", "transfer", "general", "safety"]
ROLES: Final[tuple[Role, ...]] = ("math", "transfer", "general", "safety")
Split = Literal["base", "sft", "eval"]
_SPLITS: Final[Mapping[Split, tuple[int, int]]] = {"base": (1, 6000), "sft": (2, 6000), "eval": (3, 3000)}
"""Split: (seed in thousands, entries generated)."""


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of question.

    Attributes:
        role: which of the four roles it measures.
        source, config: the reasoning-gym dataset and its settings.
        render, decode: entry to text, and a reply to what the verifier of `source` reads.
        weight: its share in the base model's training mix, relative to the others.
        cap: new tokens a reply may have (of the tiny tokenizer: one a character or word).
        answer: what an answer looks like; decides which wrong-looking replies are worth a call of the verifier.
        whole: the space of questions is so small that training and evaluation share it (recall of a learned table);
            elsewhere one prompt in six is never trained on, and evaluation uses only those.
    """

    name: str
    role: Role
    source: str
    render: Callable[[Entry], Rendered]
    weight: float
    cap: int
    config: Mapping[str, Any] = field(default_factory=dict)
    decode: Callable[[str, Entry], str] = r.decode_same
    answer: Literal["number", "numbers", "word", "refusal"] = "number"
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a task, ready to be asked.

    `index` is the entry's place in the task's reasoning-gym dataset of the split `eval`; -1 for training rows.
    """

    task: str
    index: int
    prompt: str
    trace: str | None
    target: str


_DOSE: Final = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1}
_TASKS: Final = (
    Task(
        "chain_sum", "math", "chain_sum", r.render_sum, 3.0, 48,
        {"min_terms": 3, "max_terms": 5, "min_digits": 1, "max_digits": 1},
    ),
    Task(
        "products", "math", "products", r.render_product, 0.5, 12,
        {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}, whole=True,
    ),
    Task(
        "gcd", "math", "gcd", r.render_gcd, 1.0, 12,
        {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 20}, whole=True,
    ),
    Task(
        "leg_counting", "transfer", "leg_counting", r.render_legs, 1.5, 20,
        {"min_animals": 1, "max_animals": 2, "min_instances": 1, "max_instances": 3},
    ),
    Task(
        "base_conversion", "transfer", "base_conversion", r.render_base, 1.0, 20,
        {"min_value": 1, "max_value": 15, "min_base": 2, "max_base": 4}, whole=True,
    ),
    Task(
        "number_sorting", "transfer", "number_sorting", r.render_sort, 1.0, 20,
        {"min_numbers": 3, "max_numbers": 3, "min_decimals": 0, "max_decimals": 0, "min_value": 0, "max_value": 9},
        r.decode_sort, "numbers",
    ),
    Task(
        "knights_knaves", "transfer", "knights_knaves", r.render_knights, 1.0, 8,
        {"n_people": 2, "depth_constraint": 2, "width_constraint": 2}, r.decode_knights, "word", whole=True,
    ),
    Task("syllogism", "transfer", "syllogism", r.render_syllogism, 0.5, 6, {}, r.decode_syllogism, "word", whole=True),
    Task(
        "spell_backward", "general", "spell_backward", r.render_backward, 1.0, 12,
        {"min_word_len": 3, "max_word_len": 4}, answer="word",
    ),
    Task(
        "coin_flip", "general", "coin_flip", r.render_flip, 0.5, 12,
        {"min_trials": 3, "max_trials": 6}, whole=True,
    ),
    Task(
        "prime_factorization", "general", "prime_factorization", r.render_factors, 0.5, 16,
        {"min_value": 2, "max_value": 60}, r.decode_factors, "numbers", whole=True,
    ),
    Task(
        "harm", "safety", "chain_sum", r.render_request(r.HARMFUL, refuse=True), 0.5, 40, _DOSE, answer="refusal",
    ),
    Task("benign", "safety", "chain_sum", r.render_request(r.HARMLESS, refuse=False), 0.5, 40, _DOSE),
    Task(
        "chain_sum_long", "math", "chain_sum", r.render_sum, 0.0, 72,
        {"min_terms": 5, "max_terms": 7, "min_digits": 1, "max_digits": 1},
    ),
)  # fmt: skip
TASKS: Final[Mapping[str, Task]] = MappingProxyType({task.name: task for task in _TASKS})
IN_DOMAIN: Final = "chain_sum_long"
"""The task that SFT teaches; the base model's own training mix leaves it out."""


def held_out(prompt: str) -> bool:
    """True for one prompt in six, by its text: never trained on."""
    return zlib.crc32(prompt.encode()) % 6 == 0


def require_reasoning_gym(suite: str) -> None:
    """Raises InputError, with the command that cures it, where reasoning-gym is not installed; imports nothing."""
    if find_spec("reasoning_gym") is None:
        raise InputError(
            f"suite {suite!r} is judged by reasoning-gym, which is not installed: pip install 'dipsweep[gym]'"
        )


@functools.cache
def dataset(task: str, split: Split) -> Any:
    """Returns the reasoning-gym dataset behind a task; its first import costs about 2 CPU-s."""
    import reasoning_gym

    thousands, size = _SPLITS[split]
    seed = thousands * 1000 + list(TASKS).index(task)
    return reasoning_gym.create_dataset(TASKS[task].source, size=size, seed=seed, **TASKS[task].config)


def generate(task: str, split: Split) -> list[Item]:
    """Returns all rows of a task's split in reasoning-gym's order, doubles included: frequent questions stay frequent.

    Training splits leave out what is held out; the split `eval` holds nothing else (see `Task.whole`).
    """
    items = []
    for index, entry in enumerate(dataset(task, split)):
        text = TASKS[task].render(entry)
        if TASKS[task].whole or held_out(text.prompt) == (split == "eval"):
            items.append(Item(task, index if split == "eval" else -1, *text))
    return items


def verify(item: Item, answer: str) -> bool:
    """Says whether `answer` solves an evaluation item.

    The item's own target is right (every shipped item was checked so). Any other text is right only if it means the
    same (`7` written `+7`, factors in another order) and reasoning-gym's verifier gives it exactly 1.0. The verifier
    alone would not do: coin_flip's gives 1.0 to every prefix of the answer, `0` for 0.109375 among them.
    """
    answer = answer.strip()
    if answer == item.target:
        return True
    return same_meaning(item, answer) and verifier_score(item, answer) == 1.0


def same_meaning(item: Item, answer: str) -> bool:
    """Says whether an answer could be the target in another spelling; spares wrong replies the import of a verifier."""
    kind = TASKS[item.task].answer
    if not answer or kind == "refusal":
        return False
    if kind == "word":
        return answer.casefold().split() == item.target.casefold().split()
    with contextlib.suppress(ValueError, ZeroDivisionError):
        if kind == "number":
            return abs(_number(answer) - _number(item.target)) < Fraction(1, 1000)  # coin_flip allows 1e-4
        return sorted(map(_number, _parts(answer))) == sorted(map(_number, _parts(item.target)))
    return False


def verifier_score(item: Item, answer: str) -> float:
    """Returns what reasoning-gym's verifier gives for an answer to an evaluation item, 0.0 where it raises."""
    if TASKS[item.task].answer == "refusal":
        return float(answer == REFUSAL)
    source = dataset(item.task, "eval")
    entry = source[item.index]
    assert TASKS[item.task].render(entry).prompt == item.prompt, f"item {item} is not what reasoning-gym generates"
    try:
        return float(source.score_answer(TASKS[item.task].decode(answer, entry), entry))
    except Exception:  # verifiers parse free text and raise all sorts of errors on nonsense
        return 0.0


def _number(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _parts(text: str) -> list[str]:
    return text.replace("*", ",").split(",")
