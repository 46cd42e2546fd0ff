"""How long the replies of one evaluation take: tokens are decoded one after the other, for all rows of a batch at once.

A step of decoding takes the longest of three times: that of launching its kernels layer by layer (small models), of reading the
weights and the keys and values (middling batches), and of the arithmetic (large ones). A batch is decoded until its longest reply
has ended. Nothing of this was fitted to a device: the constants say where they are from, and a plan doubles and halves them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sweeps.planning.devices import MEMORY_BANDWIDTH, MEMORY_GB, PEAK_BF16

Engine = Literal["transformers", "vllm"]

LAYER_S: Final[Mapping[Engine, float]] = {"transformers": 1.5e-3, "vllm": 1e-4}
"""Seconds by which a GPU's step of decoding grows with each layer, however small. SmolLM2-135M (30 layers) took 0.3 to 3 ms
a layer and token on an H200 in dipsweep's own loop with transformers (2 to 25 s an evaluation), whose kernels are launched one by
one; vLLM replays CUDA graphs, and its figure is an assumption."""
CPU_LAYER_S: Final = 5e-4
"""The same on a CPU core, from tiny models in dipsweep's own loop."""
BANDWIDTH_SHARE: Final = 0.6
"""Share of a device's memory bandwidth that decoding reaches. An assumption."""
ARITHMETIC_SHARE: Final = 0.3
"""Share of a device's bf16 rate that large batches reach. An assumption."""
CPU_BANDWIDTH: Final = 2e10
CPU_RATE: Final = 8e10
"""Bytes and fp32 operations a second of one core in large matrix products; 88 to 100 Gflop/s were measured."""
VLLM_ROWS: Final = 256
"""Replies that vLLM decodes at once at most (its `max_num_seqs`), where their keys and values fit."""
REPLY_SHARE_OF_CAP: Final = 1 / 2
REPLY_SHARE_OF_LENGTH: Final = 1 / 4
"""Tokens of a reply in the mean: half of the cap, at most a quarter of the longest training row. An assumption."""


class Replies(NamedTuple):
    """Replies that may have `cap` new tokens each, to prompts of so many tokens; with transformers those of one batch."""

    rows: int
    prompt: int
    cap: int


@dataclass(frozen=True, slots=True)
class Network:
    """What decides how long a token of a model takes.

    Attributes:
        layers: that a token passes through. active, total: parameters that a token passes through, and all of them.
        kv_values: numbers that each token leaves in the cache of keys and values.
    """

    layers: int
    active: int
    total: int
    kv_values: int

    @classmethod
    def of(cls, shape: Mapping[str, Any], active: int, total: int) -> Network:
        """Reads a model's config.json."""
        shape = shape.get("text_config", shape)
        layers, heads = int(shape["num_hidden_layers"]), int(shape["num_attention_heads"])
        head_size = int(shape.get("head_dim") or int(shape["hidden_size"]) // heads)
        return cls(layers, active, total, 2 * layers * int(shape.get("num_key_value_heads") or heads) * head_size)


def answer_seconds(
    network: Network, replies: Sequence[Replies], max_length: int, *, engine: Engine = "transformers", gpu: str = ""
) -> float:
    """Returns the seconds of one device for all replies of an evaluation.

    Args:
        replies: with transformers batch by batch, since one is decoded after the other. max_length: longest training row.
        gpu: its name, of `PEAK_BF16`; empty is one CPU core.
    """
    machine = _Machine.of(network, engine, gpu)
    reading = sum(r.rows * r.prompt for r in replies) * 2.0 * network.active / machine.rate
    if engine == "vllm" and gpu:
        return reading + _continuous(network, machine, replies, max_length, gpu)
    return reading + sum(_batch(network, machine, one, max_length) for one in replies)


def mean_reply(cap: int, max_length: int) -> float:
    """Returns the tokens that a reply is assumed to have in the mean."""
    return min(REPLY_SHARE_OF_CAP * cap, max(REPLY_SHARE_OF_LENGTH * max_length, 1.0))


class _Machine(NamedTuple):
    """Seconds of each layer's launches, bytes a second, operations a second, bytes of a number."""

    layer_s: float
    bandwidth: float
    rate: float
    width: int

    @classmethod
    def of(cls, network: Network, engine: Engine, gpu: str) -> _Machine:
        if not gpu:
            return cls(CPU_LAYER_S, CPU_BANDWIDTH, CPU_RATE, 4)
        bandwidth, rate = MEMORY_BANDWIDTH[gpu] * BANDWIDTH_SHARE, PEAK_BF16[gpu] * ARITHMETIC_SHARE
        return cls(LAYER_S[engine], bandwidth, rate, 2)

    def step(self, network: Network, rows: float, context: float) -> float:
        """Returns the seconds of a token for each of so many rows, which see so many tokens."""
        read = (network.total + rows * context * network.kv_values) * self.width
        return max(network.layers * self.layer_s, read / self.bandwidth, rows * 2.0 * network.active / self.rate)


def _batch(network: Network, machine: _Machine, one: Replies, max_length: int) -> float:
    """One batch until its longest reply has ended; finished rows leave it."""
    mean = mean_reply(one.cap, max_length)
    longest = one.cap - (one.cap - mean) / one.rows  # one reply is a usual one; of many one runs to the cap
    return longest * machine.step(network, one.rows * mean / longest, one.prompt + mean / 2)


def _continuous(network: Network, machine: _Machine, replies: Sequence[Replies], max_length: int, gpu: str) -> float:
    """All replies together, where a new one takes the place of each that has ended."""
    rows = sum(r.rows for r in replies)
    if not rows:
        return 0.0
    tokens = sum(r.rows * mean_reply(r.cap, max_length) for r in replies)
    context = sum(r.rows * (r.prompt + mean_reply(r.cap, max_length) / 2) for r in replies) / rows
    room = 0.9 * MEMORY_GB[gpu] * 1e9 - network.total * machine.width
    fit = max(1.0, room / (context * network.kv_values * machine.width))
    steps = max(tokens / min(rows, VLLM_ROWS, fit), *(float(r.cap) for r in replies))
    return steps * machine.step(network, tokens / steps, context)
