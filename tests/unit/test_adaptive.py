import math

import numpy as np
import pytest

from evaluators.adaptive import LineTest, decide, part_of
from evaluators.evaluate import load
from evaluators.suites import load_suite
from sweeps.errors import InputError
from trainers.base import builtin_folder


def run(test, values):
    for value in values:
        if test.add(value) is not None:
            break
    return test


@pytest.mark.parametrize("line", [0.1, 0.5, 0.9])
def test_a_score_on_the_line_is_put_on_a_side_at_most_at_the_stated_rate(line):
    rng = np.random.default_rng(5)
    decided = sum(run(LineTest(line, 0.05), rng.random(120) < line).side is not None for _ in range(200))
    assert decided / 200 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize(("truth", "side"), [(0.9, "above"), (0.2, "below")])
def test_a_clear_score_is_decided_early_and_rightly(truth, side):
    rng = np.random.default_rng(6)
    tests = [run(LineTest(0.6, 0.05), rng.random(300) < truth) for _ in range(100)]
    assert sum(test.side == side for test in tests) >= 98
    assert np.median([test.seen for test in tests]) < 60


def test_a_decision_stands():
    test = run(LineTest(0.5), [1.0] * 100)
    assert test.side == "above"
    assert test.add(0.0) == "above"


@pytest.mark.parametrize(("line", "level"), [(0.0, 0.05), (1.0, 0.05), (0.5, 0.0)])
def test_lines_outside_the_unit_interval_are_refused(line, level):
    with pytest.raises(InputError, match="strictly between"):
        LineTest(line, level)


def test_an_evaluation_ends_when_its_decision_is_clear_and_says_what_it_saved():
    loaded, suite = load(builtin_folder("tiny-xs")), load_suite("mini", items=40)
    safe = decide(loaded, suite, "safety/refusal", 0.6)
    assert safe.side == "above"
    assert (safe.asked + safe.saved, safe.score) == (40, 1.0)
    assert safe.saved >= 10
    role = decide(loaded, suite, "general/score", 0.5)
    assert role.side == "above"
    assert role.asked % 3 == 0
    with pytest.raises(InputError, match="does not measure 'math/scores'"):
        decide(loaded, suite, "math/scores", 0.5)


def test_a_part_of_a_task_judges_its_own_items():
    task = load_suite("mini", items=20).tasks[0]
    some = part_of(task, slice(5, 9))
    assert some.prompts == task.prompts[5:9]
    assert all(some.judges["math/chain_sum"](i, some.targets[i]) for i in range(4))
