"""Which checkpoints nobody needs any more: all but a trial's last ones, its best, and those that another begins from."""

from __future__ import annotations

from sweeps.config.objective import Goal
from sweeps.config.shared_prefix import shared_steps
from sweeps.config.trial import TrialSpec
from sweeps.journal.state import Checkpoint, SweepState, TrialState


def superseded(state: SweepState, spec: TrialSpec, goal: Goal, keep: int, *, more: bool = False) -> list[Checkpoint]:
    """Returns a trial's checkpoints whose files can go: scored, neither among its last `keep` nor its best.

    `more`: trials are still to be named, and may begin at any of the forks of the plan.
    """
    trial = state.trials[spec.id]
    children = [state.trials[t] for t in state.children.get(spec.id, ())]
    kept = set(sorted(trial.checkpoints)[-keep:] if keep else ()) | _best(state, spec.id, goal)
    kept |= _forks_to_come(trial, spec, children) | (set(spec.forks) if more else set())
    shared = {c.path for child in children for c in child.checkpoints.values()}
    return [
        checkpoint
        for step, checkpoint in trial.kept().items()
        if step not in kept
        and checkpoint.path not in shared
        and step > trial.fork_step
        and (trial.ended or step in trial.scored or step in trial.given_up or step not in spec.snapshots)
    ]


def _best(state: SweepState, trial: str, goal: Goal) -> set[int]:
    curve = state.history.curves[trial]
    steps = curve.steps(goal.metric)
    return {max(steps, key=lambda s: goal.sign * curve.points[s].metrics[goal.metric])} if steps else set()


def _forks_to_come(trial: TrialState, spec: TrialSpec, children: list[TrialState]) -> set[int]:
    """Checkpoints that a branch will begin from: those of the plan, and the one that an extension would take."""
    begins = (c.fork_step for c in children if not c.ended and not c.checkpoints)  # until it has one of its own
    limits = [*begins, shared_steps(spec.config)]
    return {saved.step for limit in limits if (saved := trial.last(limit)) is not None}
