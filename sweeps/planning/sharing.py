"""What a sweep's budgets share, why they share no more, and the one line of its file that would change it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.config.plan import Plan
from sweeps.config.shared_prefix import ENDINGS, TIED, why_not
from sweeps.errors import SpecError
from sweeps.planning.work import TrialWork, planned_work


@dataclass(frozen=True, slots=True)
class Sharing:
    """Optimizer steps of a sweep, and what a change of its file would make of them.

    Attributes:
        run, alone: steps to run, and as many as they would be without shared prefixes. why: why budgets share none, half a
            sentence; empty where they share. change: lines of the sweep file, by name; empty where none would help.
        changed: steps to run with that change.
    """

    run: int
    alone: int
    why: str
    change: Mapping[str, Any]
    changed: int

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """`458 optimizer steps (700 without shared trunks)`, or why none are shared and what would change that."""
        text = f"{self.run:,} optimizer steps"
        if self.run < self.alone:
            return f"{text} ({self.alone:,} without shared trunks)"
        if not self.why:
            return text
        text += f" (budgets share no trunk: {self.why}"
        if self.change:
            lines = " and ".join(f"{name}: {_yaml(value)}" for name, value in self.change.items())
            text += f"; with {lines} they are {self.changed:,}, {1 - self.changed / self.run:.0%} fewer"
        return f"{text})"


def sharing(plan: Plan) -> Sharing:
    """Returns what the trials of a sweep share; of a sampled one, of as many random draws."""
    work = planned_work(plan)
    run, alone = _steps(work), sum(w.budget for w in work)
    why = "" if run < alone else _why(plan, work)
    change, changed = _best_change(plan, run) if why else ({}, run)
    return Sharing(run, alone, why, change, changed)


def _steps(work: Iterable[TrialWork]) -> int:
    return sum(w.steps for w in work)


def _why(plan: Plan, work: Iterable[TrialWork]) -> str:
    sweep = plan.sweep
    if not _ending_axes(plan):
        return ""
    if "steps" in plan.free:
        return "the search samples each trial's own budget"
    if not sweep.search.share_trunk:
        return "search.share_trunk is false"
    if plan.free and _ending_axes(plan) != ["steps"]:
        return f"the search draws other settings for each {' and '.join(n for n in _ending_axes(plan) if n != 'steps')}"
    return next((why for w in work if (why := why_not(w.config))), "")


def _ending_axes(plan: Plan) -> list[str]:
    """Returns the axes that decide nothing before the rate falls: trials that differ in them alone could share steps."""
    return [name for name in ENDINGS if len(set(plan.sweep.axis_values(name, 0))) > 1]


def _best_change(plan: Plan, run: int) -> tuple[dict[str, Any], int]:
    """Returns the smallest change after which budgets share steps, and the steps then; {} where none of those tried does."""
    change: dict[str, Any] = {}
    for name, value in _changes(plan):
        change[name] = value
        changed = _with(plan, change)
        if changed is None:
            return {}, run
        steps = _steps(planned_work(changed))
        if steps < run:
            return change, steps
    return {}, run


def _changes(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Yields changes of the file, each of which takes one hindrance away."""
    sweep, trainer = plan.sweep, plan.sweep.trainer
    budgets = [int(b) for b in sweep.axis_values("steps", trainer.steps)]
    if not sweep.search.share_trunk:
        yield "search.share_trunk", True
    if trainer.lr_scheduler_type in TIED and "lr_scheduler_type" not in sweep.axes:
        yield "trainer.lr_scheduler_type", "wsd"
    if 0 < trainer.warmup_steps < 1 and "warmup_steps" not in sweep.axes:
        yield "trainer.warmup_steps", max(1, round(trainer.warmup_steps * min(budgets)))


def _with(plan: Plan, change: Mapping[str, Any]) -> Plan | None:
    sweep, blocks = plan.sweep, dict[str, dict[str, Any]]()
    for name, value in change.items():
        block, _, key = name.partition(".")
        blocks.setdefault(block, {})[key] = value
    try:
        definition = sweep.to_json()
        for block, values in blocks.items():
            definition[block] = {**definition[block], **values}
        return Plan(type(sweep)(**definition), plan.more)
    except SpecError:
        return None


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
