"""Which checkpoints are no longer needed: all but a trial's last ones, its best, and those that another trial starts from."""

from __future__ import annotations

from collections.abc import Mapping

from sweeps.config.objective import Goal, all_met
from sweeps.config.shared_prefix import shared_steps
from sweeps.config.trial import TrialSpec
from sweeps.journal.history import Point
from sweeps.journal.state import Checkpoint, SweepState, TrialState


def superseded(state: SweepState, spec: TrialSpec, goal: Goal, keep: int, *, more: bool = False) -> list[Checkpoint]:
    """Returns a trial's checkpoints whose files can go: scored, neither among its last `keep` nor its best.

    Its best are those with and without regard to the constraints.

    `more`: trials are still to be named, and may begin at any of the forks of the plan.
    """
    trial = state.trials[spec.id]
    children = [state.trials[t] for t in state.children.get(spec.id, ())]
    points, base = trial.curve.points, state.history.base_scores(spec.id)
    kept = set(sorted(trial.checkpoints)[-keep:] if keep else ()) | _best(points, goal, base)
    kept |= _best_of_branches(state, spec.id, points, goal, base)
    for fork in spec.forks if more else ():
        kept |= _best(_until(points, fork), goal, base)
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


Points = Mapping[int, Point]


def _best(points: Points, goal: Goal, base: Mapping[str, float]) -> set[int]:
    """The best checkpoint, and the best of those that meet all constraints."""
    steps = [s for s, p in sorted(points.items()) if s > 0 and goal.metric in p.metrics]
    fine = [s for s in steps if all_met(goal.constraints, points[s].metrics, base)]
    return {max(some, key=lambda s: goal.sign * points[s].metrics[goal.metric]) for some in (steps, fine) if some}


def _best_of_branches(state: SweepState, trial: str, points: Points, goal: Goal, base: Mapping[str, float]) -> set[int]:
    """The best checkpoints of runs that turn off from a trial, where those lie before they did.

    Args:
        points: the trial's curve, with what stands before it turned off itself.
    """
    found = set[int]()
    for child in state.children.get(trial, ()):
        fork = state.trials[child].fork_step
        own = {**_until(points, fork), **state.trials[child].curve.points}
        best = _best(own, goal, base) | _best_of_branches(state, child, own, goal, base)
        found |= {s for s in best if s <= fork}
    return found


def _until(points: Points, step: int) -> dict[int, Point]:
    return {s: p for s, p in points.items() if s <= step}


def _forks_to_come(trial: TrialState, spec: TrialSpec, children: list[TrialState]) -> set[int]:
    """Checkpoints that a branch will begin from: those of the plan, and the one that an extension would take."""
    begins = (c.fork_step for c in children if not c.ended and not c.checkpoints)  # until it has one of its own
    limits = [*begins, shared_steps(spec.config)]
    return {saved.step for limit in limits if (saved := trial.last(limit)) is not None}
