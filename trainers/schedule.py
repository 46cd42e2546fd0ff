"""The learning rate of every step: warm-up, then cosine, linear, constant or warm-up-stable-decay."""

from __future__ import annotations

import math

from sweeps.config.blocks import TrialSettings
from sweeps.config.compat import PAPER


def warmup_steps(config: TrialSettings) -> int:
    """Returns the length of the warm-up in steps (a `warmup_steps` below 1 is a share of the budget)."""
    steps = config.warmup_steps if config.warmup_steps >= 1 else config.warmup_steps * config.steps
    return int(steps) if config.compat == PAPER else round(steps)


def lr_factor(step: int, config: TrialSettings) -> float:
    """Returns the rate of a step as a share of the peak rate.

    Args:
        step: the optimizer step about to be taken, from 1 to `config.steps`.

    The warm-up reaches 1 at its last step. Cosine, linear and decay are set so that one step beyond the budget would stand at
    `min_lr_rate`: no step is spent at a rate of zero. Under `compat: paper` the first step is, and the warm-up ends a step later.
    """
    warm = warmup_steps(config)
    if step <= warm:
        return (step - 1 if config.compat == PAPER else step) / warm
    if config.lr_scheduler_type == "constant":
        return 1.0
    if config.lr_scheduler_type == "wsd":
        falling = max(1, round(config.decay * config.steps))
        left = min(1.0, (config.steps - step + 1) / falling)
    else:
        done = (step - 1 - warm) / max(1, config.steps - warm)
        left = 0.5 * (1 + math.cos(math.pi * done)) if config.lr_scheduler_type == "cosine" else 1 - done
    return config.min_lr_rate + (1 - config.min_lr_rate) * left
