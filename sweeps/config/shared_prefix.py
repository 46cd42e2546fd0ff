"""One trunk for several step budgets: up to where the rate begins to fall, a short run and a long one are the same run.

Under a constant rate, or warm-up-stable-decay (WSD) with its warm-up in steps, nothing before the decay depends on the
budget: same seed, same rows, same rates, same weights to the bit. So of trials that differ in `steps` alone the longest
trains first and leaves a checkpoint where each shorter one turns off; the shorter ones train their own decay only.
Budgets of 100, 200 and 400 steps with a decay of 0.2 then cost 458 steps instead of 700. A cosine or linear schedule
ties every step to the budget, and shares nothing.

The same holds for how the rate falls: decays of another length, or to another final rate, are branches of the run whose rate is
full for longest, each from the step at which its own rate begins to fall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sweeps.plugins import SFT

TIED: Final = ("cosine", "linear")  # schedules whose every step depends on the budget
SCHEDULE: Final = ("loop", "steps", "warmup_steps", "lr_scheduler_type", "decay")
"""Settings that decide how many first steps a run shares."""
ENDINGS: Final = ("steps", "decay", "min_lr_rate")
"""Settings that decide nothing before the rate begins to fall."""


def shared_steps(config: Mapping[str, Any]) -> int:
    """Returns how many first steps of a run any other has too that differs in `ENDINGS` alone and keeps the full rate as long.

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


class Family(NamedTuple):
    """Runs that differ in `ENDINGS` alone.

    Attributes:
        trunk: the ending of the run that all others branch off from, None where there is one run only. shared: for each of them,
            how many first steps it shares.
    """

    trunk: Mapping[str, Any] | None
    shared: frozenset[int]


def family(config: Mapping[str, Any], endings: Sequence[Mapping[str, Any]]) -> Family:
    """Returns what the runs share that differ from this one in nothing but these endings, in the order of the plan.

    The run whose rate is full for longest is the trunk of all others; of several, the longest, and the first.
    """
    shared = [shared_steps({**config, **one}) for one in endings]
    order = sorted(range(len(endings)), key=lambda i: (-shared[i], -int(endings[i].get("steps", 0))))
    return Family(endings[order[0]] if len(endings) > 1 else None, frozenset(shared))


def same_until(config: Mapping[str, Any], other: Mapping[str, Any], step: int) -> bool:
    """True when two runs are one and the same run up to a step."""
    alike = {k: v for k, v in config.items() if k not in ENDINGS} == {
        k: v for k, v in other.items() if k not in ENDINGS
    }
    return alike and step <= min(shared_steps(config), shared_steps(other))


def why_not(config: Mapping[str, Any]) -> str:
    """Returns why runs of these settings share no trunk, as half a sentence; empty where they do."""
    if config.get("loop", SFT) != SFT:
        return f"nothing is known of the schedule of loop {config['loop']}"
    if (kind := config["lr_scheduler_type"]) in TIED:
        return f"lr_scheduler_type {kind} ties every step to the budget (wsd and constant do not)"
    if 0 < float(config["warmup_steps"]) < 1:
        return f"warmup_steps {config['warmup_steps']:g} is a share of the budget (give it in steps)"
    return ""
