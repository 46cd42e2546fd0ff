"""Two sweeps on one cluster: state by weight, nobody starves, a dead driver holds nothing. Pure, no Ray."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import yaml

from cluster.resources import fair_share
from cluster.resources.autoscaler import Growth, from_ray_cluster, growth_of, place
from cluster.resources.backfill import Resources
from cluster.resources.fair_share import EXPIRY_S, OVERTAKES, FairShareClient, FairShareState, NodeRequests

TOTAL = {"GPU": 8.0, "CPU": 64.0}


def play(weights: dict[str, float], sizes: dict[str, int], turns: int = 4000, seed: int = 0) -> dict[str, float]:
    """Sweeps that always want more of their size, on eight GPUs; returns the GPU-turns that each held."""
    rng, state = random.Random(seed), FairShareState()
    running: list[tuple[int, str]] = []  # until which turn, whose
    used = dict.fromkeys(weights, 0.0)
    started = dict.fromkeys(weights, 0)

    def tell(name: str, turn: int) -> bool:
        held = {"GPU": float(sum(sizes[n] for _, n in running if n == name))}
        fits = 8 - sum(sizes[n] for _, n in running) >= sizes[name]
        state.update(name, weights[name], held, {"GPU": float(sizes[name])}, fits, turn / 10)
        return fits

    for turn in range(turns):
        running = [r for r in running if r[0] > turn]
        for name in weights:  # every driver is heard of once in a turn
            tell(name, turn)
        for name in rng.sample(sorted(weights), len(weights)):
            while tell(name, turn) and state.may_start(name, TOTAL):
                running.append((turn + rng.randint(5, 30), name))
                started[name] += 1
        for _, name in running:
            used[name] += sizes[name]
    assert min(started.values()) > 0
    return used


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("weights", "share"), [((1.0, 1.0), 0.5), ((3.0, 1.0), 0.75), ((1.0, 7.0), 0.125)])
def test_sweeps_of_small_trials_hold_the_cluster_by_their_weights_and_leave_nothing_idle(weights, share, seed):
    used = play({"a": weights[0], "b": weights[1]}, {"a": 1, "b": 1}, seed=seed)
    assert used["a"] / sum(used.values()) == pytest.approx(share, abs=0.03)
    assert sum(used.values()) >= 0.98 * 8 * 4000


@pytest.mark.parametrize("seed", range(5))
def test_trials_that_need_the_whole_cluster_get_their_turn_beside_a_stream_of_small_ones(seed):
    used = play({"large": 1.0, "small": 1.0}, {"large": 8, "small": 1}, seed=seed)
    assert 0.25 <= used["large"] / sum(used.values()) <= 0.75


def test_one_sweep_alone_is_never_held_back():
    state = FairShareState()
    state.update("a", 1.0, {"GPU": 7.0}, {"GPU": 1.0}, True, 0.0)
    assert state.may_start("a", TOTAL)


def test_above_its_share_a_sweep_waits_for_one_that_is_served_less_and_that_one_may_start():
    state = FairShareState()
    state.update("a", 1.0, {"GPU": 6.0}, {"GPU": 1.0}, True, 0.0)
    state.update("b", 1.0, {"GPU": 1.0}, {"GPU": 1.0}, True, 0.0)
    assert not state.may_start("a", TOTAL)
    assert state.may_start("b", TOTAL)


def test_one_free_place_is_given_to_one_sweep_although_both_still_see_it():
    state = FairShareState()
    state.update("a", 1.0, {"GPU": 4.0}, {"GPU": 1.0}, True, 0.0)
    state.update("b", 1.0, {"GPU": 3.0}, {"GPU": 1.0}, True, 0.0)
    assert state.may_start("b", TOTAL)
    assert not state.may_start("a", TOTAL)
    state.update("b", 1.0, {"GPU": 3.0}, {}, True, 1.0)  # it has ended one
    assert state.may_start("a", TOTAL)


def test_what_evaluators_hold_is_no_place_for_a_trial():
    state = FairShareState()
    for name in ("a", "b"):
        state.update(name, 1.0, {"GPU": 3.0}, {"GPU": 1.0}, True, 0.0)
    state.sweeps["a"].reserved = {"GPU": 1.0}
    assert state.may_start("a", TOTAL)  # the last of eight
    assert not state.may_start("b", TOTAL)


def test_a_trial_that_strangers_leave_no_room_for_holds_no_other_sweep_up():
    state = FairShareState()
    for turn in range(3 * OVERTAKES):
        state.update("large", 1.0, {}, {"GPU": 8.0}, False, turn)
        state.update("small", 1.0, {"GPU": 4.0}, {"GPU": 1.0}, True, turn)
        state.observe(TOTAL, {"GPU": 3.0, "CPU": 60.0})  # four are the small ones', one a notebook's
        assert state.blocked_by_external("large", TOTAL)
        assert state.may_start("small", TOTAL)
    state.update("large", 1.0, {}, {"GPU": 8.0}, False, 99.0)
    state.update("small", 1.0, {"GPU": 4.0}, {"GPU": 1.0}, True, 99.0)
    state.observe(TOTAL, {"GPU": 4.0, "CPU": 60.0})  # the notebook is gone
    assert not state.blocked_by_external("large", TOTAL)


def test_what_ended_a_moment_ago_is_not_strangers():
    state = FairShareState()
    state.update("large", 1.0, {}, {"GPU": 8.0}, False, 0.0)
    state.update("small", 1.0, {"GPU": 8.0}, {"GPU": 1.0}, True, 0.0)
    state.observe(TOTAL, {"GPU": 0.0})
    state.update("small", 1.0, {"GPU": 7.0}, {"GPU": 1.0}, True, 1.0)
    state.observe(TOTAL, {"GPU": 0.0})  # Ray has not freed it yet
    assert not state.blocked_by_external("large", TOTAL)


def test_what_a_dead_driver_held_and_wanted_is_forgotten():
    state = FairShareState()
    state.update("dead", 1.0, {}, {"GPU": 8.0}, True, 0.0)
    state.update("a", 1.0, {"GPU": 6.0}, {"GPU": 1.0}, True, EXPIRY_S)
    assert not state.may_start("a", TOTAL)
    state.update("a", 1.0, {"GPU": 6.0}, {"GPU": 1.0}, True, EXPIRY_S + 0.1)
    assert state.may_start("a", TOTAL)


def test_after_a_restart_the_shares_are_what_the_drivers_say_again():
    state = FairShareState()
    state.update("b", 1.0, {"GPU": 1.0}, {"GPU": 2.0}, True, 0.0)
    again = FairShareState()
    for other in (state, again):
        other.update("a", 1.0, {"GPU": 5.0}, {"GPU": 1.0}, True, 1.0)
        other.update("b", 1.0, {"GPU": 1.0}, {"GPU": 2.0}, True, 1.0)
    assert again.sweeps.keys() == state.sweeps.keys()
    assert [s.may_start(n, TOTAL) for s in (state, again) for n in ("a", "b")] == [False, True, False, True]


def test_a_trial_that_fits_nowhere_although_nobody_else_holds_anything_does_not_block_the_others():
    state = FairShareState()
    state.update("stuck", 1.0, {}, {"GPU": 64.0}, False, 0.0)
    state.update("a", 1.0, {}, {"GPU": 1.0}, True, 1.0)
    assert state.may_start("a", TOTAL)


# ---- machines that an autoscaler may add -------------------------------------------------------------------------------

GPU = {"CPU": 1.0, "GPU": 1.0}
NODE = {"CPU": 8.0, "GPU": 4.0}


def requested(growth: Growth, **sweeps: NodeRequests) -> list[Resources]:
    state = FairShareState()
    for name, node_requests in sweeps.items():
        state.update(name, 1.0, {}, {}, True, 0.0)
        state.sweeps[name].node_requests = node_requests
    return list(state.requested_bundles(growth))


def test_what_should_exist_is_all_that_is_held_and_then_what_waits_by_turns_as_far_as_the_cluster_may_grow():
    growth = Growth({"CPU": 0.0}, {"gpus": (NODE, 2)}, 2)
    a = ([(GPU, 3)], [({"GPU": 2.0}, 1), ({"GPU": 2.0}, 1)])
    b = ([(GPU, 1)], [({"GPU": 1.0}, 1), ({"GPU": 1.0}, 1)])
    assert requested(growth, a=a, b=b) == [GPU] * 4 + [
        {"GPU": 2.0},
        {"GPU": 1.0},
        {"GPU": 1.0},
    ]  # eight GPUs, not one more
    assert requested(growth) == []


def test_a_group_of_workers_is_asked_for_whole_or_not_at_all_and_smaller_ones_behind_it_still_are():
    growth = Growth({}, {"gpus": (NODE, 2)}, 2)
    assert requested(growth, a=([], [(GPU, 9), (GPU, 5), (GPU, 4), (GPU, 3)])) == [GPU] * 8
    assert requested(growth, a=([], [({"GPU": 5.0}, 1)])) == []  # no node holds it


def test_evaluators_that_reserve_nothing_need_no_machine_and_what_the_head_holds_needs_none_either():
    growth = Growth({"CPU": 2.0}, {"cpus": ({"CPU": 2.0}, 3)}, 1)  # three of that group, but one node in all
    pool, waits = ({"GPU": 0.0, "CPU": 0.0}, 2), [({"CPU": 2.0}, 1)] * 4
    assert requested(growth, a=([pool], waits)) == [{"CPU": 2.0}] * 2
    assert place({"n0": {"CPU": 2.0}}, [pool, *waits]) == [{"CPU": 2.0}]


def test_a_dead_driver_asks_for_nothing_and_one_that_left_neither():
    state, growth = FairShareState(), Growth({}, {"gpus": (NODE, 2)}, 2)
    for name in ("dead", "gone"):
        state.update(name, 1.0, {}, {}, True, 0.0)
        state.sweeps[name].node_requests = ([(GPU, 1)], [])
    assert len(state.requested_bundles(growth)) == 2
    state.unregister("gone")
    state.update("a", 1.0, {}, {}, True, EXPIRY_S + 0.1)
    assert state.requested_bundles(growth) == []


def test_what_an_autoscaler_may_add_is_read_from_its_own_configuration():
    config = {
        "max_workers": 3,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "max_workers": 0},
            "gpus": {"resources": {"CPU": 8, "GPU": 4}, "max_workers": 5},
            "off": {"resources": {"CPU": 8}, "max_workers": 0},
        },
    }
    growth = growth_of(config, {"CPU": 1.0})
    assert growth == Growth({"CPU": 1.0}, {"gpus": (NODE, 5)}, 3)
    assert list(growth.nodes()) == ["head", "gpus 0", "gpus 1", "gpus 2"]
    config["max_workers"] = 0
    assert growth_of(config, {}) is None
    assert growth_of({}, {}) is None


def test_kuberays_own_object_says_what_its_autoscaler_may_add_and_whether_there_is_one():
    manifest = yaml.safe_load((Path(__file__).parents[4] / "deploy/kuberay/cluster.yaml").read_text())
    manifest["metadata"]["namespace"] = "default"
    config = from_ray_cluster(manifest)
    assert config is not None
    growth = growth_of(config, {})
    assert growth is not None
    ((has, count),) = growth.groups.values()
    (group,) = manifest["spec"]["workerGroupSpecs"]
    assert (has["CPU"], has["GPU"], count) == (12.0, 1.0, group["maxReplicas"])
    manifest["spec"]["enableInTreeAutoscaling"] = False
    assert from_ray_cluster(manifest) is None


@pytest.mark.parametrize(
    "error",
    [ray.exceptions.ActorDiedError(), ray.exceptions.OutOfMemoryError("the node was running low on memory")],
    ids=lambda error: type(error).__name__,
)
def test_an_actor_that_is_gone_is_started_anew_and_ends_no_driver(monkeypatch: pytest.MonkeyPatch, error: Exception):
    """Ray says `OutOfMemoryError`, which is no `RayActorError`, of an actor that its memory monitor ended."""
    started = list[Any]()
    gone = SimpleNamespace(remote=lambda *arguments: "its answer")

    def start() -> Any:
        started.append(SimpleNamespace(growth=gone, renew=gone, may_start=gone))
        return started[-1]

    def get(ref: str, timeout: float = 0.0) -> bool:
        raise error

    monkeypatch.setattr(fair_share, "start_fair_share_actor", start)
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs, []))
    monkeypatch.setattr(ray, "get", get)
    client = FairShareClient("a", 1.0)
    assert client.growth() is None
    assert len(started) == 2
    for _ in range(2):
        client.renew({}, dict, {}, lambda growth: ((), ()))
        client.renew_soon()
    assert not client.may_start({}, {"GPU": 1.0})
    assert client.actor is started[-1]
    assert len(started) > 2
