"""Comparisons on the same items: every trial against its base, and the best trial against the next ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sweeps.journal.rows import Row, base_trial
from sweeps.report.analysis.findings import Paired, Summary, Trial
from sweeps.statistics import compare, detectable, shares

LEVEL = 0.05


@dataclass(frozen=True, slots=True, init=False)
class Answers:
    """What one checkpoint answered, item by item."""

    items: dict[str, list[float]]
    parts: dict[str, tuple[str, ...]]

    def __init__(self, row: Row) -> None:
        """Reads a score row's outcomes; a task with k replies an item has a metric `task@k` beside its own."""
        items: dict[str, list[float]] = {}
        for task, packed in row.extra["items"].items():
            counts = [int(m.removeprefix(f"{task}@")) for m in row.metrics if _is_pass(m, task)]
            if task in row.n:
                items[task] = shares(packed, row.n[task], max(counts, default=1))
        object.__setattr__(self, "items", items)
        object.__setattr__(self, "parts", {m: tuple(tasks) for m, tasks in row.extra.get("parts", {}).items()})

    def of(self, metric: str) -> list[list[float]] | None:
        """Returns the outcomes of the tasks that a metric is the mean of; None where they were not kept."""
        tasks = self.parts.get(metric, (metric,))
        return [self.items[task] for task in tasks] if all(task in self.items for task in tasks) else None


def _is_pass(metric: str, task: str) -> bool:
    return metric.startswith(f"{task}@") and metric.removeprefix(f"{task}@").isdigit()


Look = Callable[[str, int], Answers | None]
"""(trial, step) to what it answered there."""


def with_pairs(summary: Summary, look: Look) -> Summary:
    """Returns the summary with its comparisons; they share one error level by metric (Bonferroni)."""
    found = {t.id: [p for m in summary.panels if (p := _against_base(t, m, look)) is not None] for t in summary.trials}
    looks = {m: sum(p.metric == m for pairs in found.values() for p in pairs) for m in summary.panels}
    trials = tuple(replace(t, paired=tuple(_judged(p, looks[p.metric]) for p in found[t.id])) for t in summary.trials)
    rivals = _rivals(summary, look)
    return replace(summary, trials=trials, rivals=tuple(_judged(p, len(rivals)) for p in rivals))


def _against_base(trial: Trial, metric: str, look: Look) -> Paired | None:
    base = look(base_trial(str(trial.config.get("model", ""))), 0)
    return _pair(trial, metric, look, base, "base", "its base")


def _rivals(summary: Summary, look: Look) -> list[Paired]:
    if not summary.best:
        return []
    first, metric = summary.trial(summary.best[0]), summary.objective
    found = []
    for other in (summary.trial(id) for id in summary.best[1:]):
        step = _last(other, metric)
        theirs = None if step is None else look(other.id, step)
        found.append(_pair(first, metric, look, theirs, other.id, other.label))
    return [pair for pair in found if pair is not None]


def _pair(trial: Trial, metric: str, look: Look, theirs: Answers | None, against: str, name: str) -> Paired | None:
    step = _last(trial, metric)
    ours = None if step is None else look(trial.id, step)
    if ours is None or theirs is None or step is None:
        return None
    sides = theirs.of(metric), ours.of(metric)
    if sides[0] is None or sides[1] is None or len(sides[0]) != len(sides[1]):
        return None
    result = compare(*common(sides[0], sides[1]))
    return Paired(
        metric, against, step, result.difference, result.se, result.gained, result.lost, result.items, result.p,
        looks=1, different=False, visible=0.0, sentence=name,
    )  # fmt: skip


def _judged(pair: Paired, looks: int) -> Paired:
    """Says of a comparison what can be said when `looks` of them are made together; `sentence` held the other's name."""
    seen = detectable(pair.se, level=LEVEL / looks)
    sentence = (
        f"{pair.metric} {100 * pair.difference:+.1f} points against {pair.sentence} (paired s.e. {100 * pair.se:.1f}, "
        f"{pair.items} items; smallest difference that could be seen: {100 * seen:.1f})"
    )
    return replace(pair, looks=looks, different=pair.p <= LEVEL / looks, visible=seen, sentence=sentence)


def _last(trial: Trial, metric: str) -> int | None:
    points = trial.curves.get(metric)
    return points[-1].step if points else None


def common(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]
) -> tuple[list[Sequence[float]], list[Sequence[float]]]:
    """Returns what was asked of both: of a suite's version a shorter list has the first items of a longer one."""
    sizes = [min(len(x), len(y)) for x, y in zip(a, b, strict=True)]
    return [x[:n] for x, n in zip(a, sizes, strict=True)], [y[:n] for y, n in zip(b, sizes, strict=True)]
