"""How many operations a training step needs, for the utilisation (MFU) that is reported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sweeps.config.blocks import TrialSettings
from sweeps.errors import InputError
from trainers.model.recurrent.recurrence import (
    HRM,
    decoder_layers,
    is_recurrent,
    layer_runs,
    recurrences_of,
    stored_layers,
    train_range,
)

EXPERTS: Final = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""Names under which configs say how many experts a layer chooses from."""
ASKED: Final = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
"""... and how many of them a token is given to."""


def step_flops(
    config: Any, num_parameters: int, lengths: Sequence[int], labels: int, *, frozen: bool = False, layers_run: int = 0
) -> float:
    """Returns the operations of forward and backward, recomputation not counted.

    Six per weight and token for the layers; six per weight of the head and label (only labels go through it); causal
    attention is 6 · layers · heads · head size · length² for each row: two products of length²/2 at 2 operations,
    three times. The embedding look-up is free.

    Args:
        config: the model's transformers config.
        num_parameters: parameters that a token passes through, a tied embedding counted once.
        lengths: tokens of every row. labels: label tokens.
        frozen: adapters are trained beside the weights, which then need no gradient: four instead of six.
        layers_run: layers that a token passes through, where some of them run several times; 0: each once.
    """
    head = config.vocab_size * config.hidden_size
    layers = num_parameters - head * (1 if config.tie_word_embeddings else 2)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = (
        6
        * (layers_run or config.num_hidden_layers)
        * config.num_attention_heads
        * head_size
        * sum(n * n for n in lengths)
    )
    each = 4 if frozen else 6
    return float(each * layers * sum(lengths) + each * head * labels + attention)


def num_parameters(model: Mapping[str, Any]) -> int:
    """Returns the parameters of a decoder, from its config.json: see `counted`."""
    return counted(model).total


class Parameters(NamedTuple):
    """All parameters of a model, and those that one token passes through: fewer where only some experts are asked, more where
    layers run several times, each time counted."""

    total: int
    active: int


def counted(model: Mapping[str, Any]) -> Parameters:
    """Returns the parameters of a decoder, from its config.json.

    Of a dense one with gated feed-forward layers by arithmetic; biases and norms are left out: less than 0.1 % in every
    model of the paper. Of a model of recurrent depth, `active` is the mean over its training steps. A mixture of experts is
    built without memory by transformers, which knows which layers have them.

    Raises:
        KeyError: the config lacks a size. ValueError: transformers cannot build a mixture of this kind.
    """
    model = model.get("text_config", model)
    if (experts := _number(model, EXPERTS)) > 1:
        return _mixture(json.dumps(dict(model), sort_keys=True, default=str), experts)
    hidden, heads = int(model["hidden_size"]), int(model["num_attention_heads"])
    head_size = int(model.get("head_dim") or hidden // heads)
    kv_heads = int(model.get("num_key_value_heads") or heads)
    attention = 2 * hidden * head_size * (heads + kv_heads)
    if model.get("model_type") == HRM:  # every head has keys and values, and a gate
        attention = 5 * hidden * head_size * heads
    layer = attention + 3 * hidden * int(model["intermediate_size"])
    embeddings = hidden * int(model["vocab_size"]) * (1 if model.get("tie_word_embeddings") else 2)
    runs = layer_runs(model, sum(train_range(model)) / 2)
    return Parameters(stored_layers(model) * layer + embeddings, round(runs * layer) + embeddings)


@lru_cache(maxsize=32)
def _mixture(config: str, experts: int) -> Parameters:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = json.loads(config)
    try:
        built = AutoConfig.for_model(values.pop("model_type"), **values)
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(built)
    except Exception as e:
        raise ValueError(f"transformers cannot build its mixture of {experts} experts: {e}") from e
    return counted_in(network)


def num_adapter_parameters(config: TrialSettings, model: Mapping[str, Any]) -> int:
    """Returns how many parameters the adapters of a Qwen-like decoder have, from its config.json.

    Raises:
        InputError: see `check_experts`.
    """
    check_experts(config, model)
    hidden, heads = int(model["hidden_size"]), int(model["num_attention_heads"])
    head_size = int(model.get("head_dim") or hidden // heads)
    kv_heads, width = int(model.get("num_key_value_heads") or heads), int(model["intermediate_size"])
    attention = 2 * (hidden + heads * head_size) + 2 * (hidden + kv_heads * head_size)
    sides = {"attention": attention, "mlp": 3 * (hidden + width), "all-linear": attention + 3 * (hidden + width)}
    return config.lora_rank * sides[config.lora_target_modules] * stored_layers(model)


def check_experts(config: TrialSettings, model: Mapping[str, Any]) -> None:
    """Raises InputError where adapters should be put on the experts of a mixture: they are no linear layers in transformers.

    Args:
        model: config.json.
    """
    text = model.get("text_config") or model
    if config.lora_target_modules != "attention" and any(int(text.get(key) or 0) > 1 for key in EXPERTS):
        raise InputError(
            f"lora_target_modules is {config.lora_target_modules!r}, but adapters do not reach the experts of a "
            f"{model.get('model_type')} model; expected attention, or lora_rank 0"
        )


def counted_in(network: Any) -> Parameters:
    """Returns the parameters of a loaded model; a tied embedding counts once, and layers as often as they run now."""
    config = network.config.to_dict()
    config = config.get("text_config", config)
    if is_recurrent(config):
        total, layers = sum(p.numel() for p in network.parameters()), decoder_layers(network)
        in_layers = sum(p.numel() for layer in layers for p in layer.parameters())
        runs = layer_runs(config, recurrences_of(network))
        return Parameters(total, total - in_layers + round(runs / len(layers) * in_layers))
    experts, asked = _number(config, EXPERTS), _number(config, ASKED)
    total = sum(p.numel() for p in network.parameters())
    if experts <= 1 or not 0 < asked < experts:
        return Parameters(total, total)
    in_experts = sum(p.numel() for name, p in network.named_parameters() if ".experts." in name)
    return Parameters(total, total - in_experts + in_experts * asked // experts)


def feed_forward_width(model: Mapping[str, Any]) -> int:
    """Returns how many units of the feed-forward layers a token passes through in each layer."""
    model = model.get("text_config", model)
    if (experts := _number(model, EXPERTS)) <= 1:
        return int(model["intermediate_size"])
    width = int(model.get("moe_intermediate_size") or model["intermediate_size"])
    shared = int(model.get("shared_expert_intermediate_size") or int(model.get("n_shared_experts") or 0) * width)
    return (_number(model, ASKED) or experts) * width + shared


def _number(model: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return next((int(model[n]) for n in names if isinstance(model.get(n), int)), 0)
