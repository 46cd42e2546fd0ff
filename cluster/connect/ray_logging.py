"""What Ray says on a terminal, less what a sweep says better in its own lines."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

DIED = (
    "A worker died or was killed while executing a task"  # a page of it for each process that ends of itself, such as
)
# a stopped attempt's; how an attempt ended, and why, stands in the journal
LOGGERS = ("ray.tune", "ray.tune.tune", "ray.tune.execution.tune_controller")


def wants_ray_logs() -> bool:
    """True when DIPSWEEP_RAY_LOGS asks for everything that Ray has to say."""
    return bool(os.environ.get("DIPSWEEP_RAY_LOGS"))


def hush() -> None:
    """Keeps Ray's own lines on dead workers and broken trials off the driver's terminal; call it before `ray.init`.

    `print_to_stdstream` is an internal of Ray 2.60 (pinned); tests/scenario/test_ray.py fails if it moves.
    """
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if wants_ray_logs():
        return
    import ray._private.worker as worker

    printed = worker.print_to_stdstream
    if getattr(printed, "hushed", False):
        return

    def print_others(data: Mapping[str, Any], *rest: Any, **named: Any) -> None:
        if data.get("pid") != "raylet" or not any(DIED in line for line in data["lines"]):
            printed(data, *rest, **named)

    print_others.hushed = True  # type: ignore[attr-defined]
    worker.print_to_stdstream = print_others
