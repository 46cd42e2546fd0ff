"""What an engine is, and the prompts it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from evaluators.decoding import Decoding, Reply
from evaluators.tasks import Prompt, messages_of


class Engine(Protocol):
    """A model that answers: what generates is its own business."""

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""

    def generate(self, prompts: Sequence[Sequence[int]], caps: Sequence[int], decoding: Decoding) -> list[Reply]:
        """Returns one reply per prompt, in their order; `decoding.samples` is the caller's to repeat."""


def encode_prompts(tokenizer: Any, prompts: Sequence[Prompt]) -> tuple[list[list[int]], bool]:
    """Returns token ids of each prompt through the chat template, and whether the template opens a thought for the model."""
    chats = [messages_of(prompt) for prompt in prompts]
    texts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    opened = bool(texts) and texts[0].rstrip().endswith("<think>")
    return tokenizer(texts, add_special_tokens=False)["input_ids"], opened
