"""What this interpreter has of what a sweep needs: `python -m cluster.jobs.interpreter` prints it as one line."""

from __future__ import annotations

import importlib.util
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

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


def why_not_joined() -> str:
    """Returns why this interpreter cannot join the cluster on which it runs as a job; empty when it can.

    Ray takes one release of its own and one of Python in a cluster, so an interpreter that has all packages may still be refused.
    """
    import ray

    try:
        ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
    except Exception as e:
        return " ".join(str(e).split()) or type(e).__name__
    ray.shutdown()
    return ""


def describe() -> dict[str, Any]:
    """Returns what the probe of a cluster's interpreter found."""
    missing = missing_packages()
    refused = "" if missing else why_not_joined()
    return {"python": platform.python_version(), "missing": missing, "refused": refused, "dipsweep": own_version()}


if __name__ == "__main__":
    print(MARK + json.dumps(describe()), flush=True)
