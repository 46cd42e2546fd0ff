"""How Ray names the processes of a sweep in their command lines."""

from __future__ import annotations

from typing import Final

ATTEMPT: Final = r"ray::(\w*Trainable|ImplicitFunc|Attempt|dipsweep-attempt)\b"
"""The actor of an attempt; its name depends on whether the attempt has one."""

TRAINING: Final = f"ray::RayTrainWorker|{ATTEMPT}"
"""What trains: with one worker the attempt's actor itself, with several Ray Train's workers."""
EVALUATOR: Final = "ray::Evaluator"
