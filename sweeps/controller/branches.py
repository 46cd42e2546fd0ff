"""Branches that have not begun, where the stop rule has given up the trunk that they were to begin from.

A branch can begin from the trunk's last checkpoint also then. Where that lies at the branch's fork, this costs what it was
planned to. Where the trunk was given up before, the branch would first run the steps that the trunk left out: then the rule is
asked about it as about a run of its own, by its trunk's scores and at its own budget (`Verdicts.judge_unbegun`). So what has
no chance ends with its trunk, and what peaks before the trunk's budget does not.
"""

from __future__ import annotations

from sweeps.journal.state import SweepState, TrialState
from sweeps.journal.vocabulary import Action, TrialStatus


def has_begun(trial: TrialState) -> bool:
    """True once a trial has had an attempt."""
    return trial.attempt > 0


def given_up_trunk(state: SweepState, trial: TrialState) -> TrialState | None:
    """Returns the trunk of a branch that has not begun, where the stop rule has given that trunk up; else None.

    None also for what a user asked for by its settings or its id: it begins as it was asked to.
    """
    trunk = state.trials.get(trial.parent)
    if trunk is None or has_begun(trial) or trial.asked_for:
        return None
    return trunk if is_given_up(trunk) else None


def is_given_up(trial: TrialState) -> bool:
    """True for a trial that the stop rule has paused, or stopped for good. What a user stops is that trial alone."""
    verdict = trial.verdict
    by_rule = verdict is not None and verdict.action is not Action.CONTINUE and verdict.attempt == trial.attempt
    return by_rule and trial.status in (TrialStatus.PAUSED, TrialStatus.PRUNED)


def trunk_to_judge_by(state: SweepState, trial: TrialState) -> TrialState | None:
    """Returns the trunk of a waiting branch about which the rule is to be asked before it begins; None where it is not.

    It is asked once for each time that the trunk is given up, and only where the trunk did not come to the branch's fork.
    """
    trunk = given_up_trunk(state, trial) if trial.status is TrialStatus.WAITING else None
    if trunk is None or trunk.verdict is None:
        return None
    asked = trial.verdict is not None and trial.verdict.seq > trunk.verdict.seq
    last = trunk.last()
    reached = max(trunk.verdict.step or 0, last.step if last is not None else 0)
    return None if asked or reached >= trial.fork_step else trunk


def trunk_text(trunk: TrialState) -> str:
    """Returns `its trunk t-1a2b3c4d, which was pruned at step 120 of 400`."""
    step = trunk.verdict.step if trunk.verdict is not None else trunk.curve.last_step
    return f"its trunk {trunk.id}, which was {trunk.status} at step {step} of {trunk.curve.budget}"
