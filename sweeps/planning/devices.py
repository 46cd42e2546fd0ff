"""What a device computes per second: vendors' rates, and the utilisation that others have published for SFT on them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final, NamedTuple

PEAK_BF16: Final = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
"""Dense bf16 operations per second by the device's name, from the vendor's data sheets (SXM parts)."""

MEMORY_GB: Final = {"H100": 80.0, "H200": 141.0, "A100": 80.0, "L40S": 48.0}
"""Memory by the device's name, from the vendor's data sheets; of the A100 the larger part."""


MEMORY_BANDWIDTH: Final = {"H100": 3.35e12, "H200": 4.8e12, "A100": 2.0e12, "L40S": 0.864e12}
"""Bytes of its memory that a device reads per second, by its name, from the vendor's data sheets."""


class Utilisation(NamedTuple):
    """Share of a device's bf16 rate that training reaches (MFU), and where that was published."""

    parameters: float
    mfu: float
    source: str


PUBLISHED_MFU: Final = (
    Utilisation(0.6e9, 0.169, "dipsweep's own benchmarks.trainer.gpu, Qwen3-0.6B, 1 H200"),
    Utilisation(1.7e9, 0.287, "dipsweep's own benchmarks.trainer.gpu, Qwen3-1.7B, 1 H200"),
    Utilisation(4e9, 0.259, "dipsweep's own benchmarks.trainer.gpu, Qwen3-4B, 1 H200, full recomputation"),
    Utilisation(7e9, 0.35, "open-instruct docs, OLMo2-7B packed SFT, 16 H100: 33 to 37 %"),
    Utilisation(8e9, 0.36, "torchtitan benchmarks, Llama 3.1 8B, 8 H100: 33 to 39 %"),
    Utilisation(32e9, 0.394, "torchtitan#1690, Qwen3-32B, FSDP on 8 H100"),
)
"""From small to large models. Up to 4B measured with dipsweep on one device; others have published 0.168 for 0.6B on 1 H100
and 0.266 for 4B on 8 (prime-rl, benchmarks/baselines). From 7B on nothing was measured with dipsweep: a plan names the source."""

CPU_BF16: Final = 1.4e11
CPU_FP32: Final = 4.0e10
"""Operations per second of one core in dipsweep's own loop, on a CPU with AVX512_BF16 (`benchmarks.trainer.cpu`). A CPU without
such instructions computes bf16 in fp32 (`trainers.model.cpu_bfloat16`)."""
GPU_LAYER_STEP_S: Final = 1e-3
"""Seconds of each layer of a training step on a GPU at least, forward and backward: launching kernels takes that long, however
small they are. An assumption, from forward passes of published decode steps (Llama 3.1 8B, H100: 8.4 ms for 32 layers)."""
CPU_STEP_S: Final = 3e-3
"""Seconds of a CPU step that depend on neither the model nor its tokens."""
CPU_TOKEN_LAYER_S: Final = 6e-6
"""Seconds of a token in each layer beside the large matrix products, forward and backward: norms, softmax, copies. With them
a token of tiny-s (2 layers) takes 1.8e-5 s in steps of 1,536 and of 8,192 tokens, as measured on a quiet core; products alone
0.6e-5."""
CPU_ADAPTERS: Final = 2.5
"""How many times that is where adapters stand beside each product: 3.7e-5 s a token of tiny-s."""
CPU_SHARDED_S: Final = 0.015
"""Seconds by which a CPU step grows with each unit that several workers share (layers, and the rest), by gloo: a step of tiny-s
on two workers took 0.05 to 0.06 CPU seconds of each, and 0.08 s with an evaluator beside it on two cores."""


@functools.cache
def cpu_has_bf16() -> bool:
    """Returns whether this machine's CPU says that it has instructions for bf16; only Linux tells."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(told.split())


def published_mfu(parameters: float) -> Utilisation:
    """Returns the published figure of the nearest model size, on a logarithmic scale."""
    return min(PUBLISHED_MFU, key=lambda u: max(u.parameters / parameters, parameters / u.parameters))
