"""The mixture of filters: against plain Bayesian regression, and its forecasts as distributions."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.stopping.forecasting.curve_library import FAMILIES, library
from sweeps.stopping.forecasting.forecast import Belief, Forecasts, GainCache, Noise, quarter_octave, warped

XS = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.75])
YS = np.array([-3.0, -7.0, -6.0, -2.0, 1.0, 4.0])
STILL = Noise(inflate=1.0, walk=0.0, walk_scale=0.0, temper=1.0, outlier=1e9)


def believed(noise=STILL, base_sd=0.5):
    belief = Belief(GainCache(library(), noise), base_sd)
    for x, y in zip(XS, YS, strict=True):
        belief.update(float(x), float(y), 1.0)
    return belief


@pytest.mark.parametrize("entry", [0, 200, 600, 900])
def test_without_a_walk_the_filter_is_bayesian_linear_regression(entry):
    belief, lib = believed(), library()
    h = np.array([[1.0, *lib.at(float(x))[:, entry]] for x in XS])
    prior = np.diag(1 / np.array([0.5, *lib.sd[:, entry]]) ** 2)
    at = np.array([0.0, *lib.mean[:, entry]])
    precision = prior + h.T @ h
    expected = np.linalg.solve(precision, prior @ at + h.T @ YS)
    assert belief.mean[:, entry] == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert belief.gains.cov[:, :, entry] == pytest.approx(np.linalg.inv(precision), rel=1e-5, abs=1e-8)
    marginal = np.eye(len(XS)) + h @ np.linalg.inv(prior) @ h.T
    miss = YS - h @ at
    log_likelihood = -0.5 * (miss @ np.linalg.solve(marginal, miss) + np.linalg.slogdet(marginal)[1])
    assert belief.log_likelihood[entry] == pytest.approx(log_likelihood, rel=1e-6)


def test_two_curves_with_reports_at_the_same_steps_share_their_gains():
    cache = GainCache(library(), Noise())
    a, b = Belief(cache, 0.5), Belief(cache, 0.5)
    for belief, y in ((a, 1.0), (b, -4.0)):
        belief.update(0.1, y, 1.0)
    assert a.gains is b.gains
    assert not np.allclose(a.mean, b.mean)


def test_a_full_cache_starts_over_and_changes_no_result():
    small = GainCache(library(), Noise())
    small.LIMIT = 3
    a, b = Belief(small, 0.5), Belief(GainCache(library(), Noise()), 0.5)
    for x, y in zip(XS, YS, strict=True):
        a.update(float(x), float(y), 1.0)
        b.update(float(x), float(y), 1.0)
    assert np.array_equal(a.mean, b.mean)
    assert len(small.known) <= 3


def test_a_forecast_is_a_distribution():
    belief = believed(Noise())
    forecast = belief.forecast(belief.weights(library().log_weight))
    table = Forecasts()
    table.put(40, forecast, base=0.0, unit=1.0)  # the table grows
    row = np.array([40])
    assert table.above(row, np.array([[-1e6, 1e6]]))[0] == pytest.approx([1.0, 0.0], abs=1e-6)
    low, mid, high = forecast.span()
    assert low < mid < high
    u = np.array([0.1, 0.5, 0.9])
    assert table.above(row, forecast.quantiles(u)[None])[0] == pytest.approx(1 - u, abs=1e-6)
    many = forecast.quantiles((np.arange(1000) + 0.5) / 1000)
    assert (forecast.mean, forecast.sd) == pytest.approx((many.mean(), many.std()), rel=0.1)


def test_more_reports_make_a_forecast_narrower():
    belief, widths = Belief(GainCache(library(), Noise()), 0.5), []
    for x in np.arange(1, 33) / 32:
        belief.update(float(x), 5.0 * float(x), 1.0)
        low, _, high = belief.forecast(belief.weights(library().log_weight)).span()
        widths.append(high - low)
    assert widths[-1] < widths[16] < widths[3]


def test_every_library_entry_starts_at_nothing_and_the_masses_sum_to_one():
    lib = library()
    assert np.all(lib.first[0] == 0)
    assert np.all(lib.second[0] == 0)
    assert np.isfinite(lib.first).all()
    assert np.isfinite(lib.second).all()
    assert np.exp(lib.log_weight).sum() == pytest.approx(1.0)
    assert set(lib.family) == set(range(len(FAMILIES)))


def test_log_time_runs_from_nought_to_one():
    assert warped(0.0) == 0.0
    assert warped(1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("sd", "rounded"), [(1.0, 1.0), (1.05, 1.0), (1.15, 2**0.25), (0.52, 0.5)])
def test_a_standard_error_is_rounded_to_a_quarter_octave(sd, rounded):
    assert quarter_octave(sd) == pytest.approx(rounded)
