"""The work of a sweep, trial by trial, before anything has run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sweeps.config.plan import Plan
from sweeps.config.space import sampled
from sweeps.config.trial import TrialSpec
from sweeps.controller.searcher import OptunaSearch

ROW_SHARE: Final = 1 / 4
"""Tokens of a row as a share of `max_length`, where a step is counted in rows. An assumption: long-CoT answers of up to
16,384 tokens are about a third of that in the mean."""


def step_tokens(config: Mapping[str, Any]) -> int:
    """Returns the tokens of an optimizer step: as set, or of so many rows of the assumed length."""
    rows = int(config["batch_rows"])
    return int(rows * ROW_SHARE * int(config["max_length"])) if rows else int(config["batch_tokens"])


@dataclass(frozen=True, slots=True)
class TrialWork:
    """One trial's share of the work.

    Attributes:
        budget: optimizer steps of the trial. fork: how many of them its parent runs for it; 0 without a parent.
        evaluations: checkpoints that it has scored itself; those up to the fork are its parent's.
        saves: checkpoints that it writes itself, scored or not.
        workers, cpus, gpus: processes, and what all of them together reserve. fewest: of an elastic trial; 0: all.
    """

    trial: str
    model: str
    data: str
    budget: int
    evaluations: int
    workers: int
    cpus: float
    gpus: float
    config: Mapping[str, Any]
    parent: str = ""
    fork: int = 0
    saves: int = 0
    fewest: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps that the trial runs itself."""
        return self.budget - self.fork

    @property
    def devices(self) -> float:
        """GPUs that all its workers hold; CPUs, where they hold none."""
        return self.gpus or self.cpus

    @property
    def start_devices(self) -> float:
        """The same while it starts, of which the CPUs count that then compute: one of a worker."""
        return self.gpus or float(self.workers)

    @property
    def step_tokens(self) -> int:
        """Tokens of one of them."""
        return step_tokens(self.config)


def planned_work(plan: Plan) -> list[TrialWork]:
    """Returns the work of all trials, in the order in which they are suggested.

    Of a sampled sweep these are random draws: which values the search will pick depends on scores that do not exist.
    """
    return list(_work_of_all(plan))


@lru_cache(maxsize=4)
def _work_of_all(plan: Plan) -> tuple[TrialWork, ...]:
    if not sampled(plan.sweep.space):
        return tuple(work_of(plan, trial) for trial in plan.known_trials())
    search = plan.sweep.search.model_copy(update={"algorithm": "random"})
    drawn = OptunaSearch(Plan(plan.sweep.model_copy(update={"search": search}), plan.more))
    return tuple(work_of(plan, plan.trial(suggestion.config)) for suggestion in iter(drawn.ask, None))


def work_of(plan: Plan, trial: TrialSpec) -> TrialWork:
    """Returns the work of one trial of a plan."""
    config = trial.config
    branch = plan.branch_of(config)
    fork = branch.step if branch else 0
    model = trial.model
    return TrialWork(
        trial=trial.id,
        model=str(config["model"]),
        data=str(config["data"]),
        budget=trial.steps,
        evaluations=sum(step > fork for step in trial.snapshots),
        workers=model.workers,
        cpus=model.workers * model.cpus_per_worker,
        gpus=model.workers * model.gpus_per_worker,
        config=config,
        parent=branch.parent if branch else "",
        fork=fork,
        saves=sum(step > fork for step in trial.saves),
        fewest=model.fewest,
    )
