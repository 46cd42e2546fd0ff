r"""1.0 where the final answer of a reply is that of the data, else 0.0: the reward of a GRPO run.

The final answer is what stands behind the last </think>: in the last <answer> tags, else in the last \boxed{}, else behind
the last "Answer:" of a line, else all of it. Answers are compared letter by letter: where those of the data can be written
in several ways, change `right`. `dipsweep export --for` writes this file, with OPENED and ENDS of the model at its end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

OPENED = False
"""The prompt opens a thought: a reply that does not close it has no answer."""
ENDS: tuple[str, ...] = ()
"""Special tokens that may end a reply in the text of a framework that does not skip them."""
_ANSWER_LINE = re.compile(r"^[^\S\n]*\**(?:final )?answer\**\s*:\s*\**(.*?)\**[^\S\n]*$", re.MULTILINE | re.IGNORECASE)


def final_answer(answer: str) -> str:
    """Returns the part of an answer, the thought being over, that is compared; see the module."""
    if tagged := re.findall(r"<answer>(.*?)</answer>", answer, re.DOTALL):
        return str(tagged[-1]).strip()
    if (boxed := last_boxed(answer)) is not None:
        return boxed.strip()
    lines = _ANSWER_LINE.findall(answer)
    return str(lines[-1]).strip() if lines else answer.strip()


def last_boxed(answer: str) -> str | None:
    r"""Returns what stands in the last \boxed{}, braces within it balanced; None without one."""
    start = answer.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for at in range(begin, len(answer)):
        depth += {"{": 1, "}": -1}.get(answer[at], 0)
        if not depth:
            return answer[begin:at]
    return None


def answer_of(reply: str) -> str | None:
    """Returns the final answer of a whole reply; None where its thought never ended."""
    text = reply.rstrip()
    while ended := next((end for end in ENDS if text.endswith(end)), ""):
        text = text.removesuffix(ended).rstrip()
    _, closed, said = text.rpartition("</think>")
    return None if not closed and (OPENED or "<think>" in text) else final_answer(said)


def right(reply: str, answer: str) -> float:
    """Returns the reward of a reply."""
    return float(answer_of(reply) == answer)


def reward(completions: Sequence[Any], answer: Sequence[str], **_: Any) -> list[float]:
    """TRL: one reward a completion, each of which is a list of messages."""
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [right(text, expected) for text, expected in zip(texts, answer, strict=True)]


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any) -> float:
    """verl: the reward of one response."""
    return right(solution_str, ground_truth)


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str], **_: Any) -> dict[str, Any]:
    """OpenRLHF: queries are prompts with their responses, special tokens and padding included.

    Raises:
        ValueError: a query does not hold its prompt.
    """
    import torch

    found = []
    for query, prompt, expected in zip(queries, prompts, labels, strict=True):
        held, said = query.partition(prompt)[1:]
        if not held:
            raise ValueError(f"the query {query[:80]!r} does not hold its prompt {prompt[:80]!r}")
        found.append(right(said, expected))
    rewards = torch.tensor(found)
    return {"rewards": rewards, "scores": rewards, "extra_logs": {}}
