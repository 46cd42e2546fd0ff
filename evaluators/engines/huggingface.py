"""The engine that is always there: a Hugging Face model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.decoding import Decoding, Reply
from evaluators.engines.base import stop_token_ids, think_tags, within_context
from evaluators.engines.generate import generate
from sweeps.garbage_collection import collection_paused
from trainers.model.generation import context_of
from trainers.model.recurrent.recurrence import running_at


@dataclass(frozen=True, slots=True)
class Loaded:
    """A Hugging Face model in eval mode with its tokenizer: the engine that is always there."""

    model: Any
    tokenizer: Any

    def generate(self, prompts: Sequence[Sequence[int]], caps: Sequence[int], decoding: Decoding) -> list[Reply]:
        tags = None if decoding.think_cap is None else think_tags(self.tokenizer)
        room = within_context(prompts, caps, context_of(self.model.config))
        asked, stop = [prompts[i] for i in room], stop_ids(self)
        with running_at(self.model, decoding.recurrences):
            drawn = generate(self.model, asked, list(room.values()), stop=stop, decoding=decoding, tags=tags)
        replies = [Reply([], truncated=True) for _ in prompts]
        for i, reply in zip(room, drawn, strict=True):
            replies[i] = reply
        return replies


def load(folder: Path) -> Loaded:
    """Loads a checkpoint from local files: fp32 on a CPU, bf16 on a GPU.

    Raises:
        InputError: the folder does not hold a model, or it is unsafe to load.
    """
    with collection_paused():
        import torch

        from trainers.model.load import load_model, load_tokenizer

        where = placement()
        model = load_model(folder, dtype=getattr(torch, where["dtype"]))
        return Loaded(model.eval().to(where["device"]), load_tokenizer(folder))


def placement() -> dict[str, str]:
    """Returns the kind of device and the compute type of generation on this machine."""
    import torch

    gpu = torch.cuda.is_available()
    return {"device": "cuda" if gpu else "cpu", "dtype": "bfloat16" if gpu else "float32"}


def stop_ids(loaded: Loaded) -> frozenset[int]:
    """Returns the ids that end a reply; see `stop_token_ids`."""
    return stop_token_ids(loaded.tokenizer, loaded.model.generation_config.eos_token_id)
