"""The settings of a process that code in it can change for all code after it: Python's, NumPy's and torch's."""

from __future__ import annotations

import gc
import locale
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch.nn.modules import module
from torch.optim import optimizer
from torch.utils import checkpoint


class Setting(NamedTuple):
    """How a setting is read, and put back. Without `write` nothing but a new process puts it back."""

    read: Callable[[], Any]
    write: Callable[[Any], object] | None = None


def changed(before: dict[str, Any]) -> list[str]:
    """Returns the names of settings that are not what they were; `before` is what `current` returned."""
    return [name for name, setting in SETTINGS.items() if setting.read() != before[name]]


def current() -> dict[str, Any]:
    """Returns every setting, by name."""
    return {name: setting.read() for name, setting in SETTINGS.items()}


def put_back(before: dict[str, Any]) -> None:
    """Writes the settings that are not what they were and can be written."""
    for name, (read, write) in SETTINGS.items():
        if write is not None and read() != before[name]:
            write(before[name])


def _attribute(owner: Any, *names: str) -> Setting:
    def write(values: tuple[Any, ...]) -> None:
        for name, value in zip(names, values, strict=True):
            setattr(owner, name, value)

    return Setting(lambda: tuple(getattr(owner, name) for name in names), write)


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _set_logging(value: tuple[int, int, list[logging.Handler]]) -> None:
    level, disabled, handlers = value
    logging.root.setLevel(level)
    logging.disable(disabled)
    logging.root.handlers[:] = handlers


def _set_collection(value: tuple[bool, tuple[int, int, int]]) -> None:
    (gc.enable if value[0] else gc.disable)()
    gc.set_threshold(*value[1])


def _sdp() -> tuple[bool, ...]:
    cuda = torch.backends.cuda
    return (
        cuda.flash_sdp_enabled(),  # type: ignore[no-untyped-call]
        cuda.mem_efficient_sdp_enabled(),  # type: ignore[no-untyped-call]
        cuda.math_sdp_enabled(),  # type: ignore[no-untyped-call]
        cuda.cudnn_sdp_enabled(),  # type: ignore[no-untyped-call]
    )


def _set_sdp(value: tuple[bool, bool, bool, bool]) -> None:
    flash, efficient, math, cudnn = value
    torch.backends.cuda.enable_flash_sdp(flash)
    torch.backends.cuda.enable_mem_efficient_sdp(efficient)
    torch.backends.cuda.enable_math_sdp(math)
    torch.backends.cuda.enable_cudnn_sdp(cudnn)


def _set_warnings(filters: list[Any]) -> None:
    warnings.resetwarnings()  # tells the interpreter that they have changed
    warnings.filters.extend(filters)  # type: ignore[attr-defined]  # the stub says sequence, the documentation list


def _umask() -> int:
    os.umask(mask := os.umask(0o077))
    return mask


_DEVICES: Final = ("cpu", "cuda")
_PRECISIONS: Final[tuple[Any, ...]] = (
    torch.backends,
    torch.backends.cuda.matmul,
    torch.backends.cudnn,
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn,
    torch.backends.mkldnn,
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    torch.backends.mkldnn.rnn,  # type: ignore[attr-defined]
)
"""Where torch keeps how exactly float32 is computed, the general before the particular."""


def _precision() -> tuple[str, ...]:
    try:
        of_products = torch.get_float32_matmul_precision()
    except RuntimeError:  # one of the newer settings was set by itself
        of_products = ""
    return of_products, *(backend.fp32_precision for backend in _PRECISIONS)


def _set_precision(values: tuple[str, ...]) -> None:
    _set_backends(values[1:])
    torch.set_float32_matmul_precision(values[0])  # sets some of them as well
    _set_backends(values[1:])


def _set_backends(values: tuple[str, ...]) -> None:
    for backend, value in zip(_PRECISIONS, values, strict=True):
        if backend.fp32_precision != value:
            backend.fp32_precision = value


def _autocast() -> tuple[tuple[bool, torch.dtype], ...]:
    return tuple((torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in _DEVICES)


def _set_autocast(values: tuple[tuple[bool, torch.dtype], ...]) -> None:
    for device, (enabled, dtype) in zip(_DEVICES, values, strict=True):
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)


def _autocast_depth() -> int:
    """Counts the `autocast` blocks that were entered and not left: while there is one, weights cast before stay cast."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def _flushes_denormals() -> bool:
    return bool(torch.full((), 1e-320, dtype=torch.float64, device="cpu").mul(1.0) == 0)


def _hooks() -> int:
    """Counts the hooks that torch calls for every module and optimizer, whatever its network."""
    return sum(
        len(hooks)
        for owner in (module, optimizer)
        for name, hooks in vars(owner).items()
        if name.startswith("_global_") and name.endswith("_hooks")
    )


def _set_math_sdp(value: bool) -> None:
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(value)


def _preferred_libraries() -> tuple[Any, ...]:
    return torch.backends.cuda.preferred_linalg_library(), torch.backends.cuda.preferred_blas_library()


def _set_preferred_libraries(value: tuple[Any, ...]) -> None:
    torch.backends.cuda.preferred_linalg_library(value[0])
    torch.backends.cuda.preferred_blas_library(value[1])


def _set_conversion(value: tuple[bool, bool]) -> None:
    torch.__future__.set_overwrite_module_params_on_conversion(value[0])
    torch.__future__.set_swap_module_params_on_conversion(value[1])


def _of_the_gpu() -> tuple[Any, ...]:
    """Returns the current GPU, whether work goes to its default stream, how much of its memory may be taken, and whether
    waiting for it is told."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return 0, True, 1.0, 0
    share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda: 1.0)()
    default = torch.cuda.current_stream() == torch.cuda.default_stream()
    return torch.cuda.current_device(), default, share, torch.cuda.get_sync_debug_mode()


_COMPILERS: Final = ("torch._dynamo.config", "torch._functorch.config", "torch._inductor.config")


def _compilers() -> list[str]:
    """Returns the settings of `torch.compile` that are not its defaults, as far as it was imported."""
    configs = [sys.modules[name] for name in _COMPILERS if name in sys.modules]
    return [
        f"{config.__name__}.{name} = {value!r}"
        for config in configs
        for name, value in config.get_config_copy().items()
        if value != config._config[name].default
    ]


_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


def _timers() -> tuple[bool, ...]:
    """Returns which timers will send this process a signal, which ends it unless somebody handles it."""
    return tuple(signal.getitimer(which)[0] > 0 for which in _TIMERS)


def _stop_timers(before: tuple[bool, ...]) -> None:
    for which, running in zip(_TIMERS, before, strict=True):
        if not running:
            signal.setitimer(which, 0)


_LIMITS: Final = tuple(number for name, number in vars(resource).items() if name.startswith("RLIMIT_"))


def _limits() -> list[tuple[int, int] | None]:
    return [_limit(which) for which in _LIMITS]


def _limit(which: int) -> tuple[int, int] | None:
    try:
        return resource.getrlimit(which)
    except (ValueError, OSError):  # this kernel has none of that kind
        return None


SETTINGS: Final[dict[str, Setting]] = {
    "recursion limit": Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    "switch interval": Setting(sys.getswitchinterval, sys.setswitchinterval),
    "umask": Setting(_umask, os.umask),
    "warnings": Setting(lambda: list(warnings.filters), _set_warnings),
    "logging": Setting(
        lambda: (logging.root.level, logging.root.manager.disable, list(logging.root.handlers)), _set_logging
    ),
    "standard streams": _attribute(sys, "stdin", "stdout", "stderr"),
    "hooks of exceptions": _attribute(sys, "excepthook", "unraisablehook"),
    "hook of exceptions in threads": _attribute(threading, "excepthook"),
    "tracing": Setting(lambda: (sys.gettrace(), sys.getprofile())),
    "locale": Setting(lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value)),
    "garbage collection": Setting(
        lambda: (gc.isenabled(), gc.get_threshold()),
        _set_collection,
    ),
    "arguments": Setting(lambda: list(sys.argv), lambda value: sys.argv.__setitem__(slice(None), value)),
    "folder for temporary files": _attribute(tempfile, "tempdir"),  # remembered from an environment that is put back
    "timers": Setting(_timers, _stop_timers),
    "blocked signals": Setting(
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda value: signal.pthread_sigmask(signal.SIG_SETMASK, value),
    ),
    "timeout of sockets": Setting(socket.getdefaulttimeout, socket.setdefaulttimeout),
    "start of processes": Setting(
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda value: multiprocessing.set_start_method(value, force=True),
    ),
    "cores": Setting(lambda: os.sched_getaffinity(0), lambda value: os.sched_setaffinity(0, value)),
    "priority": Setting(lambda: os.getpriority(os.PRIO_PROCESS, 0)),
    "limits": Setting(_limits),
    "NumPy's errors": Setting(np.geterr, lambda value: np.seterr(**value)),
    "device": Setting(
        torch.get_default_device,
        lambda value: torch.set_default_device(None if value.type == "cpu" else value),
    ),
    "dtype": Setting(torch.get_default_dtype, torch.set_default_dtype),
    "threads": Setting(torch.get_num_threads, torch.set_num_threads),
    "threads between operations": Setting(torch.get_num_interop_threads),
    "gradients": Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "inference mode": Setting(torch.is_inference_mode_enabled),
    "anomaly detection": Setting(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "saved tensors' hooks": Setting(lambda: torch._C._autograd._top_saved_tensors_default_hooks(False)),
    "modes of functions": Setting(lambda: (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack())),
    "hooks on all modules": Setting(_hooks),
    "autocast": Setting(_autocast, _set_autocast),
    "autocast cache": Setting(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    "open autocast blocks": Setting(_autocast_depth),
    "flushing of denormal numbers": Setting(_flushes_denormals, torch.set_flush_denormal),
    "attention": Setting(_sdp, _set_sdp),
    "reductions in attention": Setting(torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed, _set_math_sdp),
    "fast path of attention": Setting(torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    "precision of float32": Setting(_precision, _set_precision),
    "reduced reductions": _attribute(
        torch.backends.cuda.matmul,
        "allow_bf16_reduced_precision_reduction",
        "allow_fp16_reduced_precision_reduction",
        "allow_fp16_accumulation",
    ),
    "libraries for products of matrices": Setting(_preferred_libraries, _set_preferred_libraries),
    "order of products": _attribute(torch.backends.opt_einsum, "enabled", "strategy"),
    "cuDNN": _attribute(torch.backends.cudnn, "enabled", "benchmark", "benchmark_limit", "deterministic", "allow_tf32"),
    "oneDNN": _attribute(torch.backends.mkldnn, "enabled", "deterministic"),
    "NNPACK": Setting(torch._C._get_nnpack_enabled, torch.backends.nnpack.set_flags),
    "engine of quantized numbers": _attribute(torch.backends.quantized, "engine"),
    "threads of gradients": Setting(
        torch._C._is_multithreading_enabled, lambda value: torch.autograd.set_multithreading_enabled(value)
    ),
    "recomputed activations": _attribute(checkpoint, "_enable_checkpoint_early_stop", "_checkpoint_debug_enabled"),
    "conversion of parameters": Setting(
        lambda: (
            torch.__future__.get_overwrite_module_params_on_conversion(),
            torch.__future__.get_swap_module_params_on_conversion(),
        ),
        _set_conversion,
    ),
    "sharing of tensors": Setting(
        torch.multiprocessing.get_sharing_strategy, torch.multiprocessing.set_sharing_strategy
    ),
    "compilers": Setting(_compilers),
    "GPU": Setting(_of_the_gpu),
    "deterministic algorithms": Setting(
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    "filling of new tensors": _attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
    "process group": Setting(torch.distributed.is_initialized),
}
