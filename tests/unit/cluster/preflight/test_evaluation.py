"""Recurrences as a setting of test time: refused before anything starts where a model has none to choose."""

import pytest

from cluster.preflight.checks import preflight
from cluster.preflight.cost import speeds_for
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.errors import SpecError


def sweep(tmp_path, *models):
    return Sweep(
        name="depth",
        space={"model": grid(*models), "steps": grid(20)},
        evaluation={"test_time": ["cap=9", "r=8"]},
        objective={"metric": "transfer/score,r=8"},
        storage=str(tmp_path),
    )


def test_models_of_recurrent_depth_pass(tmp_path):
    preflight(sweep(tmp_path, "tiny-r"))


def test_other_models_are_named(tmp_path):
    with pytest.raises(SpecError) as told:
        preflight(sweep(tmp_path, "tiny-r", "tiny-s"))
    assert "evaluation.test_time[1]: got 'r=8', but models.tiny-s (type qwen3) runs each layer once" in str(told.value)
    assert "tiny-r (" not in str(told.value)


def test_a_plan_counts_a_layer_as_often_as_it_runs(tmp_path):
    def seconds(model: str) -> float:
        plain = Sweep(name="p", space={"model": grid(model), "steps": grid(20)}, trainer={"batch_tokens": 200_000})
        (speed,) = speeds_for(Plan(plain), gpu="H200").values()
        return speed.step.seconds

    # Both are 64 wide; tiny-s runs 2 layers, tiny-r 1 + 1 and one layer 1 to 8 times: 6.5 in the mean.
    assert 2.5 < seconds("tiny-r") / seconds("tiny-s") < 3.3
