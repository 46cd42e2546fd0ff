"""The claims of the miniature study: errors of items and seeds, and verdicts, by hand."""

from __future__ import annotations

import math

import pytest

from benchmarks.report.paper_mini import (
    METRICS,
    Arm,
    Found,
    Number,
    compared,
    dip,
    exposure_claims,
    line,
    mean,
    pooled,
    table,
)


def found(ends: dict[tuple[Arm, int], list[float]], se: float = 0.0, **more: object) -> Found:
    """What a sweep found of one metric, without a sweep."""
    it = Found.__new__(Found)
    it.raw = {(arm, budget, "m", budget): [(v, se) for v in values] for (arm, budget), values in ends.items()}
    it.base, it.between_seeds = {("tiny-s", "m"): Number(1.0, 0.01, 1)}, {(b, "m"): 0.0 for _, b in ends}
    vars(it).update(more)
    return it


def test_an_error_joins_items_that_do_not_average_out_and_seeds_that_do():
    two = mean([(0.5, 0.03), (0.7, 0.05)], 0.02)
    assert two.value == pytest.approx(0.6)
    assert two.se == pytest.approx(math.sqrt((0.03**2 + 0.05**2) / 2 + 0.02 / 2))
    assert two.seeds == 2


def test_the_variance_between_seeds_is_pooled_over_settings_that_were_repeated():
    groups = [[(0.1, 0.0), (0.3, 0.0)], [(0.5, 0.0), (0.5, 0.0), (0.8, 0.0)], [(0.9, 0.0)]]
    assert pooled(groups) == pytest.approx((0.02 * 1 + 0.03 * 2) / 3)
    assert pooled([[(0.5, 0.0)]]) == 0.0


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.56, "open"), (0.57, "holds"), (0.44, "open"), (0.43, "contradicted")]
)
def test_a_difference_has_to_be_larger_than_two_of_its_errors(value, verdict):
    assert line("c", "m", ("a", Number(value, 0.03, 3)), ("b", Number(0.5, 0.01, 3))).endswith(f"| {verdict} |")


def test_a_setting_that_was_not_run_is_said_to_be_so():
    assert "not run" in compared(found({(Arm(), 320): [0.5]}), "c", (Arm(), 320), (Arm(replay=0.0), 320), "m")


@pytest.mark.parametrize(("end", "back"), [(0.99, "holds"), (0.96, "open"), (0.7, "contradicted")])
def test_a_dip_is_three_claims_and_back_means_at_95_percent_of_the_base(end, back):
    it = found({(Arm(), 320): [end]})
    it.raw[Arm(), 320, "m", 80] = [(0.6, 0.0)]
    rows = list(dip(it, Arm(), 320, "m"))
    assert [row.rsplit("| ", 1)[1] for row in rows] == ["holds |", "holds |", f"{back} |"]
    assert "lowest, at step 80" in rows[0]
    assert f"{end:.0%}" in rows[2]


def test_few_rows_are_compared_with_all_of_them_at_both_budgets_and_long_traces_with_concise_ones():
    it = found({})
    settings = {"verified-long-cot": 0.5, "few-long-cot": 0.7, "concise-cot": 0.4}
    it.raw = {(Arm(data=d), b, m, b): [(v, 0.01)] for d, v in settings.items() for b in (160, 320) for m in METRICS}
    it.between_seeds = {(b, m): 0.0 for b in (160, 320) for m in METRICS}
    rows = list(exposure_claims(it))
    assert len(rows) == 6
    assert all("few-long-cot at" in row.split("|")[3] and row.endswith("+0.20 ± 0.01 | holds |") for row in rows[:4])
    assert [f"at {budget}:" in row for row, budget in zip(rows, (160, 160, 320, 320), strict=False)] == [True] * 4
    assert all("; concise-cot at 320" in row and row.endswith("+0.10 ± 0.01 | holds |") for row in rows[4:])
    del it.raw[Arm(data="concise-cot"), 320, METRICS[1], 320]
    assert "not run" in list(exposure_claims(it))[5]


def test_the_table_says_how_often_a_run_has_seen_its_rows():
    it = found({(Arm(), 160): [0.5, 0.7]}, epochs={(Arm(), 160): [0.8, 1.0]})
    it.raw |= {(Arm(), 160, m, 160): [(0.5, 0.0), (0.7, 0.0)] for m in METRICS}
    it.between_seeds |= {(160, m): 0.0 for m in METRICS}
    assert list(table(it))[2].startswith("| centre | 160 | 2 | 0.9 | 0.60 ± 0.00 |")
