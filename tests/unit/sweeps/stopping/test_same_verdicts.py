"""What was made faster says the same: short ways of the rule against the long ones, to the last digit, and its verdicts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.stopping.worlds import generate, goal
from sweeps.config.objective import Constraint, Goal
from sweeps.executors.simulated import Outcome, simulate
from sweeps.journal.rows import Row
from sweeps.stopping.dip_aware import DipAware
from sweeps.stopping.forecasting.forecast import BINS, NORMAL_AT, NORMAL_MASS, histogram, view_of
from sweeps.stopping.forecasting.forecasts import mean_and_variance
from sweeps.stopping.promotion import PromoteByOdds
from tests.support.rows import make_row

SCORE, OTHER = "transfer/score", "general/score"

PAUSED = {
    11: {"t-0000": [80], "t-0004": [160], "t-0005": [580], "t-0007": [80], "t-0008": [160], "t-0009": [120],
         "t-0011": [240], "t-0012": [60, 100], "t-0013": [320], "t-0014": [60, 100]},
    12: {"t-0003": [160], "t-0004": [320], "t-0005": [280], "t-0007": [420], "t-0008": [520, 540],
         "t-0011": [160, 220, 240], "t-0013": [180, 260], "t-0015": [180, 380, 420]},
}  # fmt: skip
"""Seed: where the rule pauses which trials; what is to change no verdict leaves these as they are."""


def _ran(seed: int) -> tuple[DipAware, Outcome]:
    sweep, rule = generate("published", seed, trials=16), DipAware(goal())
    return rule, simulate(sweep.recordings, rule, workers=4, shared=sweep.shared)


@pytest.mark.parametrize("seed", list(PAUSED))
def test_trials_are_paused_at_the_steps_at_which_they_were(seed: int) -> None:
    _, outcome = _ran(seed)
    steps = {t: [r.step for r in outcome.journal if r.kind == "verdict" and r.trial == t] for t in outcome.runs}
    assert {t: at for t, at in steps.items() if at} == PAUSED[seed]


def test_what_shared_gains_add_to_one_trial_is_what_they_add_to_it_among_all() -> None:
    forecaster = _ran(11)[0].ranking.forecaster
    forecaster.follow()
    rows = np.array([t.row for t in forecaster.trials.values()])
    assert len(rows) == 16
    names = ("shift", "spread", "level_sd")
    forecaster._shift(rows, "constant")
    together = [getattr(forecaster, name)[rows].copy() for name in names]
    for name in names:
        getattr(forecaster, name)[rows] = np.nan
    for row in rows.tolist():
        forecaster._shift_one(row, "constant")
    for name, all_at_once in zip(names, together, strict=True):
        np.testing.assert_array_equal(getattr(forecaster, name)[rows], all_at_once)


def _drawn(seed: int) -> tuple[Callable[[], DipAware], list[Row], list[str]]:
    """A rule with a constraint, and rows of trials that report in any order, some of them anew after a break."""
    draw = random.Random(seed)
    wanted = Goal(
        SCORE, top=2, constraints=(Constraint(OTHER, relative_to_base=-0.1),), at=draw.choice(["end", "best"])
    )
    kind = draw.choice([DipAware, PromoteByOdds])
    base = make_row("report", "s", "base-m", step=0, metrics={SCORE: 0.6, OTHER: 0.7}, se={SCORE: 0.02, OTHER: 0.02})
    rows, trials, done, attempt = [base], [f"t{i}" for i in range(5)], dict[str, int](), dict[str, int]()
    budget = {t: draw.choice([100, 200, 400]) for t in trials}
    for t in trials:
        config = {"model": "m", "lr_scheduler_type": draw.choice(["wsd", "constant", "cosine"]), "steps": budget[t]}
        rows.append(make_row("trial", "s", t, budget=budget[t], config=config))
        rows.append(make_row("attempt", "s", t, attempt=1, step=0))
        done[t], attempt[t] = 0, 1
    for _ in range(35):
        t = draw.choice([t for t in trials if done[t] < 10])
        if done[t] > 2 and draw.random() < 0.1:
            done[t], attempt[t] = done[t] - 2, attempt[t] + 1
            rows.append(make_row("attempt", "s", t, attempt=attempt[t], step=budget[t] * done[t] // 10))
            continue
        done[t] += 1
        scores = {
            SCORE: 0.6 + draw.gauss(0, 0.1) - 0.3 * math.exp(-((done[t] - 2) ** 2) / 2),
            OTHER: 0.65 + draw.gauss(0, 0.05),
        }
        where = {"step": budget[t] * done[t] // 10, "attempt": attempt[t]}
        rows.append(make_row("report", "s", t, **where, metrics=scores, se={SCORE: 0.02, OTHER: 0.02}))
    return lambda: kind(wanted), rows, trials


@pytest.mark.parametrize("seed", range(8))
def test_a_rule_says_the_same_whatever_it_was_asked_before(seed: int) -> None:
    """A driver that goes on with a sweep has been asked nothing; the one before was asked after every report."""
    rule, rows, trials = _drawn(seed)
    asked = rule()
    for i, row in enumerate(rows):
        asked.observe(row)
        said = {t: asked.decide(t) for t in trials}
        if i % 4 == 3:
            fresh, trial = rule(), trials[i // 4 % len(trials)]
            for known in rows[: i + 1]:
                fresh.observe(known)
            assert fresh.decide(trial) == said[trial]
            assert fresh.choose_trial_to_resume(trials) == asked.choose_trial_to_resume(trials)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (30.0, -5.0), (1e-7, 1e6), (1e-9, -1e9), (1e-12, 1e12)])
def test_a_histogram_keeps_every_point_in_its_bin(scale: float, offset: float) -> None:
    draw = np.random.default_rng(3)
    mean, sd = offset + scale * draw.normal(size=200), scale * draw.uniform(0.1, 3.0, 200)
    weights = draw.dirichlet(np.ones(200))
    made = histogram(mean, sd, weights)
    at = NORMAL_AT[:, None] * (sd / made.width) + (mean - made.low) / made.width
    bins = np.clip(at, 0.0, BINS).ravel().astype(np.int64)
    mass = np.bincount(bins, (NORMAL_MASS[:, None] * weights).ravel(), minlength=BINS + 1)
    np.testing.assert_array_equal(made.below, np.concatenate([[0.0], np.cumsum(mass / mass.sum())]))
    assert made.below[-1] == pytest.approx(1.0)


def test_mean_and_variance_are_those_of_numpy() -> None:
    for values in np.random.default_rng(0).normal(size=(20, 64)):
        assert mean_and_variance(values) == (values.mean(), values.var())


def test_a_single_row_is_the_same_selected_as_a_view() -> None:
    table = np.arange(12.0).reshape(4, 3)
    for rows in (np.array([2]), np.array([3, 1])):
        np.testing.assert_array_equal(table[view_of(rows)], table[rows])
