"""bfloat16 on CPUs that have no instructions for it.

There torch multiplies bfloat16 matrices one number at a time: SmolLM2-135M took 212 s for a step of 1,016 tokens. The same
products in float32, rounded to bfloat16, are what such instructions compute too: they sum in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_ATEN: Final = torch.ops.aten
PRODUCTS: Final = frozenset({
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN.bmm.default,
    _ATEN.baddbmm.default,
    _ATEN._grouped_mm.default,  # of a mixture of experts
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default,
})  # fmt: skip
"""What a transformer multiplies matrices by, forward and backward."""


@functools.cache
def has_instructions() -> bool:
    """Returns whether oneDNN multiplies bfloat16 matrices on this CPU."""
    mkldnn = torch.backends.mkldnn
    return bool(mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # type: ignore[no-untyped-call]


class ProductsInFloat32(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, `PRODUCTS` of bfloat16 tensors on a CPU are computed in float32 and rounded to bfloat16."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = (tuple(args), dict(kwargs or {}))
        if func not in PRODUCTS or not _is_bfloat16(args[0]):
            return func(*given[0], **given[1])
        wide, named = tree_map(_widened, given)
        found = func(*wide, **named)
        if func is _ATEN._scaled_dot_product_flash_attention_for_cpu.default:
            return found[0].bfloat16(), found[1]  # the logarithms of its sums are float32 in either case
        return tree_map(lambda tensor: tensor.bfloat16(), found)


def _is_bfloat16(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 and value.device.type == "cpu"


def _widened(value: Any) -> Any:
    return value.float() if _is_bfloat16(value) else value
