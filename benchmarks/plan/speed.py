"""How long `dipsweep plan` takes itself: a grid of 10,000 cells on GPUs, and a sampled sweep of 64 trials with its rehearsal.

    python -m benchmarks.plan.speed [--runs 3]

Prints CPU seconds of the whole command, the median of so many runs, each with a cache folder of its own, so that no
rehearsal is found there. The models are known by name and lie nowhere: their shapes are those that ship with dipsweep.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

GRID: Final = """
name: cells
models: {qwen3-1.7b: {path: /not/here}}
space:
  model: {grid: [qwen3-1.7b]}
  data: {grid: [verified-long-cot, answer-only]}
  learning_rate: {grid: [1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5, 7e-5, 8e-5, 9e-5, 1e-4]}
  replay: {grid: [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45]}
  weight_decay: {grid: [0.0, 0.01, 0.02, 0.03, 0.04]}
  steps: {grid: [100, 200, 400, 600, 800, 1000, 1200, 1400, 1600, 3200]}
trainer: {batch_tokens: 65536, max_length: 16384, precision: bf16, lr_scheduler_type: wsd, warmup_steps: 10}
"""
SAMPLED: Final = """
name: sampled
models: {qwen3-1.7b: {path: /not/here}, qwen3-4b: {path: /not/here}}
space:
  model: {grid: [qwen3-1.7b, qwen3-4b]}
  data: {grid: [verified-long-cot, answer-only]}
  learning_rate: {loguniform: [1e-5, 1e-4]}
  replay: {uniform: [0.0, 0.3]}
  steps: {grid: [200, 400, 800, 1600]}
search: {algorithm: optuna-tpe, trials: 64}
stopping: {rule: dip-aware}
trainer: {batch_tokens: 65536, max_length: 16384, precision: bf16, lr_scheduler_type: wsd, warmup_steps: 10}
"""


def cpu_seconds(sweep: str) -> float:
    """CPU seconds of one plan of a sweep, on two nodes of eight devices."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.yaml"
        file.write_text(sweep, encoding="utf-8")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "cluster.cli.main", "plan", str(file), "--nodes", "2x8", "--storage", folder]
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    for name, sweep, bar in (("a grid of 10,000 cells", GRID, 3.0), ("64 sampled trials, rehearsed", SAMPLED, 10.0)):
        took = sorted(cpu_seconds(sweep) for _ in range(runs))
        each = ", ".join(f"{seconds:.2f}" for seconds in took)
        print(f"{name}: {statistics.median(took):.2f} CPU s ({each}); the bar is {bar:g}", flush=True)


if __name__ == "__main__":
    main()
