"""Comparisons on the same items: what one checkpoint answered, item by item, against another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sweeps.journal.rows import ReportRow
from sweeps.report.analysis.findings.trials import Paired
from sweeps.report.analysis.inference import ALPHA, Level, two_sided
from sweeps.statistics import Paired as Compared
from sweeps.statistics import compare, shares

Outcomes = Sequence[Sequence[float]]
"""Per task, per item, the share of replies that are right."""
CHOICE: Final = 1.3
"""The error of a score on held-out items in those of the items alone, at most: 1.22 to 1.29 on planted curves of 13
checkpoints over 200 items (tests/unit/sweeps/report/analysis/test_best_checkpoint.py)."""


class Answers:
    """The outcomes of one checkpoint, item by item; unpacked on first use.

    Args:
        row: a score row with outcomes. A task with k replies an item has a metric `task@k` beside its own.
    """

    __slots__ = ("_row",)

    def __init__(self, row: ReportRow) -> None:
        self._row = row

    def of(self, metric: str) -> Outcomes | None:
        """Returns the outcomes of the tasks that a metric is the mean of; None where they were not kept."""
        row = self._row
        tasks = (row.parts or {}).get(metric, (metric,))
        if not all(task in row.items and task in row.n for task in tasks):
            return None
        return [shares(row.items[task], row.n[task], self._replies(task)) for task in tasks]

    def _replies(self, task: str) -> int:
        return max((int(m.removeprefix(f"{task}@")) for m in self._row.metrics if _is_pass(m, task)), default=1)


def _is_pass(metric: str, task: str) -> bool:
    return metric.startswith(f"{task}@") and metric.removeprefix(f"{task}@").isdigit()


def paired(theirs: Outcomes, ours: Outcomes) -> Compared | None:
    """Compares two checkpoints, ours minus theirs, on the items that both have; None when the tasks differ."""
    if len(theirs) != len(ours) or not theirs:
        return None
    return compare(*common(theirs, ours))


def of_chosen(pair: Compared) -> Compared:
    """Widens a comparison of best checkpoints, each item's chosen by other items (`best_checkpoint.held_out`).

    The choice moves from part to part with the noise of the items, which their own error does not hold.
    """
    se = pair.se * CHOICE
    return pair._replace(se=se, p=two_sided(pair.difference, se))


def mean_outcomes(seeds: Sequence[Outcomes]) -> Outcomes | None:
    """Returns the mean over seeds item by item; None without outcomes, or when their tasks differ."""
    if not seeds or len({len(s) for s in seeds}) > 1:
        return None
    tasks = zip(*seeds, strict=True)
    return [[sum(item) / len(item) for item in zip(*task, strict=False)] for task in tasks]


def describe_pair(pair: Compared, metric: str, against: str, name: str, step: int, level: Level) -> Paired:
    """Returns a comparison as the report shows it; `name` is what the other side is called."""
    seen = level.detectable(pair.se)
    sentence = (
        f"{metric} {100 * pair.difference:+.1f} points against {name} (paired s.e. {100 * pair.se:.1f}, "
        f"{pair.items} items; smallest difference found four times in five: {100 * seen:.1f})"
    )
    return Paired(
        metric,
        against,
        step,
        pair.difference,
        pair.se,
        pair.gained,
        pair.lost,
        pair.items,
        pair.p,
        looks=level.comparisons,
        different=level.q(pair.p) <= ALPHA,
        visible=seen,
        sentence=sentence,
    )


def common(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]
) -> tuple[list[Sequence[float]], list[Sequence[float]]]:
    """Returns the items of both: within one version of a suite, a shorter list holds the first items of a longer one."""
    sizes = [min(len(x), len(y)) for x, y in zip(a, b, strict=True)]
    return [x[:n] for x, n in zip(a, sizes, strict=True)], [y[:n] for y, n in zip(b, sizes, strict=True)]
