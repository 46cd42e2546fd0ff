r"""1.0 where the final answer of a reply is that of the data, else 0.0: the reward of a GRPO run.

The final answer is what stands behind the last </think>: in the last <answer> tags, else in the last \boxed{}, else behind
the last "Answer:" of a line, else all of it. Answers are compared letter by letter: where those of the data can be written
in several ways, change `right`. `dipsweep export --for` writes this file, with OPENED and ENDS of the model at its end.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

OPENED = False
"""The prompt opens a thought: a reply that does not close it has no answer."""
ENDS: tuple[str, ...] = ()
"""Special tokens, which stand in the text of a framework that does not skip them; none of them is part of an answer."""
_TAGGED = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_ANSWER_LINE = re.compile(r"^[^\S\n]*\**(?:final )?answer\**\s*[:：]\s*\**(.*)$", re.MULTILINE | re.IGNORECASE)


def final_answer(answer: str) -> str:
    """Returns the part of an answer, the thought being over, that is compared; see the module."""
    if (tagged := tagged_answer(answer)) is not None:
        return tagged
    if (boxed := last_boxed(answer)) is not None:
        return boxed.strip()
    lines = _ANSWER_LINE.findall(answer)
    return str(lines[-1]).rstrip().rstrip("*").strip() if lines else answer.strip()


def tagged_answer(answer: str) -> str | None:
    """Returns what stands in the last <answer> tags, None without them; an <answer> that nothing closes is none."""
    found = _TAGGED.findall(answer)
    return str(found[-1]).strip() if found else None


def last_boxed(answer: str) -> str | None:
    r"""Returns what stands in the last \boxed{}, braces within it balanced, \{ and \} being no braces; None without one."""
    start = answer.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for sign in re.finditer(r"\\.|[{}]", answer[begin:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(sign[0], 0)
        if not depth:
            return answer[begin : begin + sign.start()]
    return None


def answer_of(reply: str) -> str | None:
    """Returns the final answer of a whole reply; None where its thought never ended."""
    text = re.sub("|".join(map(re.escape, sorted(ENDS, key=len, reverse=True))), "", reply)
    _, closed, said = text.rpartition("</think>")
    return None if not closed and (OPENED or "<think>" in text) else final_answer(said)


def right(reply: str, answer: str) -> float:
    """Returns the reward of a reply."""
    return float(answer_of(reply) == answer)


def reward(completions: Sequence[Any], answer: Sequence[str], **_: Any) -> list[float]:
    """TRL: one reward a completion, each of which is a list of messages."""
    return [right(_text(said), expected) for said, expected in zip(completions, answer, strict=True)]


def _text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """Returns a reply as the model wrote it; TRL parts thought and content where the tokenizer says how to."""
    if isinstance(completion, str):
        return completion
    message = completion[-1]
    thought, content = message.get("reasoning_content") or message.get("thinking"), message.get("content") or ""
    return f"<think>{thought}{'</think>' if content else ''}{content}" if thought else str(content)


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any) -> float:
    """verl: the reward of one response."""
    return right(solution_str, ground_truth)


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str], **_: Any) -> dict[str, Any]:
    """OpenRLHF: queries are prompts with their responses, decoded with their special tokens.

    Raises:
        ValueError: a query does not hold its prompt.
    """
    import torch

    found = [right(behind(q, p), expected) for q, p, expected in zip(queries, prompts, labels, strict=True)]
    rewards = torch.tensor(found)
    return {"rewards": rewards, "scores": rewards, "extra_logs": {}}


def behind(query: str, prompt: str) -> str:
    """Returns what stands in a query behind its prompt, in which a tokenizer may have changed white space and joined accents.

    Raises:
        ValueError: the query does not hold the prompt.
    """
    _, held, said = query.partition(prompt)
    if held:
        return said
    wanted = _letters(prompt)
    end = bisect_right(range(len(query) + 1), len(wanted), key=lambda at: len(_letters(query[:at]))) - 1
    if _letters(query[:end]) != wanted:
        raise ValueError(f"the query {query[:80]!r} does not hold its prompt {prompt[:80]!r}")
    return query[end:]


def _letters(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())
