"""Ray Train's runs without requests of their own to the autoscaler: the driver asks for the whole sweep.

Train asks for each run that it starts, beside what `cluster.resources.autoscaler` asks for, and goes on for three
minutes for one whose
process was ended, as a stop ends it. Each bundle would count twice, and a list that is too long brings no machine at
all. Its actor for that (100 MB) also comes up on the trial's own node, which is then never idle again.

An internal of Ray 2.60 (pinned); tests/scenario/test_autoscaler.py fails if it moves.
"""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api import data_parallel_trainer


class _Unasked(FixedScalingPolicy):  # type: ignore[misc]
    def after_controller_start(self, train_run_context: Any) -> None:
        """Would register the run."""

    def _maybe_send_resource_request(self) -> None:
        """Would say every 20 s that it is still there."""


def leave_scaling_to_the_driver() -> None:
    """Lets the Train runs that this process starts ask no autoscaler."""
    data_parallel_trainer.create_scaling_policy = _Unasked  # a module global, read when fit() runs
