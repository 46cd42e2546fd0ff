"""How well and how fast rows are packed: best-fit-decreasing on 100,000 log-normal lengths into packs of 2,048.

python -m benchmarks.trainer.packing            exits with 1 below 99 % fill or above 0.5 CPU-s
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from trainers.data.batching.packing import best_fit_decreasing

ROWS, CAPACITY, ROUNDS = 100_000, 2048, 5
FILL, CPU_S = 0.99, 0.5


def main() -> None:
    draw = np.random.default_rng(0).lognormal(np.log(250), 0.75, ROWS)
    lengths = [int(x) for x in draw.clip(1, CAPACITY)]
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        packs = best_fit_decreasing(lengths, CAPACITY)
        seconds.append(time.process_time() - start)
    fill = sum(lengths) / (CAPACITY * len(packs))
    print(
        json.dumps(
            {"rows": ROWS, "packs": len(packs), "fill": round(fill, 4), "cpu_s": sorted(round(s, 3) for s in seconds)}
        )
    )
    sys.exit(fill < FILL or min(seconds) > CPU_S)


if __name__ == "__main__":
    main()
