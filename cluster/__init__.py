"""Everything Ray: the run loop on Tune and Train, the evaluator pool, the command line. Imports ray only when it runs."""

from typing import TYPE_CHECKING, Any

from cluster.guard import check_names

check_names()

if TYPE_CHECKING:
    from cluster.jobs.submit import submit
    from cluster.run import run

__all__ = ["run", "submit"]


def __getattr__(name: str) -> Any:
    """`run` and `submit` bring preflight and report along, which no worker needs, so they are imported when asked for."""
    import importlib

    if name in ("run", "submit"):
        return getattr(importlib.import_module({"run": "cluster.run", "submit": "cluster.jobs.submit"}[name]), name)
    raise AttributeError(f"module 'cluster' has no attribute {name!r}")
