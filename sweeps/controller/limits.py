"""What a sweep may cost, and whether it has used that up."""

from __future__ import annotations

from collections.abc import Mapping

from sweeps.config.blocks import LimitsBlock


def exceeded(limits: LimitsBlock, wall_s: float, spent: Mapping[str, float]) -> str | None:
    """Returns a sentence on the limit that is used up, else None.

    Args:
        wall_s: seconds since this driver began; `wall_hours` is for one run.
        spent: seconds by unit over the sweep's whole life: all attempts and evaluations of all drivers.
    """
    if limits.wall_hours is not None and wall_s > limits.wall_hours * 3600:
        return f"limits.wall_hours: {wall_s / 3600:.2f} h have passed, {limits.wall_hours} are allowed"
    gpu_hours = spent.get("gpu_s", 0.0) / 3600
    if limits.gpu_hours is not None and gpu_hours > limits.gpu_hours:
        return f"limits.gpu_hours: {gpu_hours:.2f} GPU hours are spent, {limits.gpu_hours} are allowed"
    usd = gpu_hours * (limits.usd_per_gpu_hour or 0)
    if limits.usd is not None and usd > limits.usd:
        return f"limits.usd: {usd:.2f} are spent, {limits.usd} are allowed"
    return None
