"""Where runs stand, how sure a final is, and how long a dip is waited for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweeps.config.objective import Constraint, Goal
from sweeps.journal.rows import Row, SweepRow
from sweeps.stopping.dip_aware import DipAware
from sweeps.stopping.forecasting.forecasts import CurveForecaster
from sweeps.stopping.forecasting.shared_gain import SharedGain
from tests.support.rows import make_row

Y, CUT = "transfer/score", "length/truncated"
STEPS = range(20, 420, 20)


def rows(trial: str, scores: list[float], cut: list[float], *, budget: int = 400) -> list[Row]:
    """A run whose scores are shares of 500 items, some replies being cut off."""
    out = [make_row("trial", "s", trial, budget=budget, config={"model": "m"})]
    for step, y, c in zip(STEPS, scores, cut, strict=False):
        se = max((y * (1.0 - y) / 500) ** 0.5, 0.005)
        out.append(make_row("report", "s", trial, step=step, metrics={Y: y, CUT: c}, se={Y: se}, n={Y: 500, CUT: 500}))
    return out


def followed(*runs: list[Row], base: float = 0.9) -> CurveForecaster:
    rule = DipAware(Goal(Y, top=1))
    rule.observe(
        make_row("report", "s", "base-m", step=0, metrics={Y: base, CUT: 0.0}, se={Y: 0.01}, n={Y: 500, CUT: 500})
    )
    for row in (row for run in runs for row in run):
        rule.observe(row)
    rule.ranking.forecaster.follow()
    return rule.ranking.forecaster


def test_a_run_whose_replies_are_cut_off_stands_at_its_score_and_not_where_it_was_before() -> None:
    """The level before would be a rival that no other run could beat."""
    forecaster = followed(rows("lost", [0.9, 0.89, 0.1, 0.05, 0.02, 0.02], [0.0, 0.0, 0.4, 0.4, 0.4, 0.4]))
    lost = forecaster.trials["lost"]
    assert forecaster.level[lost.row] == pytest.approx(0.02)
    # What was cut off may have been right, none of it to all: a uniform share of 0.4.
    assert forecaster.level_error[lost.row] ** 0.5 == pytest.approx(0.4 / 12**0.5, rel=0.01)
    assert lost.phase.onset is None  # and no fall is read from it


def test_what_has_ended_is_worth_its_score_also_where_replies_are_cut_off() -> None:
    forecaster = followed(rows("lost", [0.9, 0.89, *[0.02] * 18], [0.0, 0.0, *[0.9] * 18]))
    low, middle, high = forecaster.span(forecaster.trials["lost"])
    assert high < 0.1
    assert middle == pytest.approx(0.02, abs=0.03)
    assert high - low < 0.1


def test_a_final_that_is_known_is_as_sure_as_its_scores_however_far_others_scatter() -> None:
    draw = np.random.default_rng(5)
    wild = [rows(f"wild-{i}", list(np.clip(0.5 + 0.2 * draw.normal(size=20), 0, 1)), [0.0] * 20) for i in range(4)]
    forecaster = followed(*wild, rows("even", [0.6] * 20, [0.0] * 20))
    even = forecaster.trials["even"]
    assert forecaster.spread[even.row] == 1.0
    low, _, high = forecaster.span(even)
    assert high - low < 0.06


def test_runs_that_are_alike_do_not_confirm_each_other_with_what_they_were_told() -> None:
    """Five branches that share their trunk say five times what one says, and not more at each report."""
    fall = rows("it", [0.8, 0.6, 0.5, 0.5, 0.52], [0.0] * 5)
    alike = [[replace(row, trial=f"twin-{i}") for row in fall] for i in range(4)]
    alone, among = followed(fall), followed(fall, *alike)
    np.testing.assert_allclose(among.trials["it"].mass, alone.trials["it"].mass)
    for twin in alike:  # what they were told by each other is not passed on
        np.testing.assert_allclose(among.trials[twin[0].trial].mass, alone.trials["it"].mass)
    np.testing.assert_allclose(among.pooled, 5.0 * alone.pooled, atol=1e-9)
    told, by_itself = (f.span(f.trials["it"]) for f in (among, alone))
    assert told[0] < by_itself[0] - 0.005  # each is told by the others all the same


def test_a_score_of_a_run_that_has_ended_is_not_called_vaguer() -> None:
    said = []
    for scores in ([0.9, 0.89, *[0.02] * 4], [0.9, 0.89, *[0.02] * 18]):
        rule = DipAware(Goal(Y, top=1))
        for row in rows("lost", scores, [0.0, 0.0, *[0.9] * 18]):
            rule.observe(row)
        said.append(rule.decide("lost").reason)
    assert "(90% of replies cut off, normal is 0%: taken as vaguer)" in said[0]
    assert "(90% of replies cut off, normal is 0%)" in said[1]


def test_a_constraint_is_held_against_where_its_metric_stands_also_where_replies_are_cut_off() -> None:
    rule = DipAware(Goal("other", top=1, constraints=(Constraint(Y, at_least=0.5),)))
    for row in rows("lost", [0.9, 0.89, *[0.02] * 4], [0.0, 0.0, *[0.9] * 4]):
        rule.observe(row)
    found = rule.ranking.limits[0].feasibility("lost")
    assert found is not None
    assert found.level == pytest.approx(0.02)


FALLEN = [0.5, 0.3, 0.2, *[0.2] * 17]
HALF_BACK = [0.5, 0.3, 0.2, *np.linspace(0.3, 0.8, 7), *[0.8] * 10]


@pytest.mark.parametrize(
    ("fallen", "back", "patience"), [(0, 0, 4.0), (1, 0, 3.2), (4, 0, 2.0), (9, 0, 2.0), (4, 4, 4.0)]
)
def test_patience_falls_to_half_where_dips_of_the_sweep_are_not_made_good_by_half(
    fallen: int, back: int, patience: float
) -> None:
    lost = [rows(f"lost-{i}", FALLEN, [0.0] * 20) for i in range(fallen)]
    good = [rows(f"good-{i}", HALF_BACK, [0.0] * 20) for i in range(back)]
    assert followed(*lost, *good).ratio("constant") == pytest.approx(patience)


def test_patience_counts_a_dip_only_when_it_has_had_all_of_it_and_forgets_a_curve_that_is_read_anew() -> None:
    forecaster = followed(rows("young", FALLEN[:4], [0.0] * 4))
    assert not any(forecaster.made_good.values())
    run = rows("old", FALLEN, [0.0] * 20)
    forecaster = followed(run)
    assert forecaster.made_good == {"constant": {"old": False}}
    again = followed(run[:1] + run[3:4] + run[1:3] + run[4:])
    assert again.made_good == forecaster.made_good
    back = rows("back", [0.5, 0.3, 0.2, 0.5, *[0.9] * 16], [0.0] * 20)[:8]
    assert followed(back).ratios.keys() == {"back"}
    low = [replace(row, attempt=1) for row in rows("back", [0.2] * 7, [0.0] * 7)[1:]]  # the next attempt stays low
    assert not followed(back, low).ratios


def test_patience_begins_from_the_dips_of_earlier_sweeps() -> None:
    rule = DipAware(Goal(Y, top=1))
    told = followed(*(rows(f"lost-{i}", FALLEN, [0.0] * 20) for i in range(4))).as_experience()
    assert told["dips"] == [0, 4]
    rule.observe(SweepRow("", experience={"sweeps": [told]}))
    assert rule.ranking.forecaster.ratio("constant") == pytest.approx(4.0 * 2.0 * 2.0 / (4.0 + 2.0))


def test_what_short_runs_gain_says_nothing_of_longer_ones_where_the_rate_follows_the_budget() -> None:
    """Two octaves of budgets under WSD are two kinds; what a sweep tells another is of the schedule."""
    short = [rows(f"short-{i}", [0.5 + 0.01 * i] * 20, [0.0] * 20, budget=400) for i in range(4)]
    long = rows("long", [0.5] * 5, [0.0] * 5, budget=1600)
    wsd = [[replace(run[0], config={"lr_scheduler_type": "wsd"}), *run[1:]] for run in [*short, long]]
    forecaster = followed(*wsd)
    kinds = {forecaster.trials[t].kind for t in ("short-0", "long")}
    assert len(kinds) == 2
    _, sd, _ = forecaster.gains[forecaster.trials["long"].kind].learnt(1.0)
    ahead = SharedGain(True, 8).prior_variance[3:] ** 0.5  # the long run is in the second interval
    assert sd[3:] == pytest.approx(ahead)
    assert list(forecaster.as_experience()["kinds"]) == ["wsd"]
    constant = followed(*short, long)
    assert {t.kind for t in constant.trials.values()} == {"constant"}
