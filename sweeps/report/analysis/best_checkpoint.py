"""The best checkpoint of a run, and what it is worth: the highest of many noisy scores is the highest by luck as well.

Where outcomes were kept item by item, the items are dealt into `FOLDS` parts; each part is judged at the checkpoint that is
best by the other parts. No item takes part in choosing the checkpoint that it is counted at, so the mean is free of luck,
whatever the shape of the curve and however alike neighbouring checkpoints answer. Without outcomes it is the expected
score given all scores of the run with their known errors (`sweeps.statistics.best_of_path`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from sweeps.report.analysis.comparisons.pairing import CHOICE, Outcomes
from sweeps.report.analysis.findings.trials import Picked
from sweeps.report.analysis.shape import Measured, error_of
from sweeps.statistics import PathPoint, best_of_path

FOLDS = 5


class Candidate(NamedTuple):
    """What is ranked by its best checkpoint.

    Attributes:
        best: names that checkpoint: two that are equal are the same bytes. trained: it trained that one itself, and does not
            have it of a run that it turned off from. budget: its own, in steps.
    """

    id: str
    best: Hashable
    trained: bool
    budget: int


def who_stands(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Returns, by id, which of those that rank by the same checkpoint stands for it: one finding takes one place.

    The one that trained it; else the one of the shortest budget, which is the cheapest way to it, and of those the first.
    """
    groups: dict[Hashable, list[Candidate]] = {}
    for one in candidates:
        groups.setdefault(one.best, []).append(one)
    stands = {best: min(group, key=lambda c: (not c.trained, c.budget)).id for best, group in groups.items()}
    return {one.id: stands[best] for best, group in groups.items() for one in group}


def path_of(points: Sequence[Measured], sign: float) -> list[PathPoint]:
    """Returns a curve as a path whose scores are the better the higher."""
    return [PathPoint(p.step, sign * p.value, error_of(p)) for p in points]


def best_checkpoint(
    metric: str, points: Sequence[Measured], outcomes: Mapping[int, Outcomes], *, sign: float, wandering: float
) -> Picked:
    """Returns the best of a run's checkpoints; which trial trained it is left open.

    Args:
        points: those that may be chosen, at least one. outcomes: of their items by step; of use where all of them have theirs.
        sign: +1 where more is better. wandering: of this sweep's runs, from `statistics.wander`.
    """
    best = max(points, key=lambda p: sign * p.value)
    if all(p.step in outcomes for p in points):
        held = held_out([outcomes[p.step] for p in points], sign)
        if held is not None:
            value = sum(sum(task) / len(task) for task in held) / len(held)
            error = error_of(best)
            se = None if error is None else CHOICE * error
            return Picked(metric, best.step, value, se, best.n, len(points), "held-out items", held)
    found = best_of_path(path_of(points, sign), wandering)
    by = "its whole curve" if found.se is not None else ""
    return Picked(metric, found.step, sign * found.value, found.se, best.n, len(points), by)


def held_out(checkpoints: Sequence[Outcomes], sign: float) -> Outcomes | None:
    """Returns item by item what the checkpoint answered that is best by all other parts of the items.

    None where the checkpoints were asked other tasks, or too few items for two parts.
    """
    import numpy as np

    if len({len(one) for one in checkpoints}) != 1:
        return None
    sizes = [min(len(task) for task in tasks) for tasks in zip(*checkpoints, strict=True)]
    if not sizes or min(sizes) < 2:
        return None
    # Per task, [checkpoints, items].
    asked = [np.array([one[i][:n] for one in checkpoints]) for i, n in enumerate(sizes)]
    found = [np.zeros(n) for n in sizes]
    for fold in range(FOLDS):
        inside = [np.arange(n) % min(FOLDS, n) == fold for n in sizes]
        others = sum(task[:, ~part].mean(axis=1) for task, part in zip(asked, inside, strict=True))
        chosen = int(np.argmax(sign * others))
        for task, part, into in zip(asked, inside, found, strict=True):
            into[part] = task[chosen, part]
    return [task.tolist() for task in found]
