"""The best of several scores, corrected for having been picked: its range covers the truth, also where scores tie."""

from __future__ import annotations

import random

import pytest

from sweeps.report.analysis.inference import winner


def test_a_clear_winner_keeps_its_score() -> None:
    found = winner([0.9, 0.5, 0.4], [0.02, 0.02, 0.02])
    assert found is not None
    assert found.value == pytest.approx(0.9, abs=1e-6)
    assert found.low == pytest.approx(0.9 - 1.98 * 0.02, abs=1e-3)


@pytest.mark.parametrize("scores", [[0.98] * 4, [0.98, 0.98, 0.98, 0.9778], [0.98, 0.98 - 1e-9], [0.0] * 36])
def test_ties_for_the_first_place_leave_a_range_around_the_scores(scores: list[float]) -> None:
    found = winner(scores, [0.0075] * len(scores))
    assert found is not None
    assert found.low < found.value < found.high
    assert found.low < scores[0] - 0.0075 < scores[0] < found.high
    assert abs(found.value - scores[0]) < 0.015


@pytest.mark.parametrize("together", [0.0, 0.7])
@pytest.mark.parametrize("step", [0.01, 0.5])
@pytest.mark.parametrize("number", [4, 20])
def test_the_range_covers_the_truth(number: int, step: float, together: float) -> None:
    """Scores in steps, errors that settings share: 300 sweeps of equal settings, the truth of each is 0."""
    rng, covered = random.Random(7), 0
    for _ in range(300):
        shared = rng.gauss(0, together**0.5)
        scores = [round((shared + rng.gauss(0, (1 - together) ** 0.5)) / step) * step for _ in range(number)]
        found = winner(scores, [1.0] * number)
        assert found is not None
        covered += found.low <= 0 <= found.high
    assert covered >= 0.93 * 300
