"""One trunk for several step budgets: up to where the rate begins to fall, a short run and a long one are the same run.

Under a constant rate, or warm-up-stable-decay (WSD) with its warm-up in steps, nothing before the decay depends on the
budget: same seed, same rows, same rates, same weights to the bit. So of trials that differ in `steps` alone the longest
trains first and leaves a checkpoint where each shorter one turns off; the shorter ones train their own decay only.
Budgets of 100, 200 and 400 steps with a decay of 0.2 then cost 458 steps instead of 700. A cosine or linear schedule
ties every step to the budget, and shares nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sweeps.plugins import SFT

TIED: Final = ("cosine", "linear")  # schedules whose every step depends on the budget


def shared_steps(config: Mapping[str, Any]) -> int:
    """Returns how many first steps of a run are the same as those of any longer run with the same settings.

    0 where none are. The decay of `trainers.schedule` is `max(1, round(decay * steps))` steps long, and its first step
    still has the full rate.
    """
    if config.get("loop", SFT) != SFT:
        return 0
    steps, warmup = int(config["steps"]), float(config["warmup_steps"])
    if 0 < warmup < 1 or config["lr_scheduler_type"] in TIED or warmup >= steps:
        return 0
    if config["lr_scheduler_type"] == "constant":
        return steps
    falling = max(1, round(float(config["decay"]) * steps))
    return max(0, steps - falling + 1)


def longest(config: Mapping[str, Any], budgets: Iterable[int]) -> int | None:
    """Returns the budget of the run that this one can turn off from: the longest, or None if this one stands alone."""
    most = max(budgets, default=0)
    return most if most > int(config["steps"]) and shared_steps(config) > 0 else None


def why_not(config: Mapping[str, Any]) -> str:
    """Returns why runs of these settings share no trunk, as half a sentence; empty where they do."""
    if config.get("loop", SFT) != SFT:
        return f"nothing is known of the schedule of loop {config['loop']}"
    if (kind := config["lr_scheduler_type"]) in TIED:
        return f"lr_scheduler_type {kind} ties every step to the budget (wsd and constant do not)"
    if 0 < float(config["warmup_steps"]) < 1:
        return f"warmup_steps {config['warmup_steps']:g} is a share of the budget (give it in steps)"
    return ""
