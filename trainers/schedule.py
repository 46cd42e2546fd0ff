"""The learning rate of every step: warm-up, then cosine, constant or warm-up-stable-decay."""

from __future__ import annotations

import math

from trainers.config import TrainerConfig


def warmup_steps(config: TrainerConfig) -> int:
    """Returns the length of the warm-up in steps (a `warmup` below 1 is a share of the budget)."""
    return round(config.warmup if config.warmup >= 1 else config.warmup * config.steps)


def lr_factor(step: int, config: TrainerConfig) -> float:
    """Returns the rate of a step as a share of the peak rate.

    Args:
        step: the optimizer step about to be taken, from 1 to `config.steps`.

    The warm-up reaches 1 at its last step. Cosine and decay are set so that one step beyond the budget would stand at
    `min_lr`: no step is spent at a rate of zero.
    """
    warm = warmup_steps(config)
    if step <= warm:
        return step / warm
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "cosine":
        done = (step - 1 - warm) / max(1, config.steps - warm)
        return config.min_lr + (1 - config.min_lr) * 0.5 * (1 + math.cos(math.pi * done))
    falling = max(1, round(config.decay * config.steps))
    left = min(1.0, (config.steps - step + 1) / falling)
    return config.min_lr + (1 - config.min_lr) * left
