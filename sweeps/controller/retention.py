"""Which checkpoints nobody needs any more: all but a trial's last ones, its best, and those that another begins from."""

from __future__ import annotations

from sweeps.config.objective import Goal, all_met
from sweeps.config.shared_prefix import shared_steps
from sweeps.config.trial import TrialSpec
from sweeps.journal.state import Checkpoint, SweepState, TrialState


def superseded(state: SweepState, spec: TrialSpec, goal: Goal, keep: int, *, more: bool = False) -> list[Checkpoint]:
    """Returns a trial's checkpoints whose files can go: scored, neither among its last `keep` nor its best.

    Its best are those with and without regard to the constraints.

    `more`: trials are still to be named, and may begin at any of the forks of the plan.
    """
    trial = state.trials[spec.id]
    children = [state.trials[t] for t in state.children.get(spec.id, ())]
    kept = set(sorted(trial.checkpoints)[-keep:] if keep else ()) | _best(state, spec.id, goal)
    kept |= _best_of_branches(state, spec.id, goal)
    for fork in spec.forks if more else ():
        kept |= _best(state, spec.id, goal, fork)
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


def _best(state: SweepState, trial: str, goal: Goal, limit: int | None = None) -> set[int]:
    """The best checkpoint not beyond step `limit`, and the best of those that meet all constraints."""
    curve, base = state.history.curves[trial], state.history.base_scores(trial)
    steps = [s for s in curve.steps(goal.metric) if s > 0 and (limit is None or s <= limit)]
    fine = [s for s in steps if all_met(goal.constraints, curve.points[s].metrics, base)]
    return {max(some, key=lambda s: goal.sign * curve.points[s].metrics[goal.metric]) for some in (steps, fine) if some}


def _best_of_branches(state: SweepState, trial: str, goal: Goal) -> set[int]:
    """The best checkpoints of runs that turn off from a trial, where those lie before they did."""
    found = set[int]()
    for child in state.children.get(trial, ()):
        branch = state.trials[child]
        best = _best(state, child, goal) if branch.attempt else _best(state, trial, goal, branch.fork_step)
        found |= {s for s in best | _best_of_branches(state, child, goal) if s <= branch.fork_step}
    return found


def _forks_to_come(trial: TrialState, spec: TrialSpec, children: list[TrialState]) -> set[int]:
    """Checkpoints that a branch will begin from: those of the plan, and the one that an extension would take."""
    begins = (c.fork_step for c in children if not c.ended and not c.checkpoints)  # until it has one of its own
    limits = [*begins, shared_steps(spec.config)]
    return {saved.step for limit in limits if (saved := trial.last(limit)) is not None}
