"""The vocabulary and the decisions of dipsweep: plain Python, neither ray nor torch at import."""

from sweeps.errors import DipsweepError, InputError, SpecError
from sweeps.space import choice, grid, loguniform, randint, uniform
from sweeps.spec import Sweep

__all__ = ["DipsweepError", "InputError", "SpecError", "Sweep", "choice", "grid", "loguniform", "randint", "uniform"]
