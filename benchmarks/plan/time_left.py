"""The time left that a sweep says of itself, against the time that it then took.

    python -m benchmarks.plan.time_left [--only grid heavy] [--ray 2]

Runs the sweeps of `benchmarks.plan.actual` one after the other, in this process or on a Ray of so many CPUs, and asks at
25, 50 and 75 % of each one's time how long it takes yet. Writes left / truth, and in how many answers the 80 % range holds
the truth: it is to be 80 % of them or more. On a machine that others use too the pace changes while a sweep runs, and the
range has to cover that.
"""

from __future__ import annotations

import argparse
import tempfile
import time

from benchmarks.plan.actual import sweeps
from cluster.run import run
from sweeps.planning.progress import Progress

ASKED = (0.25, 0.5, 0.75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of sweeps; default all")
    parser.add_argument("--ray", type=int, default=0, help="CPUs of a Ray to run on; default is this process")
    args = parser.parse_args()
    held = asked = 0
    print(f"{'sweep':18} {'seconds':>8}   " + "   ".join(f"at {share:.0%}: left / truth, range" for share in ASKED))
    for name, sweep in sweeps().items():
        if args.only and name not in args.only:
            continue
        told: list[tuple[float, Progress]] = []
        with tempfile.TemporaryDirectory() as folder:
            run(
                sweep,
                storage=folder,
                backend="ray" if args.ray else "in-process",
                cpus=args.ray or None,
                say=lambda line: None,
                on_progress=lambda progress, told=told: told.append((time.monotonic(), progress)),
            )
            end = time.monotonic()
        began, cells = told[0][0], []
        for share in ASKED:
            at, progress = min(told, key=lambda one, share=share: abs(one[0] - began - share * (end - began)))
            truth, left = end - at, progress.left
            asked += 1
            if left is None:
                cells.append(f"nothing said of {truth:.0f} s")
                continue
            within = left.low <= truth <= left.high
            held += within
            cells.append(
                f"{left.value / truth:.2f} ({left.low / truth:.2f} to {left.high / truth:.2f}){'' if within else ' !'}"
            )
        print(f"{name:18} {end - began:7.0f}s   " + "   ".join(cells), flush=True)
    print(f"the range held the truth in {held} of {asked} answers ({held / max(asked, 1):.0%})")


if __name__ == "__main__":
    main()
