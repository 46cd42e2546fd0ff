"""What a sweep spent, and what stopping saved against running every trial to its budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweeps.journal.start_ups import StartUps
from sweeps.report.analysis.findings.summary import Costs
from sweeps.report.analysis.findings.trials import Spent, Trial

STOPPED = ("pruned", "paused")


def costs(trials: Sequence[Trial], base_scoring: Spent, starts: StartUps) -> Costs:
    """Adds up the trials; running ones count for what they spent, not for what is saved."""
    ended = [t for t in trials if t.state in (*STOPPED, "completed", "failed") and t.budget is not None]
    planned = sum(_own_budget(t) for t in ended)
    saved, by_id = sum(_missing(t) for t in ended if t.state in STOPPED), {t.id: t for t in trials}
    return Costs(
        training=sum((t.training for t in trials), Spent()),
        scoring=sum((t.scoring for t in trials), base_scoring),
        steps_planned=planned,
        steps_run=sum(t.own_steps for t in ended),
        steps_saved=saved,
        steps_shared=sum(t.fork_step or 0 for t in ended),
        steps_lost=sum(_missing(t) for t in ended if t.state == "failed"),
        share_saved=saved / planned if planned else None,
        estimated_saved=sum((step_cost(t, by_id).scaled(_missing(t)) for t in ended if t.state in STOPPED), Spent()),
        starts=starts,
    )


def _own_budget(trial: Trial) -> int:
    """Steps that this trial was to run itself: a branch starts at its parent's fork."""
    assert trial.budget is not None
    return trial.budget - (trial.fork_step or 0)


def _missing(trial: Trial) -> int:
    return max(_own_budget(trial) - trial.own_steps, 0)


def step_cost(trial: Trial, trials: Mapping[str, Trial]) -> Spent:
    """Returns what a step of a trial took; of one that ran none itself, what one of the trial took that it was to begin from."""
    known: Trial | None = trial
    while known is not None and not known.own_steps:
        known = trials.get(known.parent or "")
    return known.training.scaled(1 / known.own_steps) if known is not None else Spent()
