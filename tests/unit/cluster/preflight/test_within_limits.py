"""What a plan over its limits proposes fits, whatever the sweep is."""

from __future__ import annotations

import pytest
import yaml

from cluster.preflight.cost import speeds_for
from cluster.preflight.within_limits import Change, changed, fitting_changes
from sweeps import Sweep
from sweeps.config.plan import Plan
from sweeps.planning.estimate import Estimate, estimate
from tests.support.random_sweeps import random_definition


def planned(plan: Plan) -> Estimate:
    return estimate(plan, speeds_for(plan, gpu="H100"), [8.0])


@pytest.mark.parametrize("seed", range(8))
def test_a_proposed_change_fits_when_it_is_made(seed: int):
    definition = random_definition(seed)
    whole = planned(Plan(Sweep(**definition)))
    assert whole.wall is not None
    limits = (
        {"gpu_hours": whole.gpu_hours.value * 0.6}
        if seed % 2 and whole.gpu_hours.value
        else {"wall_hours": whole.wall.value / 3600 * 0.6}
    )
    tight = Plan(Sweep(**{**definition, "limits": limits}))
    now = planned(tight)
    assert now.over_limits(tight)
    planned_again = list[Plan]()
    changes = fitting_changes(tight, now, lambda other: planned_again.append(other) or planned(other))
    assert changes
    assert all(other.sweep != tight.sweep for other in planned_again)
    assert [c.saves for c in changes] == sorted(c.saves for c in changes)
    for change in changes:
        after = changed(tight, change.settings)
        assert not planned(after).over_limits(after)
        assert change.was != change.settings


def test_the_largest_value_that_fits_is_proposed_in_the_words_of_the_file():
    space = {"replay": {"uniform": [0.0, 0.5]}}
    definition = {"name": "s", "space": space, "search": {"algorithm": "random", "trials": 40}}
    whole = planned(Plan(Sweep(**definition)))
    assert whole.wall is not None
    tight = Plan(Sweep(**definition, limits={"wall_hours": whole.wall.value / 3600 / 2}))
    (trials,) = [c for c in fitting_changes(tight, planned(tight), planned) if "search.trials" in c.settings]
    number = trials.settings["search.trials"]
    assert str(trials) == f"search.trials: {number} (now 40), {trials.saves:.0%} less"
    over = changed(tight, {"search.trials": number + 1})
    assert planned(over).over_limits(over)


def test_where_no_change_is_enough_alone_two_are_proposed_together():
    definition = {
        "name": "s",
        "models": {"qwen3-1.7b": {"path": "/not/here"}},
        "space": {
            "model": {"grid": ["qwen3-1.7b"]},
            "steps": {"grid": [600, 800]},
            "data": {"grid": ["verified-long-cot", "answer-only"]},
        },
    }
    whole = planned(Plan(Sweep(**definition)))
    tight = Plan(Sweep(**definition, limits={"gpu_hours": whole.gpu_hours.value * 0.28}))
    changes = fitting_changes(tight, planned(tight), planned)
    assert {"space.data": ["verified-long-cot"], "space.steps": [600]} in [change.settings for change in changes]
    for change in changes:
        assert len(change.settings) >= 2
        after = changed(tight, change.settings)
        assert not planned(after).over_limits(after)


def test_where_nothing_fits_none_is_proposed():
    tight = Plan(Sweep(name="s", space={"replay": {"grid": [0.0, 0.1]}}, limits={"wall_hours": 1e-9}))
    assert fitting_changes(tight, planned(tight), planned) == []


def test_changes_are_written_as_a_sweep_file_takes_them():
    values = {"space.lr": [1e-05, 0.001], "space.pair": {"model": ["a"], "steps": [10]}, "search.share_trunk": True,
              "space.stop": [None, "on"]}  # fmt: skip
    said = str(Change(values, values, 0.5))
    assert "space.lr: [1.0e-05, 0.001] (now" in said
    assert "space.pair: {model: [a], steps: [10]}" in said
    assert "search.share_trunk: true" in said
    assert "space.stop: [null, 'on']" in said
    assert yaml.safe_load("[1.0e-05, 0.001]") == values["space.lr"]


def test_values_that_make_no_sweep_hide_none_that_fits():
    """Each configuration is tried with every budget: 25 trials go with five budgets and with one, not with two to four."""
    space = {"steps": {"grid": [100, 200, 300, 400, 800]}, "learning_rate": {"loguniform": [1e-5, 1e-3]}}
    definition = {"name": "s", "space": space, "search": {"algorithm": "random", "trials": 25}}
    whole = planned(Plan(Sweep(**definition)))
    assert whole.wall is not None
    found = {}
    for share in (0.3, 0.7):
        tight = Plan(Sweep(**definition, limits={"wall_hours": whole.wall.value / 3600 * share}))
        for change in fitting_changes(tight, planned(tight), planned):
            found.setdefault(next(iter(change.settings)), []).append(next(iter(change.settings.values())))
    assert found["search.trials"]
    assert all(n % 5 == 0 for n in found["search.trials"])
    assert [100] in found["space.steps"]  # 25 trials are no multiple of two, three or four budgets
