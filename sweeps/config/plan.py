"""From a sweep to its trials: what will run, at which steps it is scored, on what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from sweeps.config.schema import Sweep
from sweeps.config.shared_prefix import longest, shared_steps
from sweeps.config.space import Grid, Scalar, cells, sampled
from sweeps.config.trial import TrialSpec, trial_id
from sweeps.errors import LimitError


class Branch(NamedTuple):
    """Where a trial begins: at the latest checkpoint of `parent` that is not beyond `step`."""

    parent: str
    step: int


@dataclass(frozen=True)
class Plan:
    """A sweep unfolded. Trials of a pure grid are known in advance; others are asked from the search one at a time."""

    sweep: Sweep
    more: int = 0
    """Samples per cell that were asked for while the sweep ran, beyond its definition."""

    @cached_property
    def sweep_id(self) -> str:
        return self.sweep.id

    @cached_property
    def cells(self) -> list[dict[str, Scalar]]:
        """The crossed grid axes; the axis listed last turns fastest."""
        return cells(self.sweep.space)

    @property
    def draws(self) -> int:
        """Samples per cell: 1 where nothing is sampled."""
        return self.sweep.search.trials + self.more if sampled(self.sweep.space) else 1

    @property
    def total(self) -> int:
        """How many trials the sweep has in all."""
        return len(self.cells) * self.draws * self.sweep.search.repeats

    def config(self, cell: Mapping[str, Scalar], params: Mapping[str, Any], repeat: int) -> dict[str, Any]:
        """Returns the resolved hyperparameters of one trial: trainer defaults, then the cell, then the sampled ones.

        Trials of one repeat share a seed, so that differences between them are not differences of seed.
        """
        defaults = {"model": self.sweep.default_model, "data": self.sweep.default_tier}
        trainer = self.sweep.trainer.model_dump()
        return {**defaults, **trainer, **cell, **params, "seed": self.sweep.seed + repeat}

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

    @cached_property
    def budgets(self) -> tuple[int, ...]:
        """Step budgets that can share a trunk; none where the search samples the budget itself.

        Every run has its longer twin: grids cross all budgets, and sampled axes are drawn once for all of them (`groups`).
        """
        if not self.sweep.search.share_trunk or not isinstance(self.sweep.space.get("steps"), Grid | None):
            return ()
        return tuple(int(b) for b in self.sweep.axis_values("steps", self.sweep.trainer.steps))

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """For each cell the number of its group: cells that differ in nothing but a budget of `budgets` are one group.

        A search draws one configuration for a group, and tries it with each of its budgets.
        """
        if len(self.budgets) < 2:
            return tuple(range(len(self.cells)))
        numbers: dict[tuple[tuple[str, Scalar], ...], int] = {}
        keys = (tuple((name, value) for name, value in cell.items() if name != "steps") for cell in self.cells)
        return tuple(numbers.setdefault(key, len(numbers)) for key in keys)

    def trunk(self, config: Mapping[str, Any]) -> Branch | None:
        """Returns where a trial turns off from the longest run of the same settings; None where it runs alone."""
        most = longest(config, self.budgets)
        return None if most is None else Branch(trial_id({**config, "steps": most}), shared_steps(config))

    def _forks(self, config: Mapping[str, Any]) -> tuple[int, ...]:
        """Steps to keep a checkpoint of: where shorter runs turn off, and where an extended one would."""
        own = int(config["steps"])
        forks = {shared_steps({**config, "steps": b}) for b in {*self.budgets, own} if b <= own}
        return tuple(sorted(s for s in forks if 0 < s < own))

    def steps_to_run(self) -> int:
        """Returns the optimizer steps of a pure grid's trials, shared ones counted once."""
        known = self.known_trials()
        branches = {t.id: b for t in known if (b := self.trunk(t.config)) is not None}
        return sum(t.steps - (branches[t.id].step if t.id in branches else 0) for t in known)

    def known_trials(self) -> list[TrialSpec]:
        """Returns all trials of a pure grid, in the order in which they start; [] when a search samples them."""
        if sampled(self.sweep.space):
            return []
        return [self.trial(self.config(c, {}, r)) for r in range(self.sweep.search.repeats) for c in self.cells]

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
