"""A Qwen3 of recurrent depth: its first layers once, those in the middle several times over, its last layers once.

    prelude -> (shared block) x recurrences -> coda

as in looped and recurrent-depth transformers (arXiv 2502.05171, 2510.25741), without input injection: so a model at a fixed
number of recurrences is a plain, deeper Qwen3 whose layers repeat, and `unrolled` writes it as one. Weights stand in files
once; keys and values of each pass through a layer have a place of their own in the cache.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from trainers.model.recurrent.recurrence import RECURRENT_QWEN3, passes


class RecurrentQwen3Config(Qwen3Config):  # type: ignore[misc]
    """A Qwen3's configuration and how its layers repeat; see `trainers.model.recurrent.recurrence` for what the fields mean."""

    model_type = RECURRENT_QWEN3
    num_prelude_layers: int = 1
    num_coda_layers: int = 1
    num_recurrences: int = 4
    train_recurrences: list[int] | None = None


class RepeatedLayers(nn.ModuleList):
    """The layers as they are stored; a slice of them, which transformers takes to run them, is what runs."""

    recurrences: int
    config: RecurrentQwen3Config

    def __getitem__(self, index: Any) -> Any:
        return self.running() if isinstance(index, slice) else super().__getitem__(index)

    def running(self) -> Iterator[nn.Module]:
        """Yields the layer of each pass, once it knows the place of this pass's keys and values in the cache."""
        for place, index in enumerate(passes(vars(self.config), self.recurrences)):
            layer: Any = self[index]
            layer.self_attn.layer_idx = place
            yield layer


class RecurrentQwen3Model(Qwen3Model):  # type: ignore[misc]
    """Qwen3's decoder, which runs more layers than it has."""

    config_class = RecurrentQwen3Config

    def __init__(self, config: RecurrentQwen3Config) -> None:
        super().__init__(config)
        self.config: RecurrentQwen3Config
        self.layers: RepeatedLayers = RepeatedLayers(self.layers.children())
        self.layers.config, self.layers.recurrences = config, config.num_recurrences

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        stored: RecurrentQwen3Config = self.config
        self.config = unrolled_config(stored, self.layers.recurrences)
        try:
            return super().forward(*args, **kwargs)
        finally:
            self.config = stored


class RecurrentQwen3ForCausalLM(Qwen3ForCausalLM):  # type: ignore[misc]
    """The causal language model of `RecurrentQwen3Model`."""

    config_class = RecurrentQwen3Config

    def __init__(self, config: RecurrentQwen3Config) -> None:
        super().__init__(config)
        self.model = RecurrentQwen3Model(config)
        self.post_init()


def unrolled_config(config: RecurrentQwen3Config, recurrences: int) -> RecurrentQwen3Config:
    """Returns a configuration of as many layers as run, for whoever counts them."""
    deep = copy.copy(config)
    deep.num_hidden_layers = len(passes(vars(config), recurrences))
    deep.layer_types = ["full_attention"] * deep.num_hidden_layers
    return deep


def unrolled(network: RecurrentQwen3ForCausalLM, recurrences: int) -> Qwen3ForCausalLM:
    """Returns the plain Qwen3 that computes what a network does at a number of recurrences; it has copies of its weights."""
    run = passes(vars(network.config), recurrences)
    own = {"model_type", "architectures", "num_prelude_layers", "num_coda_layers", "num_recurrences", "train_recurrences",
           "num_hidden_layers", "layer_types", "transformers_version"}  # fmt: skip
    shared = {name: value for name, value in network.config.to_dict().items() if name not in own}
    tied = set(network.all_tied_weights_keys) if network.config.tie_word_embeddings else set()
    weights = {}
    for name, tensor in network.state_dict().items():
        if name in tied:
            continue
        head, layer, rest = name.partition("model.layers.")
        if not layer:
            weights[name] = tensor.clone()
            continue
        index, _, part = rest.partition(".")
        for place in (place for place, ran in enumerate(run) if ran == int(index)):
            weights[f"{head}{layer}{place}.{part}"] = tensor.clone()
    config = Qwen3Config(**shared, num_hidden_layers=len(run))
    plain: Qwen3ForCausalLM = Qwen3ForCausalLM.from_pretrained(None, config=config, state_dict=weights)
    plain.generation_config = network.generation_config
    return plain


@cache
def register() -> None:
    """Makes the model type known to transformers' Auto classes, in this process."""
    AutoConfig.register(RECURRENT_QWEN3, RecurrentQwen3Config)
    AutoModelForCausalLM.register(RecurrentQwen3Config, RecurrentQwen3ForCausalLM)
