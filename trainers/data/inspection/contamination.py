"""Do training rows hold what the evaluation asks? Shared n-grams of words, as GPT-3's authors counted them.

A prompt of 13 words or more counts as seen when a training text holds 13 of its words in a row (arXiv 2005.14165,
appendix C); a shorter one when it holds 8 in a row, and one below 8 words when it holds all of it. Unlike there, every
sign counts as a word: in "3 + 4 - 2" the signs are the question. What many prompts share is the suite's wording and not its
questions: runs of WORDING words in more than COMMON prompts, or in a third of them and three. An n-gram that is wording for
half of its words or more gives nothing away, unless its prompt has no other. Paraphrases and translations are not found.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from trainers.data.types import Conversation

LONG, SHORT, COMMON, WORDING = 13, 8, 10, 6
_UNSPACED: Final = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Japanese and Chinese are written without spaces: each of their signs counts as a word."""
_WORD: Final = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")
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
    """Returns lower-case words and single signs, the same ones for what Unicode writes in several ways (NFKC)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


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
    split = [words(prompt) for prompt in prompts]
    wording, common = _shared(split, lambda tokens: WORDING), _shared(split, _size)
    telling: dict[NGram, list[int]] = {}
    for number, tokens in enumerate(split):
        for gram in set(_telling(tokens, _size(tokens), wording)) - common:
            telling.setdefault(gram, []).append(number)
    return telling, tuple(sorted({len(gram) for gram in telling}))


def _telling(tokens: Sequence[str], size: int, wording: set[NGram]) -> list[NGram]:
    """Returns a prompt's n-grams of fewer words of wording than of its own; without one, those with the most of its own."""
    covered = [0] * len(tokens)
    for start, gram in enumerate(_grams(tokens, WORDING)):
        if gram in wording:
            covered[start : start + WORDING] = [1] * WORDING
    counted = [(sum(covered[at : at + size]), gram) for at, gram in enumerate(_grams(tokens, size))]
    fewest = min((count for count, _ in counted), default=0)
    return [gram for count, gram in counted if 2 * count < size or fewest == count < size]


def _size(tokens: Sequence[str]) -> int:
    """Returns how many words in a row give a prompt away."""
    return LONG if len(tokens) >= LONG else min(SHORT, len(tokens))


def _shared(prompts: Sequence[Sequence[str]], size: Callable[[Sequence[str]], int]) -> set[NGram]:
    """Returns the n-grams, of each prompt's `size`, that many prompts hold."""
    counts = Counter(gram for tokens in prompts for gram in set(_grams(tokens, size(tokens))))
    many = min(COMMON, max(2, len(prompts) // 3))
    return {gram for gram, count in counts.items() if count > many}


def _grams(tokens: Sequence[str], size: int, ends: frozenset[tuple[str, str]] | None = None) -> Iterator[NGram]:
    """Yields n-grams; with `ends`, those alone whose first and last words are such a pair, which is seen sooner."""
    if not size:
        return
    pairs = zip(tokens, tokens[size - 1 :], strict=False)
    yield from (tuple(tokens[i : i + size]) for i, pair in enumerate(pairs) if ends is None or pair in ends)
