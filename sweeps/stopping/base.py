"""What a stop rule is: rows in, verdicts out, nothing else.

A rule is a fold over the journal: `observe` takes every row in journal order, `decide` answers for one trial from what
was observed so far. It reads no clock, draws no unseeded random number and talks to nobody; so replaying the journal up
to a verdict's `seq` gives the same verdict, in-process, under the simulated clock and on Ray.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sweeps.config.objective import Goal
from sweeps.journal.history import History
from sweeps.journal.rows import Row
from sweeps.journal.vocabulary import Action as Action
from sweeps.journal.vocabulary import Phase as Phase


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision with its reason: one sentence with numbers, and the numbers themselves."""

    action: Action
    reason: str
    phase: Phase = Phase.UNKNOWN
    evidence: Mapping[str, Any] = field(default_factory=dict)


class StopRule(ABC):
    """Base of all rules.

    Args:
        goal: metric, direction, top k and constraints.

    Attributes:
        history: the fold of all rows observed so far; the run loop reads the same one.
    """

    name: str = ""
    kept_defaults: Mapping[str, Any] = MappingProxyType({})
    """Settings that nobody gave, of which another version may have another default: a sweep writes them down when it begins
    (`SweepRow.rule`), and goes on with them."""

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self.history = History()

    def observe(self, row: Row) -> bool:
        """Takes one row in, in journal order; False when it says nothing new or is fenced off."""
        return self.history.fold(row)

    @abstractmethod
    def decide(self, trial: str) -> Verdict:
        """Returns the verdict on a running trial whose row was just observed."""

    def choose_trial_to_resume(self, paused: Sequence[str]) -> str | None:
        """Returns the paused trial that deserves a free machine now, or None when none does.

        Asked when a machine is free and nothing new is left to start. None from an idle sweep ends the paused trials
        as pruned.
        """
        return None

    def choose_trial_to_promote(self, paused: Sequence[str]) -> str | None:
        """Returns the paused trial that deserves a free machine more than a new configuration, or None when none does.

        Asked before the search is.
        """
        return None


class NeverStop(StopRule):
    """Runs every trial to its budget (`rule: none`)."""

    name = "none"

    def decide(self, trial: str) -> Verdict:
        return Verdict(Action.CONTINUE, "rule none: every trial runs to its budget")
