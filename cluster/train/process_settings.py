"""The settings of a process that code in it can change for all code after it: Python's, NumPy's and torch's."""

from __future__ import annotations

import gc
import locale
import logging
import multiprocessing
import os
import resource
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch.nn.modules import module
from torch.optim import optimizer


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


_LIMITS: Final = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)

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
    "timeout of sockets": Setting(socket.getdefaulttimeout, socket.setdefaulttimeout),
    "start of processes": Setting(
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda value: multiprocessing.set_start_method(value, force=True),
    ),
    "cores": Setting(lambda: os.sched_getaffinity(0), lambda value: os.sched_setaffinity(0, value)),
    "priority": Setting(lambda: os.getpriority(os.PRIO_PROCESS, 0)),
    "limits": Setting(lambda: [resource.getrlimit(which) for which in _LIMITS]),
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
    "precision of float32": Setting(_precision, _set_precision),
    "reduced reductions": _attribute(
        torch.backends.cuda.matmul,
        "allow_bf16_reduced_precision_reduction",
        "allow_fp16_reduced_precision_reduction",
    ),
    "cuDNN": _attribute(torch.backends.cudnn, "enabled", "benchmark", "deterministic", "allow_tf32"),
    "oneDNN": _attribute(torch.backends.mkldnn, "enabled"),
    "deterministic algorithms": Setting(
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    "filling of new tensors": _attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
    "process group": Setting(torch.distributed.is_initialized),
}
