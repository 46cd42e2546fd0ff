"""What runs still gain together: learnt from revisions, wide before them, the same for contemporaries."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.stopping.base import Goal
from sweeps.stopping.dip_aware import DipAware
from sweeps.stopping.forecasting.shared_gain import INTERVALS, KNOTS, Revision, SharedGain, ahead, schedule_time
from tests.support.rows import make_row

Y = "transfer/score"


def test_before_any_revision_a_gain_is_as_wide_as_its_prior_and_a_decay_lifts_it():
    plain, decaying = SharedGain(False, 64), SharedGain(True, 64)
    mean, sd, spread = plain.learnt(2.0)
    assert not mean.any()
    assert np.sqrt((sd**2).sum()) == pytest.approx(2.0 * plain.prior.sd)
    assert (spread == plain.prior.wide).all()
    assert decaying.learnt(2.0)[0].sum() == pytest.approx(2.0 * plain.prior.decay_mean)
    assert not decaying.learnt(2.0)[0][KNOTS[:-1] < 0.8].any()


def test_revisions_of_many_runs_teach_the_mean_and_where_forecasts_were_too_sure_the_spread():
    gains, rng = SharedGain(False, 64), np.random.default_rng(0)
    for change in 0.3 + 0.2 * rng.normal(size=400):
        gains.add(Revision(5, float(change), 0.01))  # said to be a standard deviation of 0.1, it is one of 0.2
    mean, sd, spread = gains.learnt(1.0)
    assert mean[5] == pytest.approx(0.3, abs=0.04)
    assert sd[5] < 0.02
    assert spread[5] == pytest.approx(4.0, rel=0.2)
    assert mean[6] == 0.0


def test_what_one_run_gains_beside_all_others_falls_mostly_in_its_decay_where_it_has_one():
    plain, decaying = SharedGain(False, 64), SharedGain(True, 64)
    assert plain.own_variance.sum() == pytest.approx(plain.prior.own**2)
    assert decaying.own_variance.sum() == pytest.approx(plain.prior.own**2 + plain.prior.decay_own**2)
    np.testing.assert_array_equal(decaying.own_variance[KNOTS[:-1] < 0.79], plain.own_variance[KNOTS[:-1] < 0.79])


@pytest.mark.parametrize("kept", [0, 2])
def test_a_revision_that_is_taken_back_leaves_no_trace_however_large_it_was(kept):
    gains, plain = SharedGain(True, 64), SharedGain(True, 64)
    small = [Revision(3, 0.5, 0.1), Revision(4, -0.2, 0.2, 0.5)][:kept]
    for revision in [*small, Revision(3, 1e12, 1e-9), Revision(4, 1e9, 1e-12)]:
        gains.add(revision)
    for revision in small:
        plain.add(revision)
    version = gains.version
    gains.tell_again(small)
    assert gains.version != version
    for ours, theirs in zip(gains.learnt(1.0), plain.learnt(1.0), strict=True):
        assert ours.tolist() == theirs.tolist()


def test_the_decay_takes_the_last_fifth_of_schedule_time_wherever_it_begins():
    assert schedule_time(0.5, None) == 0.5
    for start in (0.5, 0.8, 0.9):
        assert schedule_time(start, start) == pytest.approx(0.8)
        assert schedule_time(1.0, start) == pytest.approx(1.0)
        assert schedule_time((1 + start) / 2, start) == pytest.approx(0.9)


def test_what_is_ahead_of_a_run_is_what_lies_between_it_and_its_end():
    assert ahead(0.0) == pytest.approx(np.ones(INTERVALS))
    assert not ahead(1.0).any()
    assert (ahead(0.45, 0.55) * np.diff(KNOTS)).sum() == pytest.approx(0.1)


def told(rule, trial, values, budget=320, config=None, se=0.01):
    rule.observe(make_row("trial", "s", trial, budget=budget, config={"model": "m", **(config or {})}))
    for i, v in enumerate(values):
        rule.observe(make_row("report", "s", trial, step=20 * (i + 1), metrics={Y: v}, se={Y: se}))


def odds(rule, trial):
    return rule.ranking.probability(rule.ranking.forecaster.trials[trial]).p


DECAY = {"schedule": "wsd", "decay": 0.25}
STABLE = [0.30, 0.27, 0.28, 0.31, 0.33, 0.34, 0.34, 0.35, 0.35, 0.35, 0.35, 0.35]


def test_a_run_before_its_decay_is_not_given_up_for_what_finished_runs_gained_in_theirs():
    """Finished runs stood where the young one stands, and rose by 0.4 in their decay: so will it."""
    rule = DipAware(Goal(Y, top=2))
    rule.observe(make_row("report", "s", "base-m", step=0, metrics={Y: 0.4}, se={Y: 0.005}))
    for i in range(4):
        told(rule, f"done-{i}", [*STABLE, 0.45, 0.55, 0.65, 0.75], config=DECAY)
    told(rule, "young", STABLE[:10], config=DECAY)
    told(rule, "poor", [v - 0.15 for v in STABLE[:10]], config=DECAY)
    assert odds(rule, "young") > 0.1
    assert odds(rule, "poor") < 0.25 * odds(rule, "young")
    low, _, high = rule.ranking.forecaster.span(rule.ranking.forecaster.trials["young"])
    assert low < 0.75 < high


def test_a_run_that_is_surer_of_itself_does_not_speak_for_what_all_others_gain():
    """Six gain 0.12 in their decay, one nothing: however small its own errors are, it is one of seven."""
    gained = []
    for se in (0.01, 0.003):
        rule = DipAware(Goal(Y, top=2))
        rule.observe(make_row("report", "s", "base-m", step=0, metrics={Y: 0.4}, se={Y: 0.01}))
        for i in range(6):
            told(rule, f"gains-{i}", [*STABLE, 0.38, 0.41, 0.44, 0.47], config=DECAY)
        told(rule, "sure", [*STABLE, *[0.35] * 4], config=DECAY, se=se)
        forecaster = rule.ranking.forecaster
        gained.append(forecaster.gains["wsd@8"].learnt(forecaster.scale)[0][KNOTS[:-1] > 0.79].sum())
    assert gained[1] == pytest.approx(gained[0], abs=0.012)


def test_contemporaries_compare_as_if_the_gain_that_both_have_ahead_were_not_there():
    """Before any decay was seen, a run far behind another at equal step has no better odds for a wide gain to come."""
    given = {}
    for name, config in (("wsd", DECAY), ("cosine", {"schedule": "cosine"})):
        rule = DipAware(Goal(Y, top=2))
        rule.observe(make_row("report", "s", "base-m", step=0, metrics={Y: 0.4}, se={Y: 0.005}))
        for i in range(4):
            told(rule, f"ahead-{i}", [v + 0.1 + 0.01 * i for v in STABLE[:10]], config=config)
        told(rule, "behind", [v - 0.15 for v in STABLE[:10]], config=config)
        given[name] = odds(rule, "behind")
    assert given["wsd"] < 2 * given["cosine"] + 0.01
