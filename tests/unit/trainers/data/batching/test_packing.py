"""Which rows share a step and a pack, and how they lie in it."""

import random
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.batching.packing import best_fit_decreasing, collate, split_step
from trainers.data.batching.sampler import fill_steps, mixed, same_rows, shuffled_forever
from trainers.data.chat.rows import Rows


def log_normal(n, longest=2048):
    draw = np.random.default_rng(0)
    return [int(x) for x in draw.lognormal(np.log(250), 0.75, n).clip(1, longest)]


def test_best_fit_decreasing_fills_99_percent_of_2048_with_log_normal_rows():
    lengths = log_normal(100_000)
    bins = best_fit_decreasing(lengths, 2048)
    assert sum(lengths) / (2048 * len(bins)) >= 0.99


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=80), st.integers(50, 120))
def test_best_fit_decreasing_places_each_item_once_and_overfills_no_bin(lengths, capacity):
    bins = best_fit_decreasing(lengths, capacity)
    assert sorted(i for b in bins for i in b) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in b) <= capacity for b in bins)
    assert sum(2 * sum(lengths[i] for i in b) <= capacity for b in bins) <= 1  # two half-empty bins would be one


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(50, 200), st.integers(1, 5))
def test_every_worker_gets_as_many_packs_and_together_they_hold_the_step(lengths, pack_tokens, world):
    shares = split_step(lengths, pack_tokens, world)
    assert len({len(share) for share in shares}) == 1
    assert sorted(i for share in shares for pack in share for i in pack) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in pack) <= pack_tokens for share in shares for pack in share)


def test_a_step_is_shared_evenly_even_when_it_would_fit_one_pack():
    shares = split_step([10] * 40, pack_tokens=1000, world=4)
    assert [sum(len(pack) for pack in share) for share in shares] == [10, 10, 10, 10]


def test_steps_are_99_percent_full_and_hold_each_row_once_an_epoch():
    lengths = log_normal(5_000)
    steps = list(islice(fill_steps(shuffled_forever(len(lengths), "x"), lengths, 2048), 600))
    tokens = [sum(lengths[i] for i in step) for step in steps]
    assert max(tokens) <= 2048
    assert sum(tokens) / (2048 * len(tokens)) >= 0.99
    seen = Counter(i for step in steps for i in step)
    assert max(seen.values()) == 1


def test_a_step_mixes_long_rows_and_short_ones_as_they_come():
    """Packing by length over an epoch would give steps of 1,000 tokens that hold one length each."""
    lengths = [random.Random(i).choice([10, 40]) for i in range(2_000)]
    steps = list(islice(fill_steps(shuffled_forever(len(lengths), "x"), lengths, 1_000), 40))
    shares = [sum(lengths[i] == 10 for i in step) / len(step) for step in steps]
    assert min(shares) > 0.2
    assert max(shares) < 0.8


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 3))
def test_the_share_of_replay_holds_after_any_number_of_rows(num_primary, num_replay, share, seed):
    replayed = 0
    for drawn, row in enumerate(islice(mixed(num_primary, num_replay, share, seed), 200), start=1):
        replayed += row >= num_primary
        assert abs(replayed - share * drawn) <= 1


def test_each_epoch_sees_every_row_once_in_an_order_of_its_own():
    stream = shuffled_forever(20, "0/primary")
    first, second = list(islice(stream, 20)), list(islice(stream, 20))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


def test_the_order_follows_from_the_seed_and_nothing_else():
    """The numbers themselves: a resumed run on another machine has to see the same rows."""
    assert list(islice(mixed(100, 10, 0.25, seed=7), 8)) == list(islice(mixed(100, 10, 0.25, seed=7), 8))
    assert list(islice(mixed(100, 10, 0.25, seed=7), 8)) == [79, 21, 101, 47, 83, 96, 100, 92]
    assert list(islice(mixed(100, 10, 0.25, seed=8), 8)) != list(islice(mixed(100, 10, 0.25, seed=7), 8))


ROWS = Rows.of([([5, 6, 7], [False, True, True]), ([8, 9, 10, 11], [True, False, False, True])])


def test_a_pack_restarts_positions_and_no_row_predicts_the_next():
    pack = collate(ROWS, [0, 1])
    assert pack.input_ids.tolist() == [[8, 9, 10, 11, 5, 6, 7]]  # longest first
    assert pack.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert pack.targets.tolist() == [11, 6, 7]  # not 8: nobody predicts a row's first token
    assert pack.predicting.tolist() == [2, 4, 5]
    assert pack.layout.lengths == (4, 3)


def test_counts_of_labels_agree_with_what_packs_train_on():
    assert ROWS.labels() == [2, 1]
    assert ROWS.lengths() == [3, 4]
    assert [len(collate(ROWS, [i]).targets) for i in range(2)] == ROWS.labels()


def test_an_empty_pack_holds_a_token_and_no_label():
    pack = collate(ROWS, [])
    assert pack.input_ids.shape == (1, 1)
    assert pack.targets.numel() == 0


def test_tables_of_rows_join_end_to_end():
    both = ROWS + ROWS
    assert both.lengths() == [3, 4, 3, 4]
    assert both.ids(2).tolist() == [5, 6, 7]
    assert both.learn(3).tolist() == [True, False, False, True]


@pytest.mark.parametrize("changed", [([5, 6, 8], [False, True, True]), ([5, 6, 7], [False, False, True])])
def test_the_fingerprint_changes_with_a_token_or_a_label(changed):
    other = Rows.of([changed, ([8, 9, 10, 11], [True, False, False, True])])
    assert other.fingerprint() != ROWS.fingerprint()
    assert torch.equal(collate(ROWS, [1]).input_ids, collate(other, [1]).input_ids)


def test_steps_of_equal_rows_hold_as_many_rows_whatever_their_lengths():
    steps = list(islice(same_rows(shuffled_forever(10, "x"), 4), 5))
    assert [len(step) for step in steps] == [4] * 5
    assert sorted(i for step in steps for i in step) == sorted([*range(10)] * 2)
