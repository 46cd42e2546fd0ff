"""Which trial comes next: ask and tell, in memory, rebuilt from the journal.

Every ask is decided by (sweep seed, cell, draw) and by what was told before it; so a driver that was killed and started
again asks the same trials. Optuna does the sampling; one study per grid cell, because a cell is a question of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sweeps.config.plan import Plan
from sweeps.config.space import Axis, Choice, LogUniform, RandInt, Uniform, sampled

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study

Ended = Literal["completed", "pruned", "failed"]
RETRIES_FOR_NEW = 32  # a sampler over few choices repeats itself; after this many repeats the cell counts as used up


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration that the search wants run, with what is needed to rebuild the search later."""

    number: int
    config: Mapping[str, Any]
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """How a suggestion ended: the objective by step; `value` only when it ran to its budget."""

    ended: Ended
    by_step: Mapping[int, float] = field(default_factory=dict)

    @property
    def value(self) -> float | None:
        return self.by_step[max(self.by_step)] if self.by_step else None


class Searcher(Protocol):
    """Asked for trials, told how they ended. `plan` may be replaced by one that allows more of them."""

    plan: Plan

    def ask(self) -> Suggestion | None:
        """Returns the next suggestion, or None when all are given out."""

    def restore(self, suggestion: Suggestion) -> None:
        """Takes back a suggestion of an earlier driver, in the order in which it was asked."""

    def tell(self, number: int, result: Result) -> None:
        """Says how suggestion `number` ended."""


def make_searcher(plan: Plan) -> Searcher:
    """Returns the searcher that the sweep asks for."""
    return OptunaSearch(plan) if sampled(plan.sweep.space) else GridSearch(plan)


class GridSearch:
    """All cells, `repeats` times over, in order."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.next = plan, 0

    def ask(self) -> Suggestion | None:
        if self.next >= self.plan.total:
            return None
        repeat, cell = divmod(self.next, len(self.plan.cells))
        self.next += 1
        return Suggestion(self.next - 1, self.plan.config(self.plan.cells[cell], {}, repeat))

    def restore(self, suggestion: Suggestion) -> None:
        self.next = max(self.next, suggestion.number + 1)

    def tell(self, number: int, result: Result) -> None:
        """A grid learns nothing."""


class OptunaSearch:
    """Samples the free axes of each cell with an Optuna sampler; cells take turns.

    Suggestion numbers run repeat-major: number = (repeat * draws + draw) * cells + cell.
    """

    def __init__(self, plan: Plan) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.plan, self.next = plan, 0
        self.free = sampled(plan.sweep.space)
        self.distributions = {name: _distribution(axis) for name, axis in self.free.items()}
        direction = "maximize" if plan.sweep.goal.maximize else "minimize"
        self.studies: list[Study] = [optuna.create_study(direction=direction) for _ in plan.cells]
        self.given: list[list[Mapping[str, Any]]] = [[] for _ in plan.cells]
        self.place: dict[int, tuple[int, int]] = {}  # suggestion number -> (cell, Optuna's trial number)

    def ask(self) -> Suggestion | None:
        while self.next < self.plan.total:
            number = self.next
            self.next += 1
            suggestion = self._ask(number)
            if suggestion is not None:
                return suggestion
        return None

    def _ask(self, number: int) -> Suggestion | None:
        turn, cell = divmod(number, len(self.plan.cells))
        repeat, draw = divmod(turn, self.plan.draws)
        if repeat:
            if draw >= len(self.given[cell]):
                return None
            return Suggestion(number, self.plan.config(self.plan.cells[cell], self.given[cell][draw], repeat))
        study = self.studies[cell]
        for attempt in range(RETRIES_FOR_NEW):
            study.sampler = self._sampler(cell, draw, attempt)
            if self.plan.sweep.search.algorithm == "qmc":
                study.enqueue_trial(self._sobol(cell, draw + attempt))
            trial = study.ask(self.distributions)
            if trial.params not in self.given[cell]:
                attrs = study._storage.get_trial_system_attrs(trial._trial_id)
                state = {"system_attrs": {k: v for k, v in attrs.items() if _plain(v)}} if attrs else {}
                return self._given(number, cell, trial.number, trial.params, state)
            study.tell(trial.number, state=_state("failed"))
        return None

    def _given(
        self, number: int, cell: int, optuna_number: int, params: Mapping[str, Any], state: Mapping[str, Any]
    ) -> Suggestion:
        self.given[cell].append(dict(params))
        self.place[number] = (cell, optuna_number)
        return Suggestion(number, self.plan.config(self.plan.cells[cell], params, 0), state)

    def restore(self, suggestion: Suggestion) -> None:
        from optuna.trial import create_trial

        self.next = max(self.next, suggestion.number + 1)
        turn, cell = divmod(suggestion.number, len(self.plan.cells))
        if turn >= self.plan.draws:
            return
        params = {name: suggestion.config[name] for name in self.distributions}
        study = self.studies[cell]
        study.add_trial(
            create_trial(
                state=_state("running"),
                params=params,
                distributions=self.distributions,
                system_attrs=dict(suggestion.state.get("system_attrs", {})),
            )
        )
        self._given(suggestion.number, cell, len(study.get_trials(deepcopy=False)) - 1, params, suggestion.state)

    def tell(self, number: int, result: Result) -> None:
        if number not in self.place:
            return
        cell, optuna_number = self.place[number]
        study = self.studies[cell]
        storage = study._storage
        trial = storage.get_trial_id_from_study_id_trial_number(study._study_id, optuna_number)
        for step, value in result.by_step.items():
            storage.set_trial_intermediate_value(trial, step, value)
        if result.ended == "completed" and result.value is not None:
            study.tell(optuna_number, result.value)
        else:
            study.tell(optuna_number, state=_state("pruned" if result.ended == "pruned" else "failed"))

    def _sampler(self, cell: int, draw: int, attempt: int) -> BaseSampler:
        """A new sampler per ask: one that lived on would answer differently after a restart."""
        import optuna

        key = f"{self.plan.sweep.seed}/{cell}/{draw}/{attempt}"
        seed = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
        name = self.plan.sweep.search.algorithm
        if name == "optuna-tpe":
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=5)
        if name == "optuna-gp":
            return optuna.samplers.GPSampler(seed=seed)
        if name == "optuna-nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)

    def _sobol(self, cell: int, index: int) -> dict[str, Any]:
        """Point `index` of the cell's scrambled Sobol sequence. Optuna's own QMC sampler keeps its place in the study's
        attributes, which a rebuilt study does not have; a point by its number needs no memory."""
        from scipy.stats import qmc

        sequence = qmc.Sobol(len(self.distributions), scramble=True, rng=self.plan.sweep.seed * 1009 + cell)
        if index:  # SciPy refuses to go forward by 0
            sequence.fast_forward(index)
        point = sequence.random(1)[0]
        return {name: _at(axis, float(u)) for (name, axis), u in zip(self.free.items(), point, strict=True)}


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list | dict) or value is None


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return {"running": TrialState.RUNNING, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[name]


def _distribution(axis: Axis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, Choice):
        return CategoricalDistribution(list(axis.values))
    if isinstance(axis, RandInt):
        return IntDistribution(int(axis.low), int(axis.high))
    assert isinstance(axis, Uniform | LogUniform)
    return FloatDistribution(float(axis.low), float(axis.high), log=isinstance(axis, LogUniform))


def _at(axis: Axis, u: float) -> Any:
    """Returns the axis's value at the share `u` in [0, 1) of its range."""
    if isinstance(axis, Choice):
        return axis.values[int(u * len(axis.values))]
    if isinstance(axis, RandInt):
        return int(axis.low) + int(u * (int(axis.high) - int(axis.low) + 1))
    assert isinstance(axis, Uniform | LogUniform)
    if isinstance(axis, LogUniform):
        return min(float(axis.high), float(axis.low) * (axis.high / axis.low) ** u)
    return float(axis.low) + u * (float(axis.high) - float(axis.low))
