"""Promotion by odds (`search.promote`): a run is trained further while it is at least as likely to end in the top k as a new
configuration, and else waits at its last checkpoint.

Successive halving promotes by the rank at a rung, which prunes in the dip; here the order follows from the stop rule's odds at
the end of the budget, nothing is given up by it, and a run in its dip or recovery is never held (freeze-thaw optimization,
arXiv 1406.3896, with this rule's forecasts). Where `steps` is a grid beside sampled axes, going on past the step at which a
shorter budget branches off is the promotion to the next budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sweeps.config.objective import Goal
from sweeps.journal.rows import AttemptRow, ControlRow, Row, SweepRow, TrialRow, VerdictRow
from sweeps.journal.vocabulary import ControlAction
from sweeps.stopping.base import Action, Verdict
from sweeps.stopping.dip_aware import DipAware


class PromoteByOdds(DipAware):
    """The dip-aware rule, which also decides whether a machine goes on with a run or begins a new configuration.

    Attributes:
        planned, named: trials that the search may name, and those that it has; not those that users added.
        branches: trials that begin from a checkpoint of another. begun: all that have begun. waiting: those that are paused.
        exhausted: the search has named less than planned and has no more: a run was resumed whose odds are below a newcomer's.
    """

    def __init__(self, goal: Goal, **settings: Any) -> None:
        super().__init__(goal, **settings)
        self.planned = 0
        self.named: set[str] = set()
        self.branches: set[str] = set()
        self.begun: set[str] = set()
        self.waiting: set[str] = set()
        self.exhausted = False

    def observe(self, row: Row) -> bool:
        fresh = super().observe(row)
        match row:
            case VerdictRow(action=Action.PAUSE):
                self.waiting.add(row.trial)
            case AttemptRow() if row.trial in self.waiting:
                self.waiting.remove(row.trial)
                self.exhausted = self.exhausted or self.choose_trial_to_promote([row.trial]) is None
            case AttemptRow() if row.trial not in self.begun:
                self.begun.add(row.trial)
                if row.trial in self.named - self.branches:
                    self.exhausted = False
            case SweepRow():
                self.planned = max(self.planned, row.trials or 0)
            case ControlRow(action=ControlAction.ADD, refused=False):
                self.planned += int((row.args or {}).get("trials") or 0)
                self.exhausted = False
            case TrialRow():
                if not row.by:
                    self.named.add(row.trial)
                    self.exhausted = False
                if row.parent:
                    self.branches.add(row.trial)
        return fresh

    def newcomer(self) -> float:
        """Returns the odds of a configuration of which nothing is known; 0 where none is left to begin."""
        configurations = self.named - self.branches
        begun = len(configurations & self.begun)
        to_come = max(self.planned - len(self.named), 0) + len(configurations) - begun
        return 0.0 if self.exhausted or not to_come else self.goal.top / (begun + 1)

    def decide(self, trial: str) -> Verdict:
        verdict = super().decide(trial)
        p, newcomer = verdict.evidence.get("p_top"), self.newcomer()
        if verdict.action is not Action.CONTINUE or p is None or p >= newcomer or trial in self.branches:
            return verdict
        if verdict.evidence["protected"]:
            return verdict
        said = (
            f"held: {self._question()} {p:.2g} is below {newcomer:.2g}, that of a new configuration, which goes first"
        )
        evidence = {**verdict.evidence, "newcomer": newcomer}
        return replace(verdict, action=Action.PAUSE, reason=f"{said}; {verdict.reason}", evidence=evidence)

    def choose_trial_to_promote(self, paused: Sequence[str]) -> str | None:
        forecasts, newcomer = self.may_return(paused), self.newcomer()
        if not forecasts or not newcomer:
            return None
        odds = self._probabilities(forecasts)
        best = int(odds.argmax())
        return forecasts[best].trial if odds[best] >= newcomer else None
