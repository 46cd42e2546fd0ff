"""What an engine is, the prompts it is given, and the tokens at which its replies end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from evaluators.decoding import Decoding, Reply
from evaluators.tasks import Prompt, messages_of
from trainers.data.chat_template import ChatTemplate, opens_thought


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
    """Renders prompts as training renders what stands before a reply (`trainers.data.chat_template`).

    Raises:
        InputError: the chat template refuses a conversation.
    """
    template = ChatTemplate(tokenizer)
    texts = [template.render(messages_of(prompt), prompt=True) for prompt in prompts]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return Encoded(ids, [opens_thought(text) for text in texts])


def stop_token_ids(tokenizer: Any, named: int | Sequence[int] | None) -> frozenset[int]:
    """Returns the tokens that end a reply: those that training teaches, the tokenizer's, and those of the generation settings.

    Args:
        named: `eos_token_id` of the model's generation settings.
    """
    more = [] if named is None else [named] if isinstance(named, int) else named
    return ChatTemplate(tokenizer).stop_ids | frozenset(more)


def within_context(prompts: Sequence[Sequence[int]], caps: Sequence[int], longest: int) -> dict[int, int]:
    """Returns the new tokens that each prompt's reply may have within a context of `longest` tokens, by the prompt's place;
    prompts that leave no room are left out: their replies are empty and cut off."""
    room = {i: min(cap, longest - len(prompt)) for i, (prompt, cap) in enumerate(zip(prompts, caps, strict=True))}
    return {i: cap for i, cap in room.items() if cap > 0}
