"""How many operations a training step needs, for the utilisation (MFU) that is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def step_flops(config: Any, num_parameters: int, lengths: Sequence[int], labels: int, *, frozen: bool = False) -> float:
    """Returns the operations of forward and backward, recomputation not counted.

    Six per weight and token for the layers; six per weight of the head and label (only labels go through it); causal
    attention is 6 · layers · heads · head size · length² for each row: two products of length²/2 at 2 operations,
    three times. The embedding look-up is free.

    Args:
        config: the model's transformers config.
        num_parameters: parameters, a tied embedding counted once.
        lengths: tokens of every row. labels: label tokens.
        frozen: adapters are trained beside the weights, which then need no gradient: four instead of six.
    """
    head = config.vocab_size * config.hidden_size
    layers = num_parameters - head * (1 if config.tie_word_embeddings else 2)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 6 * config.num_hidden_layers * config.num_attention_heads * head_size * sum(n * n for n in lengths)
    each = 4 if frozen else 6
    return float(each * layers * sum(lengths) + each * head * labels + attention)


def num_parameters(model: Mapping[str, Any]) -> int:
    """Returns the parameters of a dense decoder with gated feed-forward layers, from its config.json.

    Biases and norms are left out: less than 0.1 % in every model of the paper.
    """
    model = model.get("text_config", model)
    hidden, heads = int(model["hidden_size"]), int(model["num_attention_heads"])
    head_size = int(model.get("head_dim") or hidden // heads)
    kv_heads = int(model.get("num_key_value_heads") or heads)
    attention = 2 * hidden * head_size * (heads + kv_heads)
    layer = attention + 3 * hidden * int(model["intermediate_size"])
    embeddings = hidden * int(model["vocab_size"]) * (1 if model.get("tie_word_embeddings") else 2)
    return int(model["num_hidden_layers"]) * layer + embeddings
