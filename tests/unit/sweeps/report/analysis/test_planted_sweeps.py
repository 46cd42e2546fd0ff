"""Sweeps with planted truths: how often the report is right, and that it is silent where nothing was planted.

`benchmarks/report/planted.py` plants many more; the bounds here leave room for the few.
"""

from __future__ import annotations

import pytest

from benchmarks.report.planted import measure


@pytest.fixture(scope="module")
def found():
    return measure(320, seed=7)


def test_planted_effects_of_three_to_eight_standard_errors_are_named(found):
    assert found["diagonal"]["all"] >= 0.93
    assert found["diagonal"]["6-8"] >= 0.97
    assert found["wrongly_inconclusive"]["all"] <= 0.05


def test_small_effects_are_named_about_as_often_as_any_test_could(found):
    """Of 3 to 4 standard errors: between what two tests find at the sweep's level, and one with 5 % to itself."""
    single, double = found["power"]["one test, 5 % to itself"], list(found["power"].values())[-1]
    assert double["3 to 4"] - 0.06 <= found["diagonal"]["3-4"] <= single["3 to 4"]
    assert single["at 3"] == pytest.approx(0.851, abs=1e-3), "Phi(3 - 1.96): no test at 5 % finds 3 s.e. in .9"


def test_no_kind_of_verdict_is_left_out(found):
    assert set(found["by_kind"]) == {
        "recovered", "improved", "under-optimised", "over-trained", "worse", "collapsed",
    }  # fmt: skip
    assert min(found["by_kind"].values()) >= 0.85


def test_what_limits_a_setting_is_found(found):
    for limits in ("4-6", "6-8"):
        assert min(found["limits_found"][limits].values()) >= 0.85


def test_sweeps_without_effects_are_called_such(found):
    assert found["sweeps_without_effects"] == 80
    assert found["false_claims"] <= 0.08


def test_ranges_hold_the_truth_as_often_as_they_say(found):
    for name, share in found["coverage"].items():
        if found["ranges"][name] >= 150:
            assert 0.90 <= share <= 0.985, name
