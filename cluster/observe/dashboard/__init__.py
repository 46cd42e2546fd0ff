"""The Grafana dashboard: a file to import, or to put beside the dashboards that Ray generates."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sweeps.errors import InputError

DASHBOARD: Final = Path(__file__).with_name("dipsweep.json")
BESIDE: Final = Path("metrics") / "grafana" / "dashboards"


def install(session: Path = Path("/tmp/ray/session_latest")) -> Path:
    """Copies the dashboard to where a Grafana that was started with Ray's own configuration reads it; returns the file.

    Args:
        session: Ray's session folder on the head node, or any folder from which Grafana provisions dashboards.

    Raises:
        InputError: there is no such folder, or it cannot be written.
    """
    folder = session / BESIDE if (session / BESIDE).is_dir() else session
    if not folder.is_dir() or (folder / "logs").is_dir():  # a session of Ray whose dashboard made no Grafana files
        raise InputError(
            f"no folder {session / BESIDE}; run this on the head node while Ray runs there with its dashboard, or give "
            "--session with the folder from which your Grafana takes dashboards"
        )
    target = folder.resolve() / DASHBOARD.name
    try:
        shutil.copyfile(DASHBOARD, target)
    except OSError as e:
        raise InputError(f"{target} cannot be written ({e.strerror})") from e
    return target


def queries(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (panel, expression) of every query."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield str(panel["title"]), str(target["expr"])
