"""The training objective of one pack: the sum of the label tokens' negative log-likelihoods.

The sum, not the mean: the loop divides by the number of label tokens of the whole optimizer step over all packs and all
workers, so the update does not depend on how the step was cut up.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.data.batching.packing import Pack
from trainers.model.attention import Choice
from trainers.model.linear_cross_entropy import linear_cross_entropy

CHUNKED_FROM = 2**27
"""From this many logits on (0.5 GB in fp32, kept about three times over) the head is computed in chunks.

Below, chunks only cost: each adds its product to a gradient of the size of the vocabulary (15 % at 1,400 labels, 32k).
"""

PLAIN_HEADS = frozenset({"qwen2", "qwen3", "recurrent_qwen3", "llama", "mistral", "internlm2", "smollm3", "gpt_neox"})
"""Architectures whose logits are exactly the head's output, unscaled and uncapped; others go through their own code."""


class Objective(nn.Module):
    """A causal language model together with its loss; sharded as one unit, so that the head's weight is whole here.

    Args:
        network: a transformers causal LM loaded with the packed attention.
        choice: the attention kernel.
    """

    def __init__(self, network: Any, choice: Choice) -> None:
        super().__init__()
        self.network: Any = network
        self.choice = choice
        self.plain_head = network.config.model_type in PLAIN_HEADS

    def forward(self, pack: Pack) -> Tensor:
        """Returns the loss of a pack, summed over labels by their weights, fp32 []; only label positions go through the head."""
        common = {
            "input_ids": pack.input_ids,
            "position_ids": pack.position_ids,
            "use_cache": False,
            "layout": pack.layout,
            "choice": self.choice,
        }
        many = len(pack.targets) * self.network.config.vocab_size >= CHUNKED_FROM
        if not (many and self.plain_head):
            logits = self.network(**common, logits_to_keep=pack.predicting).logits[0]
            if pack.weights is not None:
                return F.cross_entropy(logits.float(), pack.targets, reduction="none") @ pack.weights
            return F.cross_entropy(logits.float(), pack.targets, reduction="sum")
        hidden = self.network.base_model(**common).last_hidden_state[0].index_select(0, pack.predicting)
        weight = self.network.get_output_embeddings().weight
        return linear_cross_entropy(hidden, weight, pack.targets, compute_type(hidden), pack.weights)


def compute_type(x: Tensor) -> torch.dtype:
    """Returns the type of matrix products here: autocast's where it is on, else the tensor's own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
