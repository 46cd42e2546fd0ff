import itertools
import math

import numpy as np
import pytest

from evaluators.stats import avg_at_k, mean_error, pass_at_k, sample_error, share_error
from sweeps.statistics import EXACT, compare, detectable, pack, shares


def draws(rng, chances):
    """Outcomes of every task, each item right with its own chance."""
    return [[bool(hit) for hit in rng.random(len(task)) < task] for task in chances]


@pytest.mark.parametrize("sizes", [[100], [40], [100, 100, 90], [100, 44, 59], [511, 198, 307]])
def test_pure_noise_is_called_different_at_most_at_the_stated_level(sizes):
    """The same model twice, answers drawn anew: 1,000 comparisons, items of all difficulties."""
    rng = np.random.default_rng(7)
    chances = [rng.beta(0.8, 0.8, size=n) for n in sizes]
    alarms = sum(compare(draws(rng, chances), draws(rng, chances)).differs(0.05) for _ in range(1000))
    assert alarms / 1000 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)


def test_the_error_level_holds_over_many_looks_together():
    rng = np.random.default_rng(8)
    chances = [np.full(100, 0.6)]
    alarms = 0
    for _ in range(300):
        base = draws(rng, chances)
        alarms += any(compare(base, draws(rng, chances)).differs(0.05, looks=8) for _ in range(8))
    assert alarms / 300 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


def test_a_real_difference_is_found_as_often_as_the_detectable_one_says():
    rng = np.random.default_rng(9)
    base, later = [np.full(400, 0.5)], [np.full(400, 0.62)]
    found = [compare(draws(rng, base), draws(rng, later)) for _ in range(300)]
    assert detectable(np.mean([f.se for f in found])) < 0.12
    assert np.mean([f.differs() for f in found]) > 0.8


def test_with_several_samples_an_item_the_item_is_what_is_compared():
    """Three greedy-alike samples an item say no more than one: the same model twice is still told from itself too rarely."""
    rng = np.random.default_rng(11)
    chances = rng.beta(0.8, 0.8, size=60)
    sides = [[rng.binomial(3, chances) / 3 for _ in range(2)] for _ in range(500)]
    alarms = sum(compare([a], [b]).differs(0.05) for a, b in sides)
    assert alarms / 500 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 500)
    copies = [[True, False, True, False, False, True] * 10], [[False, True, True, False, True, True] * 10]
    once, thrice = (
        compare(*copies),
        compare(*[[shares(pack(v for v in side[0] for _ in range(3)), 60, 3)] for side in copies]),
    )
    assert thrice == pytest.approx(once)


def test_where_the_exact_test_would_grow_too_large_the_normal_one_agrees_with_it(monkeypatch):
    rng = np.random.default_rng(12)
    base, later = [[list(rng.random(n) < p) for n in (97, 89)] for p in (0.5, 0.6)]
    exact = compare(base, later).p
    monkeypatch.setattr("sweeps.statistics.EXACT", 10)
    assert compare(base, later).p == pytest.approx(exact, abs=0.02)
    assert EXACT > 10


def test_one_task_gives_the_exact_test_of_mcnemar():
    base = [[True] * 10 + [False] * 30]
    later = [[False] * 2 + [True] * 8 + [True] * 9 + [False] * 21]
    found = compare(base, later)
    assert (found.gained, found.lost) == (9, 2)
    assert found.difference == pytest.approx(7 / 40)
    assert found.p == pytest.approx(2 * sum(math.comb(11, k) for k in range(3)) / 2**11)


def test_several_tasks_give_the_exact_sign_flip_test():
    base = [[True, True, False, False], [True, False, False]]
    later = [[False, True, True, True], [True, True, True]]
    weights = [1 / 4] * 3 + [1 / 3] * 2
    observed = abs(sum(w * s for w, s in zip(weights, [-1, 1, 1, 1, 1], strict=True)))
    flips = [
        abs(sum(w * s for w, s in zip(weights, signs, strict=True))) for signs in itertools.product([1, -1], repeat=5)
    ]
    expected = sum(flip >= observed - 1e-9 for flip in flips) / len(flips)
    assert compare(base, later).p == pytest.approx(expected)


def test_equal_answers_differ_nowhere_yet_keep_an_error():
    same = [[True] * 50, [False] * 50]
    found = compare(same, same)
    assert (found.difference, found.p) == (0.0, 1.0)
    assert found.se > 0


@pytest.mark.parametrize(("base", "later"), [([[True]], [[True, False]]), ([], []), ([[]], [[]])])
def test_other_items_cannot_be_paired(base, later):
    with pytest.raises(ValueError, match="same items on both sides"):
        compare(base, later)


@pytest.mark.parametrize("chance", [0.03, 0.5, 0.97, 1.0])
def test_the_error_of_a_share_is_about_what_repeated_draws_show(chance):
    rng = np.random.default_rng(3)
    shares = rng.binomial(100, chance, size=4000) / 100
    typical = np.mean([share_error(round(share * 100), 100) for share in shares])
    assert shares.std() - 0.002 <= typical <= shares.std() + 0.01


def test_a_mean_over_tasks_is_surer_than_each_of_them():
    assert mean_error([0.03, 0.04]) == pytest.approx(0.025)
    assert sample_error([1.0, 3.0]) == pytest.approx(1.0)
    assert sample_error([5.0]) == 0.0


def test_pass_at_k_is_the_chance_that_k_of_the_samples_hold_a_right_one():
    for right in range(6):
        subsets = list(itertools.combinations([True] * right + [False] * (5 - right), 2))
        assert pass_at_k([right], 5, 2).value == pytest.approx(sum(map(any, subsets)) / len(subsets))
    assert avg_at_k([1, 3], 4).value == 0.5
    with pytest.raises(ValueError, match="at least 6 samples"):
        pass_at_k([1], 5, 6)
