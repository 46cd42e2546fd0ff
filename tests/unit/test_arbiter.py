"""Two sweeps on one cluster: shares by weight, nobody starves, a dead driver holds nothing. Pure, no Ray."""

from __future__ import annotations

import random

import pytest

from cluster.arbiter import EXPIRY_S, Shares

TOTAL = {"GPU": 8.0, "CPU": 64.0}


def play(weights: dict[str, float], sizes: dict[str, int], turns: int = 4000, seed: int = 0) -> dict[str, float]:
    """Sweeps that always want more of their size, on eight GPUs; returns the GPU-turns that each held."""
    rng, shares = random.Random(seed), Shares()
    running: list[tuple[int, str]] = []  # until which turn, whose
    used = dict.fromkeys(weights, 0.0)
    started = dict.fromkeys(weights, 0)

    def tell(name: str, turn: int) -> bool:
        held = {"GPU": float(sum(sizes[n] for _, n in running if n == name))}
        fits = 8 - sum(sizes[n] for _, n in running) >= sizes[name]
        shares.hear(name, weights[name], held, {"GPU": float(sizes[name])}, fits, turn / 10)
        return fits

    for turn in range(turns):
        running = [r for r in running if r[0] > turn]
        for name in weights:  # every driver is heard of once in a turn
            tell(name, turn)
        for name in rng.sample(sorted(weights), len(weights)):
            while tell(name, turn) and shares.may_start(name, TOTAL):
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
    shares = Shares()
    shares.hear("a", 1.0, {"GPU": 7.0}, {"GPU": 1.0}, True, 0.0)
    assert shares.may_start("a", TOTAL)


def test_above_its_share_a_sweep_waits_for_one_that_is_served_less_and_that_one_may_start():
    shares = Shares()
    shares.hear("a", 1.0, {"GPU": 6.0}, {"GPU": 1.0}, True, 0.0)
    shares.hear("b", 1.0, {"GPU": 1.0}, {"GPU": 1.0}, True, 0.0)
    assert not shares.may_start("a", TOTAL)
    assert shares.may_start("b", TOTAL)


def test_one_free_place_is_given_to_one_sweep_although_both_still_see_it():
    shares = Shares()
    shares.hear("a", 1.0, {"GPU": 4.0}, {"GPU": 1.0}, True, 0.0)
    shares.hear("b", 1.0, {"GPU": 3.0}, {"GPU": 1.0}, True, 0.0)
    assert shares.may_start("b", TOTAL)
    assert not shares.may_start("a", TOTAL)
    shares.hear("b", 1.0, {"GPU": 3.0}, {}, True, 1.0)  # it has ended one
    assert shares.may_start("a", TOTAL)


def test_what_a_dead_driver_held_and_wanted_is_forgotten():
    shares = Shares()
    shares.hear("dead", 1.0, {}, {"GPU": 8.0}, True, 0.0)
    shares.hear("a", 1.0, {"GPU": 6.0}, {"GPU": 1.0}, True, EXPIRY_S)
    assert not shares.may_start("a", TOTAL)
    shares.hear("a", 1.0, {"GPU": 6.0}, {"GPU": 1.0}, True, EXPIRY_S + 0.1)
    assert shares.may_start("a", TOTAL)


def test_after_a_restart_the_shares_are_what_the_drivers_say_again():
    shares = Shares()
    shares.hear("b", 1.0, {"GPU": 1.0}, {"GPU": 2.0}, True, 0.0)
    again = Shares()
    for other in (shares, again):
        other.hear("a", 1.0, {"GPU": 5.0}, {"GPU": 1.0}, True, 1.0)
        other.hear("b", 1.0, {"GPU": 1.0}, {"GPU": 2.0}, True, 1.0)
    assert again.parties.keys() == shares.parties.keys()
    assert [s.may_start(n, TOTAL) for s in (shares, again) for n in ("a", "b")] == [False, True, False, True]


def test_a_trial_that_fits_nowhere_although_nobody_else_holds_anything_does_not_block_the_others():
    shares = Shares()
    shares.hear("stuck", 1.0, {}, {"GPU": 64.0}, False, 0.0)
    shares.hear("a", 1.0, {}, {"GPU": 1.0}, True, 1.0)
    assert shares.may_start("a", TOTAL)
