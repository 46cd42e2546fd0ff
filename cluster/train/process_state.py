"""What one attempt must not leave to the next in the same process: random states, torch's global settings, environment."""

from __future__ import annotations

import gc
import os
import random
import threading
from dataclasses import dataclass
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
    threads: set[threading.Thread] | None = None
    """Those that were alive after the first attempt: pools and event loops of libraries."""

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
        )

    def restore(self) -> None:
        """Puts everything back. Random numbers on the GPU start anew from the CPU's seed, as in a new process."""
        torch.set_rng_state(self.torch_rng)
        if _on_gpu():
            torch.cuda.manual_seed_all(torch.initial_seed())
        random.setstate(self.python_rng)
        np.random.set_state(self.numpy_rng)
        for name, (_, write) in _SETTINGS.items():
            write(self.settings[name])
        if dict(os.environ) != self.environ:
            os.environ.clear()
            os.environ.update(self.environ)
        os.chdir(self.folder)

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
        alive = set(threading.enumerate())
        if self.threads is None:
            self.threads = alive
        new = sorted(t.name for t in alive - self.threads)
        return f"threads still run: {', '.join(new)}" if new else ""


def _on_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


_SETTINGS: dict[str, tuple[Any, Any]] = {
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
