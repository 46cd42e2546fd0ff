from __future__ import annotations

import pytest

from sweeps import Sweep, grid, uniform
from sweeps.config.plan import Plan, snapshot_steps
from sweeps.errors import LimitError


@pytest.mark.parametrize(
    ("at", "budget", "steps"),
    [
        ("log", 64, (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64)),
        ("log", 1, (1,)),
        ({"every": 30}, 100, (30, 60, 90, 100)),
        ([10, 5, 200], 100, (5, 10, 100)),
    ],
)
def test_scored_steps_ascend_and_end_with_the_budget(at, budget, steps):
    assert snapshot_steps(at, budget) == steps


def test_doubled_budgets_are_scored_at_the_same_steps():
    assert set(snapshot_steps("log", 400)) - {6, 9} <= set(snapshot_steps("log", 800))


def test_grid_axes_are_crossed_in_full_and_repeats_change_the_seed_only():
    plan = Plan(Sweep(name="x", seed=5, space={"steps": grid(4, 8), "replay": grid(0.0, 0.1)}, search={"repeats": 2}))
    trials = plan.known_trials()
    assert plan.total == len(trials) == len({t.id for t in trials}) == 8
    assert [(t.config["steps"], t.config["replay"]) for t in trials[:4]] == [(4, 0.0), (4, 0.1), (8, 0.0), (8, 0.1)]
    assert {t.config["seed"] for t in trials[:4]} == {5}
    assert {t.config["seed"] for t in trials[4:]} == {6}


def test_the_id_of_a_trial_depends_on_its_configuration_alone():
    small, large = (Plan(Sweep(name=n, space={"steps": s})) for n, s in (("a", grid(4)), ("b", grid(2, 4))))
    assert small.known_trials()[0].id == large.known_trials()[1].id


def test_sampled_trials_are_not_known_in_advance_but_counted():
    plan = Plan(
        Sweep(
            name="x",
            space={"steps": grid(4, 8), "learning_rate": uniform(1e-4, 1e-3)},
            search={"algorithm": "random", "trials": 6},
        )
    )
    assert plan.known_trials() == []
    assert plan.total == 6


def test_more_trials_than_the_limit_are_refused_with_both_numbers():
    with pytest.raises(LimitError, match=r"2 trials, limits.trials is 1"):
        Plan(Sweep(name="x", space={"steps": grid(4, 8)}, limits={"trials": 1})).check_limits()
