"""The learning rate of every step, and the settings it follows from."""

import pytest

from sweeps.errors import InputError
from trainers.config import TrainerConfig
from trainers.schedule import lr_factor


def config(**settings):
    return TrainerConfig.from_config({"model": "m", "data": "d", "steps": 10, **settings})


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({"schedule": "constant", "warmup": 0}, [1] * 10),
        ({"schedule": "constant", "warmup": 4}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "constant", "warmup": 0.2}, [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "wsd", "warmup": 2, "decay": 0.5}, [0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        ({"schedule": "wsd", "warmup": 0, "decay": 0.2, "min_lr": 0.5}, [1, 1, 1, 1, 1, 1, 1, 1, 1, 0.75]),
        ({"schedule": "cosine", "warmup": 0, "steps": 4}, [1, 0.85355339, 0.5, 0.14644661]),
        ({"schedule": "cosine", "warmup": 2, "steps": 4, "min_lr": 0.5}, [0.5, 1, 1, 0.75]),
    ],
)
def test_rates_follow_the_schedule(settings, factors):
    made = config(**settings)
    assert [lr_factor(step, made) for step in range(1, made.steps + 1)] == pytest.approx(factors)


def test_no_step_is_spent_at_a_rate_of_zero():
    for schedule in ("cosine", "wsd", "constant"):
        for steps in (1, 2, 3, 50):
            made = config(schedule=schedule, steps=steps, warmup=0.1)
            assert all(lr_factor(step, made) > 0 for step in range(1, steps + 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lerning_rate": 1.0}, "'lerning_rate' is unknown"),
        ({"batch_token": 8}, "did you mean 'batch_tokens'"),
        ({"lr": 0.0}, "lr is 0.0, but must be above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": "fast"}, "lr must be float, not 'fast'"),
        ({"steps": True}, "steps must be int, not True"),
        ({"steps": 2.5}, "steps must be int, not 2.5"),
        ({"replay": 1.5}, "replay is 1.5, but must be between 0 and 1"),
        ({"schedule": "cosin"}, "one of cosine, constant, wsd"),
        ({"precision": "fp16"}, "one of bf16, fp32"),
        ({"pack_tokens": 9000}, "pack_tokens is 9000"),
        ({"clip": -1.0, "beta2": 1.0}, "beta2 is 1.0, but must be at least 0 and below 1; clip is -1.0"),
    ],
)
def test_bad_settings_are_refused_with_what_came_and_what_would_do(settings, message):
    with pytest.raises(InputError, match=message):
        config(**settings)


def test_missing_settings_are_named():
    with pytest.raises(InputError, match="lacks data, steps"):
        TrainerConfig.from_config({"model": "m"})


def test_whole_numbers_do_for_shares_and_rates():
    assert config(warmup=5, min_lr=0).warmup == 5.0


def test_a_row_has_to_fit_one_pack():
    assert config(batch_tokens=500, max_length=4096).row_limit == 500
    assert config(batch_tokens=500, pack_tokens=100).row_limit == 100
    assert config(batch_tokens=500, max_length=80).row_limit == 80
