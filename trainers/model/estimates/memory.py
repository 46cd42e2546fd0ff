"""What a run will need on each device, before anything is loaded, and a refusal that names the knobs.

An estimate, not a measurement: activations are counted by what the layers of a Qwen-like decoder keep for the backward
pass, and no allocator's slack is in it (`HEADROOM` is for that).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sweeps.config.blocks import TrialSettings
from sweeps.errors import InputError
from trainers.model.estimates.flops import feed_forward_width, num_adapter_parameters, num_parameters
from trainers.model.recurrent.recurrence import layer_runs, stored_layers, train_range

if TYPE_CHECKING:  # a plan, which estimates too, does not wait for torch
    import torch

log = logging.getLogger(__name__)
HEADROOM: Final = 0.9
"""Share of a device's memory that an estimate may fill; the rest goes to fragments, kernels' workspace and gathers."""


CHUNK_ROWS: Final = {"cuda": 2048, "cpu": 512}
"""Label rows whose logits the loss makes at a time: at a vocabulary of 152k 1.2 GB of fp32 on CUDA, 0.3 GB on the CPU."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device, at the peak of a step."""

    weights: int
    gradients: int
    adam: int
    activations: int
    head: int

    @property
    def total(self) -> int:
        return self.states + self.activations + self.head

    @property
    def states(self) -> int:
        """What every step needs, however small."""
        return self.weights + self.gradients + self.adam

    def __str__(self) -> str:
        parts = (f"{name} {_gb(getattr(self, name))}" for name in self.__dataclass_fields__)
        return f"{_gb(self.total)} ({', '.join(parts)})"


def estimate(config: TrialSettings, model: Mapping[str, Any], world: int) -> Memory:
    """Estimates the peak on each of `world` devices.

    Args:
        config: precision, pack size and activation checkpointing.
        model: the model's config.json.

    fp32 master weights, gradients and both Adam moments take 16 bytes a parameter, sharded over the workers; bf16
    compute adds a 2-byte copy, of one layer at a time where sharded. With adapters the frozen weights stand in the
    compute type alone, and only adapters take 16 bytes. A layer keeps about 34 bytes per token and hidden unit (its
    input in fp32, three normed or rotated copies, the gated feed-forward's three) plus what scales with the
    feed-forward's width; with recomputation it keeps its input. A layer that runs several times keeps them for each, and a
    model of recurrent depth is counted at the most recurrences that a step of it may draw.
    """
    model = model.get("text_config", model)
    size = 2 if config.precision == "bf16" else 4
    layers, hidden = round(layer_runs(model, train_range(model)[1])), int(model["hidden_size"])
    width = feed_forward_width(model)
    tokens = config.pass_tokens
    tokens = max(tokens // world, min(tokens, config.row_limit))
    per_layer = tokens * (hidden * (8 + 6 * size) + width * 3 * size)
    rows, vocab = min(tokens, CHUNK_ROWS["cuda"]), int(model["vocab_size"])
    weights, trained = _weights(config, model, world)
    return Memory(
        weights=weights,
        gradients=4 * trained // world,
        adam=8 * trained // world,
        activations=tokens * hidden * 4 * layers + per_layer if config.gradient_checkpointing else per_layer * layers,
        head=rows * vocab * (4 + size) + (0 if config.lora_rank else 4 * hidden * vocab),
    )


def _weights(config: TrialSettings, model: Mapping[str, Any], world: int) -> tuple[int, int]:
    """Returns the bytes of all weights on one device, and how many of them are trained (over all devices)."""
    parameters, bf16 = num_parameters(model), config.precision == "bf16"
    layer_by_layer = stored_layers(model) if world > 1 else 1
    if config.lora_rank:
        adapters = num_adapter_parameters(config, model)
        return ((2 if bf16 else 4) * parameters + 4 * adapters) // world, adapters
    copy = parameters * 2 // layer_by_layer if bf16 else 0
    return 4 * parameters // world + copy, parameters


def device_bytes(device: torch.device) -> int:
    """Returns the memory of a device; of the CPU, what the machine has or the container may use."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    return min(machine, int(limit)) if limit.isdigit() else machine


def available_host_bytes() -> int:
    """Returns how much memory this machine, or the container, has to give now; 0 where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 0
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no container, or one without a limit
        return free
    return max(0, min(free, limit - used))


def check(
    config: TrialSettings, model: Mapping[str, Any], world: int, available: int, *, share: float = 1.0
) -> Memory | None:
    """Compares the estimate with a device of `available` bytes and returns it; None for a shape it cannot read.

    Only arithmetic refuses: weights, gradients and Adam's moments that do not fit the whole device. Where it is the estimate of
    the activations that does not, or all of it is more than the share of the device, the same sentence is a warning: what is
    beside it there may need less than its own share.

    Args:
        share: what each worker reserves of its device; 1 also where that is several.

    Raises:
        InputError: the run cannot fit; the message has the numbers and what would help.
    """
    try:
        need = estimate(config, model, world)
    except KeyError as e:
        log.info("memory was not estimated: config.json of model %r has no %s", config.model, e)
        return None
    except ValueError as e:
        log.warning("memory was not estimated: model %r: %s", config.model, e)
        return None
    if need.total <= HEADROOM * min(share, 1.0) * available:
        return need
    devices = f"on each of {world} devices of {_gb(available)}"
    if share < 1:
        devices = f"for each of {world} workers, which reserve {share:g} of a device of {_gb(available)}"
    sentence = (
        f"model {config.model!r} needs about {need} {devices}; "
        f"what would help: {', '.join(what_would_help(config, need, world, share))}"
    )
    if need.states > available:
        raise InputError(sentence)
    log.warning("%s", sentence)
    return need


def what_would_help(config: TrialSettings, need: Memory, world: int, share: float = 1.0) -> list[str]:
    """Returns the settings that would make a run smaller, or its part of a device (`share`) larger, each with what it is now."""
    knobs = [f"more workers (now {world}; weights, gradients and Adam are shared among them)"]
    knobs += [f"gpus_per_worker: 1 (now {share:g})"] if share < 1 else []
    if need.activations > need.total / 10:
        knobs.append(f"smaller pack_tokens (now {config.pass_tokens}; no effect on the update)")
        knobs += [] if config.gradient_checkpointing else ["gradient_checkpointing: true"]
    if config.precision == "fp32":
        knobs.append("precision: bf16")
    if not config.lora_rank:
        knobs.append("lora_rank: 16 (trains adapters; another experiment)")
    return knobs


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
