"""flash-attn 2's own Triton kernels in Triton's interpreter, on a CPU: `python -m tests.support.flash_program FOLDER KV_HEADS`.

Prints the relative errors of output and gradients against `attend_in_buckets` as JSON. A process of its own: Triton and torch are
told things that hold for this purpose alone. FOLDER is what `make flash-source` makes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"TRITON_INTERPRET": "1", "FLASH_ATTENTION_TRITON_AMD_ENABLE": "TRUE"}

import torch

HEADS, HEAD_SIZE, LENGTHS = 4, 32, [37, 64, 5, 20]


def prepare(folder: Path) -> None:
    """Makes flash-attn importable without a GPU: its operators run anywhere, Triton has no driver, and nothing is tuned."""
    sys.path[:0] = [str(folder / "2"), str(folder / "site")]
    custom_op = torch.library.custom_op

    def on_any_device(name: str, fn: Any = None, /, *, mutates_args: Any, device_types: Any = None, schema: Any = None):
        return custom_op(name, fn, mutates_args=mutates_args, schema=schema)

    torch.library.custom_op = on_any_device
    import triton

    target = SimpleNamespace(backend="cpu", arch="", warp_size=1)
    triton.runtime.driver.set_active(
        SimpleNamespace(get_current_target=lambda: target, get_current_device=lambda: 0, get_device_interface=lambda: 0)
    )
    triton.autotune = untuned


def untuned(configs: Any, key: Any, **how: Any) -> Any:
    """In the place of `triton.autotune`: the first configuration."""

    class Launch:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: Any) -> Any:
            first = configs[0].kwargs
            place = (lambda meta: grid({**meta, **first})) if callable(grid) else grid
            return lambda *arguments, **keywords: self.kernel[place](*arguments, **{**first, **keywords})

    return Launch


def errors(kv_heads: int) -> list[float]:
    """Returns the relative errors of the output and of the gradients of q, k and v."""
    from flash_attn import flash_attn_varlen_func

    from trainers.data.batching.layout import Layout
    from trainers.model.attention import attend_in_buckets, flash_kernel

    draw, layout = torch.Generator().manual_seed(0), Layout.of(LENGTHS)
    inputs = [torch.randn(sum(LENGTHS), h, HEAD_SIZE, generator=draw) for h in (HEADS, kv_heads, kv_heads)]

    def through(kernel: Any) -> list[torch.Tensor]:
        q, k, v = (x.clone().requires_grad_() for x in inputs)
        out = kernel(q, k, v, layout, HEAD_SIZE**-0.5, None)
        out.square().sum().backward()
        return [out.detach(), q.grad, k.grad, v.grad]

    pairs = zip(through(flash_kernel(flash_attn_varlen_func)), through(attend_in_buckets), strict=True)
    return [float((ours - right).norm() / right.norm()) for ours, right in pairs]


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
    print(json.dumps(errors(int(sys.argv[2]))))
