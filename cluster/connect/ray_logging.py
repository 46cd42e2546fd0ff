"""What Ray says on a terminal, less what a sweep says better in its own lines."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

# Ray prints a page with this line for each process that ends of itself, such as a stopped attempt's.
DIED = "A worker died or was killed while executing a task"
LOGGERS = ("ray.tune", "ray.tune.tune", "ray.tune.execution.tune_controller")


def wants_ray_logs() -> bool:
    """True when DIPSWEEP_RAY_LOGS asks for everything that Ray has to say."""
    return bool(os.environ.get("DIPSWEEP_RAY_LOGS"))


def quiet_ray() -> None:
    """Keeps Ray's own lines on dead workers and broken trials off the driver's terminal; call it before `ray.init`.

    The journal says how an attempt ended, and why.
    """
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not wants_ray_logs():
        from cluster.ray_internals.logs import filter_printed

        filter_printed(_is_death_notice)


def _is_death_notice(data: Mapping[str, Any]) -> bool:
    return data.get("pid") == "raylet" and any(DIED in line for line in data["lines"])
