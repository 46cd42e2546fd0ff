"""Do training rows hold what the evaluation asks? Shared n-grams of words, as GPT-3's authors counted them.

A prompt of 13 words or more counts as seen when a training text holds 13 of its words in a row (arXiv 2005.14165,
appendix C); a shorter one when it holds 8 in a row, and one below 8 words when it holds all of it. Unlike there, every
sign counts as a word: in "3 + 4 - 2" the signs are the question. N-grams that more than COMMON prompts share are the
suite's wording, not its questions, and are left out. Paraphrases and translations are not found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from trainers.data.types import Conversation

LONG, SHORT, COMMON = 13, 8, 10
_WORD: Final = re.compile(r"\w+|[^\w\s]")
NGram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many of `prompts` prompts stand in how many of `rows` rows, and pairs of them to look at.

    Attributes:
        seen: prompts found in the rows. touched: rows that hold one.
        examples: (number of the row from 0, number of the prompt from 0), a few.
    """

    prompts: int
    rows: int
    seen: int
    touched: int
    examples: tuple[tuple[int, int], ...]


def words(text: str) -> list[str]:
    """Returns lower-case words and single signs."""
    return _WORD.findall(text.lower())


def overlap(texts: Iterable[str], prompts: Sequence[str], *, examples: int = 3) -> Overlap:
    """Looks for evaluation prompts in training texts.

    Args:
        texts: one a row. prompts: what the evaluation asks.
    """
    where, sizes = _index(prompts)
    seen: set[int] = set()
    pairs: list[tuple[int, int]] = []
    touched = rows = 0
    ends = {size: frozenset((gram[0], gram[-1]) for gram in where if len(gram) == size) for size in sizes}
    for row, text in enumerate(texts):
        rows += 1
        tokens = words(text)
        found = {
            number for size in sizes for gram in _grams(tokens, size, ends[size]) for number in where.get(gram, ())
        }
        touched += bool(found)
        if found and len(pairs) < examples:
            pairs.append((row, min(found)))
        seen |= found
    return Overlap(len(prompts), rows, len(seen), touched, tuple(pairs))


def conversation_texts(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Yields each conversation as one text: what was asked and what was answered."""
    for conversation in conversations:
        yield "\n".join(f"{message.get('reasoning_content', '')}\n{message['content']}" for message in conversation)


def _index(prompts: Sequence[str]) -> tuple[dict[NGram, list[int]], tuple[int, ...]]:
    """Returns the n-grams that give a prompt away, with the prompts they are of, and the sizes of n-grams there are."""
    of: dict[NGram, list[int]] = {}
    counts: Counter[NGram] = Counter()
    for number, prompt in enumerate(prompts):
        tokens = words(prompt)
        size = LONG if len(tokens) >= LONG else min(SHORT, len(tokens))
        for gram in set(_grams(tokens, size)):
            counts[gram] += 1
            of.setdefault(gram, []).append(number)
    telling = {gram: numbers for gram, numbers in of.items() if counts[gram] <= COMMON}
    return telling, tuple(sorted({len(gram) for gram in telling}))


def _grams(tokens: Sequence[str], size: int, ends: frozenset[tuple[str, str]] | None = None) -> Iterator[NGram]:
    """Yields n-grams; with `ends`, those alone whose first and last words are such a pair, which is seen sooner."""
    if not size:
        return
    pairs = zip(tokens, tokens[size - 1 :], strict=False)
    yield from (tuple(tokens[i : i + size]) for i, pair in enumerate(pairs) if ends is None or pair in ends)
