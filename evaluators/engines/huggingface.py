"""The engine that is always there: a Hugging Face model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.decoding import END_THINK, Decoding, Reply
from evaluators.engines.generate import generate


@dataclass(frozen=True, slots=True)
class Loaded:
    """A Hugging Face model in eval mode with its tokenizer: the engine that is always there."""

    model: Any
    tokenizer: Any

    def generate(self, prompts: Sequence[Sequence[int]], caps: Sequence[int], decoding: Decoding) -> list[Reply]:
        end = self.tokenizer.convert_tokens_to_ids(END_THINK)
        return generate(self.model, prompts, caps, stop=stop_ids(self), decoding=decoding, end_think=end)


def load(folder: Path) -> Loaded:
    """Loads a checkpoint from local files: fp32 on a CPU, bf16 on a GPU.

    Raises:
        InputError: the folder does not hold a model, or it is unsafe to load.
    """
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
    """Returns the ids that end a reply: the tokenizer's, and those of the model's generation settings."""
    named = loaded.model.generation_config.eos_token_id
    ids = {loaded.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return frozenset(ids - {None})
