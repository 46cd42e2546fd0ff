"""Low-rank adapters on frozen weights (LoRA, arXiv 2106.09685), by peft.

Frozen weights stay in the compute type: 2 bytes a parameter in bf16, no gradient, no Adam. Adapters are fp32, as master
weights are everywhere here. A checkpoint holds both forms: the merged model, a plain Hugging Face folder that
evaluators, vLLM and `dipsweep export` read like any other, and the adapters in the trainer's own state, to go on from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from sweeps.config.blocks import TrialSettings
from sweeps.errors import InputError
from trainers.model.estimates.flops import check_experts

ADAPTER: Final = "default"


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
    targets = target_layers(network, config)
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        alpha: Any = config.lora_alpha  # peft says int and takes any number
        settings = LoraConfig(
            r=config.lora_rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, bias="none"
        )
        inject_adapter_in_model(settings, network, ADAPTER)
    for _, parameter in trainable(network):
        parameter.data = parameter.data.float()


def target_layers(network: Any, config: TrialSettings) -> list[str]:
    """Returns the names of the linear layers that get an adapter.

    Found by where they stand, since architectures call them differently (q_proj, qkv_proj, query_key_value): `attention` are
    those of a decoder layer's modules for attention, `mlp` its others, `all-linear` every one but the head.

    Raises:
        InputError: there are none, or experts of a mixture would be left out.
    """
    check_experts(config, network.config.to_dict())
    head, wanted = network.get_output_embeddings(), config.lora_target_modules
    linear = [n for n, module in network.named_modules() if isinstance(module, torch.nn.Linear) and module is not head]
    attention = {name for name in linear if re.search(r"\.\d+\..*att(n|ention)", name)}
    rest = {name for name in linear if re.search(r"\.\d+\.", name)} - attention
    found = [
        name for name in linear if wanted == "all-linear" or name in (attention if wanted == "attention" else rest)
    ]
    if not found:
        raise InputError(
            f"lora_target_modules is {wanted!r}, but models of type {network.config.model_type} have no linear layers there"
        )
    return found


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
