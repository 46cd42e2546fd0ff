"""The vocabulary and the decisions of dipsweep: plain Python, neither ray nor torch at import."""

from typing import TYPE_CHECKING, Any

from sweeps.config.schema import Sweep
from sweeps.config.space import choice, grid, loguniform, randint, uniform, zipped
from sweeps.errors import DipsweepError, InputError, SpecError

if TYPE_CHECKING:
    from sweeps.results import Results, load
    from sweeps.stopping.dip_aware import DipAware

__all__ = [
    "DipAware",
    "DipsweepError",
    "InputError",
    "Results",
    "SpecError",
    "Sweep",
    "choice",
    "grid",
    "load",
    "loguniform",
    "randint",
    "uniform",
    "zipped",
]


def __getattr__(name: str) -> Any:
    """`DipAware` brings NumPy along and `load` the report, so they are imported when they are asked for."""
    if name == "DipAware":
        from sweeps.stopping.dip_aware import DipAware

        return DipAware
    if name in ("Results", "load"):
        from sweeps import results

        return getattr(results, name)
    raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
