"""Models and rows of the benchmarks: random weights, random tokens, lengths as reasoning traces have them."""

from __future__ import annotations

import math
import random
from dataclasses import astuple
from typing import Any

import numpy as np
import torch

from sweeps.config.known_models import KNOWN, Shape
from trainers.data.chat.rows import Rows


class Qwen3(Shape):
    """A Qwen3 architecture with random weights."""

    def architecture(self, **extra: Any) -> Any:
        """Returns its configuration as transformers takes it."""
        from transformers import Qwen3Config

        words = {
            **self.config(),
            "max_position_embeddings": 32_768,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
        return Qwen3Config(**words, **extra)

    def network(self, attn: str, device: str = "cpu") -> Any:
        """Returns the model with fp32 weights drawn from seed 0."""
        from transformers import Qwen3ForCausalLM

        torch.manual_seed(0)
        with torch.device(device):
            return Qwen3ForCausalLM(self.architecture(attn_implementation=attn)).train()


CPU = {
    "small": Qwen3(4, 256, 768, 4, 2, 64, vocab=4_096),
    "large": Qwen3(8, 512, 1536, 8, 4, 64, vocab=32_768),
}
GPU = {size: Qwen3(*astuple(KNOWN[f"qwen3-{size.lower()}"].shape)) for size in ("0.6B", "1.7B", "4B")}


def rows(num: int, vocab: int, *, median: float, shortest: int, longest: int, prompt: float = 0.3) -> Rows:
    """Returns rows of log-normal length (sigma 0.75); the first `prompt` share of each carries no loss."""
    draw, tokens = random.Random(0), np.random.default_rng(0)
    table = []
    for _ in range(num):
        length = int(min(longest, max(shortest, draw.lognormvariate(math.log(median), 0.75))))
        table.append((tokens.integers(5, vocab, length).tolist(), [i >= length * prompt for i in range(length)]))
    return Rows.of(table)
