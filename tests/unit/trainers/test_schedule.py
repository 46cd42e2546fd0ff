"""The learning rate of every step, and the settings it follows from."""

import pytest

from sweeps.config.blocks import TrialSettings
from sweeps.errors import InputError
from trainers.schedule import lr_factor


def config(**settings):
    return TrialSettings.from_config({"model": "m", "data": "d", "steps": 10, **settings})


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({"lr_scheduler_type": "constant", "warmup_steps": 0}, [1] * 10),
        ({"lr_scheduler_type": "constant", "warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
        ({"lr_scheduler_type": "constant", "warmup_steps": 0.2}, [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ({"lr_scheduler_type": "wsd", "warmup_steps": 2, "decay": 0.5}, [0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        (
            {"lr_scheduler_type": "wsd", "warmup_steps": 0, "decay": 0.2, "min_lr_rate": 0.5},
            [1, 1, 1, 1, 1, 1, 1, 1, 1, 0.75],
        ),
        ({"lr_scheduler_type": "cosine", "warmup_steps": 0, "steps": 4}, [1, 0.85355339, 0.5, 0.14644661]),
        ({"lr_scheduler_type": "cosine", "warmup_steps": 2, "steps": 4, "min_lr_rate": 0.5}, [0.5, 1, 1, 0.75]),
        ({"lr_scheduler_type": "linear", "warmup_steps": 0, "steps": 4}, [1, 0.75, 0.5, 0.25]),
        ({"lr_scheduler_type": "linear", "warmup_steps": 2, "steps": 4, "min_lr_rate": 0.5}, [0.5, 1, 1, 0.75]),
    ],
)
def test_rates_follow_the_schedule(settings, factors):
    made = config(**settings)
    assert [lr_factor(step, made) for step in range(1, made.steps + 1)] == pytest.approx(factors)


def test_no_step_is_spent_at_a_rate_of_zero():
    for schedule in ("cosine", "linear", "wsd", "constant"):
        for steps in (1, 2, 3, 50):
            made = config(lr_scheduler_type=schedule, steps=steps, warmup_steps=0.1)
            assert all(lr_factor(step, made) > 0 for step in range(1, steps + 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lerning_rate": 1.0}, "unknown key 'lerning_rate'"),
        ({"batch_token": 8}, "did you mean 'batch_tokens'"),
        ({"learning_rate": 0.0}, r"learning_rate: got 0\.0 \(a number\); expected a number > 0"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan"),
        ({"learning_rate": "fast"}, "learning_rate: got 'fast'"),
        ({"steps": True}, "steps: got True"),
        ({"steps": 2.5}, "steps: got 2.5"),
        ({"replay": 1.5}, "replay: got 1.5"),
        ({"decay": 0.0}, "decay: got 0.0"),
        ({"batch_tokens": 1}, "batch_tokens: got 1"),
        ({"lr": 1e-3}, "lr: is now learning_rate"),
        ({"lr_scheduler_type": "cosin"}, "one of cosine, linear, constant, wsd"),
        ({"precision": "fp16"}, "one of bf16, fp32"),
        ({"pack_tokens": 9000}, "got pack_tokens 9000; expected at most batch_tokens 8192"),
        ({"max_grad_norm": -1.0, "adam_beta2": 1.0}, r"adam_beta2: got 1\.0 .*max_grad_norm: got -1\.0"),
    ],
)
def test_bad_settings_are_refused_with_what_came_and_what_would_do(settings, message):
    with pytest.raises(InputError, match=message):
        config(**settings)


def test_missing_settings_are_named():
    with pytest.raises(InputError, match="data: missing"):
        TrialSettings.from_config({"model": "m"})


def test_whole_numbers_do_for_shares_and_rates():
    assert config(warmup_steps=5, min_lr_rate=0).warmup_steps == 5.0


def test_a_row_has_to_fit_one_pack():
    assert config(batch_tokens=500, max_length=4096).row_limit == 500
    assert config(batch_tokens=500, pack_tokens=100).row_limit == 100
    assert config(batch_tokens=500, max_length=80).row_limit == 80
