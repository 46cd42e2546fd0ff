"""Shares of variance between groups: all of it, none of it, and no more than chance gives."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.stopping.decay_gains import explained


def test_a_share_is_adjusted_for_the_number_of_groups() -> None:
    groups = np.repeat(np.arange(12), 3)
    assert explained(groups.astype(float), groups.tolist()) == pytest.approx(1.0)
    noise = np.random.default_rng(0).normal(size=(400, 36))
    chance = [explained(values, groups.tolist()) for values in noise]
    assert np.mean(chance) == pytest.approx(0.0, abs=0.03)
    assert explained(noise[0], list(range(36))) is None
