"""What Ray prints on the driver's terminal. `ray.init(log_to_driver=False)` would take the workers' own lines along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def filter_printed(drop: Callable[[Mapping[str, Any]], bool]) -> None:
    """Drops messages for which `drop(data)` is true; `data` has `pid` and `lines`. A second call changes nothing."""
    import ray._private.worker as worker

    printed = worker.print_to_stdstream
    if getattr(printed, "filtered", False):
        return

    def print_others(data: Mapping[str, Any], *rest: Any, **named: Any) -> None:
        if not drop(data):
            printed(data, *rest, **named)

    print_others.filtered = True  # type: ignore[attr-defined]
    worker.print_to_stdstream = print_others
