"""What a report says about a sweep: plain frozen objects, the JSON of `dipsweep report --json`.

`Summary.to_json()` is stable: keys are added, never renamed. A curve is written as parallel arrays `step, value, se, n`
in order of step; what was not measured is null or absent, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any, Final

from sweeps.report.analysis.shape import Measured, Reading

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Spent:
    """Compute in seconds."""

    cpu_s: float = 0.0
    gpu_s: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cpu_s + other.cpu_s, self.gpu_s + other.gpu_s)

    def scaled(self, factor: float) -> Spent:
        return Spent(self.cpu_s * factor, self.gpu_s * factor)


@dataclass(frozen=True, slots=True)
class Check:
    """One constraint on one trial's last score; `met` is None when it was not scored."""

    metric: str
    rule: str
    value: float | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class Paired:
    """One checkpoint against another on the same items, item by item.

    Attributes:
        against: `base`, or a trial's id. step: of the checkpoint; the other is the base, or that trial's last score.
        difference, se: in the metric's own unit. gained, lost: items answered better, and worse, than by the other.
        p: two-sided, of "no difference". looks: comparisons of this kind that were made together.
        different: p is at most 0.05 / looks. visible: the smallest true difference that is found 4 times in 5.
    """

    metric: str
    against: str
    step: int
    difference: float
    se: float
    gained: int
    lost: int
    items: int
    p: float
    looks: int
    different: bool
    visible: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial.

    Attributes:
        label: the settings that tell it from the others.
        state: waiting, running, parked, scoring, completed, pruned or failed. reason: why it ended, or was parked.
        steps_run: optimizer steps, the parent's included. own_steps: without the parent's.
        curves: every metric measured after step 0, also those that nobody judges (`train/loss`).
        readings: shape of each judged metric. invalid: `metric@step = nan` for each number that was not finite.
        evals_open: checkpoints queued for scoring without a result yet. evals_failed: their reasons. evals_skipped:
            steps that were left out because the evaluators could not keep up.
        evals_early: steps whose evaluation ended early (`sweeps.controller.eval_early_stopping`), with the items
        asked and those there are.
        paired: the last score of each panel against the base on the same items, where outcomes were kept.
        training, scoring: what was spent on it, all attempts together.
        meets: whether all constraints are met; None when one of them was not scored.
        rank: place by the objective among completed trials that meet the constraints, from 1.
    """

    id: str
    label: str
    config: Mapping[str, Any]
    state: str
    reason: str
    phase: str
    budget: int | None
    steps_run: int
    own_steps: int
    attempts: int
    parent: str | None
    fork_step: int | None
    curves: Mapping[str, tuple[Measured, ...]]
    readings: Mapping[str, Reading]
    invalid: tuple[str, ...]
    evals_open: int
    evals_failed: tuple[str, ...]
    training: Spent
    scoring: Spent
    objective: Measured | None
    checks: tuple[Check, ...] = ()
    meets: bool | None = True
    rank: int | None = None
    evals_skipped: tuple[int, ...] = ()
    evals_early: tuple[tuple[int, int, int], ...] = ()
    paired: tuple[Paired, ...] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting that was crossed in full, with its levels in the order of the sweep file."""

    name: str
    levels: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class GroupMetric:
    """One metric over the completed trials of a group.

    Attributes:
        held: trials whose last score is no more than 2 standard errors below the base, `of` those where this is known.
        mean_change, low, high: last score minus base, mean and range over the trials.
        visible: a typical change that these items can tell from nothing (2 standard errors, median over the trials).
        n: fewest and most items behind a score.
    """

    metric: str
    held: int
    of: int
    mean_change: float
    low: float
    high: float
    visible: float | None
    n: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Group:
    """The trials at one level of one axis, and what can be said of them in sentences.

    Attributes:
        trials: all. completed: those that ran to their budget and are scored; only they are counted in `metrics`.
        seeds: most seeds behind one setting. safety_cost: completed trials whose in-domain score rose and whose refusal
            fell, both by more than 2 standard errors.
    """

    axis: str
    level: Any
    trials: int
    completed: int
    seeds: int
    metrics: tuple[GroupMetric, ...]
    safety_cost: int
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two levels of one axis, compared between trials that are alike in all other settings.

    Attributes:
        pairs: matched pairs. mean_change: `level` minus `reference`. higher, lower: pairs that differ by more than 2
            standard errors.
    """

    axis: str
    reference: Any
    level: Any
    metric: str
    pairs: int
    mean_change: float
    higher: int
    lower: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Costs:
    """What the sweep spent, and what stopping saved.

    Attributes:
        training, scoring: all trials and attempts; scoring includes the base models.
        steps_planned: own steps of all ended trials, run to their budgets. steps_run: what they ran.
        steps_saved: steps that pruned and parked trials did not run; `share_saved` of `steps_planned`. Failed trials
            save nothing: their missing steps are `steps_lost`.
        steps_shared: steps that branches took over from a parent's checkpoint; in no other figure here.
        estimated_saved: `steps_saved` at each trial's own cost per step: an estimate, those steps never ran.
    """

    training: Spent
    scoring: Spent
    steps_planned: int
    steps_run: int
    steps_saved: int
    steps_shared: int
    steps_lost: int
    share_saved: float | None
    estimated_saved: Spent


@dataclass(frozen=True, slots=True)
class Summary:
    """A sweep, read from its journal.

    Attributes:
        version: of the journal's rows. seq: last journal row read. planned: trials of the whole sweep, where it says.
        headline: one sentence. suite: the suite whose scores are shown.
        panels: the metrics that a reader wants to see first, one figure each.
        bases: step-0 scores by model, then metric.
        best: trial ids by rank. tied: those of them that are within 2 standard errors of the first.
        rivals: the best trial against the others of the top k, item by item.
        notes: what a reader has to know before believing the numbers.
    """

    sweep: str
    name: str
    version: str
    seq: int
    planned: int | None
    headline: str
    suite: str
    objective: str
    goal: str
    top: int
    axes: tuple[Axis, ...]
    panels: tuple[str, ...]
    bases: Mapping[str, Mapping[str, Measured]]
    trials: tuple[Trial, ...]
    best: tuple[str, ...]
    tied: tuple[str, ...]
    groups: tuple[Group, ...]
    contrasts: tuple[Contrast, ...]
    costs: Costs
    notes: tuple[str, ...]
    spec: Mapping[str, Any] = field(default_factory=dict)
    rivals: tuple[Paired, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the summary as plain JSON."""
        return {"format": FORMAT, **plain(self)}

    def trial(self, id: str) -> Trial:
        return next(t for t in self.trials if t.id == id)


def same_level(a: Any, b: Any) -> bool:
    """Whether two settings are one level: 1 and 1.0 are, 1 and true are not."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def plain(value: Any) -> Any:
    """Returns dataclasses, mappings, tuples and enums as plain JSON; a tuple of scores as parallel arrays."""
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple) and value and isinstance(value[0], Measured):
        return arrays(value)
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def arrays(points: Sequence[Measured]) -> dict[str, list[Any]]:
    """Returns scores as parallel arrays `step, value, se, n`, without those of which nothing is known."""
    columns = {name: [getattr(p, name) for p in points] for name in ("step", "value", "se", "n")}
    return {name: column for name, column in columns.items() if any(v is not None for v in column)}
