"""Which trial comes next: ask and tell, in memory, rebuilt from the journal.

Every ask is decided by (sweep seed, cell, draw) and by what was told before it; so a driver that was killed and started
again asks the same trials. Optuna does the sampling; one study per grid cell, because a cell is a question of its own.
Cells that differ in their step budget alone are one question (`Plan.groups`): a configuration is drawn once, tried with each
budget, and judged by the longest one that ran to its end; scores at shorter budgets are intermediate values of the same trial.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sweeps.config.checks.plugin_settings import make_plugin
from sweeps.config.plan import Plan
from sweeps.config.space import Axis, Choice, LogUniform, RandInt, Uniform, sampled
from sweeps.journal.vocabulary import EndStatus
from sweeps.plugins import SEARCHERS

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import Trial

RETRIES_FOR_NEW = 32  # a sampler over few choices repeats itself; after this many repeats the cell counts as used up


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration that the search wants run, with what is needed to rebuild the search later."""

    number: int
    config: Mapping[str, Any]
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """How a suggestion ended.

    Attributes:
        by_step: the objective, as it was measured.
        best: where a trial is worth its best checkpoint, what that is worth (`statistics.best_of_path`).
    """

    ended: EndStatus
    by_step: Mapping[int, float] = field(default_factory=dict)
    best: float | None = None

    @property
    def last(self) -> float | None:
        """The objective at the last step that was scored."""
        return self.by_step[max(self.by_step)] if self.by_step else None

    @property
    def value(self) -> float | None:
        """What the suggestion came to: known when it ran to its budget; what its best checkpoint is worth also when pruned."""
        if self.best is not None:
            return self.best if self.ended != "failed" else None
        return self.last if self.ended == "completed" else None


class Searcher(Protocol):
    """Suggests trials, and is told their results (ask and tell). `plan` may be replaced by one with more trials."""

    plan: Plan

    def ask(self) -> Suggestion | None:
        """Returns the next suggestion, or None when all are given out."""

    def restore(self, suggestion: Suggestion) -> None:
        """Takes back a suggestion of an earlier driver, in the order in which it was asked."""

    def tell(self, number: int, result: Result) -> None:
        """Says how suggestion `number` ended."""


def make_searcher(plan: Plan) -> Searcher:
    """Returns the searcher that the sweep asks for."""
    search = plan.sweep.search
    if search.algorithm not in SEARCHERS.built_in:
        made: Searcher = make_plugin(SEARCHERS, search.algorithm, plan, search.own)
        return made
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


@dataclass(slots=True)
class _Drawn:
    """One configuration of a group of cells, with what its runs gave; `number` is Optuna's.

    `told`: Optuna knows how it ended, `valued`: with a value.
    """

    group: int
    number: int
    params: Mapping[str, Any]
    state: Mapping[str, Any]
    results: dict[int, Result] = field(default_factory=dict)
    told: bool = False
    valued: bool = False

    def by_step(self) -> dict[int, float]:
        """Scores by step: the longest run's, and at the end of a shorter budget that run's own."""
        merged: dict[int, float] = {}
        for _, result in sorted(self.results.items(), reverse=True):
            merged = {**result.by_step, **merged}
        ends = {b: r.last for b, r in self.results.items() if r.ended == "completed" and r.last is not None}
        return {**merged, **ends}


class OptunaSearch:
    """Samples the free axes of each cell with an Optuna sampler; cells take turns (`Plan.slot`).

    A conditional axis that is not active in a trial is absent from it: the sampler never sees a value of it.
    """

    def __init__(self, plan: Plan) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.plan, self.next = plan, 0
        self.free = plan.free
        self.distributions = {name: _distribution(axis) for name, axis in self.free.items()}
        direction = "maximize" if plan.sweep.goal.maximize else "minimize"
        groups = range(len(set(plan.groups)))
        self.studies: list[Study] = [optuna.create_study(direction=direction) for _ in groups]
        self.given: list[list[_Drawn]] = [[] for _ in groups]
        self.place: dict[int, _Drawn] = {}  # by suggestion number
        # By group: settings to be tried before any that are sampled.
        self.first: dict[int, list[Mapping[str, Any]]] = {}

    def begin(self, points: Mapping[str, Any]) -> None:
        """Begins from trials of earlier sweeps (`sweeps.controller.earlier_trials.gather_points`), before anything was asked."""
        from optuna.trial import create_trial

        for one in points.get("told", ()):
            by_step = {int(step): value for step, value in one["by_step"].items()}
            result = Result(EndStatus(one["status"]), by_step, one["best"])
            self.studies[one["group"]].add_trial(
                create_trial(
                    state=_state("complete" if result.value is not None else "pruned"),
                    value=result.value,
                    params=one["params"],
                    distributions={name: self.distributions[name] for name in one["params"]},
                    intermediate_values=by_step,
                )
            )
        for one in points.get("tried", ()):
            self.first.setdefault(one["group"], []).append(one["params"])

    def ask(self) -> Suggestion | None:
        while self.next < self.plan.total:
            number = self.next
            self.next += 1
            suggestion = self._ask(number)
            if suggestion is not None:
                return suggestion
        return None

    def _ask(self, number: int) -> Suggestion | None:
        repeat, draw, cell = self.plan.slot(number)
        group = self.plan.groups[cell]
        if draw < len(self.given[group]):
            return self._suggestion(number, self.given[group][draw], repeat)
        if repeat:
            return None
        study = self.studies[group]
        for attempt in range(RETRIES_FOR_NEW):
            study.sampler = self._sampler(group, draw, attempt)
            if self.plan.sweep.search.algorithm == "qmc":
                study.enqueue_trial(self._active(self._sobol(group, draw + attempt), self.plan.cells[cell]))
            elif draw + attempt < len(self.first.get(group, ())):
                study.enqueue_trial(dict(self.first[group][draw + attempt]))
            trial = study.ask()
            params = self._suggest(trial, self.plan.cells[cell])
            if all(params != drawn.params for drawn in self.given[group]):
                attrs = study._storage.get_trial_system_attrs(trial._trial_id)
                state = {"system_attrs": {k: v for k, v in attrs.items() if _plain(v)}} if attrs else {}
                self.given[group].append(_Drawn(group, trial.number, params, state))
                return self._suggestion(number, self.given[group][draw], 0)
            study.tell(trial.number, state=_state("failed"))
        return None

    def _suggest(self, trial: Trial, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Asks Optuna for the axes that are active, each after those that decide whether it is."""
        settings, params = dict(cell), dict[str, Any]()
        for name, axis in self.free.items():
            if axis.is_active(settings):
                settings[name] = params[name] = _suggested(trial, name, self.distributions[name])
        return params

    def _active(self, values: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of those axes that are active beside them."""
        settings, params = dict(cell), dict[str, Any]()
        for name, axis in self.free.items():
            if axis.is_active(settings):
                settings[name] = params[name] = values[name]
        return params

    def _suggestion(self, number: int, drawn: _Drawn, repeat: int) -> Suggestion:
        if not repeat:
            self.place[number] = drawn
        cell = self.plan.cells[self.plan.slot(number).cell]
        return Suggestion(number, self.plan.config(cell, drawn.params, repeat), {} if repeat else drawn.state)

    def restore(self, suggestion: Suggestion) -> None:
        self.next = max(self.next, suggestion.number + 1)
        repeat, _, cell = self.plan.slot(suggestion.number)
        if repeat:
            return
        group = self.plan.groups[cell]
        params = self._active(suggestion.config, self.plan.cells[cell])
        drawn = next((one for one in self.given[group] if one.params == params), None)
        if drawn is None:
            drawn = _Drawn(group, self._running(group, params, suggestion.state), params, suggestion.state)
            self.given[group].append(drawn)
        self.place[suggestion.number] = drawn

    def _running(self, group: int, params: Mapping[str, Any], state: Mapping[str, Any]) -> int:
        """Adds a trial that runs to the study of a group; returns its number there."""
        from optuna.trial import create_trial

        study = self.studies[group]
        study.add_trial(
            create_trial(
                state=_state("running"),
                params=dict(params),
                distributions={name: self.distributions[name] for name in params},
                system_attrs=dict(state.get("system_attrs", {})),
            )
        )
        return len(study.get_trials(deepcopy=False)) - 1

    def tell(self, number: int, result: Result) -> None:
        drawn = self.place.get(number)
        if drawn is None or drawn.valued:
            return
        cell = self.plan.slot(number).cell
        drawn.results[self._budget(cell)] = result
        budgets = [self._budget(c) for c, group in enumerate(self.plan.groups) if group == drawn.group]
        longest = drawn.results.get(max(budgets))
        if longest is not None and longest.value is not None:
            if drawn.told:
                # It had failed, and was tried again. A study takes no second word on a trial, so this is another one.
                drawn.number = self._running(drawn.group, drawn.params, drawn.state)
            drawn.valued = True
            self._tell(drawn, longest)
        elif not drawn.told and len(drawn.results) == len(budgets):
            self._tell(drawn, None)

    def _tell(self, drawn: _Drawn, longest: Result | None) -> None:
        """Tells the study what is known of one configuration: its value at the longest budget, or how far it came."""
        drawn.told = True
        study = self.studies[drawn.group]
        trial = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, drawn.number)
        for step, value in sorted(drawn.by_step().items()):
            study._storage.set_trial_intermediate_value(trial, step, value)
        if longest is not None:
            study.tell(drawn.number, longest.value)
            return
        pruned = drawn.by_step() and any(result.ended != "failed" for result in drawn.results.values())
        study.tell(drawn.number, state=_state("pruned" if pruned else "failed"))

    def _budget(self, cell: int) -> int:
        return int(self.plan.cells[cell].get("steps", self.plan.sweep.trainer.steps))

    def _sampler(self, group: int, draw: int, attempt: int) -> BaseSampler:
        """A new sampler per ask: one that lived on would answer differently after a restart."""
        import optuna

        key = f"{self.plan.sweep.seed}/{group}/{draw}/{attempt}"
        seed = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
        name = self.plan.sweep.search.algorithm
        if name == "optuna-tpe":
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=5)
        if name == "optuna-gp":
            return optuna.samplers.GPSampler(seed=seed)
        if name == "optuna-nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)

    def _sobol(self, group: int, index: int) -> dict[str, Any]:
        """Point `index` of the group's scrambled Sobol sequence. Optuna's own QMC sampler keeps its place in the study's
        attributes, which a rebuilt study does not have; a point by its number needs no memory."""
        from scipy.stats import qmc

        sequence = qmc.Sobol(len(self.distributions), scramble=True, rng=self.plan.sweep.seed * 1009 + group)
        if index:  # SciPy refuses to go forward by 0
            sequence.fast_forward(index)
        point = sequence.random(1)[0]
        return {name: _at(axis, float(u)) for (name, axis), u in zip(self.free.items(), point, strict=True)}


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list | dict) or value is None


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    named = {"running": TrialState.RUNNING, "complete": TrialState.COMPLETE}
    return {**named, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[name]


def _suggested(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


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
