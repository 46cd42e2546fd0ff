"""Models and rows of the benchmarks: random weights, random tokens, lengths as reasoning traces have them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainers.rows import Rows


@dataclass(frozen=True)
class Shape:
    """A Qwen3 architecture. `tied` says whether input and output embeddings are one."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocab: int
    tied: bool = True

    def config(self, **extra: Any) -> Any:
        from transformers import Qwen3Config

        return Qwen3Config(
            num_hidden_layers=self.layers,
            hidden_size=self.hidden,
            intermediate_size=self.feed_forward,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_size,
            vocab_size=self.vocab,
            tie_word_embeddings=self.tied,
            max_position_embeddings=32_768,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **extra,
        )

    def network(self, attn: str, device: str = "cpu") -> Any:
        """Returns the model with fp32 weights drawn from seed 0."""
        from transformers import Qwen3ForCausalLM

        torch.manual_seed(0)
        with torch.device(device):
            return Qwen3ForCausalLM(self.config(attn_implementation=attn)).train()


CPU = {
    "small": Shape(4, 256, 768, 4, 2, 64, vocab=4_096),
    "large": Shape(8, 512, 1536, 8, 4, 64, vocab=32_768),
}
GPU = {
    "0.6B": Shape(28, 1024, 3072, 16, 8, 128, vocab=151_936),
    "1.7B": Shape(28, 2048, 6144, 16, 8, 128, vocab=151_936),
    "4B": Shape(36, 2560, 9728, 32, 8, 128, vocab=151_936),
}


def rows(num: int, vocab: int, *, median: float, shortest: int, longest: int, prompt: float = 0.3) -> Rows:
    """Returns rows of log-normal length (sigma 0.75); the first `prompt` share of each carries no loss."""
    draw, tokens = random.Random(0), np.random.default_rng(0)
    table = []
    for _ in range(num):
        length = int(min(longest, max(shortest, draw.lognormvariate(math.log(median), 0.75))))
        table.append((tokens.integers(5, vocab, length).tolist(), [i >= length * prompt for i in range(length)]))
    return Rows.of(table)
