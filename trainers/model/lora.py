"""Low-rank adapters on frozen weights (LoRA, arXiv 2106.09685), by peft.

Frozen weights stay in the compute type: 2 bytes a parameter in bf16, no gradient, no Adam. Adapters are fp32, as master
weights are everywhere here. A checkpoint holds both forms: the merged model, a plain Hugging Face folder that
evaluators, vLLM and `dipsweep export` read like any other, and the adapters in the trainer's own state, to go on from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from sweeps.config.blocks import TrialSettings
from sweeps.errors import InputError
from trainers.model.recurrent.recurrence import stored_layers

ADAPTER: Final = "default"
TARGETS: Final[Mapping[str, str | list[str]]] = {
    "all-linear": "all-linear",  # peft's own word for every linear layer but the head
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mlp": ["gate_proj", "up_proj", "down_proj"],
}


def attach(network: Any, config: TrialSettings) -> None:
    """Freezes a network and puts fp32 adapters of `config.lora_rank` beside its linear layers, in place.

    The adapters start from the trial's seed alone, so every worker makes the same ones; B is zero, so the network computes
    what it did.

    Raises:
        InputError: peft is not installed, or the network has none of the layers asked for.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError(
            f"lora_rank is {config.lora_rank}, but peft is not installed; pip install 'dipsweep[lora]', or set lora_rank to 0"
        ) from None
    targets = TARGETS[config.lora_target_modules]
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        alpha: Any = config.lora_alpha  # peft says int and takes any number
        settings = LoraConfig(
            r=config.lora_rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, bias="none"
        )
        try:
            inject_adapter_in_model(settings, network, ADAPTER)
        except ValueError as e:
            raise InputError(
                f"lora_target_modules is {config.lora_target_modules!r}, which this model does not have: {e}"
            ) from e
    for _, parameter in trainable(network):
        parameter.data = parameter.data.float()


def trainable(network: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yields what the optimizer may change: the adapters where there are any, else all parameters."""
    yield from ((name, p) for name, p in network.named_parameters() if p.requires_grad)


def merged(weights: Mapping[str, Tensor], config: TrialSettings) -> dict[str, Tensor]:
    """Returns the weights of the plain network, fp32, with every adapter added to its layer.

    Args:
        weights: all parameters by name, whole; those of the plain network are returned as they are without LoRA.
    """
    if not config.lora_rank:
        return dict(weights)
    scale, out = config.lora_alpha / config.lora_rank, {}
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        layer = name.removesuffix("base_layer.weight")
        out[name.replace(".base_layer.", ".")] = weight.float()
        if (down := weights.get(f"{layer}lora_A.{ADAPTER}.weight")) is not None:
            up = weights[f"{layer}lora_B.{ADAPTER}.weight"]
            out[f"{layer}weight"] = weight.float() + scale * (up @ down)
    return out


def num_adapter_parameters(config: TrialSettings, model: Mapping[str, Any]) -> int:
    """Returns how many parameters the adapters of a Qwen-like decoder have, from its config.json."""
    hidden, heads = int(model["hidden_size"]), int(model["num_attention_heads"])
    head_size = int(model.get("head_dim") or hidden // heads)
    kv_heads, width = int(model.get("num_key_value_heads") or heads), int(model["intermediate_size"])
    attention = 2 * (hidden + heads * head_size) + 2 * (hidden + kv_heads * head_size)
    sides = {"attention": attention, "mlp": 3 * (hidden + width), "all-linear": attention + 3 * (hidden + width)}
    return config.lora_rank * sides[config.lora_target_modules] * stored_layers(model)
