"""Where the time of a run goes, and how many tokens a second it makes of it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sweeps.planning.devices import PEAK_BF16


def peak_flops(device: torch.device) -> float | None:
    """Returns the device's dense bf16 rate, or None where none is known (then no MFU is reported)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((rate for part, rate in PEAK_BF16.items() if part in name), None)


class ThroughputMeter:
    """Counts tokens and wall-clock time by phase since the last reading, and cost since the attempt began.

    On CUDA the phases forward and backward measure how long it took to enqueue them; the wait for the device falls on
    `sync`, the one place of a step that waits.

    Args:
        device: cost is `gpu_s` (wall clock, whatever share of the device is reserved) on CUDA and `cpu_s` (of this process)
            elsewhere.
        world: workers, for the utilisation per device.
    """

    def __init__(self, device: torch.device, world: int) -> None:
        self._world, self._peak = world, peak_flops(device)
        self._cost_name = "gpu_s" if device.type == "cuda" else "cpu_s"
        self._clock = time.perf_counter if device.type == "cuda" else time.process_time
        self._began = self._clock()
        self._start_window()

    def _start_window(self) -> None:
        self._since = time.perf_counter()
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._tokens = self._labels = 0
        self._flops = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[name] += time.perf_counter() - start

    def count(self, tokens: int, labels: int, flops: float) -> None:
        """Adds one step's work, over all workers."""
        self._tokens += tokens
        self._labels += labels
        self._flops += flops

    def read(self) -> dict[str, float]:
        """Returns `perf/…` since the last reading and starts anew.

        Rates leave checkpoints out; `perf/share/<phase>` are shares of all the time.
        """
        wall = max(time.perf_counter() - self._since, 1e-9)
        training = max(wall - self._spent["checkpoint"], 1e-9)
        out = {f"perf/share/{name}": spent / wall for name, spent in self._spent.items()}
        out["perf/tokens_per_s"] = self._tokens / training
        out["perf/label_tokens_per_s"] = self._labels / training
        if self._peak is not None:
            out["perf/mfu"] = self._flops / training / (self._peak * self._world)
        self._start_window()
        return out

    def spent(self) -> float:
        """This worker's seconds since the attempt began."""
        return self._clock() - self._began

    def cost(self, seconds: float) -> dict[str, float]:
        """Names the seconds of all workers."""
        return {self._cost_name: seconds}
