"""What a trial's settings were called in the past, so that old files get the new name and old journals stay readable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

RENAMED: Final = {
    "lr": "learning_rate", "schedule": "lr_scheduler_type", "warmup": "warmup_steps", "min_lr": "min_lr_rate",
    "beta1": "adam_beta1", "beta2": "adam_beta2", "clip": "max_grad_norm", "recompute": "gradient_checkpointing",
    "lora_targets": "lora_target_modules", "log_every": "logging_steps",
}  # fmt: skip
"""Trainer settings by the names they had in early sweep files, with the names that transformers and TRL use."""


def current_names(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a trial's settings under today's names; those of rows written before they changed are mapped."""
    if RENAMED.keys().isdisjoint(settings):
        return settings
    return {RENAMED.get(name, name): value for name, value in settings.items()}
