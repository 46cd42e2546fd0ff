"""What a curve did: the table is the specification."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.report.analysis.shape import Measured, Shape, noise_limit, read_shape

STEPS = (10, 20, 40, 80, 160, 320, 640)
SE = 0.02


def curve(values, se=SE):
    return [Measured(step, value, se, 400) for step, value in zip(STEPS, values, strict=False)]


def read(values, base=0.80, se=SE, sign=1.0):
    return read_shape("transfer/score", curve(values, se), Measured(0, base, se, 400), sign=sign)


@pytest.mark.parametrize(
    ("values", "shape", "low", "back"),
    [
        ([0.70, 0.55, 0.50, 0.60, 0.70, 0.74, 0.80], Shape.RECOVERED, 40, 320),
        ([0.70, 0.55, 0.50, 0.50, 0.52, 0.55, 0.56], Shape.NOT_BACK, 40, None),
        ([0.70, 0.40, 0.20, 0.05, 0.02, 0.02, 0.02], Shape.NOT_BACK, 160, None),
        ([0.79, 0.80, 0.81, 0.78, 0.80, 0.82, 0.79], Shape.NO_DIP, 80, None),
        ([0.82, 0.85, 0.90, 0.92, 0.93, 0.94, 0.95], Shape.NO_DIP, 10, None),
        ([0.80, 0.81, 0.84, 0.86, 0.84, 0.62, 0.50], Shape.LATE_DECLINE, 640, None),
        ([0.82, 0.88, 0.95, 0.97, 0.95, 0.88, 0.82], Shape.LATE_DECLINE, 10, None),
        ([0.60, 0.50, 0.60, 0.80, 0.82, 0.60, 0.40], Shape.LATE_DECLINE, 20, 80),
        ([0.70, 0.74, 0.70], Shape.NOT_BACK, 10, None),
        ([0.50, 0.80], Shape.TOO_FEW, 10, 20),
        ([], Shape.TOO_FEW, None, None),
    ],
)
def test_shapes(values, shape, low, back):
    reading = read(values)
    assert reading.shape is shape
    assert (reading.trough.step if reading.trough else None) == low
    assert reading.recovered_at == back


def test_depth_and_its_error_are_against_the_base_score():
    reading = read([0.70, 0.55, 0.50, 0.60, 0.70, 0.74, 0.80])
    assert reading.depth == pytest.approx(0.30)
    assert reading.depth_relative == pytest.approx(0.375)
    assert reading.depth_se == pytest.approx(math.hypot(SE, SE))
    assert reading.beyond_2se is True
    assert reading.change == pytest.approx(0.0)
    assert reading.held is True
    assert reading.rose is False


def test_a_published_curve_reads_as_the_paper_describes_it():
    """Qwen3-4B-Base, long CoT, IFEval and GPQA at the paper's own steps (arXiv 2604.06628, v1 table 9), in points."""
    steps = (10, 20, 40, 80, 160, 320, 480, 640)

    def points(values, se):
        return [Measured(s, v, se) for s, v in zip(steps, values, strict=True)]

    ifeval = read_shape(
        "general/ifeval", points((46.3, 33.0, 37.2, 40.4, 41.6, 45.4, 50.0, 49.4), 2.1), Measured(0, 49.2, 2.1)
    )
    assert (ifeval.shape, ifeval.trough.step, ifeval.recovered_at) == (Shape.RECOVERED, 20, 320)
    assert ifeval.depth == pytest.approx(16.2)
    gpqa = read_shape(
        "transfer/gpqa", points((19.9, 17.3, 19.4, 23.9, 27.9, 33.3, 36.7, 37.9), 3.3), Measured(0, 14.6, 3.3)
    )
    assert gpqa.shape is Shape.NO_DIP


def test_a_small_fall_has_to_regain_half_of_it_not_only_ninety_percent_of_the_base():
    reading = read([0.74, 0.73, 0.73, 0.74, 0.74, 0.75, 0.75], se=0.002)
    assert reading.shape is Shape.NOT_BACK, "0.73 is above 90 % of 0.80 at its lowest already"


def test_where_less_is_better_a_rise_is_the_dip():
    reading = read([0.90, 1.30, 1.40, 1.20, 1.00, 0.85, 0.80], sign=-1.0)
    assert (reading.shape, reading.trough.step, reading.recovered_at) == (Shape.RECOVERED, 40, 320)
    assert reading.depth == pytest.approx(0.60)
    assert reading.held is True


def test_without_a_base_score_nothing_is_judged():
    reading = read_shape("transfer/score", curve([0.7, 0.5, 0.8, 0.9]), None)
    assert reading.shape is Shape.TOO_FEW
    assert reading.depth is None
    assert reading.final.value == 0.9


def test_without_standard_errors_size_alone_decides_and_no_significance_is_claimed():
    reading = read([0.70, 0.55, 0.50, 0.60, 0.70, 0.74, 0.80], se=None)
    assert reading.shape is Shape.RECOVERED
    assert reading.beyond_2se is None
    assert reading.held is None


def test_an_error_of_zero_is_that_of_half_an_item():
    """A score of 0 or 1 on few items has a measured error of 0, and is not certain."""
    reading = read_shape("transfer/score", [Measured(1, 1.0, 0.0, 4)] * 3, Measured(0, 0.75, 0.25, 4))
    assert reading.change_se == pytest.approx(math.hypot(0.125, 0.25))
    unknown = read_shape("transfer/score", [Measured(1, 1.0, 0.0)] * 3, Measured(0, 0.75, 0.25))
    assert unknown.change_se is None, "an error of 0 over unknown items was not measured"


def test_the_noise_limit_keeps_flat_curves_flat():
    """Of fifteen flat scores the lowest is 2 standard errors low in three of ten curves: too often."""
    assert noise_limit(1) == pytest.approx(1.96, abs=0.001)
    assert noise_limit(15) == pytest.approx(2.93, abs=0.02)
    assert noise_limit(15, 0.001) == pytest.approx(3.99, abs=0.02), "a sweep with many comparisons asks for more"
    draw = random.Random(0)
    wrong = 0
    for _ in range(2000):
        points = [Measured(i + 1, 0.5 + draw.gauss(0, 0.03), 0.03) for i in range(15)]
        wrong += read_shape("transfer/score", points, Measured(0, 0.5, 1e-9)).shape is not Shape.NO_DIP
    assert wrong / 2000 < 0.06, "falls below the base and late declines from the peak together"


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=12),
    st.floats(0.05, 1),
    st.floats(0.001, 0.1),
)
def test_a_reading_never_contradicts_itself(values, base, se):
    points = [Measured(10 * (i + 1), v, se, 100) for i, v in enumerate(values)]
    r = read_shape("transfer/score", points, Measured(0, base, se, 100))
    assert r.trough in points
    assert r.final == points[-1]
    if r.shape in (Shape.RECOVERED, Shape.NOT_BACK):
        assert r.fell_at is not None
        assert r.fell_at <= r.trough.step
        assert r.beyond_2se
    if r.recovered_at is not None:
        assert r.recovered_at > r.trough.step
        assert next(p for p in points if p.step == r.recovered_at).value >= 0.9 * base - 1e-9
