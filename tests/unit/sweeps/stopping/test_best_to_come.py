"""A rule for trials that are worth their best checkpoint: what is still to come, and what a trial keeps."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.config.objective import Constraint, Goal
from sweeps.journal.rows import Row
from sweeps.stopping.base import Action, StopRule
from sweeps.stopping.baselines import Asha
from sweeps.stopping.dip_aware import DipAware
from sweeps.stopping.forecasting.curve_library import library
from sweeps.stopping.forecasting.forecast import Belief, GainCache, Noise, looks, warped
from tests.support.rows import make_row
from tests.unit.sweeps.stopping.test_stopping_dip_aware import DIP, FALL, FLAT, RISE, Sweep, X

Y, SAFE = "transfer/score", "safety/refusal"
PEAK = np.where(X <= 0.3, 0.25 * X / 0.3, 0.25 - 0.5 * (X - 0.3))  # far ahead of all others, then below them
BEST = Goal(Y, top=1, at="best")


def test_the_best_to_come_is_distributed_as_the_highest_of_many_drawn_paths():
    """Against paths drawn one by one from the same belief: joint normal coefficients, and a walk in log time."""
    cache = GainCache(library(), Noise())
    belief = Belief(cache, 0.5)
    for x, y in ((0.05, -2.0), (0.1, -3.0), (0.2, -1.0)):
        belief.update(x, y, 1.0)
    weights = belief.weights(library().log_weight)
    found = belief.best_to_come(weights)

    noise, times = np.random.default_rng(0), looks(0.2, 1.0)
    entries = noise.choice(len(weights), 20_000, p=weights)
    cov, mean = belief.gains.cov[:, :, entries], belief.mean[:, entries]
    roots = np.linalg.cholesky(cov.transpose(2, 0, 1) + 1e-9 * np.eye(3))
    level, a, b = (mean.T + np.einsum("eij,ej->ei", roots, noise.normal(size=(len(entries), 3)))).T
    highest, before = np.full(len(entries), -np.inf), 0.2
    for x in times:
        level = level + np.sqrt(cache.walk[entries] * (warped(x) - warped(before))) * noise.normal(size=len(entries))
        before = x
        _, f, g = cache.basis(x)[:, entries]
        highest = np.maximum(highest, level + a * f + b * g)
    at = np.array([0.02, 0.1, 0.5, 0.9, 0.98])
    assert found.mean == pytest.approx(highest.mean(), abs=0.15)
    assert found.quantiles(at) == pytest.approx(np.quantile(highest, at), abs=0.6)
    assert found.mean > belief.forecast(weights).mean


def test_looks_end_with_the_budget_and_are_all_still_to_come():
    for now in (1 / 64, 0.1, 0.5, 0.9, 0.999, 1.0):
        times = looks(now, 1.0)
        assert times[-1] == 1.0
        assert all(now < t for t in times) or now == 1.0
        assert len(times) <= 6


def field(goal: Goal, **more):
    """A run past its peak among three that end where it once stood; what is said of each."""
    curves = {"peak": PEAK, "flat": FLAT, "rise": RISE, "dip": DIP}
    sweep = Sweep(DipAware(goal, **more), curves)
    return sweep, sweep.end("peak")


def test_a_run_past_its_peak_is_given_up_for_what_it_can_still_gain_and_keeps_what_it_had():
    sweep, (stopped, verdict) = field(BEST)
    assert stopped is not None
    assert "a better checkpoint to come, among the top 1" in verdict.reason
    assert "at best until step 640" in verdict.reason
    rule = sweep.rule
    rule.observe(make_row("end", "s", "peak", of="scoring", status="pruned"))
    ranking, trials = rule.ranking, rule.ranking.forecaster.trials
    (places,) = [ranking._settled(trials["rise"].suite)]
    assert np.median(places.of(np.array([trials["peak"].row]))[0]) == pytest.approx(0.4 + 0.24, abs=0.03)
    assert ranking.probability(trials["rise"]).p < 0.05  # against the best checkpoint of the run that was pruned


def test_by_their_ends_the_same_run_is_no_rival_once_it_is_pruned():
    sweep, _ = field(Goal(Y, top=1))
    rule = sweep.rule
    rule.observe(make_row("end", "s", "peak", of="scoring", status="pruned"))
    ranking, trials = rule.ranking, rule.ranking.forecaster.trials
    places = ranking._settled(trials["rise"].suite)
    assert trials["peak"].row not in places.members


def test_a_collapse_with_no_rivals_is_given_up_when_nothing_better_can_come():
    step, verdict = Sweep(DipAware(Goal(Y, top=3, at="best")), {"fall": FALL}).end("fall")
    assert step is not None
    assert "better than its best" in verdict.reason


def test_a_checkpoint_that_breaks_a_constraint_is_nobodys_best():
    """Refusal is fine only before the peak: what counts of the run is what it had until then."""
    limit = Constraint(SAFE, at_least=0.9)
    refusal = {t: {SAFE: np.where(X < 0.15, 0.95, 0.5) if t == "peak" else 0.95 + FLAT} for t in ("peak", "rise")}
    sweep = Sweep(DipAware(Goal(Y, top=1, at="best", constraints=(limit,))), {"peak": PEAK, "rise": RISE}, more=refusal)
    seen = sweep.rule.ranking.forecaster.seen[sweep.rule.ranking.forecaster.trials["peak"].row]
    assert seen < 0.4 + float(PEAK[X < 0.15].max()) + 0.03


def test_the_self_check_compares_bests_with_bests():
    """Runs whose best lies far above their end: as forecasts of bests these hold, and nothing is widened for it."""
    curves = {f"t{i}": PEAK * (0.8 + 0.05 * i) for i in range(6)}
    rule = DipAware(Goal(Y, top=3, at="best"), max_lost_winners=0.001)
    sweep = Sweep(rule, curves)
    done = {t: track for t, track in rule.ranking.forecaster.trials.items() if track.last >= track.budget}
    for track in done.values():
        assert all(told.forecast > track.in_unit(track.phase.level) for told in track.predictions)
    assert sweep.said


class Reported(Asha):
    """ASHA that tells what it compares."""

    def seen(self, trial: str) -> float:
        return self.latest(trial)[1]


@pytest.mark.parametrize(("at", "value"), [("end", 0.2), ("best", 0.5)])
def test_rules_that_compare_levels_compare_the_best_so_far(at: str, value: float):
    rule: StopRule = Reported(Goal(Y, at=at))
    rows: list[Row] = [make_row("report", "s", "t", step=s, metrics={Y: v}) for s, v in ((1, 0.3), (2, 0.5), (4, 0.2))]
    for row in rows:
        rule.observe(row)
    assert rule.seen("t") == value
    assert rule.decide("t").action is Action.CONTINUE


def test_the_checkpoint_that_branches_share_with_their_trunk_takes_one_place():
    """A trunk past its peak, and two branches that turned off behind it and fell: of the top 2 places one is open."""
    rule = DipAware(Goal(Y, top=2, at="best"))
    Sweep(rule, {"trunk": PEAK, "flat": FLAT, "rise": RISE})
    shared, trials = rule.history.curves["trunk"], rule.ranking.forecaster.trials
    for name, budget in (("short", 320), ("middle", 400)):
        rule.observe(make_row("trial", "s", name, budget=budget, config={"model": "m"}, parent="trunk", fork_step=220))
        rule.observe(make_row("attempt", "s", name, 1, 220, parent="trunk", fork_step=220))
        rows = [(s, p.metrics[Y], {"inherited": "trunk"}) for s, p in shared.points.items() if 0 < s <= 220]
        rows += [(step, 0.3, {}) for step in range(240, budget + 1, 20)]
        for step, value, more in rows:
            rule.observe(make_row("report", "s", name, 1, step, metrics={Y: value}, se={Y: 0.01}, suite="", **more))
        rule.observe(make_row("end", "s", name, of="scoring", status="completed"))
    for name in ("short", "middle"):  # its own reading is of the whole path
        assert rule.ranking.forecaster.seen[trials[name].row] == pytest.approx(0.64, abs=0.03)
    assert rule.ranking.probability(trials["rise"]).cut < 0.56  # that of `flat`, not of the trunk's peak once more
