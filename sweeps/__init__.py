"""The vocabulary and the decisions of dipsweep: plain Python, neither ray nor torch at import."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sweeps.errors import DipsweepError, InputError, SpecError

if TYPE_CHECKING:
    from sweeps.config.schema import Sweep
    from sweeps.config.space import choice, grid, loguniform, randint, uniform, zipped
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


_MODULES = {
    "Sweep": "sweeps.config.schema",
    **dict.fromkeys(("choice", "grid", "loguniform", "randint", "uniform", "zipped"), "sweeps.config.space"),
    "DipAware": "sweeps.stopping.dip_aware",
    **dict.fromkeys(("Results", "load"), "sweeps.results"),
}


def __getattr__(name: str) -> Any:
    """Names are imported when they are asked for: every process of a sweep imports this package, and most need few of them."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
