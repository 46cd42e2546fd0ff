"""What a trial is worth: refused where there is nothing to choose from; without it, ids stay as they were."""

from __future__ import annotations

import pytest

from sweeps import Sweep, grid
from sweeps.config.objective import Constraint, Goal, all_met, combined, is_met
from sweeps.errors import InputError, SpecError


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"evaluation": {"at": [400]}}, "nothing before the last of 400 steps"),
        ({"evaluation": {"at": {"every": 400}}}, "nothing before the last of 400 steps"),
        ({"space": {"steps": grid(50, 400)}, "evaluation": {"at": [100, 200]}}, "nothing before the last of 50 steps"),
        ({"objective": {"metric": "train/loss", "goal": "minimize", "at": "best"}}, "measured while training"),
    ],
)
def test_the_best_checkpoint_needs_several_that_are_scored(more, said):
    with pytest.raises(SpecError, match=said):
        Sweep(**{"name": "s", "objective": {"at": "best"}, **more})


@pytest.mark.parametrize("at", ["log", {"every": 100}, [100, 400]])
def test_with_several_it_is_taken(at):
    assert Sweep(name="s", objective={"at": "best"}, evaluation={"at": at}).goal.at == "best"


def test_only_a_sweep_that_asks_for_it_has_another_id():
    plain = Sweep(name="s")
    assert Sweep(name="s", objective={"at": "end"}).id == plain.id
    assert Sweep(name="s", objective={"at": "best"}).id != plain.id
    assert "at" not in plain.to_json(identity=True)["objective"]
    assert plain.to_json()["objective"]["at"] == "end"


@pytest.mark.parametrize("limits", [{}, {"at_least": 0.1, "at_most": 0.9}, {"at_most": 0.0, "relative_to_base": 0.0}])
def test_a_constraint_sets_one_limit(limits):
    with pytest.raises(InputError, match=f"sets {len(limits)} limits; set one of at_least, at_most"):
        Constraint("m/x", **limits)


def test_what_a_trial_is_worth_is_one_of_two():
    with pytest.raises(InputError, match="at is 'last'; expected end or best"):
        Goal("m/x", at="last")


def test_whether_a_constraint_is_met_is_unknown_without_the_numbers_that_decide_it():
    relative = Constraint("m/x", relative_to_base=-0.1)
    assert is_met(relative, 0.5, 0.55) is True
    assert is_met(relative, 0.4, 0.55) is False
    assert is_met(relative, 0.4, None) is None
    assert is_met(Constraint("m/x", at_least=0.5), None, 0.1) is None
    assert is_met(Constraint("m/x", at_most=0.5), 0.6, None) is False


@pytest.mark.parametrize(
    ("met", "whole"),
    [((), True), ((True, True), True), ((True, None), None), ((None, False), False), ((True, False), False)],
)
def test_one_that_is_not_met_decides_and_one_that_is_unknown_leaves_it_open(met, whole):
    assert combined(met) is whole


def test_all_constraints_are_checked_on_scores_of_one_moment():
    floor, relative = Constraint("m/x", at_least=0.5), Constraint("m/y", relative_to_base=-0.1)
    assert all_met((floor, relative), {"m/x": 0.6, "m/y": 0.5}, {"m/y": 0.55}) is True
    assert all_met((floor, relative), {"m/x": 0.6, "m/y": 0.5}, {}) is None
    assert all_met((floor, relative), {"m/x": 0.4, "m/y": 0.5}, {}) is False


def test_which_metrics_are_shares():
    from sweeps.config.names import is_share

    shares = ("math/score", "safety/refusal", "transfer/score@8,t=1", "ready/score,avg=8,t=1", "length/truncated,cap=9")
    assert all(map(is_share, shares))
    assert not any(map(is_share, ("train/loss", "perf/mfu", "length/mean", "ready/entropy,avg=8,t=1")))
