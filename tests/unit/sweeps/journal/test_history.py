"""Late, partial, doubled and out-of-order rows give the curve of in-order delivery."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from sweeps.journal.history import History
from sweeps.journal.rows import Row
from tests.support.rows import make_row


def score(step: int, value: float, attempt: int = 1, metric: str = "transfer/score") -> Row:
    return make_row("report", "s", "t", attempt, step, metrics={metric: value}, suite="m@1")


def curve(rows):
    history = History(rows)
    return dict(
        zip(history.curves["t"].steps("transfer/score"), history.curves["t"].values("transfer/score"), strict=True)
    )


@given(st.randoms(use_true_random=False))
def test_delivery_late_twice_and_in_any_order_gives_the_same_curve(rng: random.Random):
    rows = [score(s, s / 100) for s in (1, 2, 4, 8, 16)] + [score(s, 0.5, metric="general/score") for s in (1, 4, 16)]
    shuffled = rows + [rng.choice(rows) for _ in range(4)]
    rng.shuffle(shuffled)
    assert curve(shuffled) == curve(rows) == {s: s / 100 for s in (1, 2, 4, 8, 16)}


def test_partial_rows_of_one_step_merge_by_metric():
    point = History([score(4, 0.5), score(4, 0.7, metric="general/score")]).curves["t"].points[4]
    assert point.metrics == {"transfer/score": 0.5, "general/score": 0.7}


def test_a_newer_attempt_replaces_what_lies_beyond_the_step_it_resumed_at():
    old = [score(s, 0.1) for s in (2, 4, 6)]
    resumed = [*old, make_row("attempt", "s", "t", 2, 4), score(6, 0.9, attempt=2)]
    assert curve(resumed) == {2: 0.1, 4: 0.1, 6: 0.9}


def test_what_a_superseded_attempt_says_late_is_fenced_off_beyond_its_fork_but_counts_before_it():
    rows = [score(2, 0.1), make_row("attempt", "s", "t", 2, 4)]
    history = History(rows)
    assert not history.fold(score(6, 0.3, attempt=1))
    assert history.fold(score(4, 0.2, attempt=1))
    assert history.fold(score(6, 0.8, attempt=2))
    assert history.curves["t"].values("transfer/score") == [0.1, 0.2, 0.8]


def test_an_invalid_value_is_kept_as_text_and_gives_way_to_a_measured_one():
    history = History([make_row("report", "s", "t", 1, 4, invalid={"train/loss": "nan"})])
    assert history.curves["t"].points[4].invalid == {"train/loss": "nan"}
    history.fold(make_row("report", "s", "t", 1, 4, metrics={"train/loss": 0.2}))
    assert history.curves["t"].points[4].invalid == {}


def test_the_base_score_is_shared_by_all_trials_of_a_model():
    base = make_row("report", "s", "base-tiny-s", 0, 0, metrics={"transfer/score": 0.9}, suite="m@1")
    trials = [make_row("trial", "s", t, config={"model": "tiny-s"}, budget=8) for t in ("t", "u")]
    history = History([base, *trials])
    assert history.base_point("t") == history.base_point("u")
    assert history.base_point("t").metrics == {"transfer/score": 0.9}
