"""Rows exactly as a model sees them: their tokens as text, which of them are learnt, and the prompt that evaluation gives."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from sweeps.config.blocks import TrialSettings
from sweeps.errors import InputError
from trainers.data.chat.template import ChatTemplate
from trainers.data.chat.tokenization import render_rows, tokenise
from trainers.data.types import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEARNT: Final = ("\033[32m", "\033[0m")
"""How a terminal shows learnt tokens: green."""
PLAIN: Final = ("⟦", "⟧")
"""The same without a terminal."""


class Part(NamedTuple):
    """Neighbouring tokens of a row that are all learnt, or none of them."""

    text: str
    tokens: int
    learnt: bool


class PreviewRow(NamedTuple):
    """A row of a conversation.

    Attributes:
        parts: its tokens as text. length: tokens before the length policy.
        prompt: what evaluation gives the model before the first reply. prompt_tokens: how many tokens that is.
        same_prompt: the row begins with exactly these tokens.
        fate: empty, or what the length policy did: `cut`, `dropped`.
        composed: the reply was written behind the generation prompt, since the template would lose its thought.
    """

    parts: tuple[Part, ...]
    length: int
    prompt: str
    prompt_tokens: int
    same_prompt: bool
    fate: str
    composed: bool


def preview_rows(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation, config: TrialSettings
) -> list[PreviewRow]:
    """Renders and tokenises one conversation by the same functions as a trial.

    Raises:
        InputError: the chat template refuses it.
    """
    template = ChatTemplate(tokenizer)
    rendered = render_rows(template, conversation)
    whole = tokenise(tokenizer, [conversation], 2**31 - 1)
    if whole.refused:
        raise InputError(whole.refused[0].reason)
    made = tokenise(tokenizer, [conversation], config.row_limit, config.long_rows)
    kept = {int(place): i for i, place in enumerate(made.kept)}
    out = []
    # Where a row was parted by its tokens there are more rows than rendered texts, one a reply.
    replies = [reply for row in rendered for reply in row.replies]
    firsts = [row.replies[0] for row in rendered] if len(rendered) == len(whole.rows) else replies
    for place in range(len(whole.rows)):
        shown, number = (made.rows, kept[place]) if place in kept else (whole.rows, place)
        ids, learn = shown.ids(number), shown.learn(number)
        prompt = template.encode(firsts[place].prompt)
        fate = "dropped" if place not in kept else "cut" if len(ids) < whole.rows.length(place) else ""
        same = whole.rows.ids(place)[: len(prompt)].tolist() == prompt
        out.append(
            PreviewRow(
                tuple(_parts(tokenizer, ids, learn)),
                whole.rows.length(place),
                firsts[place].prompt,
                len(prompt),
                same,
                fate,
                firsts[place].composed,
            )
        )
    return out


def _parts(tokenizer: PreTrainedTokenizerBase, ids: Any, learn: Any) -> Iterator[Part]:
    """Decodes a row from its start up to each change, so that no character is lost between two parts."""
    changes = [0, *(np.flatnonzero(np.diff(learn)) + 1).tolist(), len(ids)]
    before = ""
    for start, end in pairwise(changes):
        text = str(tokenizer.decode(ids[:end].tolist(), clean_up_tokenization_spaces=False))
        yield Part(text[len(before) :], end - start, bool(learn[start]))
        before = text


def row_lines(row: PreviewRow, marks: tuple[str, str]) -> list[str]:
    """Returns a row for a terminal: one line of numbers, its text, and how its prompt compares with evaluation's."""
    learnt = sum(part.tokens for part in row.parts if part.learnt)
    fate = f"; {row.fate}: it has {row.length:,} tokens" if row.fate else ""
    text = "".join(f"{marks[0]}{part.text}{marks[1]}" if part.learnt else part.text for part in row.parts)
    end = next((part.text for part in reversed(row.parts) if part.learnt), "")
    lines = [
        f"{sum(part.tokens for part in row.parts):,} tokens, {learnt:,} learnt, ending in {end[-14:]!r}{fate}",
        text,
    ]
    if row.composed:
        lines.append("(the template would lose the thought: the reply is written behind the generation prompt)")
    same = "the row begins with it, token by token" if row.same_prompt else "THE ROW DOES NOT BEGIN WITH IT"
    return [*lines, f"generation prompt ({row.prompt_tokens:,} tokens; {same}): …{row.prompt[-60:]!r}"]


def page(title: str, sections: Iterable[tuple[str, Sequence[str], Sequence[tuple[str, PreviewRow | str]]]]) -> str:
    """Returns one HTML page without anything from elsewhere.

    Args:
        sections: heading, lines of the card, and rows, each with its heading; a text in place of a row says why it is bad.
    """
    out = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>", html.escape(title), "</title><style>",
        "body{font:15px/1.5 system-ui;max-width:60em;margin:2em auto;padding:0 1em}"
        "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f6f4;padding:.8em;border-radius:6px}"
        "mark{background:#bfe8c4}.bad{color:#a00}@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}"
        "pre{background:#242424}mark{background:#1f5a2a;color:#fff}.bad{color:#f88}}</style><h1>",
        html.escape(title), "</h1><p><mark>Learnt tokens</mark>; everything else is shown to the model only.</p>",
    ]  # fmt: skip
    for heading, card, rows in sections:
        out.append(f"<h2>{html.escape(heading)}</h2><pre>{html.escape(chr(10).join(card))}</pre>")
        for name, row in rows:
            out.append(f"<h3>{html.escape(name)}</h3>")
            if isinstance(row, str):
                out.append(f"<p class=bad>{html.escape(row)}</p>")
                continue
            first, _, *last = row_lines(row, ("", ""))
            text = "".join(
                f"<mark>{html.escape(p.text)}</mark>" if p.learnt else html.escape(p.text) for p in row.parts
            )
            out.append(f"<p>{html.escape(first)}</p><pre>{text}</pre>")
            out += [f"<p>{html.escape(line)}</p>" for line in last]
    return "".join(out) + "</html>\n"
