"""Two views of a sweep, weighed by how its finished runs turned out; a budget of lost winners; falls that come late."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.errors import InputError
from sweeps.executors.simulated import Recording, simulate
from sweeps.journal.rows import ReportRow, TrialRow
from sweeps.stopping.base import Action, Goal
from sweeps.stopping.dip_aware import DipAware
from sweeps.stopping.forecasting.forecasts import upper_tail
from sweeps.stopping.forecasting.self_check import LEAST, LEVELS, Prediction, SelfCheck
from tests.support.rows import make_row

Y = "transfer/score"


def test_the_view_that_was_nearer_to_the_finals_counts_for_more_and_the_other_never_for_nothing():
    check = SelfCheck()
    assert check.levels == pytest.approx(LEVELS)
    assert (check.basis, check.wider) == ("forecasts", 1.0)
    for i in range(12):
        check.finish(f"t{i}", [Prediction(0.9, 0.01, 0.5, 0.01)], 0.5, 1e-4)
    assert (check.levels, check.basis) == (pytest.approx(1.0 - LEAST), "levels")
    assert check.wider > 1.5
    assert check.evidence()["held"] == 0.0
    for i in range(12):
        check.finish(f"t{i}", [Prediction(0.5, 0.01, 0.9, 0.01)], 0.5, 1e-4)
    assert (check.levels, check.basis, check.wider) == (pytest.approx(LEAST), "forecasts", 1.0)
    for i in range(12):
        check.forget(f"t{i}")
    assert check.levels == pytest.approx(LEVELS)


def test_a_sure_and_right_view_beats_a_vague_one():
    check = SelfCheck()
    for i in range(6):
        check.finish(f"t{i}", [Prediction(0.5, 1.0, 0.5, 0.01)], 0.5, 1e-4)
    assert check.basis == "levels"


def test_the_tail_of_a_normal_distribution_is_right_to_five_digits():
    assert upper_tail(np.array([0.0, 1.0, -1.0, 3.0])) == pytest.approx([0.5, 0.158655, 0.841345, 0.00135], abs=1e-5)
    assert upper_tail(np.array([-1e9, 1e9])) == pytest.approx([1.0, 0.0], abs=1e-8)


def sweep(settings, curves, budget=400, reports=20):
    """Feeds curves side by side; returns the rule and each trial's verdicts by step. Nobody is stopped."""
    rule, said = DipAware(Goal(Y, top=1), **settings), {t: {} for t in curves}
    rule.observe(make_row("report", "s", "base-m", step=0, metrics={Y: 0.4}, se={Y: 0.01}))
    for t in curves:
        rule.observe(make_row("trial", "s", t, budget=budget, config={"model": "m"}))
    for i in range(1, reports + 1):
        for t, curve in curves.items():
            step = i * budget // reports
            rule.observe(make_row("report", "s", t, step=step, metrics={Y: float(curve(i / reports))}, se={Y: 0.01}))
            said[t][step] = rule.decide(t)
    return rule, said


def flat(level):
    return lambda x: level + 0.004 * np.sin(40 * x)


def test_every_verdict_on_rank_says_what_it_stands_on_and_how_past_forecasts_did():
    _, said = sweep({}, {"a": flat(0.5), "b": flat(0.45), "c": flat(0.3)})
    evidence = said["c"][200].evidence
    assert evidence["basis"] in ("forecasts", "levels")
    assert evidence["check"]["finished"] == 0
    assert 0.0 <= evidence["check"]["weight_of_levels"] <= 1.0


CLOSE = {"a": flat(0.50), **{f"t{i}": flat(0.47 - 0.002 * i) for i in range(6)}}


def test_where_nothing_can_be_resumed_nothing_is_stopped_beyond_the_budget_of_lost_winners():
    for allowed in (0.001, 0.3):
        _, said = sweep({"max_lost_winners": allowed, "pause": False}, CLOSE)
        for trial, verdicts in said.items():
            for step, v in verdicts.items():
                if v.action is not Action.CONTINUE:
                    assert v.evidence["lost_winners"] + v.evidence["p_top"] <= allowed, (trial, step)
        assert allowed < 0.1 or any(v.action is Action.STOP for v in said["t5"].values())


@pytest.mark.parametrize("allowed", [0.01, 0.3])
def test_paused_trials_come_back_until_what_stays_paused_is_within_the_budget(allowed):
    def reports(trial, curve):
        scores = [float(curve(i / 20)) for i in range(1, 21)]
        return tuple(ReportRow("s", trial, step=20 * i, metrics={Y: y}, se={Y: 0.01}) for i, y in enumerate(scores, 1))

    recordings = [
        Recording(t, TrialRow("s", t, budget=400, config={"model": "m"}), reports(t, c), (1.0,) * 20)
        for t, c in CLOSE.items()
    ]
    spent = []

    class Watched(DipAware):
        def choose_trial_to_resume(self, paused):
            chosen = super().choose_trial_to_resume(paused)
            if chosen is None:
                spent.append(self.spent())
            return chosen

    outcome = simulate(recordings, Watched(Goal(Y, top=1), max_lost_winners=allowed), workers=3)
    assert outcome.completed("a")
    assert not spent or spent[-1] <= allowed
    assert any(run.paused for run in outcome.runs.values()) or allowed < 0.1


def test_what_was_given_up_is_counted_by_its_odds_of_now_until_it_is_resumed():
    rule, said = sweep({}, {"a": flat(0.5), "b": flat(0.42), "c": flat(0.41)})
    verdict = said["b"][200]
    rule.observe(make_row("verdict", "s", "b", step=200, action="PAUSE", evidence=dict(verdict.evidence)))
    assert rule.spent() == pytest.approx(rule.ranking.probabilities([rule.ranking.forecaster.trials["b"]])[0])
    rule.observe(make_row("attempt", "s", "b", step=200, attempt=2))
    assert rule.spent() == 0.0


def test_risk_is_the_old_name_of_max_lost_winners():
    assert DipAware(Goal(Y, top=3)).max_lost_winners == pytest.approx(0.2)
    assert DipAware(Goal(Y, top=3), protect="soft").max_lost_winners == pytest.approx(0.2)
    assert DipAware(Goal(Y, top=1)).max_lost_winners == pytest.approx(1 / 15)
    assert DipAware(Goal(Y, top=3), risk=0.1).max_lost_winners == pytest.approx(0.1)
    with pytest.raises(InputError, match="both max_lost_winners and risk"):
        DipAware(Goal(Y), risk=0.1, max_lost_winners=0.1)
    with pytest.raises(InputError, match="max_lost_winners is 4"):
        DipAware(Goal(Y, top=3), max_lost_winners=4.0)


def test_a_leader_that_falls_late_and_at_once_is_not_hopeless_at_once():
    shock = lambda x: 0.6 if x < 0.6 else 0.3  # noqa: E731
    rule, said = sweep({}, {"a": flat(0.5), "b": flat(0.45), "it": shock})
    after = [said["it"][s] for s in (240, 260)]
    assert all(v.evidence["p_top"] > 0.02 for v in after)
    assert said["it"][380].evidence["p_top"] < 0.02
    assert rule.ranking.forecaster.trials["it"].phase.late_falls == [1, 0]
