"""Everything Ray: the run loop on Tune and Train, the evaluator pool, the command line. Imports ray only when it runs."""

from typing import TYPE_CHECKING, Any

from cluster.guard import check_names

check_names()

if TYPE_CHECKING:
    from cluster.jobs.submit import submit
    from cluster.run_sweep import run

__all__ = ["run", "submit"]
_MODULES = {"run": "cluster.run_sweep", "submit": "cluster.jobs.submit"}


def __getattr__(name: str) -> Any:
    """`run` and `submit` bring preflight and report along, which no worker needs, so they are imported when asked for."""
    import importlib

    if name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'cluster' has no attribute {name!r}")
