"""From conversations to token rows: the model's own chat template, loss on assistant turns only.

A reply is rendered as it will be at inference time: after the generation prompt, tokenised apart from it, its
end-of-turn token inside the loss. Templates that rewrite history (Qwen3 drops the `<think>` blocks of earlier turns)
make a conversation of several replies into one row per reply, each with the history that the model would really see.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from sweeps.errors import InputError
from trainers.config import LongRows
from trainers.data.rows import Rows
from trainers.data.types import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Piece(NamedTuple):
    """Some text of a row, and whether the model learns to write it."""

    text: str
    learn: bool


class Tokenised(NamedTuple):
    """Rows, and what the length policy did: rows `cut`, rows `dropped` (too long, or nothing left to learn)."""

    rows: Rows
    cut: int
    dropped: int


def prompt_text(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> str:
    """Returns what the model sees before it replies to a conversation."""
    text: str = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    return text


def pieces(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> list[list[Piece]]:
    """Renders a conversation into one row, or into one row per reply where the template rewrites history.

    Raises:
        InputError: there is no reply, or the template loses part of one.
    """
    replies = [i for i, message in enumerate(conversation) if message["role"] == "assistant"]
    if not replies:
        raise InputError("conversation without an assistant turn: nothing to learn")
    before = [prompt_text(tokenizer, conversation[:i]) for i in replies]
    after = [_rendered(tokenizer, conversation[: i + 1]) for i in replies]
    for prompt, whole, i in zip(before, after, replies, strict=True):
        _check_reply(prompt, whole, conversation[i]["content"])
    if all(later.startswith(earlier) for earlier, later in pairwise(after)):
        starts = [0, *(len(whole) for whole in after[:-1])]
        return [[p for start, b, a in zip(starts, before, after, strict=True) for p in _turn(b, a, start)]]
    return [_turn(b, a, 0) for b, a in zip(before, after, strict=True)]


def _rendered(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> str:
    text: str = tokenizer.apply_chat_template(conversation, tokenize=False)
    return text


def _check_reply(prompt: str, whole: str, content: str) -> None:
    if not whole.startswith(prompt):
        raise InputError(
            f"the chat template renders a reply so that it does not begin with its generation prompt "
            f"({prompt[-40:]!r} against {whole[len(prompt) - 40 : len(prompt) + 40]!r}); use a template that does"
        )
    if prompt.rstrip().endswith("<think>"):  # reasoning models' templates open the thought for the model
        content = content.lstrip().removeprefix("<think>")
    if "".join(content.split()) not in "".join(whole[len(prompt) :].split()):
        raise InputError(
            f"the chat template loses part of a reply: {content[:80]!r} became {whole[len(prompt) :][:80]!r}"
        )


def _turn(prompt: str, whole: str, start: int) -> list[Piece]:
    """What leads to a reply, the reply with its end-of-turn token, and the white space behind, which nobody learns."""
    reply = whole[len(prompt) :]
    learnt = reply.rstrip()
    return [Piece(prompt[start:], False), Piece(learnt, True), Piece(reply[len(learnt) :], False)]


def tokenise(
    tokenizer: PreTrainedTokenizerBase, conversations: Iterable[Conversation], limit: int, long_rows: LongRows = "drop"
) -> Tokenised:
    """Turns conversations into rows of at most `limit` tokens.

    Args:
        limit: longest row in tokens.
        long_rows: what happens to longer ones; every one is counted.

    Raises:
        InputError: a conversation cannot be rendered; the message says which.
    """
    rendered = _render_all(tokenizer, conversations)
    ends = _end_tokens(tokenizer)
    texts = list(dict.fromkeys(piece.text for row in rendered for piece in row))
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    tokens_of = dict(zip(texts, encoded, strict=True))
    kept: list[tuple[Sequence[int], Sequence[bool]]] = []
    cut = dropped = 0
    for row in rendered:
        ids, learn = _join(row, [tokens_of[piece.text] for piece in row], ends, tokenizer.eos_token_id)
        if len(ids) > limit:
            ids, learn = _shorten(ids, learn, limit, long_rows)
            cut += bool(ids)
        if any(learn[1:]):
            kept.append((ids, learn))
        else:
            dropped += 1
    return Tokenised(Rows.of(kept), cut, dropped)


def _render_all(tokenizer: PreTrainedTokenizerBase, conversations: Iterable[Conversation]) -> list[list[Piece]]:
    """Renders every conversation; equal ones once (replay pools repeat themselves, and templates are slow)."""
    known: dict[str, list[list[Piece]]] = {}
    rendered: list[list[Piece]] = []
    for number, conversation in enumerate(conversations):
        key = json.dumps(conversation)
        if key not in known:
            try:
                known[key] = pieces(tokenizer, conversation)
            except InputError as e:
                raise InputError(f"conversation {number}: {e}") from e
        rendered += known[key]
    return rendered


def _end_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(special | set(tokenizer.all_special_ids))


def _join(
    row: Sequence[Piece], encoded: Sequence[Sequence[int]], ends: frozenset[int], eos: int
) -> tuple[list[int], list[bool]]:
    ids: list[int] = []
    learn: list[bool] = []
    for piece, tokens in zip(row, encoded, strict=True):
        missing_end = piece.learn and (not tokens or tokens[-1] not in ends)
        piece_ids = [*tokens, eos] if missing_end else tokens  # a template without an end token would never stop
        ids += piece_ids
        learn += [piece.learn] * len(piece_ids)
    last = max((i for i, flag in enumerate(learn) if flag), default=-1)
    return ids[: last + 1], learn[: last + 1]


def _shorten(ids: list[int], learn: list[bool], limit: int, policy: LongRows) -> tuple[list[int], list[bool]]:
    """Applies the policy; empty lists mean that the row is dropped."""
    if policy == "cut-prompt" and not any(learn[:-limit]):
        return ids[-limit:], learn[-limit:]
    if policy == "cut-answer" and any(learn[1:limit]):
        return ids[:limit], learn[:limit]
    return [], []
