"""The placement on its own: Ray's view of the cluster stood in by numbers, and a clock by hand."""

from __future__ import annotations

import pytest

from cluster.resources import fit_check
from cluster.resources import placement as module
from cluster.resources.autoscaler import Growth
from cluster.resources.backfill import OVERTAKES, Group
from cluster.resources.bundles import Attempt, beside_evaluators, most_workers
from cluster.resources.fit_check import check_fits
from cluster.resources.placement import LOOK_AHEAD, NODES_S, SETTLE_S, PlacementScheduler
from sweeps import InputError, Sweep, grid, uniform
from sweeps.config.blocks import EvaluationBlock
from sweeps.config.plan import Plan
from sweeps.controller.launch import Launch

GPU = {"gpus_per_worker": 1.0, "cpus_per_worker": 0.01, "path": "unused"}


class Cluster:
    """What Ray would say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **nodes: float) -> None:
        self.nodes = {n: {"CPU": 8.0, "GPU": g} for n, g in nodes.items()}
        self.going: dict[str, int] = {}
        self.now = 0.0
        monkeypatch.setattr(module, "available_resources_per_node", lambda: self.nodes)
        monkeypatch.setattr(module, "total_resources_per_node", lambda: self.nodes)
        monkeypatch.setattr(fit_check, "total_resources_per_node", lambda: self.nodes)
        monkeypatch.setattr(module, "draining_nodes", lambda: frozenset(self.going))


def sweep(**sizes: int | list[int]) -> Sweep:
    models = {name: {**GPU, "workers": n} for name, n in sizes.items()}
    return Sweep(name="g", models=models, space={"model": grid(*sizes)}, trainer={"steps": 8})


def line(plan: Plan):
    specs = plan.known_trials()
    return lambda limit: specs[:limit]


def test_a_large_first_one_lets_a_small_one_pass_and_who_was_just_placed_is_not_placed_again(monkeypatch):
    cluster, plan = Cluster(monkeypatch, n0=2.0), Plan(sweep(large=4, small=1))
    placement = PlacementScheduler(plan, clock=lambda: cluster.now)
    choice = placement.choose(line(plan), [])
    assert choice is not None
    assert choice.trial == plan.known_trials()[1].id
    placement.started(choice, plan.known_trials()[1].model)
    placement.started(choice, plan.known_trials()[1].model)
    assert placement.choose(line(plan), []) is None  # two GPUs are free in Ray's view, none in truth
    cluster.now += SETTLE_S + 1
    assert placement.choose(line(plan), []) is not None


def test_while_ray_may_not_have_seen_the_latest_group_nobody_overtakes_who_might_fit(monkeypatch):
    cluster, plan = Cluster(monkeypatch, n0=4.0), Plan(sweep(large=4, small=1))
    placement = PlacementScheduler(plan, clock=lambda: cluster.now)
    first = placement.choose(line(plan), [])
    assert first is not None
    assert first.workers == 4
    placement.started(module.Choice("other", 1, {"n0": 1}), plan.known_trials()[1].model)
    assert placement.choose(line(plan), []) is None
    cluster.now += SETTLE_S
    again = placement.choose(line(plan), [])
    assert again is not None
    assert again.workers == 4


def test_as_soon_as_ray_shows_the_latest_group_the_next_one_is_chosen_also_when_another_has_ended_meanwhile(
    monkeypatch,
):
    cluster, plan = Cluster(monkeypatch, n0=2.0), Plan(sweep(two=2))
    placement, model = PlacementScheduler(plan, clock=lambda: cluster.now), plan.known_trials()[0].model
    ends = Attempt(Launch(plan.known_trials()[0], 1, None, 2), "g", {"n0": 2}, since=0.0)
    choice = placement.choose(line(plan), [ends])
    assert choice is not None
    placement.started(choice, model)
    assert placement.choose(line(plan), [ends]) is None  # Ray still shows two free: they are those just given away
    placement.ended(ends)
    placement.given_back(ends)
    cluster.nodes["n0"]["GPU"] = 4.0  # the end is seen before the start: two of the four are given away
    assert placement.choose(line(plan), []) is not None
    assert placement.settling
    cluster.nodes["n0"] |= {"GPU": 2.0, "CPU": 7.98}  # and the start
    assert placement.choose(line(plan), []) is not None
    assert not placement.settling


def test_a_draining_node_takes_nothing_new_and_an_attempt_on_it_is_known_to_lose_it(monkeypatch):
    cluster, plan = Cluster(monkeypatch, n0=2.0, n1=2.0), Plan(sweep(two=2))
    cluster.going = {"n0": 0}
    placement = PlacementScheduler(plan, clock=lambda: cluster.now)
    choice = placement.choose(line(plan), [])
    assert choice is not None
    assert choice.placed == {"n1": 2}
    monkeypatch.setattr(
        module.ray, "nodes", lambda: [{"NodeID": n, "Alive": n != "dead"} for n in ("n0", "n1", "dead")]
    )
    assert [placement.any_gone({n}) for n in ("n0", "n1", "dead", "never-seen")] == [True, False, True, True]


def test_what_runs_is_expected_to_end_by_its_own_pace(monkeypatch):
    cluster, plan = Cluster(monkeypatch, n0=2.0), Plan(sweep(large=4))
    placement = PlacementScheduler(plan, clock=lambda: cluster.now)
    attempt = Attempt(Launch(plan.known_trials()[0], 1, None, 4), "g", {"n0": 4}, since=0.0, step=2)
    assert placement._running(attempt, 10.0).left == pytest.approx(30.0)  # 2 of 8 steps in 10 s
    placement.ended(attempt)
    placement.given_back(attempt)
    cluster.now = 0.0


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (sweep(m=9), "models.m: 9 worker"),
        (Sweep(name="g", models={"m": {**GPU, "gpus_per_worker": 5.0}}), "there are 2 x (8 CPU, 4 GPU)"),
        (Sweep(name="g", models={"m": {**GPU, "gpus_per_worker": 1.5}}), "a share below 1 or a whole number"),
        (Sweep(name="g", models={"m": {**GPU, "workers": 8}}, evaluation={"gpus_per_worker": 1.0}), "beside 1 evaluators"),
    ],
)  # fmt: skip
def test_what_no_node_can_ever_hold_is_refused_with_the_sizes_that_there_are(monkeypatch, definition, message):
    Cluster(monkeypatch, n0=4.0, n1=4.0)
    with pytest.raises(InputError) as refused:
        check_fits(definition)
    assert message in str(refused.value)


def test_an_elastic_trial_is_refused_only_when_its_fewest_do_not_fit(monkeypatch):
    Cluster(monkeypatch, n0=4.0)
    check_fits(sweep(m=[2, 8]))
    with pytest.raises(InputError):
        check_fits(sweep(m=[5, 8]))


# ---- nodes that come -------------------------------------------------------------------------------------------------------

ADDED = Growth({"CPU": 8.0}, {"gpus": ({"CPU": 12.0, "GPU": 4.0}, 2)}, 2)


def test_who_fits_no_node_that_is_there_holds_nobody_up_and_is_first_on_the_node_that_comes(monkeypatch):
    cluster, plan = Cluster(monkeypatch, n0=1.0), Plan(sweep(large=4, small=1))
    placement = PlacementScheduler(plan, clock=lambda: cluster.now)
    large, small = plan.known_trials()
    for _ in range(3 * OVERTAKES):  # more than may pass one that waits for others to end
        choice = placement.choose(line(plan), [])
        assert choice is not None
        assert choice.trial == small.id
        placement.started(choice, small.model)
        cluster.now += SETTLE_S
    assert placement.first(line(plan)) == placement._waiting(small).group
    cluster.nodes["n1"] = {"CPU": 8.0, "GPU": 4.0}
    choice = placement.choose(line(plan), [])
    assert choice is not None
    assert (choice.trial, choice.placed) == (large.id, {"n1": 4})
    cluster.now += NODES_S
    assert placement.first(line(plan)) == placement._waiting(large).group


def test_a_large_one_that_the_nodes_could_hold_is_still_passed_by_few_only(monkeypatch):
    cluster, plan = Cluster(monkeypatch, n0=1.0), Plan(sweep(large=4, small=1))
    placement, whole = PlacementScheduler(plan, clock=lambda: cluster.now), {"n0": {"CPU": 8.0, "GPU": 4.0}}
    monkeypatch.setattr(module, "total_resources_per_node", lambda: whole)  # three of the four are another sweep's
    placement.external_usage = False
    passed = 0
    while (choice := placement.choose(line(plan), [])) is not None and passed <= OVERTAKES:
        placement.started(choice, plan.known_trials()[1].model)
        cluster.now += SETTLE_S
        passed += 1
    assert passed == OVERTAKES


def test_who_is_kept_out_by_strangers_holds_nobody_up_is_told_of_and_is_first_when_they_are_gone(monkeypatch):
    cluster, plan = Cluster(monkeypatch, n0=1.0), Plan(sweep(large=4, small=1))
    placement, whole = PlacementScheduler(plan, clock=lambda: cluster.now), {"n0": {"CPU": 8.0, "GPU": 4.0}}
    large, small = plan.known_trials()
    monkeypatch.setattr(module, "total_resources_per_node", lambda: whole)  # three of the four are a notebook's
    assert not placement.blocked(placement._waiting(large).group)  # what has just ended looks the same
    for _ in range(3 * OVERTAKES):
        choice = placement.choose(line(plan), [])
        assert choice is not None
        assert choice.trial == small.id
        placement.started(choice, small.model)
        cluster.now += SETTLE_S + 1
    assert placement.blocked(placement._waiting(large).group)
    cluster.nodes = whole
    choice = placement.choose(line(plan), [])
    assert choice is not None
    assert choice.trial == large.id
    assert not placement.blocked(placement._waiting(large).group)


def test_nobody_waits_at_the_head_of_the_line_for_what_only_evaluators_hold(monkeypatch):
    definition = sweep(large=4, small=1).model_copy(update={"evaluation": EvaluationBlock(gpus_per_worker=1.0)})
    cluster, plan = Cluster(monkeypatch, n0=4.0), Plan(definition)
    placement = PlacementScheduler(plan, clock=lambda: cluster.now)
    cluster.nodes = {"n0": {"CPU": 8.0, "GPU": 3.0}}  # free: the evaluator has its own
    monkeypatch.setattr(module, "total_resources_per_node", lambda: {"n0": {"CPU": 8.0, "GPU": 4.0}})
    assert placement.first(line(plan)) == placement._waiting(plan.known_trials()[1]).group


def test_what_the_autoscaler_may_add_is_not_refused_and_what_it_may_not_is_told_with_both_sizes(monkeypatch):
    Cluster(monkeypatch, n0=0.0)
    check_fits(sweep(m=8), lambda: ADDED)
    with pytest.raises(InputError) as refused:
        check_fits(sweep(m=9), lambda: ADDED)
    assert "there are 1 x (8 CPU, 0 GPU), and the autoscaler may add 2 x (12 CPU, 4 GPU)" in str(refused.value)
    with pytest.raises(InputError, match=r"9 evaluators with 1 GPU each do not fit.* may add"):
        check_fits(
            sweep(m=1).model_copy(update={"evaluation": EvaluationBlock(workers=9, gpus_per_worker=1.0)}), lambda: ADDED
        )


def test_nobody_asks_what_may_be_added_where_todays_nodes_do(monkeypatch):
    Cluster(monkeypatch, n0=4.0)
    check_fits(sweep(m=4), lambda: pytest.fail("asked"))


def test_an_elastic_trial_asks_for_as_many_workers_as_there_may_ever_be_room_for():
    room = beside_evaluators(ADDED.nodes(), EvaluationBlock(gpus_per_worker=1.0))
    sizes = [[2, 4], [2, 16], [9, 16]]  # the last one was refused at the start
    assert [most_workers(room, Plan(sweep(m=n)).known_trials()[0].model) for n in sizes] == [4, 7, 9]


def test_machines_are_asked_for_far_down_the_line_only_where_the_search_proposes_the_same_whatever_the_scores():
    space = {"replay": uniform(0.0, 0.4)}
    searches = [{"algorithm": name, "trials": 100} for name in ("random", "optuna-tpe")]
    sizes = [PlacementScheduler(Plan(Sweep(name="g", space=space, search=search))).look_ahead for search in searches]
    assert sizes == [LOOK_AHEAD, 1]


def test_nothing_is_placed_on_a_node_that_is_left_alone_and_nobody_else_is_blamed_for_it(monkeypatch):
    cluster, plan, avoided = Cluster(monkeypatch, n0=1.0, n1=1.0), Plan(sweep(small=1)), {"n0"}
    placement = PlacementScheduler(plan, clock=lambda: cluster.now, avoided=lambda: avoided)
    choice = placement.choose(line(plan), [])
    assert choice is not None
    assert choice.placed == {"n1": 1}
    avoided.add("n1")
    for _ in range(100):
        cluster.now += 1.0
        assert placement.choose(line(plan), []) is None
    group = Group({"CPU": 0.01, "GPU": 1.0}, 1, 1)
    assert not placement.blocked(group)
    avoided.clear()
    cluster.now += 1.0
    assert placement.choose(line(plan), []) is not None
