"""Do a run's settings tell how far the decay of its learning rate lifts it? Shares of variance on recorded WSD sweeps.

    python -m benchmarks.stopping.decay_gains benchmarks/stopping/recorded*.jsonl* --metric general/score

A gain is the score at the budget minus the last one before the decay. Its share of variance between groups of equal settings is
adjusted for their number: 0 where groups say no more than chance, below 0 where less. A *trunk* is all budgets of one tier, share
of replay and learning rate; `-` where no two runs share one. Gains learnt by tier, say, could tell that share.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks.stopping.sources import Source, sources
from sweeps.report.replay import read_rows

DECAY_FROM = 0.8  # of the budget, in every recorded WSD sweep
LEARNING_RATE = ("learning_rate", "lr")
GROUPS = {
    "tier": (("data",),), "replay": (("replay",),), "rate": (LEARNING_RATE,), "budget": (("steps",),),
    "trunk": (("data",), ("replay",), LEARNING_RATE),
}  # fmt: skip


def gains(source: Source) -> tuple[list[dict[str, object]], np.ndarray]:
    """Returns configuration and gain of every run that was scored before its decay."""
    configs, out = [], []
    for r in source.recordings:
        scored = [
            (row.step or 0, row.metrics[source.goal.metric]) for row in r.reports if source.goal.metric in row.metrics
        ]
        before = [value for step, value in scored if step <= DECAY_FROM * (r.reports[-1].step or 0)]
        if before:
            configs.append(dict(r.start.config))
            out.append(scored[-1][1] - before[-1])
    return configs, np.array(out)


def explained(gained: np.ndarray, labels: Sequence[object]) -> float | None:
    """Returns the adjusted share of variance between groups of equal labels; None where every run is a group."""
    groups = [gained[[at == label for at in labels]] for label in set(labels)]
    left, within = len(gained) - len(groups), sum(float(((g - g.mean()) ** 2).sum()) for g in groups)
    whole = float(((gained - gained.mean()) ** 2).sum())
    return 1.0 - within / left / (whole / (len(gained) - 1)) if left and whole else None


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("curves", nargs="+")
    p.add_argument("--metric", required=True)
    a = p.parse_args(argv)
    print("| sweep, trials | gain, mean and sd | " + " | ".join(GROUPS) + " |")
    for source in (s for path in a.curves for s in sources(read_rows(path), a.metric) if s.schedule == "wsd"):
        configs, gained = gains(source)
        cells = []
        for keys in GROUPS.values():
            labels = [tuple(next(c[k] for k in names if k in c) for names in keys) for c in configs]
            share = explained(gained, labels)
            cells.append("-" if share is None else f"{share:.0%}")
        print(f"| {source.name}, {len(gained)} | {gained.mean():+.3f}, {gained.std():.3f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
