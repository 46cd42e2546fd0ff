"""Recurrences at base, dip and end: means over seeds whose items are the same, and differences seed by seed and item by item."""

from __future__ import annotations

import math

import pytest

from benchmarks.recurrence.depth import AT, DEPTHS, METRICS, Line, change, mean, name_at, scored, shares_of, tables
from sweeps.statistics import compare, pack
from trainers.model.files.builtin import builtin_folder


def line(value: float, outcomes: list[float], **more: int) -> Line:
    """One checkpoint that scores the same everywhere, by one task's outcomes."""
    names = [name_at(metric, depth) for metric in METRICS.values() for depth in DEPTHS]
    packed = [[pack(outcomes), len(outcomes)]]
    return {"metrics": dict.fromkeys(names, value), "se": dict.fromkeys(names, 0.03)} | {
        "outcomes": dict.fromkeys(names, packed), **more,
    }  # fmt: skip


TWO = [line(0.5, [1, 0, 1, 0]), line(0.25, [1, 0, 0, 0])]
BASE = [line(1.0, [1, 1, 1, 1])] * 2


def test_the_error_of_a_mean_does_not_fall_with_seeds_that_were_asked_the_same_items():
    found = mean(TWO, "transfer/score")
    assert found.value == 0.375
    assert found.se == pytest.approx(math.sqrt(0.03**2 + 0.03125 / 2))  # of 0.5 and 0.25: variance 0.03125
    assert mean([TWO[0]] * 3, "transfer/score").se == pytest.approx(0.03)


def test_a_change_is_of_the_same_seeds_and_items():
    assert shares_of(TWO, "transfer/score") == [[1.0, 0.0, 0.5, 0.0]]
    found = change(BASE, "general/score", TWO, "transfer/score")
    items = compare([[1.0, 0.0, 0.5, 0.0]], [[1.0] * 4]).se
    assert found.value == pytest.approx(0.625)
    assert found.se == pytest.approx(math.hypot(items, math.sqrt(0.03125 / 2)))
    assert change(TWO, "transfer/score", TWO, "transfer/score").value == 0.0


def test_the_dip_is_each_seeds_lowest_checkpoint_by_transfer():
    lines = [line(1.0, [1, 1], seed=seed, step=0) for seed in (0, 1)]
    lines += [
        line(0.9 if step != 40 * (seed + 1) else 0.2, [1, 0], seed=seed, step=step) for seed in (0, 1) for step in AT
    ]
    text = tables(lines)
    assert "2 seeds of 320 steps; the dip: seed 0 at step 40, seed 1 at step 80." in text
    assert "|  | dip | 0.20 ± 0.03 |" in text


def test_a_model_is_scored_at_every_number_of_recurrences():
    found = scored(builtin_folder("tiny-r"), 2)
    assert set(found["metrics"]) == set(found["outcomes"]) == set(found["se"])
    assert len(found["metrics"]) == len(METRICS) * len(DEPTHS)
    for name, value in found["metrics"].items():
        tasks = shares_of([found], name)
        assert value == pytest.approx(sum(sum(task) / len(task) for task in tasks) / len(tasks))
