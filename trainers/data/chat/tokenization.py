"""From conversations to token rows: the model's own chat template, loss on assistant turns only.

A row is one text, tokenised once; which tokens are learnt follows from where their characters stand. A reply is learnt
from behind its generation prompt up to its own end-of-turn token, and a row begins with exactly the tokens that
evaluation would give the model as prompt. Where the two cannot both be had, the prompt's tokens win:

    history rewritten     templates that drop earlier thoughts (Qwen3) give one row per reply, each with the history that
                          the model would really see
    tokens across         where the tokenizer would join the prompt's last characters with the reply's first, the reply
                          is tokenised behind the prompt, as the model has to write it
    thought taken out     where the template drops the thought of the very reply (DeepSeek-R1's distillations), the reply
                          is written behind the generation prompt: thought, </think>, answer, end token
    prompt rewritten      where the template writes what leads to a reply in another way once the reply is there (Mistral puts
                          the system message into the last question), the reply is written behind the prompt as it was

An empty reply is never learnt: it would teach to end at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeps.config.blocks import LongRows
from sweeps.errors import InputError
from trainers.data.chat.rows import Rows
from trainers.data.chat.template import ChatTemplate, opens_thought, split_thought, split_tools
from trainers.data.chat.tool_calls import missing_argument
from trainers.data.types import Conversation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH: Final = 256
"""Texts tokenised at once; their offsets are Python objects, so not more than needed are kept."""
_ANCHORS: Final = ("\n", "a", "0", ".")


class Reply(NamedTuple):
    """A reply in its place: `text` up to its end of turn begins with `prompt`; `composed` without the template's help."""

    prompt: str
    text: str
    composed: bool = False


class RenderedRow(NamedTuple):
    """The text of a row and its replies, the last of which ends with it; `eos` is to be appended where asked."""

    text: str
    replies: tuple[Reply, ...]
    append_eos: bool


class Refused(NamedTuple):
    """A conversation, by its number from 0, that cannot become a row, and why."""

    conversation: int
    reason: str


class Tokenised(NamedTuple):
    """Rows, and what became of the conversations.

    Attributes:
        rows: what can be trained on.
        cut, dropped: rows that the length policy cut and left out, those without anything to learn included.
        refused: conversations that the chat template cannot render as they are meant.
        lengths: int32 [R], tokens of every row before the length policy. origins: int32 [R], its conversation.
        kept: int32 [len(rows)], places in `lengths` of the rows that were kept.
    """

    rows: Rows
    cut: int
    dropped: int
    refused: tuple[Refused, ...]
    lengths: NDArray[np.int32]
    origins: NDArray[np.int32]
    kept: NDArray[np.int32]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> list[int]:
    """Returns the tokens that evaluation gives the model: those with which a row of this conversation begins."""
    return ChatTemplate(tokenizer).prompt_ids(conversation)


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Returns the tokens at which generation ends: the end of turn that training teaches, and the tokenizer's eos."""
    return ChatTemplate(tokenizer).stop_ids


def render_rows(template: ChatTemplate, conversation: Conversation) -> list[RenderedRow]:
    """Renders a conversation into one row, or into one row per reply where its replies do not share one text.

    Raises:
        InputError: the template refuses the conversation or loses part of it, or there is no reply to learn.
    """
    tools, messages = split_tools(conversation)
    targets = [i for i, message in enumerate(messages) if _is_learnt(message)]
    if not targets:
        raise InputError("conversation without an assistant turn: nothing to learn")
    _check_control_tokens(template, messages, tools)
    first = len(conversation) - len(messages)
    replies = [_reply(template, conversation, first + i) for i in targets]
    check_context(replies[-1].text, messages[: targets[-1]], [tool_name(tool) for tool in tools])
    alone = template.end.appended or not all(b.prompt.startswith(a.text) for a, b in pairwise(replies))
    if alone:
        return [RenderedRow(reply.text, (reply,), template.end.appended) for reply in replies]
    return [RenderedRow(replies[-1].text, tuple(replies), False)]


def tool_name(tool: object) -> str:
    """Returns the name of a function that is declared, `{"function": {"name": …}}` or flat, or is called; else ''."""
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    return str(inner.get("name", "")) if isinstance(inner, dict) else ""


def _is_learnt(message: Message) -> bool:
    holds = message["content"].strip() or message.get("tool_calls") or message.get("reasoning_content")
    return bool(message["role"] == "assistant" and message.get("learn", True) and holds)


def _reply(template: ChatTemplate, conversation: Conversation, place: int) -> Reply:
    message = conversation[place]
    prompt = template.render(conversation[:place], prompt=True)
    whole = template.render(conversation[: place + 1])
    fault = _lost(prompt, whole, message)
    if not fault:
        return Reply(prompt, _ended(template, whole, len(prompt)))
    if _thought_alone_is_lost(template, prompt, whole, message):
        return Reply(prompt, prompt + _composed(template, prompt, message), composed=True)
    said = _behind_opened_thought(template, prompt, whole, message) or _behind_rewritten(
        template, prompt, whole, message
    )
    if said:
        return Reply(prompt, prompt + said, composed=True)
    raise InputError(fault)


def _behind_opened_thought(template: ChatTemplate, prompt: str, whole: str, message: Message) -> str:
    """Returns a reply behind a prompt that opens a thought, where the template writes it with none (R1, Nemotron 3)."""
    before = prompt.rstrip().removesuffix("<think>")
    if not (opens_thought(prompt) and whole.startswith(before)):
        return ""
    said = _ended(template, whole, len(before))[len(before) :].lstrip().removeprefix("<think>").lstrip()
    if not said.startswith("</think>"):
        said = f"</think>\n\n{said}"
    thought, _ = split_thought(message)
    said = f"{thought}\n{said}" if thought and not _holds(said.partition("</think>")[0], thought) else said
    return "" if _lost(prompt, prompt + said, message) else said


def _behind_rewritten(template: ChatTemplate, prompt: str, whole: str, message: Message) -> str:
    """Returns a reply that the template writes as it does behind one question, where only what leads to it differs."""
    frame, fitting = template.frame, template.fitting(message)
    if frame is None or not frame.header.strip() or not prompt.endswith(frame.header):
        return ""
    if message.get("tool_calls") or "reasoning_content" in fitting:
        return ""
    for content in (fitting["content"], fitting["content"].strip()):
        if whole.endswith(f"{frame.header}{frame.lead}{content}{template.end.suffix}"):
            return f"{frame.lead}{content}{template.end.suffix[: template.end.own]}"
    return ""


def _lost(prompt: str, whole: str, message: Message) -> str:
    """Says what a rendered reply lacks; empty when it begins with its prompt and holds all of its message."""
    if not whole.startswith(prompt):
        at = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(whole))
        return (
            "the chat template renders a reply so that it does not begin with its generation prompt "
            f"(got {whole[at - 20 if at > 20 else 0 : at + 40]!r}; expected {prompt[-40:]!r})"
        )
    reply, (thought, answer) = whole[len(prompt) :], split_thought(message)
    if opens_thought(prompt) and not thought:
        answer = answer.lstrip().removeprefix("<think>")
    if (part := _missing(reply, thought, answer)) is not None:
        return f"the chat template loses part of a reply: {part[:80]!r} became {reply[:80]!r}"
    return _lost_call(reply, message)


def _lost_call(text: str, message: Message) -> str:
    """Says what of a reply's calls a text lacks; empty where it holds all of them."""
    for call in message.get("tool_calls") or ():
        if not _holds(text, tool_name(call)):
            return f"the chat template does not render the tool call {tool_name(call)!r} of a reply"
        if lost := missing_argument(call, text):
            return f"the chat template loses {lost[:80]!r} of tool call {tool_name(call)!r}"
    return ""


def _holds(text: str, part: str) -> bool:
    """True when the part stands in the text, white space aside, which templates trim."""
    return part.strip() in text or "".join(part.split()) in "".join(text.split())


def _missing(text: str, *parts: str) -> str | None:
    """Returns the first part that does not stand in the text behind the part before it, white space aside; None where all do.

    A thought may say the same as its answer: the text has to hold both.
    """
    text = "".join(text.split())
    for part in parts:
        sought = "".join(part.split())
        if (at := text.find(sought)) < 0:
            return part
        text = text[at + len(sought) :]
    return None


def _thought_alone_is_lost(template: ChatTemplate, prompt: str, whole: str, message: Message) -> bool:
    """True when the model's thought is all that keeps the template from rendering this reply."""
    _, answer = split_thought(message)
    asks = opens_thought(prompt) or not (template.takes_reasoning or template.takes_think_tags)
    return asks and not message.get("tool_calls") and not prompt.rstrip().endswith("</think>") and _holds(whole, answer)


def _composed(template: ChatTemplate, prompt: str, message: Message) -> str:
    """Writes a reply as the model would behind its generation prompt."""
    thought, answer = split_thought(message)
    opening = ("" if prompt.endswith("\n") else "\n") if opens_thought(prompt) else "<think>\n"
    body = f"{opening}{thought}\n</think>\n\n{answer}" if thought else f"{opening}</think>\n\n{answer}"
    if not thought and not opens_thought(prompt):
        body = answer
    return body + template.end.suffix[: template.end.own]


def _ended(template: ChatTemplate, whole: str, start: int) -> str:
    """Returns the text up to the last reply's own end token, without what the template writes behind it."""
    suffix, own, _ = template.end
    if whole.endswith(suffix):
        return whole[: len(whole) - len(suffix) + own]
    text = whole.rstrip()  # a reply of another kind, such as gpt-oss's calls: it ends with a token of its own
    last = max((found.end() for found in template.added_tokens.finditer(text, start)), default=-1)
    if last == len(text):
        return text
    raise InputError(f"the chat template ends a reply with {text[-30:]!r}, but others with {suffix!r}")


def _check_control_tokens(template: ChatTemplate, messages: Sequence[Message], tools: object) -> None:
    texts = [(f"message {place} ({message['role']})", _texts_of(message)) for place, message in enumerate(messages)]
    for where, text in [*texts, ("a tool that is declared", json.dumps(tools, ensure_ascii=False) if tools else "")]:
        for token in template.control_tokens:
            if token in text:
                raise InputError(
                    f"{where} holds {token!r}, by which the chat template parts messages; remove it from the text"
                )


def _texts_of(message: Message) -> str:
    calls = message.get("tool_calls")
    said = f"{message['content']}\0{message.get('reasoning_content', '')}"
    return f"{said}\0{json.dumps(calls, ensure_ascii=False)}" if calls else said


def check_context(text: str, messages: Sequence[Message], tools: Sequence[str]) -> None:
    """Raises InputError when something that leads to a reply is not in its text: messages (of the assistant's the
    calls alone, for thoughts may go), and tools that are declared."""
    for place, message in enumerate(messages):
        content = message["content"]
        forms = (content, json.dumps(content)[1:-1], json.dumps(content, ensure_ascii=False)[1:-1])
        if fault := _lost_call(text, message):  # of a reply that is shown and not learnt
            raise InputError(fault)
        if message["role"] != "assistant" and not any(_holds(text, form) for form in forms):
            raise InputError(f"the chat template drops the content of message {place} ({message['role']})")
    for name in tools:
        if not _holds(text, name):
            raise InputError(f"the chat template does not tell the model of tool {name!r}; use one that renders tools")


def tokenise(
    tokenizer: PreTrainedTokenizerBase, conversations: Iterable[Conversation], limit: int, long_rows: LongRows = "drop"
) -> Tokenised:
    """Turns conversations into rows of at most `limit` tokens.

    Args:
        limit: longest row in tokens.
        long_rows: what happens to longer ones; every one is counted.

    Raises:
        InputError: the tokenizer cannot be used; a conversation that cannot be is among `refused` instead.
    """
    template = ChatTemplate(tokenizer)
    rendered, refused = _render_all(template, conversations)
    kept: list[tuple[NDArray[np.int32], NDArray[np.bool_]]] = []
    lengths, origins, places = [], [], []
    cut = dropped = 0
    for origin, found in _encode_all(template, rendered):
        if isinstance(found, InputError):
            refused.append(Refused(origin, str(found)))
            continue
        ids, learn = found
        lengths.append(len(ids))
        origins.append(origin)
        if len(ids) > limit:
            ids, learn = _shorten(ids, learn, limit, long_rows)
            cut += len(ids) > 0
        if learn[1:].any():
            kept.append((ids, learn))
            places.append(len(lengths) - 1)
        else:
            dropped += 1
    arrays = (np.array(numbers, dtype=np.int32) for numbers in (lengths, origins, places))
    return Tokenised(Rows.of(kept), cut, dropped, tuple(sorted(refused)), *arrays)


def refusals(tokenizer: PreTrainedTokenizerBase, conversations: Iterable[Conversation]) -> tuple[Refused, ...]:
    """Returns the conversations that the chat template cannot render; quicker than `tokenise`, which makes tokens too."""
    return tuple(_render_all(ChatTemplate(tokenizer), conversations)[1])


def _render_all(
    template: ChatTemplate, conversations: Iterable[Conversation]
) -> tuple[list[tuple[int, RenderedRow]], list[Refused]]:
    """Renders every conversation; equal ones once (replay pools repeat themselves, and templates are slow)."""
    known: dict[str, list[RenderedRow] | str] = {}
    rendered: list[tuple[int, RenderedRow]] = []
    refused: list[Refused] = []
    for number, conversation in enumerate(conversations):
        key = json.dumps(conversation)
        if key not in known:
            try:
                known[key] = render_rows(template, conversation)
            except InputError as e:
                known[key] = str(e)
        rows = known[key]
        if isinstance(rows, str):
            refused.append(Refused(number, rows))
        else:
            rendered += [(number, row) for row in rows]
    return rendered, refused


Encoded = tuple[NDArray[np.int32], NDArray[np.bool_]]
"""Token ids of a row, and which of them are learnt."""


def _encode_all(
    template: ChatTemplate, rendered: Sequence[tuple[int, RenderedRow]]
) -> Iterator[tuple[int, Encoded | InputError]]:
    """Tokenises rows in batches, each once; a row that cannot be parted into prompt and reply gives its error."""
    known: dict[RenderedRow, list[Encoded | InputError]] = {}
    for start in range(0, len(rendered), _BATCH):
        batch = rendered[start : start + _BATCH]
        texts = list(dict.fromkeys(row.text for _, row in batch))
        encodings = template.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        found = {
            text: (np.array(ids, np.int32), np.array(offsets, np.int32).reshape(-1, 2))
            for text, ids, offsets in zip(texts, encodings["input_ids"], encodings["offset_mapping"], strict=True)
        }
        known.clear()
        for origin, row in batch:
            if row not in known:
                known[row] = _encode_row(template, row, *found[row.text])
            yield from ((origin, each) for each in known[row])


def _encode_row(
    template: ChatTemplate, row: RenderedRow, ids: NDArray[np.int32], offsets: NDArray[np.int32]
) -> list[Encoded | InputError]:
    """Finds a row's labels by the offsets of its tokens, or tokenises its replies behind their prompts instead."""
    learn = np.zeros(len(ids), dtype=np.bool_)
    for prompt, text, _ in row.replies:
        begin, end = (int(np.searchsorted(offsets[:, 0], len(part))) for part in (prompt, text))
        tail = template.tail_ids(prompt)
        if ids[max(0, begin - len(tail)) : begin].tolist() != tail or (end and offsets[end - 1, 1] > len(text)):
            return [_behind_prompt(template, reply, row.append_eos) for reply in row.replies]
        learn[begin:end] = True
    return [_with_eos(template, ids, learn) if row.append_eos else (ids, learn)]


def _with_eos(template: ChatTemplate, ids: NDArray[np.int32], learn: NDArray[np.bool_]) -> Encoded:
    eos = np.array([template.end.token], dtype=np.int32)
    return np.concatenate([ids, eos]), np.concatenate([learn, np.ones(1, dtype=np.bool_)])


def _behind_prompt(template: ChatTemplate, reply: Reply, append_eos: bool) -> Encoded | InputError:
    """Tokenises a reply as the model writes it: behind the tokens of its prompt, sharing none with it."""
    before, said = template.encode(reply.prompt), reply.text[len(reply.prompt) :]
    wanted = template.decode(template.encode(reply.text))
    for anchor in _ANCHORS:  # whatever a tokenizer puts before a text falls to the anchor, and not to the reply
        lead, joined = template.encode(anchor), template.encode(anchor + said)
        ids = np.array([*before, *joined[len(lead) :]], dtype=np.int32)
        if joined[: len(lead)] == lead and template.decode(ids.tolist()) == wanted:
            learn = np.arange(len(ids)) >= len(before)
            return _with_eos(template, ids, learn) if append_eos else (ids, learn)
    return InputError(f"the reply {said[:40]!r} adds no tokens to those of its prompt")


def _shorten(ids: NDArray[np.int32], learn: NDArray[np.bool_], limit: int, policy: LongRows) -> Encoded:
    """Applies the policy; empty arrays mean that the row is dropped."""
    if policy == "cut-prompt" and not learn[:-limit].any():
        return ids[-limit:], learn[-limit:]
    if policy == "cut-answer" and learn[1:limit].any():
        return ids[:limit], learn[:limit]
    return ids[:0], learn[:0]
