"""The phase of a curve, as a table: base, reports, phase after each report."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.stopping.base import Phase
from sweeps.stopping.phases import PhaseTracker

DIP, BACK, BEFORE, FLAT = Phase.DIP, Phase.RECOVERY, Phase.BEFORE, Phase.PLATEAU
LOG_STEPS = (10, 20, 40, 80, 160, 320, 480, 640)


def follow(base, values, *, steps=None, sd=1.0, budget=640, **settings):
    tracker = PhaseTracker(base, sd, budget, **settings)
    steps = steps or [budget * (i + 1) // len(values) for i in range(len(values))]
    return tracker, [tracker.update(s, v, sd) for s, v in zip(steps, values, strict=True)]


# Qwen3-4B long CoT (arXiv 2604.06628, table 9), standard error of a score, step by which the dip must be seen.
PUBLISHED = [
    ("MATH500", 70.8, (64.9, 62.9, 71.5, 77.1, 78.8, 86.3, 87.1, 86.2), 1.5, 20),
    ("LiveCodeBench", 20.6, (21.5, 17.0, 14.5, 18.1, 17.6, 23.5, 23.5, 24.4), 1.5, 40),
    ("IFEval", 49.2, (46.3, 33.0, 37.2, 40.4, 41.6, 45.4, 50.0, 49.4), 2.1, 20),
]


@pytest.mark.parametrize(("name", "base", "values", "sd", "seen"), PUBLISHED, ids=[p[0] for p in PUBLISHED])
def test_a_published_dip_is_seen_and_its_end_is_seen(name, base, values, sd, seen):
    _, phases = follow(base, values, steps=LOG_STEPS, sd=sd)
    by_step = dict(zip(LOG_STEPS, phases, strict=True))
    assert by_step[seen] in (DIP, BACK)
    assert Phase.LATE_DECLINE not in phases
    assert by_step[640] not in (DIP, BACK, Phase.COLLAPSE)


@pytest.mark.parametrize(
    ("values", "last"),
    [
        ([0, -6, -12, -12, -12, -12, -12, -12, -12, -12, -12, -12, -12, -12, -12, -12], Phase.COLLAPSE),
        ([1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 6, 3, 0, -3, -6, -9], Phase.LATE_DECLINE),
        ([0] * 16, FLAT),
    ],
    ids=["falls and stays down", "rises and falls late", "does nothing"],
)
def test_what_is_no_dip_is_told_from_one(values, last):
    assert follow(0.0, values)[1][-1] is last


@pytest.mark.parametrize(("name", "base", "values", "sd", "seen"), PUBLISHED, ids=[p[0] for p in PUBLISHED])
@pytest.mark.parametrize("noisier", [1.0, 1.4])
def test_a_slow_recovery_is_never_called_a_collapse(name, base, values, sd, seen, noisier):
    assert Phase.COLLAPSE not in follow(base, values, steps=LOG_STEPS, sd=noisier * sd)[1]


def test_a_fall_onto_a_floor_is_followed_to_the_floor_and_called_a_collapse():
    """50 standard errors: a filter that trusts its trend runs on far below the floor, and calls the way back recovery."""
    late = []
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(size=32)
        tracker, phases = follow(60.0, [35.0 + noise[0], *(10.0 + noise[1:])])
        late += phases[16:]
        assert abs(tracker.level - 10.0) < 2.0
    assert late.count(Phase.COLLAPSE) > 0.6 * len(late)


def test_a_report_that_says_nothing_of_the_score_lets_patience_run_out_and_moves_nothing():
    tracker, _ = follow(0.0, [-8.0, -16.0, -16.0], steps=[40, 80, 120])
    level, until = tracker.level, tracker.until
    for step in range(160, 641, 40):
        tracker.skip(step)
        assert tracker.protected == (step < until)
    assert tracker.level == level


def test_a_curve_that_keeps_sinking_does_not_keep_buying_time():
    tracker, _ = follow(0.0, [-4.0 * i for i in range(1, 33)])
    assert tracker.onset in (20, 40)
    assert tracker.until <= 4 * 4 * tracker.onset
    assert not tracker.protected


def test_patience_never_reaches_beyond_its_share_of_the_budget():
    tracker, _ = follow(0.0, [-1, -2, -4, -8, -12, -14], steps=[40, 80, 120, 160, 200, 240], ratio=24, cap=0.5)
    assert tracker.until == 320


def test_a_dip_is_protected_until_its_patience_ends_and_not_after():
    values = [-8.0, -16.0, *([-16.0] * 14)]
    tracker = PhaseTracker(0.0, 1.0, 640, ratio=4.0)
    protected = {}
    for i, v in enumerate(values):
        tracker.update(40 * (i + 1), v, 1.0)
        protected[40 * (i + 1)] = tracker.protected
    assert protected[80]
    assert not any(on for step, on in protected.items() if step >= tracker.until)


def test_noise_alone_is_no_dip():
    rng = np.random.default_rng(5)
    protected = 0
    for _ in range(40):
        tracker = PhaseTracker(0.0, 1.0, 640)
        for i, v in enumerate(rng.normal(size=32)):
            tracker.update(20 * (i + 1), v, 1.0)
            protected += tracker.protected
    assert protected <= 0.01 * 40 * 32


def test_without_a_base_score_the_first_report_stands_in():
    tracker, phases = follow(None, [50, 40, 30, 30], steps=[20, 40, 60, 80])
    assert phases[0] is BEFORE
    assert phases[2] is DIP
    assert tracker.reading().peak == pytest.approx(50)


def test_scale_and_shift_change_no_phase():
    values = [-3, -9, -14, -12, -8, -5, -1, 2, 4, 5, 5, 6, 6, 6, 7, 7]
    plain = follow(0.0, values)[1]
    assert follow(40.0, [40 + 0.01 * v for v in values], sd=0.01)[1] == plain
