"""Which trial starts now: whole groups, small ones into the gaps, nobody waits for ever."""

from __future__ import annotations

from statistics import mean

import pytest

from benchmarks.scale import mixes
from cluster.resources.backfill import BackfillScheduler, Group, Pace, Running, Waiting, capacity, fit, fits_ever

GPU = {"GPU": 1.0}


def gpus(*free: float) -> dict[str, dict[str, float]]:
    return {f"n{i}": {"GPU": f} for i, f in enumerate(free)}


def wants(trial: str, size: int, expected: float | None = None, min_workers: int = 0) -> Waiting:
    return Waiting(trial, Group(GPU, size, min_workers or size), expected)


def runs(size: int, left: float | None, node: str = "n0") -> Running:
    return Running(GPU, {node: size}, left)


@pytest.mark.parametrize(
    ("free", "size", "placed"),
    [
        ((8.0, 3.0), 2, {"n1": 2}),  # the fuller node takes it: the large gap stays whole
        ((8.0, 3.0), 5, {"n0": 5}),
        ((4.0, 3.0), 6, {"n0": 4, "n1": 2}),  # as few nodes as possible
        ((4.0, 3.0), 8, None),  # whole groups only
        ((0.0, 0.0), 1, None),
    ],
)
def test_a_group_is_packed_whole_on_as_few_nodes_as_possible(free, size, placed):
    assert fit(gpus(*free), GPU, size) == placed


@pytest.mark.parametrize(
    ("has", "bundle", "holds"),
    [
        ({"GPU": 1.5}, {"GPU": 0.5}, 3),
        ({"GPU": 1.5}, {"GPU": 0.6}, 1),  # 0.6 on the whole one; a share does not lie across two
        ({"GPU": 2.0}, {"GPU": 0.25}, 8),
        ({"GPU": 8.0, "CPU": 3.0}, {"GPU": 1.0, "CPU": 1.0}, 3),
        ({"CPU": 3.0}, {"GPU": 1.0}, 0),
    ],
)
def test_a_node_holds_as_many_bundles_as_its_scarcest_resource_and_its_single_gpus_allow(has, bundle, holds):
    assert capacity(has, bundle) == holds


def test_two_bundles_of_four_cpus_do_not_fit_nodes_of_three_whatever_the_cluster_has_in_all():
    assert not fits_ever({f"n{i}": {"CPU": 3.0} for i in range(10)}, Group({"CPU": 4.0}, 2, 2))
    assert fits_ever({f"n{i}": {"CPU": 4.0} for i in range(2)}, Group({"CPU": 4.0}, 2, 2))


def test_who_stands_first_and_fits_is_started_first():
    choice = BackfillScheduler().choose(gpus(8.0), [wants("a", 2), wants("b", 1)], [], 0.0)
    assert choice is not None
    assert (choice.trial, choice.workers) == ("a", 2)


def test_a_small_trial_passes_a_large_one_only_when_it_is_over_by_the_promised_time_or_leaves_room():
    line = [wants("large", 8, 5.0), wants("long", 2, 30.0), wants("short", 1, 9.0)]
    choice = BackfillScheduler().choose(gpus(2.0), line, [runs(6, 10.0)], 0.0)
    assert choice is not None
    assert choice.trial == "short"
    beside = BackfillScheduler().choose(gpus(4.0), line, [runs(6, 10.0)], 0.0)  # ten in all: two are to spare
    assert beside is not None
    assert beside.trial == "long"


def test_from_its_promised_time_on_nothing_starts_before_the_head_of_the_line():
    backfill, line = BackfillScheduler(), [wants("large", 8, 5.0), wants("short", 1, 0.1)]
    assert backfill.choose(gpus(2.0), line, [runs(6, 10.0)], 0.0) is not None
    assert backfill.choose(gpus(2.0), line, [runs(6, 10.0)], 9.0) is not None
    assert backfill.choose(gpus(2.0), line, [runs(6, 10.0)], 10.0) is None  # the running one is late; they wait
    head = backfill.choose(gpus(8.0), line, [], 12.0)
    assert head is not None
    assert head.trial == "large"


def test_a_promise_comes_nearer_when_others_end_early_and_never_moves_away():
    backfill, line = BackfillScheduler(), [wants("large", 8, 5.0), wants("short", 2, 6.0)]
    assert backfill.choose(gpus(2.0), line, [runs(6, 10.0)], 0.0) is not None
    assert backfill.choose(gpus(2.0), line, [runs(6, 3.0)], 1.0) is None  # over at 4, and the short one at 7
    assert backfill.choose(gpus(2.0), line, [runs(6, 20.0)], 2.0) is None


def test_where_nothing_is_known_a_fixed_number_may_overtake():
    backfill, passed = BackfillScheduler(overtakes=3), 0
    while backfill.choose(gpus(2.0), [wants("large", 8), wants(f"s{passed}", 1)], [runs(6, None)], 0.0):
        passed += 1
    assert passed == 3


def test_an_elastic_trial_waits_a_bounded_time_for_all_its_workers_and_then_takes_what_fits():
    backfill, line = BackfillScheduler(elastic_wait_s=60), [wants("e", 8, min_workers=2)]
    assert backfill.choose(gpus(3.0), line, [runs(5, 500.0)], 0.0) is None
    assert backfill.choose(gpus(3.0), line, [runs(5, 440.0)], 59.0) is None
    choice = backfill.choose(gpus(3.0), line, [runs(5, 439.0)], 60.0)
    assert choice is not None
    assert choice.workers == 3
    assert backfill.choose(gpus(1.0), line, [runs(7, 439.0)], 61.0) is None  # below its minimum


def test_pace_is_learned_by_kind():
    pace = Pace()
    assert pace.expect("m", 100) is None
    pace.learn("m", 100, 50.0)
    pace.learn("m", 300, 250.0)
    assert pace.expect("m", 200) == pytest.approx(150.0)
    assert pace.expect("other", 200) is None


def test_fifty_random_mixes_keep_the_cluster_full_and_everybody_starts_within_the_fair_bound():
    nodes = {f"n{i}": 8.0 for i in range(4)}
    full, whole = [], []
    for seed in range(50):
        jobs = mixes.draw(seed, 200)
        result, limits = mixes.run(jobs, nodes), mixes.fair(jobs, nodes)  # a deadlock raises
        assert len(result.starts) == 200
        assert result.peak <= 32
        longest = max(j.seconds for j in jobs)
        assert max(result.starts[t] - t0 for t, t0 in result.headed.items()) <= 2 * longest
        assert [t for t in limits if result.starts[t] > limits[t]] == []
        full.append(mixes.fullness(jobs, result, 32.0))
        whole.append(mixes.bound(jobs, 32.0) / result.makespan)
    assert mean(full) >= 0.97
    assert min(full) >= 0.95
    assert mean(whole) >= 0.95  # of what no packing can beat: all work on all GPUs


def test_the_end_of_a_line_is_served_longest_first_and_put_in_order_once():
    nodes, backfill = gpus(4, 4), BackfillScheduler()
    line = [wants("a", 1, 2.0), wants("b", 2, 9.0), wants("c", 4, 3.0), wants("d", 1, 9.0)]
    assert [w.trial for w in backfill.order([*line, wants("e", 8, 5.0)], nodes)] == ["a", "b", "c", "d", "e"]
    assert [w.trial for w in backfill.order(line, nodes)] == [
        "b",
        "d",
        "c",
        "a",
    ]  # 41 GPU seconds, 72 in the longest run
    changed = [wants("lost", 1, 1.0), wants("a", 1, 99.0), wants("c", 4, 3.0), wants("added", 1, 99.0)]
    assert [w.trial for w in backfill.order(changed, nodes)] == ["lost", "c", "a", "added"]
    later = [wants("back", 1, 1.0), wants("branch", 1, 5.0)]
    assert [w.trial for w in backfill.order(later, nodes)] == ["branch", "back"]  # the next end


def test_nobody_is_put_in_order_by_what_is_not_known():
    line = [wants("a", 1, 2.0), wants("b", 1)]
    assert BackfillScheduler().order(line, gpus(8)) == line
