"""What an engine is, the prompts it is given, and the tokens at which its replies end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from evaluators.decoding import END_THINK, THINK, Decoding, Reply, ThinkTags
from evaluators.tasks import Prompt, messages_of
from sweeps.errors import InputError
from trainers.data.chat.template import ChatTemplate, opens_thought
from trainers.data.chat.tokenization import check_context


class Engine(Protocol):
    """A model that answers: what generates is its own business."""

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""

    def generate(self, prompts: Sequence[Sequence[int]], caps: Sequence[int], decoding: Decoding) -> list[Reply]:
        """Returns one reply per prompt, in their order; `decoding.samples` is the caller's to repeat."""


class Encoded(NamedTuple):
    """Prompts as a model takes them: token ids of each, and whether it opens a thought for the model."""

    ids: list[list[int]]
    opened: list[bool]


def encode_prompts(tokenizer: Any, prompts: Sequence[Prompt]) -> Encoded:
    """Renders prompts as training renders what stands before a reply (`trainers.data.chat.template`).

    Raises:
        InputError: see `rendered`.
    """
    template = ChatTemplate(tokenizer)
    texts = [rendered(template, prompt) for prompt in prompts]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return Encoded(ids, [opens_thought(text) for text in texts])


def rendered(template: ChatTemplate, prompt: Prompt) -> str:
    """Returns a prompt as a model reads it.

    Raises:
        InputError: the chat template refuses the conversation, or drops a message of it.
    """
    messages = messages_of(prompt)
    text = template.render(messages, prompt=True)
    check_context(text, messages, ())
    return text


def stop_token_ids(tokenizer: Any, named: int | Sequence[int] | None) -> frozenset[int]:
    """Returns the tokens that end a reply: those that training teaches, the tokenizer's, and those of the generation settings.

    Args:
        named: `eos_token_id` of the model's generation settings.
    """
    more = [] if named is None else [named] if isinstance(named, int) else named
    return ChatTemplate(tokenizer).stop_ids | frozenset(more)


def decoded(tokenizer: Any, replies: Sequence[Sequence[int]]) -> list[str]:
    """Returns replies as the model wrote them, without special tokens; tags of a thought stay, also where the tokenizer calls
    them special."""
    special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    tags = {tokenizer.convert_tokens_to_ids(tag) for tag in (THINK, END_THINK) if tag in tokenizer.get_vocab()}
    if not special & tags:
        return list(tokenizer.batch_decode(list(replies), skip_special_tokens=True, clean_up_tokenization_spaces=False))
    special |= set(tokenizer.all_special_ids)
    shown = [[id_ for id_ in ids if id_ not in special or id_ in tags] for ids in replies]
    return list(tokenizer.batch_decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def think_tags(tokenizer: Any) -> ThinkTags:
    """Returns the tokens that open and close a thought.

    Raises:
        InputError: the tokenizer writes `</think>` in several tokens or not at all, so that no thought can be closed.
    """
    known = tokenizer.get_vocab()
    if END_THINK not in known:
        raise InputError(
            f"test_time think=TOKENS closes thoughts with {END_THINK}, which is no token of this model's tokenizer; "
            "expected one that has it, or no think=TOKENS"
        )
    return ThinkTags(known.get(THINK), known[END_THINK])


def within_context(prompts: Sequence[Sequence[int]], caps: Sequence[int], longest: int) -> dict[int, int]:
    """Returns the new tokens that each prompt's reply may have within a context of `longest` tokens, by the prompt's place;
    prompts that leave no room are left out: their replies are empty and cut off."""
    room = {i: min(cap, longest - len(prompt)) for i, (prompt, cap) in enumerate(zip(prompts, caps, strict=True))}
    return {i: cap for i, cap in room.items() if cap > 0}
