"""Stop rules: pure folds from journal rows to verdicts."""

from sweeps.stopping.base import Action, Constraint, Goal, NeverStop, Phase, StopRule, Verdict

__all__ = ["Action", "Constraint", "Goal", "NeverStop", "Phase", "StopRule", "Verdict"]
