"""From a sweep to its trials: what will run, at which steps it is scored, on what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from sweeps.config.schema import Sweep
from sweeps.config.shared_prefix import ENDINGS, SCHEDULE, Family, family, shared_steps
from sweeps.config.space import Axis, Scalar, can_be_active, cells, sampled
from sweeps.config.trial import TrialSpec, trial_id
from sweeps.errors import LimitError


class Branch(NamedTuple):
    """Where a trial begins: at the latest checkpoint of `parent` that is not beyond `step`."""

    parent: str
    step: int


class Slot(NamedTuple):
    """Place of a trial in the plan: which repeat, which configuration of its group of cells, and which cell."""

    repeat: int
    draw: int
    cell: int


Rest = tuple[tuple[str, ...], tuple[str, ...]]
"""What trials have in common that differ in their budget, their sampled settings and their repeat alone: names and values."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The trials of a sweep. Those of a pure grid are known in advance; others the search suggests one at a time.

    A plan equals itself alone, so that what follows from it can be kept beside it (`planned_work`).
    """

    sweep: Sweep
    more: int = 0
    """Trials that were asked for while the sweep ran, beyond its definition."""

    @cached_property
    def sweep_id(self) -> str:
        return self.sweep.id

    @cached_property
    def cells(self) -> list[dict[str, Scalar]]:
        """The crossed grid axes; the axis listed last turns fastest."""
        return cells(self.sweep.space)

    @cached_property
    def free(self) -> Mapping[str, Axis]:
        """The sampled axes, each after those that its `when` names."""
        return sampled(self.sweep.space)

    @cached_property
    def open_cells(self) -> tuple[int, ...]:
        """Cells in which something is sampled, group by group; each of the others is one trial, whatever the search does."""
        is_open = [any(can_be_active(axis, cell, self.free) for axis in self.free.values()) for cell in self.cells]
        return tuple(i for i in self._by_group if is_open[i])

    @cached_property
    def _by_group(self) -> tuple[int, ...]:
        return tuple(sorted(range(len(self.cells)), key=self.groups.__getitem__))

    @cached_property
    def samples(self) -> int:
        """How many trials the sweep has in all, repeats not counted.

        A configuration is tried with every budget of its group, so what `search.trials` and `more` leave of a group is
        filled up.
        """
        search, opened = self.sweep.search, len(self.open_cells)
        if not opened:
            return len(self.cells)
        per_cell = len(self.cells) + opened * ((search.trials_per_cell or 1) - 1)
        wanted = per_cell if search.trials is None else max(len(self.cells), search.trials // search.repeats)
        full, rest = divmod(wanted + self.more - len(self.cells), opened)
        while 0 < rest < opened and self.groups[self.open_cells[rest]] == self.groups[self.open_cells[rest - 1]]:
            rest += 1
        return len(self.cells) + full * opened + rest

    @property
    def draws(self) -> int:
        """How many configurations a search draws, each tried with every budget of its group; 0 where nothing is sampled."""
        opened = {*self.open_cells}
        return len({(s.draw, self.groups[s.cell]) for s in map(self.slot, range(self.samples)) if s.cell in opened})

    @property
    def total(self) -> int:
        """How many trials the sweep has in all."""
        return self.samples * self.sweep.search.repeats

    def slot(self, number: int) -> Slot:
        """Returns the place of a trial by its number: each cell once, then again those in which something is sampled."""
        repeat, sample = divmod(number, self.samples)
        if sample < len(self.cells):
            return Slot(repeat, 0, self._by_group[sample])
        draw, place = divmod(sample - len(self.cells), len(self.open_cells))
        return Slot(repeat, draw + 1, self.open_cells[place])

    def config(self, cell: Mapping[str, Scalar], params: Mapping[str, Any], repeat: int) -> dict[str, Any]:
        """Returns the resolved hyperparameters of one trial: trainer defaults, then the cell, then the sampled ones.

        Trials of one repeat share a seed, so that differences between them are not differences of seed.
        """
        return {**self._defaults, **cell, **params, "seed": self.sweep.seed + repeat}

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        return {
            "model": self.sweep.default_model,
            "data": self.sweep.default_tier,
            **self.sweep.trainer.model_dump(),
        }

    def trial(self, config: Mapping[str, Any]) -> TrialSpec:
        """Returns the trial of a resolved configuration."""
        evaluation = self.sweep.evaluation
        model = self.sweep.model_source(str(config["model"]))
        return TrialSpec(
            id=trial_id(config),
            sweep=self.sweep_id,
            config=dict(config),
            model=model,
            tier=self.sweep.tier_source(str(config["data"])),
            snapshots=snapshot_steps(evaluation.at, int(config["steps"])),
            evaluation=replace(evaluation.spec, chat_template=model.chat_template),
            forks=self._forks(config),
        )

    def budgets(self, config: Mapping[str, Any]) -> frozenset[int]:
        """Returns the step budgets that are tried with the other settings of a trial: they can share a trunk.

        None where the search samples the budget itself, or something else only for some budgets.
        """
        return self._budgets.get(self._rest(config), frozenset())

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """For each cell the number of its group: cells that differ in nothing but their budget are one group.

        A search draws one configuration for a group, and tries it with each of its budgets.
        """
        if not self._budgets:
            return tuple(range(len(self.cells)))
        numbers: dict[Rest, int] = {}
        return tuple(numbers.setdefault(self._rest(self.config(c, {}, 0)), len(numbers)) for c in self.cells)

    def longest_cell(self, group: int) -> int:
        """Returns the cell of a group with the longest budget: its result is what the search learns from."""
        cells = [i for i, g in enumerate(self.groups) if g == group]
        return max(cells, key=lambda i: int(self.cells[i].get("steps", self.sweep.trainer.steps)))

    @cached_property
    def _budgets(self) -> Mapping[Rest, frozenset[int]]:
        conditional = any("steps" in axis.when for axis in self.free.values())
        if not self.sweep.search.share_trunk or "steps" in self.free or conditional or "steps" not in self.sweep.axes:
            return {}
        found: dict[Rest, set[int]] = {}
        for cell in self.cells:
            config = self.config(cell, {}, 0)
            found.setdefault(self._rest(config), set()).add(int(config["steps"]))
        return {rest: frozenset(budgets) for rest, budgets in found.items()}

    def _family_of(self, config: Mapping[str, Any]) -> Family:
        rest = self._rest(config, self._apart)
        key = rest, tuple(config.get(name) for name in SCHEDULE if name in self.free)
        if key not in self._families:
            self._families[key] = family(config, self._endings.get(rest, ()))
        return self._families[key]

    @cached_property
    def _families(self) -> dict[tuple[Rest, tuple[Any, ...]], Family]:
        """By all settings that decide it; filled as they are asked for."""
        return {}

    @cached_property
    def _apart(self) -> tuple[str, ...]:
        """The endings that a sweep tries with the same other settings: a search draws others for each that is not its budget."""
        if not self.sweep.search.share_trunk:
            return ()
        if self.free:
            return ("steps",) if self._budgets else ()
        return tuple(name for name in ENDINGS if name in self.sweep.axes)

    @cached_property
    def _endings(self) -> Mapping[Rest, Sequence[Mapping[str, Any]]]:
        """By all other settings, the endings that are tried with them."""
        found: dict[Rest, list[dict[str, Any]]] = {}
        for cell in self.cells if self._apart else ():
            config = self.config(cell, {}, 0)
            ending = {name: config[name] for name in self._apart}
            known = found.setdefault(self._rest(config, self._apart), [])
            if ending not in known:
                known.append(ending)
        return found

    def _rest(self, config: Mapping[str, Any], endings: tuple[str, ...] = ("steps",)) -> Rest:
        all_names = tuple(config)
        names = self._names.get((all_names, endings))
        if names is None:
            names = tuple(sorted({*all_names} - {*endings, "seed", *self.free}))
            self._names[all_names, endings] = names
        return names, tuple([repr(config[name]) for name in names])

    @cached_property
    def _names(self) -> dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[str, ...]]:
        """The names of `_rest`, by those of a configuration and of what is left apart: large sweeps ask for each trial."""
        return {}

    def branch_of(self, config: Mapping[str, Any]) -> Branch | None:
        """Returns where a trial turns off from the longest run of the same settings; None where it runs alone."""
        trunk, shared = self._family_of(config).trunk, shared_steps(config)
        if trunk is None or shared <= 0 or all(config[name] == value for name, value in trunk.items()):
            return None
        return Branch(trial_id({**config, **trunk}), shared)

    def _forks(self, config: Mapping[str, Any]) -> tuple[int, ...]:
        """Steps to keep a checkpoint of: where shorter runs turn off, and where an extended one would."""
        own, last = int(config["steps"]), shared_steps(config)
        forks = {*self._family_of(config).shared, last}
        return tuple(sorted(s for s in forks if 0 < s < own and s <= last))

    def steps_to_run(self) -> int:
        """Returns the optimizer steps of a pure grid's trials, shared ones counted once."""
        known = self.known_trials()
        branches = {t.id: b for t in known if (b := self.branch_of(t.config)) is not None}
        return sum(t.steps - (branches[t.id].step if t.id in branches else 0) for t in known)

    def known_trials(self) -> list[TrialSpec]:
        """Returns all trials of a pure grid, in the order in which they start; [] when a search samples them."""
        return list(self._grid_trials)

    @cached_property
    def _grid_trials(self) -> tuple[TrialSpec, ...]:
        if sampled(self.sweep.space):
            return ()
        return tuple(self.trial(self.config(c, {}, r)) for r in range(self.sweep.search.repeats) for c in self.cells)

    def check_limits(self) -> None:
        """Raises LimitError when the plan alone is over the sweep's limits."""
        limit = self.sweep.limits.trials
        if limit is not None and self.total > limit:
            raise LimitError(
                f"the plan has {self.total} trials, limits.trials is {limit}; narrow space or raise the limit"
            )


def snapshot_steps(at: Any, budget: int) -> tuple[int, ...]:
    """Returns the optimizer steps after which a checkpoint is scored, ascending, ending with the budget.

    `log` halves the step twice per octave from the budget down to 1/64 of it, so that sweeps with doubled budgets meet
    at the same steps. The published dips have their troughs at 1.5-12 % of the budget (arXiv 2604.06628, App. D).
    """
    if at == "log":
        steps = {round(budget * 2 ** (-k / 2)) for k in range(13)}
    elif isinstance(at, Mapping):
        steps = set(range(int(at["every"]), budget + 1, int(at["every"])))
    else:
        steps = {int(s) for s in at}
    return tuple(sorted({s for s in steps if 1 <= s <= budget} | {budget}))
