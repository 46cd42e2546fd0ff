"""The rival that extrapolates curves: is its posterior right under its own prior, and does its scale follow the scores?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.stopping.lc_prior import SETTINGS, TIMES, LcPrior, draw, posterior, probability_above, rule_of
from sweeps.config.objective import Goal
from sweeps.errors import InputError
from sweeps.executors.simulated import Outcome, Recording, simulate
from sweeps.journal.rows import ReportRow, TrialRow
from sweeps.stopping.base import Action

STEPS = range(10, 101, 10)


def test_curves_of_the_prior_stay_in_bounds_and_end_above_their_start() -> None:
    curves = draw(500, 1)
    assert curves.shape == (500, TIMES)
    assert curves.min() >= 0.0
    assert curves.max() <= 1.0
    assert (curves[:, -1] > curves[:, 0]).all()


def test_of_curves_of_its_own_prior_it_holds_what_it_says() -> None:
    """The last report, noise included, lies in the 10-90 % span in 80 % of the cases, and in neither tail too often."""
    rng, times = np.random.default_rng(3), (1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0)
    odds = []
    for curve in draw(200, 7):
        sd = math.exp(rng.normal(-4.0, 1.0))
        seen = tuple(float(curve[int(t) - 1] + sd * rng.normal()) for t in times)
        odds.append(probability_above(posterior(times, seen), float(curve[-1] + sd * rng.normal())))
    held = np.mean([0.1 < p < 0.9 for p in odds])
    assert 0.70 < held < 0.88, f"holds {held:.0%}; expected 80 %"
    assert np.mean([p < 0.02 for p in odds]) < 0.06
    assert np.mean([p > 0.98 for p in odds]) < 0.06


def _sweep(change: float, sign: float = 1.0, offset: float = 0.0) -> list[Recording]:
    """Eight runs that rise to ends .05 apart, all of them `change` times as large."""
    out = []
    for i in range(8):
        end, name = 0.3 + 0.05 * i, f"t{i}"
        rows = [
            ReportRow("s", name, step=s, metrics={"m": offset + sign * change * (end - 0.2 * math.exp(-s / 15))})
            for s in STEPS
        ]
        start = TrialRow("s", name, budget=100, config={})
        out.append(Recording(name, start, tuple(rows), (1.0,) * len(rows)))
    return out


def _completed(outcome: Outcome) -> set[str]:
    return {t for t in outcome.runs if outcome.completed(t)}


@pytest.mark.parametrize("mark", ["present", "expected"])
@pytest.mark.parametrize(
    ("change", "sign", "offset"), [(1.0, 1.0, 0.0), (1.0, -1.0, 1.0), (100.0, 1.0, 0.0), (9.0, -1.0, 20.0)]
)
def test_the_best_run_to_their_ends_and_the_worst_do_not_on_any_scale(
    mark: str, change: float, sign: float, offset: float
) -> None:
    rule = rule_of(f"lc-prior:p=0.05,least=4,mark={mark}", Goal("m", maximize=sign > 0))
    outcome = simulate(_sweep(change, sign, offset), rule, workers=8)
    done = _completed(outcome)
    assert {"t5", "t6", "t7"} <= done
    assert not {"t0", "t1"} & done
    assert outcome.saved > 0.1


def test_what_is_paused_comes_back_when_its_odds_rise() -> None:
    rule = LcPrior(Goal("m", top=1), p=0.2, least=2)

    def tell(trial: str, step: int, score: float) -> None:
        rule.observe(ReportRow("s", trial, step=step, metrics={"m": score}))

    for trial in ("a", "b"):
        rule.observe(TrialRow("s", trial, budget=100, config={}))
        for step in (10, 20):
            tell(trial, step, 0.4 if trial == "a" else 0.8)
    assert rule.decide("a").action is Action.PAUSE
    assert rule.choose_trial_to_resume(["a"]) is None
    tell("b", 30, 0.3)
    assert rule.choose_trial_to_resume(["a"]) == "a"


def test_settings_are_rules_and_a_mark_that_is_none_is_an_error() -> None:
    assert 4 <= len(SETTINGS) <= 6
    for text in SETTINGS:
        assert isinstance(rule_of(text, Goal("m")), LcPrior)
    assert rule_of("median", Goal("m")).name == "median"
    with pytest.raises(InputError, match="expected present or expected"):
        rule_of("lc-prior:mark=best", Goal("m"))
