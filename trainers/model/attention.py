"""Attention over packed rows: one function, registered with transformers, that never sees a mask.

A dense mask over a pack costs the square of the pack's length; each way below costs the sum of the rows' squares. The
choice is made once, by `choose_kernel`, and said aloud with its reason.

On the CPU, rows of like length are stacked into one call of the causal flash kernel. The padding that makes them equal
stands on the right, where causal attention cannot see it, so no mask is needed and the result is exact. One call a row
would do for long rows; with rows of 25 tokens the calls themselves would cost more than the attention.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sweeps.errors import InputError
from trainers.data.batching.layout import Bucket, Layout

log = logging.getLogger(__name__)
PACKED = "dipsweep_packed"
"""The name under which `attend` is registered with transformers."""
CHANGES_SCORES: Final = ("s_aux", "sinks", "indices", "block_indices", "position_bias")
"""What some models of transformers hand their attention beside queries, keys and values: sinks, the keys that each token may
see, biases. Attention without them is another model's."""


class Kernel(Protocol):
    """q [T, H, D], k and v [T, KV, D] of one pack -> [T, H, D]."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, window: int | None) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """The attention kernel of a run, and why."""

    name: str
    reason: str
    kernel: Kernel


def attend_in_buckets(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, window: int | None) -> Tensor:
    """Causal attention by batched SDPA calls, one per bucket of rows of like length; any device, any dtype."""
    if window is not None and layout.longest > window:
        raise InputError(
            f"rows of {layout.longest} tokens exceed the model's attention window of {window}, which the "
            f"batched kernel does not know; set max_length to {window} or less, or train on a GPU"
        )
    kind = q.dtype
    if q.device.type == "cpu":  # its 16-bit flash kernel is 5 times slower backward on short rows, no faster on long
        q, k, v = q.float(), k.float(), v.float()
    with torch.autocast(q.device.type, enabled=False):
        outputs = [_attend_bucket(q, k, v, bucket, scale) for bucket in layout.buckets]
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).to(kind)


def _attend_bucket(q: Tensor, k: Tensor, v: Tensor, bucket: Bucket, scale: float) -> Tensor:
    q_b, k_b, v_b = (_stack(x[bucket.tokens], bucket) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q_b, k_b, v_b, is_causal=True, scale=scale, enable_gqa=True)
    flat = out.transpose(1, 2).reshape(bucket.rows * bucket.longest, *q.shape[1:])
    return flat if bucket.scatter is None else flat.index_select(0, bucket.scatter)


def _stack(x: Tensor, bucket: Bucket) -> Tensor:
    padded = x if bucket.gather is None else x.index_select(0, bucket.gather)
    return padded.reshape(bucket.rows, bucket.longest, *x.shape[1:]).transpose(1, 2)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    choice: Choice | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer: query [1, H, T, D], key and value [1, KV, T, D] -> [1, T, H, D].

    Raises:
        InputError: the model asks for something that no packed kernel here does exactly.
    """
    if attention_mask is not None:
        raise InputError(
            "packed attention was handed an attention mask; pass `layout` and no attention_mask: "
            "a dense mask over a pack is slow, and an all-ones mask lets rows see each other"
        )
    assert layout is not None, "packed attention needs `layout` and `choice` among the model's keyword arguments"
    assert choice is not None, "packed attention needs `layout` and `choice` among the model's keyword arguments"
    if dropout or softcap:
        raise InputError(
            f"packed attention has no dropout and no soft cap, but the model asks for {dropout=} {softcap=}"
        )
    if others := [name for name in CHANGES_SCORES if more.get(name) is not None]:
        raise InputError(f"packed attention knows no {', '.join(others)}, which the model hands it")
    q, k, v = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
    scale = scaling if scaling is not None else q.shape[-1] ** -0.5
    return choice.kernel(q, k, v, layout, scale, sliding_window).unsqueeze(0), None


@cache
def register() -> None:
    """Makes `attn_implementation=PACKED` known to transformers.

    Nothing is registered for its masks: for an attention without a mask function transformers builds none, and does not
    look at the positions either, which would wait for the device once every forward pass.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED, attend)


PACKAGES = {"flash_attn_interface": "flash-attn-3", "flash_attn.cute": "flash-attn-4", "flash_attn": "flash-attn-2"}
"""The modules that flash-attn's three packages install; each has a `flash_attn_varlen_func`."""


def choose_kernel(device: torch.device, compute: torch.dtype) -> Choice:
    """Picks the fastest exact kernel that is installed for a device and compute type; nothing is fetched from a hub.

    Raises:
        InputError: a CUDA device without any variable-length attention.
    """
    if device.type != "cuda":
        return Choice(
            "sdpa-buckets", f"{device.type}: causal SDPA over rows of like length, no mask", attend_in_buckets
        )
    if compute not in (torch.bfloat16, torch.float16):
        reason = f"cuda, {compute}: flash kernels take 16-bit only; causal SDPA over rows of like length, no mask"
        return Choice("sdpa-buckets", reason, attend_in_buckets)
    generation = torch.cuda.get_device_capability(device)[0] if torch.cuda.is_available() else 9
    passed_over = ""
    for module in _preferred(generation):
        found = _varlen_of(module)
        if found.function is not None:
            reason = f"cuda, {compute}, compute capability {generation}.x: package {module} is installed{passed_over}"
            return Choice(PACKAGES[module], reason, flash_kernel(found.function))
        if found.fault:
            log.warning("attention: package %s is installed but cannot be used: %s", module, found.fault)
            passed_over += f"; {module} cannot be used: {found.fault}"
    function = _torch_varlen()
    if function is not None:
        reason = f"cuda, {compute}: torch {torch.__version__}'s own flash kernel{passed_over}"
        return Choice("torch-varlen", reason, function)
    raise InputError(
        f"no variable-length attention for CUDA: torch {torch.__version__} has no torch.nn.attention.varlen and "
        f"flash-attn is not installed{passed_over}; use torch 2.11 or newer, or pip install 'dipsweep[flash]'"
    )


def _preferred(generation: int) -> tuple[str, ...]:
    """Modules in order of speed: 3 is for Hopper alone and ahead of 4 there on rows of unlike length, 4 leads on Blackwell."""
    if generation == 9:
        return ("flash_attn_interface", "flash_attn.cute", "flash_attn")
    return ("flash_attn.cute", "flash_attn") if generation > 9 else ("flash_attn",)


ARGUMENTS: Final = frozenset(
    ["cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k", "softmax_scale", "causal", "window_size"]
)
"""What `flash_attn_varlen_func` is called with; early versions of flash-attn 4 lack some."""


class _Found(NamedTuple):
    """A module's function, or why one that is installed cannot be used; neither where it is not installed."""

    function: Callable[..., Any] | None = None
    fault: str = ""


def _varlen_of(module: str) -> _Found:
    """Looks for a module's `flash_attn_varlen_func`: importable with the installed torch, with the arguments it is given."""
    try:
        package = importlib.import_module(module)
        if getattr(package, "__file__", None) is None:  # the bare folder into which flash-attn 4 alone installs `cute`
            return _Found()
        function: Callable[..., Any] = package.flash_attn_varlen_func
        parameters = inspect.signature(function).parameters
    except ModuleNotFoundError as e:
        return _Found(fault="" if e.name and f"{module}.".startswith(f"{e.name}.") else f"{e}")
    # An extension for another torch, a compiler that is too new for it: each has errors of its own.
    except Exception as e:
        return _Found(fault=f"{type(e).__name__}: {e}")
    missing = ARGUMENTS - set(parameters)
    if missing and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return _Found(fault=f"its flash_attn_varlen_func takes no {', '.join(sorted(missing))}")
    return _Found(function)


def flash_kernel(function: Callable[..., Any]) -> Kernel:
    """Wraps a `flash_attn_varlen_func` of flash-attn 2, 3 or 4."""

    def kernel(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, window: int | None) -> Tensor:
        q, k = q.to(v.dtype), k.to(v.dtype)  # norms leave autocast's 16 bits; the value is the bare projection
        windowed = {} if window is None else {"window_size": (window - 1, 0)}  # 4 spells "none" otherwise than 2 and 3
        result = function(
            q,
            k,
            v,
            cu_seqlens_q=layout.bounds,
            cu_seqlens_k=layout.bounds,
            max_seqlen_q=layout.longest,
            max_seqlen_k=layout.longest,
            softmax_scale=scale,
            causal=True,
            **windowed,
        )
        out: Tensor = result[0] if isinstance(result, tuple) else result  # 3 and 4 add the log-sum-exp
        return out

    return kernel


def _torch_varlen() -> Kernel | None:
    """torch's varlen_attn in the spelling of the installed version, or None.

    2.10 says `is_causal=True`; from 2.11 causal is `window_size=(-1, 0)`; `enable_gqa` and `scale` came at different
    times, so each is asked for.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_kernel(varlen_attn)


def varlen_kernel(function: Callable[..., Any]) -> Kernel:
    """Wraps a `varlen_attn` of any known signature."""
    known = inspect.signature(function).parameters

    def kernel(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, window: int | None) -> Tensor:
        q, k = q.to(v.dtype), k.to(v.dtype)
        options: dict[str, Any] = {}
        if "window_size" in known:
            options["window_size"] = (-1 if window is None else window - 1, 0)
        elif window is None or layout.longest <= window:
            options["is_causal"] = True
        else:
            raise InputError(f"this torch's varlen_attn has no attention window, but the model's is {window}")
        if "scale" in known:
            options["scale"] = scale
        elif scale != q.shape[-1] ** -0.5:
            q = q * (scale * q.shape[-1] ** 0.5)
        if "enable_gqa" in known:
            options["enable_gqa"] = k.shape[1] != q.shape[1]
        elif k.shape[1] != q.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        bounds, longest = layout.bounds, layout.longest
        out: Tensor = function(q, k, v, bounds, bounds, longest, longest, **options)
        return out

    return kernel
