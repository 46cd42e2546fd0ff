"""What this interpreter has of what a sweep needs: `python -m cluster.jobs.interpreter` prints it as one line."""

from __future__ import annotations

import importlib.util
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

MARK: Final = "dipsweep-interpreter "
NEEDED: Final = (
    "ray",
    "torch",
    "transformers",
    "optuna",
    "scipy",
    "fsspec",
    "safetensors",
    "jinja2",
    "pydantic",
    "yaml",
)


def missing_packages() -> list[str]:
    """Returns what a sweep imports and this interpreter lacks."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def own_version() -> str:
    """Returns the version of the dipsweep that is installed here; empty when none is."""
    try:
        return version("dipsweep")
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    found = {"python": platform.python_version(), "missing": missing_packages(), "dipsweep": own_version()}
    print(MARK + json.dumps(found), flush=True)
