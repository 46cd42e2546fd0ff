"""Stop rules: pure folds from journal rows to verdicts.

`DipAware`, `make_rule` and `parse_rule` are looked up on first use: they need NumPy and a curve library, which a command
that stops nothing should not wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweeps.config.objective import Constraint, Goal
from sweeps.stopping.base import Action, NeverStop, Phase, StopRule, Verdict

if TYPE_CHECKING:
    from sweeps.stopping.dip_aware import DipAware
    from sweeps.stopping.registry import make_rule, parse_rule

__all__ = [
    "Action",
    "Constraint",
    "DipAware",
    "Goal",
    "NeverStop",
    "Phase",
    "StopRule",
    "Verdict",
    "make_rule",
    "parse_rule",
]


def __getattr__(name: str) -> Any:
    if name == "DipAware":
        from sweeps.stopping.dip_aware import DipAware

        return DipAware
    if name in ("make_rule", "parse_rule"):
        from sweeps.stopping import registry as rules

        return getattr(rules, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
