"""Do other signals tell how much a run will still gain? Ridge regressions on the recorded runs, judged out of sweep.

    python -m benchmarks.stopping.signals benchmarks/stopping/recorded.jsonl

For each moment: R2 of the further change of a score until the end, predicted from its level and slope alone and with one
more signal. Each sweep is predicted from the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from sweeps.journal.history import History, Point
from sweeps.journal.rows import Row
from sweeps.report.replay import read_rows

MOMENTS = ((80, 40), (120, 60), (160, 80))  # step, and the earlier one from which slopes are taken
RIDGE = 2.0
ADDED = {
    "level and slope": (),
    "+ in-domain": (2, 3),
    "+ reply length": (4, 5),
    "+ truncation": (6,),
    "+ train loss": (7,),
    "+ all": (2, 3, 4, 5, 6, 7),
}


def features(metric: str, now: Point, before: Point, base: Point) -> list[float]:
    """Returns level, slope, and what the other signals say at one moment."""
    m, b, z = now.metrics, before.metrics, base.metrics
    length, inside = "length/mean", "math/in_domain"
    return [
        m[metric],
        m[metric] - b[metric],
        m[inside] - z[inside],
        m[inside] - b[inside],
        float(np.log(m[length] / z[length])),
        float(np.log(m[length] / b[length])),
        m["length/truncated"],
        m.get("train/loss", 0.0),
    ]


def gather(sweeps: dict[str, History], metric: str, at: int, earlier: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns features [n, 8], further gain [n] and sweep [n] of all runs that were scored then."""
    rows, gains, names = [], [], []
    for name, history in sweeps.items():
        for curve in history.trials():
            base, p, scored = history.base_point(curve.trial), curve.points, curve.steps(metric)
            if base is not None and {at, earlier} <= set(scored):
                rows.append(features(metric, p[at], p[earlier], base))
                gains.append(p[scored[-1]].metrics[metric] - p[at].metrics[metric])
                names.append(name)
    return np.array(rows), np.array(gains), np.array(names)


def r2(x: np.ndarray, y: np.ndarray, group: np.ndarray) -> float:
    """Returns the share of variance explained when every group is predicted from the others."""
    guess = np.zeros(len(y))
    for name in set(group):
        train = group != name
        mean, sd = x[train].mean(0), x[train].std(0) + 1e-9
        z = np.column_stack([np.ones(len(x)), (x - mean) / sd])
        inner = z[train].T @ z[train] + RIDGE * np.eye(z.shape[1])
        guess[~train] = z[~train] @ np.linalg.solve(inner, z[train].T @ y[train])
    return float(1 - ((y - guess) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def main(argv: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("curves")
    p.add_argument("--metrics", nargs="+", default=["general/score", "transfer/score"])
    a = p.parse_args(argv)
    sweeps: dict[str, History] = {}
    rows: list[Row] = read_rows(a.curves)
    for row in rows:
        sweeps.setdefault(row.sweep, History()).fold(row)
    for metric in a.metrics:
        for at, earlier in MOMENTS:
            x, y, group = gather(sweeps, metric, at, earlier)
            told = ", ".join(f"{name} {r2(x[:, [0, 1, *more]], y, group):.2f}" for name, more in ADDED.items())
            print(f"{metric} at step {at}: {len(y)} runs, R2 {told}")


if __name__ == "__main__":
    main()
