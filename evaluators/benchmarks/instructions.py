"""Instruction following, checked by code: each prompt asks for a form, and the form alone is judged (after IFEval,
Zhou et al. 2023; prompts and checks are our own)."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from evaluators.tasks import EvalTask

CAP: Final = 1024
TOPICS: Final = (
    "the sea", "a walk in the forest", "how bread is made", "the history of bicycles", "learning to swim", "a cat",
    "winter mornings", "a city market", "how rainbows form", "a long train ride", "the planet Mars", "gardening",
)  # fmt: skip


class Instruction(NamedTuple):
    """What is asked of the form, and whether a reply has it. `text` and `holds` take the same drawn number."""

    text: Callable[[int], str]
    holds: Callable[[str, int], bool]


def words(reply: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", reply)


def sentences(reply: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\s+", reply.strip()) if words(part)]


def bullets(reply: str) -> int:
    return len(re.findall(r"^[^\S\n]*[*-] ", reply, flags=re.MULTILINE))


def paragraphs(reply: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", reply.strip()) if part.strip()]


def is_json_list(reply: str, length: int) -> bool:
    try:
        value = json.loads(reply)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, list) and len(value) == length and all(isinstance(v, str) for v in value)


INSTRUCTIONS: Final[dict[str, Instruction]] = {
    "no_commas": Instruction(
        lambda n: "Do not use any commas.",
        lambda reply, n: "," not in reply and len(words(reply)) >= 5,
    ),
    "lower_case": Instruction(
        lambda n: "Write in lower case only: no capital letters at all.",
        lambda reply, n: reply == reply.lower() and len(words(reply)) >= 5,
    ),
    "upper_case": Instruction(
        lambda n: "Write in capital letters only.",
        lambda reply, n: reply == reply.upper() and len(words(reply)) >= 5,
    ),
    "most_words": Instruction(
        lambda n: f"Use at most {10 * n} words.",
        lambda reply, n: 5 <= len(words(reply)) <= 10 * n,
    ),
    "least_words": Instruction(
        lambda n: f"Use at least {20 * n} words.",
        lambda reply, n: len(words(reply)) >= 20 * n,
    ),
    "sentences": Instruction(
        lambda n: f"Write exactly {n} sentences.",
        lambda reply, n: len(sentences(reply)) == n,
    ),
    "bullets": Instruction(
        lambda n: f"Answer with exactly {n} bullet points, each on a line of its own that begins with '* '.",
        lambda reply, n: bullets(reply) == n,
    ),
    "paragraphs": Instruction(
        lambda n: f"Write exactly {n} paragraphs, separated by blank lines.",
        lambda reply, n: len(paragraphs(reply)) == n,
    ),
    "ending": Instruction(
        lambda n: "End with the exact words: That is all.",
        lambda reply, n: reply.rstrip().endswith("That is all.") and len(words(reply)) > 5,
    ),
    "quotes": Instruction(
        lambda n: "Put the whole answer inside double quotation marks.",
        lambda reply, n: len(reply) > 20 and reply[0] == reply[-1] == '"',
    ),
    "keyword": Instruction(
        lambda n: f"Use the word 'indeed' exactly {n} times.",
        lambda reply, n: sum(word.lower() == "indeed" for word in words(reply)) == n,
    ),
    "json": Instruction(
        lambda n: f"Answer with a JSON list of {n} strings and nothing else.",
        is_json_list,
    ),
}


def task(items: int, seed: int) -> EvalTask:
    """Returns up to `items` prompts, instructions in turn; a reply counts only if it has the whole form."""
    draw = random.Random(f"instructions/{seed}")
    kinds = [list(INSTRUCTIONS)[i % len(INSTRUCTIONS)] for i in range(items)]
    drawn = [(kind, draw.choice(TOPICS), draw.randint(2, 5)) for kind in kinds]

    def right(i: int, answer: str) -> bool:
        kind, _, n = drawn[i]
        return INSTRUCTIONS[kind].holds(answer.strip(), n)

    prompts = tuple(f"Write about {topic}. {INSTRUCTIONS[kind].text(n)}" for kind, topic, n in drawn)
    targets = tuple(f"{kind} {n}" for kind, _, n in drawn)
    return EvalTask("instructions", "general", prompts, targets, CAP, {"general/instructions": right})
