"""Which models can be trained on packs, and which rows may share one, so that a pack computes what its rows would alone."""

from __future__ import annotations

from typing import Any, Final

from sweeps.errors import InputError
from trainers.model.generation import ropes

ATTENTION: Final = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers that packed attention knows; others carry state from one row into the next, or mask in blocks."""


STATIC_ROPES: Final = frozenset({"default", "linear", "llama3", "yarn", "proportional"})
"""Rope types whose frequencies depend on a token's own position alone."""


def check_packable(network: Any, longest: int = 0) -> int:
    """Compares a model's layers and rotary embedding with packing.

    Args:
        network: a causal language model of transformers, with weights or without.
        longest: tokens of the longest row.

    Returns:
        The length above which rows must not share a pack with shorter ones; 0 where any rows may. `longrope` (Phi-3, Phi-4
        mini) has one set of frequencies for passes up to a length and another for longer ones.

    Raises:
        InputError: no pack of this model's rows computes what they would alone; names the layers, the rope type, or what else its
            attention does.
    """
    kind, config = network.config.model_type, network.config
    if not getattr(network, "_supports_attention_backend", False):
        raise InputError(
            f"models of type {kind} cannot be trained on packed rows: transformers does not let their attention (or "
            "recurrent layers) be replaced, so that rows of a pack would see each other"
        )
    if others := sorted(set(getattr(config, "layer_types", None) or ()) - ATTENTION):
        raise InputError(
            f"models of type {kind} have layers of kind {', '.join(others)}, which would carry one row of a "
            f"pack into the next; packed training knows {', '.join(sorted(ATTENTION))}"
        )
    if fault := _unlike_plain_attention(network):
        raise InputError(f"models of type {kind} {fault}, which packed training does not compute")
    boundary = 0
    for rope in ropes(config):
        original = rope.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", 0
        )
        kind_of_rope = rope.get("rope_type", "default")
        if kind_of_rope == "longrope":
            boundary = int(original or 0)
        elif kind_of_rope != "dynamic" and kind_of_rope not in STATIC_ROPES:
            raise InputError(
                f"models of type {kind} have a rotary embedding of type {kind_of_rope}, which packed training does not know; "
                f"it knows {', '.join(sorted(STATIC_ROPES | {'dynamic', 'longrope'}))}"
            )
        elif kind_of_rope == "dynamic" and longest > config.max_position_embeddings:
            raise InputError(
                f"a row has {longest} tokens, but with rope_type dynamic the frequencies of passes longer than "
                f"{config.max_position_embeddings} tokens depend on what was seen before; set max_length to "
                f"{config.max_position_embeddings} or less"
            )
    return boundary


def attention_window(network: Any) -> int:
    """Returns how many tokens back the layers of a model see, by those that see least; 0 where each sees all before it."""
    layers = [module.sliding_window for module in network.modules() if hasattr(module, "sliding_window")]
    if not layers and hasattr(type(network.config), "sliding_window"):  # Mistral's and Phi-3's layers read their config
        layers = [network.config.sliding_window]
    return min((int(window) for window in layers if window), default=0)


def _unlike_plain_attention(network: Any) -> str:
    """Returns what a model's attention does beyond softmax(QK)V, as a verb with its object; empty where it does nothing else."""
    if any(name.rpartition(".")[2] == "sinks" for name, _ in network.named_parameters()):
        return "have attention sinks"
    if cap := getattr(network.config, "attn_logit_softcapping", None):
        return f"cap their attention scores (attn_logit_softcapping: {cap})"
    if dropout := getattr(network.config, "attention_dropout", None):
        return f"drop attention weights (attention_dropout: {dropout}; 0 in config.json trains without)"
    return ""
