"""What one attempt must not leave to the next in the same process: random states, global settings, what goes on or stays open."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

LEFT_BEHIND = 2**26  # bytes of GPU memory that may stay allocated after an attempt; a leaked model is far more


@dataclass(slots=True)
class ProcessState:
    """A process as its first attempt found it.

    Take it before anything of an attempt has run; `restore` before each further attempt makes them equal to attempts in
    processes of their own.
    """

    torch_rng: torch.Tensor
    python_rng: Any
    numpy_rng: Any
    settings: dict[str, Any]
    environ: dict[str, str]
    folder: str
    import_path: list[str]
    handlers: dict[int, Any]
    lingering: set[str] | None = None
    """What was there after the first attempt: pools, event loops and files of libraries."""

    @classmethod
    def capture(cls) -> ProcessState:
        """Returns the state of this process now; creates no CUDA context."""
        return cls(
            torch.get_rng_state(),
            random.getstate(),
            np.random.get_state(),
            {name: read() for name, (read, _) in _SETTINGS.items()},
            dict(os.environ),
            os.getcwd(),
            list(sys.path),
            _signal_handlers(),
        )

    def restore(self) -> None:
        """Puts everything back. Random numbers on the GPU start anew from the CPU's seed, as in a new process."""
        torch.set_rng_state(self.torch_rng)
        if _on_gpu():
            torch.cuda.manual_seed_all(torch.initial_seed())
        random.setstate(self.python_rng)
        np.random.set_state(self.numpy_rng)
        for name, (read, write) in _SETTINGS.items():
            if read() != self.settings[name]:
                write(self.settings[name])
        if dict(os.environ) != self.environ:
            os.environ.clear()
            os.environ.update(self.environ)
        os.chdir(self.folder)
        sys.path[:] = self.import_path
        torch.clear_autocast_cache()

    def doubt(self) -> str:
        """Frees what can be freed; returns why this process should not run another attempt, empty when it may."""
        gc.collect()
        if _on_gpu():
            torch.cuda.empty_cache()
            left = max(torch.cuda.memory_allocated(i) for i in range(torch.cuda.device_count()))
            if left > LEFT_BEHIND:
                return f"{left / 2**20:.0f} MiB of GPU memory are still allocated"
            for device in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(device)
        if changed := [n for n, handler in _signal_handlers().items() if handler != self.handlers[n]]:
            return f"handles {signal.Signals(changed[0]).name} in another way"
        if _module_hooks():
            return "hooks on all modules of torch are still registered"
        found = set(_lingering())
        if self.lingering is None:
            self.lingering = found
        return "; ".join(sorted(found - self.lingering))


def _signal_handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _module_hooks() -> int:
    """Counts the hooks that torch calls for every module, whatever its network."""
    from torch.nn.modules import module

    return sum(
        len(hooks) for name, hooks in vars(module).items() if name.startswith("_global_") and name.endswith("_hooks")
    )


def _lingering() -> Iterator[str]:
    """Yields what goes on or stays open when an attempt has ended: threads, processes, files open for writing."""
    yield from (f"thread {t.name} still runs" for t in threading.enumerate())
    for task in Path("/proc/self/task").glob("*/children"):
        yield from (f"process {pid} still runs" for pid in task.read_text().split())
    for link in Path("/proc/self/fd").glob("*"):
        try:
            flags = Path(f"/proc/self/fdinfo/{link.name}").read_text().split("flags:")[1].split()[0]
            regular = stat.S_ISREG(link.stat().st_mode)
        except (OSError, IndexError):  # closed meanwhile
            continue
        if regular and int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
            yield f"{os.readlink(link)} is still open"


def _on_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _set_logging(value: tuple[int, int, list[logging.Handler]]) -> None:
    level, disabled, handlers = value
    logging.root.setLevel(level)
    logging.disable(disabled)
    logging.root.handlers[:] = handlers


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


_SETTINGS: dict[str, tuple[Any, Any]] = {
    "recursion": (sys.getrecursionlimit, sys.setrecursionlimit),
    "umask": (_umask, os.umask),
    "warnings": (lambda: list(warnings.filters), _set_warnings),
    "logging": (
        lambda: (logging.root.level, logging.root.manager.disable, list(logging.root.handlers)),
        _set_logging,
    ),
    "device": (
        torch.get_default_device,
        lambda value: torch.set_default_device(None if value.type == "cpu" else value),
    ),
    "attention": (
        lambda: (
            torch.backends.cuda.flash_sdp_enabled(),  # type: ignore[no-untyped-call]
            torch.backends.cuda.mem_efficient_sdp_enabled(),  # type: ignore[no-untyped-call]
            torch.backends.cuda.math_sdp_enabled(),  # type: ignore[no-untyped-call]
            torch.backends.cuda.cudnn_sdp_enabled(),  # type: ignore[no-untyped-call]
        ),
        _set_sdp,
    ),
    "bf16_reduction": (
        lambda: torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        lambda value: setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", value),
    ),
    "dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "grad": (torch.is_grad_enabled, torch.set_grad_enabled),
    "anomaly": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "matmul": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "deterministic": (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    "cudnn_benchmark": (
        lambda: torch.backends.cudnn.benchmark,
        lambda value: setattr(torch.backends.cudnn, "benchmark", value),
    ),
    "cudnn_deterministic": (
        lambda: torch.backends.cudnn.deterministic,
        lambda value: setattr(torch.backends.cudnn, "deterministic", value),
    ),
    "cudnn_tf32": (
        lambda: torch.backends.cudnn.allow_tf32,
        lambda value: setattr(torch.backends.cudnn, "allow_tf32", value),
    ),
}
