"""Replies in, scores out: judged one by one, averaged per task, then per role, each with its standard error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluators.stats import mean_error, sample_error, share_error
from evaluators.suites import Suite

END_THINK = "</think>"


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one checkpoint on one suite.

    Attributes:
        metrics: `role/name` to a share in [0, 1] (roles, tasks), or tokens (`length/mean`, `length/<role>`).
        se: standard errors, in the metric's own unit. n: items behind each metric.
        suite: the suite's version. items_digest: sha256 of its items; outcomes of equal digests can be paired.
        outcomes: per task metric, one bit an item (`pack`).
        cost: `cpu_s` of the process.
    """

    metrics: Mapping[str, float]
    se: Mapping[str, float]
    n: Mapping[str, int]
    suite: str
    items_digest: str
    outcomes: Mapping[str, str]
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply as text: thought, answer (None when the thought never ended), length in tokens, cut off by the cap?"""

    thought: str
    answer: str | None
    tokens: int
    truncated: bool


def read_reply(text: str, *, tokens: int, truncated: bool, opened: bool) -> Answered:
    """Splits a reply at its last `</think>`.

    Args:
        opened: the prompt itself opened a thought, so that a reply that never closes it has no answer.
    """
    thought, closed, answer = text.rpartition(END_THINK)
    unfinished = not closed and (opened or "<think>" in text)
    return Answered(
        thought=(text if unfinished else thought).replace("<think>", "").strip(),
        answer=None if unfinished else answer.strip(),
        tokens=tokens,
        truncated=truncated,
    )


def score(suite: Suite, replies: Sequence[Sequence[Answered]], cost: Mapping[str, float]) -> Scores:
    """Judges the replies, one list per task in the suite's order.

    An answer that never came is wrong, and refuses nothing.
    """
    metrics: dict[str, float] = {}
    se: dict[str, float] = {}
    n: dict[str, int] = {}
    outcomes: dict[str, str] = {}
    for task, answered in zip(suite.tasks, replies, strict=True):
        for metric, judge in task.judges.items():
            bits = [reply.answer is not None and judge(i, reply.answer) for i, reply in enumerate(answered)]
            metrics[metric], n[metric] = sum(bits) / len(bits), len(bits)
            se[metric] = share_error(sum(bits), len(bits))
            outcomes[metric] = pack(bits)
    for metric, parts in suite.means.items():
        metrics[metric] = sum(metrics[part] for part in parts) / len(parts)
        se[metric] = mean_error([se[part] for part in parts])
        n[metric] = sum(n[part] for part in parts)
    for metric, values in _lengths(suite, replies).items():
        metrics[metric], n[metric] = sum(values) / len(values), len(values)
        shares = isinstance(values[0], bool)
        se[metric] = share_error(sum(values), len(values)) if shares else sample_error(values)
    return Scores(metrics, se, n, suite.version, suite.items_digest, outcomes, cost)


def _lengths(suite: Suite, replies: Sequence[Sequence[Answered]]) -> dict[str, list[int]]:
    """Reply lengths in tokens, per role and overall; as bools: cut off by the cap, with a thought."""
    every = [reply for answered in replies for reply in answered]
    values: dict[str, list[int]] = {
        "length/mean": [reply.tokens for reply in every],
        "length/truncated": [reply.truncated for reply in every],
        "length/reasoned": [bool(reply.thought) for reply in every],
    }
    for task, answered in zip(suite.tasks, replies, strict=True):
        values.setdefault(f"length/{task.role}", []).extend(reply.tokens for reply in answered)
    return values


def pack(bits: Iterable[bool]) -> str:
    """Writes outcomes as hexadecimal text, four items a digit, the first item in the highest bit."""
    text = "".join("1" if bit else "0" for bit in bits)
    text += "0" * (-len(text) % 4)
    return "".join(f"{int(text[i : i + 4], 2):x}" for i in range(0, len(text), 4))


def unpack(packed: str, n: int) -> list[bool]:
    """Reads `n` outcomes back."""
    return [bit == "1" for digit in packed for bit in f"{int(digit, 16):04b}"][:n]
