"""What earlier sweeps are worth: each recorded sweep under the dip-aware rule, alone and after three others of its schedule.

    python -m benchmarks.stopping.experience --metric transfer/score --draws 2

The three are drawn anew for each order of start; the sweep itself is never among them. Winners lost and compute saved in
per cent, top 3, 8 machines, ties kept together.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

from benchmarks.stopping.sources import Fare, drawn, run, sources
from sweeps.controller.earlier_sweeps import summed_up
from sweeps.journal.rows import Row
from sweeps.report.replay import read_rows

HERE: Final = Path(__file__).parent
CURVES: Final = (str(HERE / "recorded.jsonl"), str(HERE / "recorded_more.jsonl.gz"))
RULES: Final = ("dip-aware", "dip-aware:protect=soft")
EARLIER: Final = 3


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--metric", default="transfer/score")
    p.add_argument("--draws", type=int, default=2)
    p.add_argument("--size", type=int, default=0, help="trials of a sub-sweep; 0 takes all")
    p.add_argument("curves", nargs="*", default=CURVES)
    a = p.parse_args()
    rows: list[Row] = [row for path in a.curves for row in read_rows(path)]
    found = {s.name: s for s in sources(rows, a.metric)}
    told = {
        name: summed_up([r for r in rows if r.sweep == name], s.goal) | {"sweep": name} for name, s in found.items()
    }
    columns = [(rule, after) for rule in RULES for after in (False, True)]
    print("sweep | schedule | " + " | ".join(f"{rule}{', after three' if after else ''}" for rule, after in columns))
    table: dict[tuple[str, bool], list[Fare]] = {c: [] for c in columns}
    for name, source in found.items():
        others = [told[o] for o, s in found.items() if o != name and s.schedule == source.schedule]
        cells = []
        for rule, after in columns:
            fares = [
                run(
                    drawn(source, d, a.size),
                    rule,
                    earlier=random.Random(d).sample(others, min(EARLIER, len(others))) if after else (),
                )
                for d in range(a.draws)
            ]
            table[rule, after].extend(fares)
            cells.append(_shown(fares))
        print(" | ".join([name, source.schedule, *cells]), flush=True)
    print(" | ".join(["all", "", *(_shown(table[c]) for c in columns)]))


def _shown(fares: Sequence[Fare]) -> str:
    return f"{100 * fmean(f.lost for f in fares):.1f} @ {100 * fmean(f.saved for f in fares):.1f}"


if __name__ == "__main__":
    main()
