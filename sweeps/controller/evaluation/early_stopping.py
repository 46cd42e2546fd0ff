"""When the evaluation of a checkpoint may end before all items are asked.

A checkpoint on the way is asked for one thing: can it be the one that the sweep is after? It cannot once it is clearly
worse than its base in the objective, or clearly breaks a constraint; then the rest of its items need not be asked. That is
where an evaluation costs most: in the dip replies are several times longer (arXiv 2604.06628).

Base models, last checkpoints and those that branches begin from are always asked in full: they rank the trials.
"""

from __future__ import annotations

from sweeps.config.eval_job import EarlyEnd, Question
from sweeps.config.names import is_judged
from sweeps.config.objective import Constraint, Goal
from sweeps.config.schema import Sweep
from sweeps.config.trial import TrialSpec


def early_end(sweep: Sweep, spec: TrialSpec, step: int) -> EarlyEnd | None:
    """Returns when the evaluation of a trial's checkpoint may end early; None where all items are to be asked."""
    level = sweep.evaluation.stop_early
    if level is None or step == spec.steps or step in spec.forks:
        return None
    return EarlyEnd(level, questions(sweep.goal), spec.model.path)


def questions(goal: Goal) -> tuple[Question, ...]:
    """Returns what puts a checkpoint out of the running, of what items can tell."""
    own = [Question(goal.metric, ceiling=not goal.maximize)]
    return tuple(q for q in [*own, *map(_broken, goal.constraints)] if is_judged(q.metric))


def _broken(constraint: Constraint) -> Question:
    if constraint.relative_to_base is not None:
        return Question(constraint.metric, constraint.relative_to_base)
    if constraint.at_most is not None:
        return Question(constraint.metric, constraint.at_most, against_base=False, ceiling=True)
    assert constraint.at_least is not None
    return Question(constraint.metric, constraint.at_least, against_base=False)
