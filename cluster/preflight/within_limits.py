"""Changes of a sweep file after which its plan is within the limits, each tried by planning again: of one setting, or where
none of those is enough, of two."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import yaml

from sweeps.config.plan import Plan
from sweeps.config.space import Grid, Zip
from sweeps.errors import DipsweepError
from sweeps.planning.estimate import Estimate
from sweeps.planning.sharing import sharing

MOST: Final = 4
"""Changes that are told."""
PLANS: Final = 10_000
"""Trials that are planned for each change, over all values of it that are tried; the sweep's own count for each of them."""


@dataclass(frozen=True, slots=True)
class Change:
    """Settings by their dotted names with their new values, after which the plan is within its limits.

    Attributes:
        saves: share of the device seconds that it takes away.
    """

    settings: Mapping[str, Any]
    was: Mapping[str, Any]
    saves: float

    def __str__(self) -> str:
        each = (f"{name}: {_yaml(value)} (now {_yaml(self.was[name])})" for name, value in self.settings.items())
        return f"{' and '.join(each)}, {self.saves:.0%} less"


def changed(plan: Plan, settings: Mapping[str, Any]) -> Plan:
    """Returns the plan of a sweep with some settings in their new values.

    Raises:
        SpecError: the sweep is no sweep then.
    """
    definition = deepcopy(plan.sweep.to_json())
    for name, value in settings.items():
        block, _, key = name.partition(".")
        if block == "space":
            value = {**definition["space"][key], "zip" if isinstance(value, Mapping) else "grid": value}
        definition[block][key] = value
    return Plan(type(plan.sweep)(**definition), plan.more)


def fitting_changes(plan: Plan, now: Estimate, estimate_of: Callable[[Plan], Estimate]) -> list[Change]:
    """Returns changes after which a plan is within its limits, those that take least away first.

    They are of one setting; where none of those is enough, of two.

    Args:
        now: of the sweep as it is. estimate_of: plans a changed one on the same machines.
    """

    def change(settings: Mapping[str, Any], then: Estimate) -> Change:
        saves = 1 - then.device_seconds.value / max(now.device_seconds.value, 1e-9)
        return Change(settings, {name: _value(plan, name) for name in settings}, saves)

    tries = _Tries(plan, now.share_of_limits(plan), estimate_of)
    found = [change(*fits) for options in _options(plan, now) if (fits := tries.largest_that_fits(options))]
    found = found or [change(*fits) for fits in _pairs(tries, now)]
    return sorted(found, key=lambda change: change.saves)[:MOST]


def _pairs(tries: _Tries, now: Estimate) -> Iterator[tuple[Mapping[str, Any], Estimate]]:
    """Yields changes of two settings that fit: the first is the largest that comes half of the way, on a logarithmic scale."""
    seen, left = set[frozenset[str]](), PLANS
    for first in _options(tries.plan, now):
        half = tries.largest_that_fits(first, most=math.sqrt(tries.over))
        if half is None:
            continue
        settings, then = half
        other = changed(tries.plan, settings)
        more = _Tries(other, then.share_of_limits(other), tries.estimate_of)
        for options in _options(other, then):
            names = frozenset({*settings, *options[0]})
            if names in seen or len(names) == len(settings) or left <= 0:
                continue
            seen.add(names)
            left -= other.total
            if (fits := more.largest_that_fits(options)) is not None:
                yield {**settings, **fits[0]}, fits[1]


@dataclass(frozen=True, slots=True)
class _Tries:
    """Plans a sweep again with other settings.

    Attributes:
        over: its cost now, as a share of the limit that it is most over.
    """

    plan: Plan
    over: float
    estimate_of: Callable[[Plan], Estimate]

    def largest_that_fits(
        self, options: Sequence[Mapping[str, Any]], most: float = 1.0
    ) -> tuple[Mapping[str, Any], Estimate] | None:
        """Returns the largest of ascending options after which the cost is at most this share of each limit; None where none
        of those tried is one.

        By bisection, which begins where cost in proportion would fit: of a large sweep nothing else is tried. Options that make
        no sweep are passed over, downwards.
        """
        low, high, best, left = 0, len(options), None, PLANS
        middle = max(0, min(high - 1, int((high + 1) * most / self.over) - 1))
        while low < high and left > 0:
            at, then = middle, self._estimated(options[middle], most)
            while then is None and at > low:
                at -= 1
                then = self._estimated(options[at], most)
            left -= self.plan.total
            if then is not None and not then[0]:
                high = at
            else:
                low = middle + 1
                best = (options[at], then[1]) if then is not None else best
            middle = (low + high) // 2
        return best

    def _estimated(self, settings: Mapping[str, Any], most: float) -> tuple[bool, Estimate] | None:
        """Returns whether the changed sweep costs at most so much, and what it costs; None where it is no sweep."""
        try:
            other = changed(self.plan, settings)
            then = self.estimate_of(other)
        except DipsweepError:
            return None
        return then.share_of_limits(other) <= most, then


def _options(plan: Plan, now: Estimate) -> Iterator[list[dict[str, Any]]]:
    """Yields for each setting that decides the cost the values below its own, ascending."""
    sweep = plan.sweep
    if change := dict(sharing(plan).change):
        yield [change]
    search = sweep.search
    each = search.repeats * max(Counter(plan.groups).values())  # a configuration is tried with every budget and repeat
    fewest = len(plan.cells) * search.repeats
    for name, counts in (
        ("trials", range(fewest + -fewest % each, search.trials or 0, each)),
        ("trials_per_cell", range(1, search.trials_per_cell or 0)),
        ("repeats", range(1, search.repeats)),
    ):
        if counts:
            yield [{f"search.{name}": n} for n in counts]
    if sweep.evaluation.items > 1:
        yield [{"evaluation.items": n} for n in range(1, sweep.evaluation.items)]
    dear = {model.model: model.total.value for model in now.models}
    for name, axis in sweep.space.items():
        if isinstance(axis, Grid) and len(axis.values) > 1:
            values = list(axis.values)
            if name == "model":
                values.sort(key=lambda value: dear.get(str(value), 0.0))
            elif name == "steps":
                values.sort(key=lambda value: float(value))
            yield [{f"space.{name}": values[:n]} for n in range(1, len(values))]
        elif isinstance(axis, Zip) and len(axis.rows()) > 1:
            yield [
                {f"space.{name}": {c: list(v[:n]) for c, v in axis.columns.items()}} for n in range(1, len(axis.rows()))
            ]
    budgets = sweep.axis_values("steps", sweep.trainer.steps)
    if len(budgets) == 1 and "steps" not in Plan(sweep).free:
        name = "space.steps" if "steps" in sweep.space else "trainer.steps"
        shorter = sorted({int(budgets[0]) * tenths // 10 for tenths in range(1, 10)} - {0})
        yield [{name: [n] if name.startswith("space.") else n} for n in shorter]


def _value(plan: Plan, name: str) -> Any:
    block, _, key = name.partition(".")
    value = plan.sweep.to_json()[block][key]
    return value.get("grid", value.get("zip")) if block == "space" else value


def _yaml(value: Any) -> str:
    """Writes a value as a sweep file would: null, 1.0e-05 for a number, and quotes around what is text and looks like none."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")
