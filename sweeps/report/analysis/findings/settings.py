"""What a report concludes on settings: their means over seeds, verdicts, and comparisons among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.journal.vocabulary import ENDED
from sweeps.report.analysis.findings.trials import Check
from sweeps.report.analysis.inference import Difference
from sweeps.report.analysis.shape import Measured
from sweeps.text_enum import TextEnum


class Kind(TextEnum):
    """What a setting did to a metric, or what limits it. `verdicts` holds the rule of each."""

    RECOVERED = "recovered"
    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    UNDER_OPTIMISED = "under-optimised"
    OVER_TRAINED = "over-trained"
    WORSE = "worse"
    COLLAPSED = "collapsed"
    DATA_LIMITED = "data-limited"
    CAPACITY_LIMITED = "capacity-limited"
    SAFETY_COST = "safety-cost"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A conclusion on a setting.

    Attributes:
        sentence: the conclusion with its numbers. evidence: those numbers by name.
        confidence: 1 - q of the weakest test it needs (`inference.Difference.q`); None for `inconclusive`.
        settle: what would decide it, where it is open; empty otherwise.
    """

    kind: Kind
    metric: str
    sentence: str
    confidence: float | None
    evidence: Mapping[str, Any]
    settle: str = ""


class Outcome(TextEnum):
    """What a sweep as a whole found. `outcome` holds the rule of each."""

    GAINED = "gained"
    KEPT = "kept"
    NOT_YET = "not-yet"
    LOST = "lost"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class SweepVerdict:
    """The conclusion on a whole sweep.

    Attributes:
        sentence: it with its numbers. evidence: settings by verdict, and the axis that decides, where one does.
        confidence: that of the settings' verdicts it rests on; None for `inconclusive` and where none is a test.
    """

    outcome: Outcome
    sentence: str
    confidence: float | None
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trend:
    """Where a curve was heading over the last scores: a straight line through them.

    Attributes:
        per_100: change in 100 steps. since, until: first and last step of the line. points: scores on it.
        reaches: step at which it reaches the base model's score, with its 95 % range, where it is below and rises.
    """

    per_100: Difference
    since: int
    until: int
    points: int
    reaches: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class SettingMetric:
    """One metric of a setting: the mean over its counted seeds, against the base model.

    Attributes:
        sign: +1 where more is better, -1 where less is. step: of the last score. runs: seeds behind it.
        value: mean of the last scores. items_se: standard error over items. seeds_se: over seeds, from this setting's own
            seeds; None with one seed.
        n: items of a seed's score. base: the base model's score.
        change: value minus base. What follows is looked at on the objective alone.
        fall: lowest score minus base, at `fell_at`, its p-value for so many looks.
        gain: best score minus base, at `best_at`, likewise. decline: last score minus best score, likewise.
        back_at: the first step back at 90 % of the base with half of the loss regained, after `fell_at`.
        trend: where it was heading at its end. of: where trials are worth their best checkpoint, how many it is the best of:
            then `step`, `value`, its errors and `change` are of that one, corrected for the choice; else 0.
    """

    metric: str
    sign: float
    step: int
    runs: int
    value: float
    items_se: float | None
    seeds_se: float | None
    n: int | None
    base: Measured | None = None
    change: Difference | None = None
    fall: Difference | None = None
    fell_at: int | None = None
    gain: Difference | None = None
    best_at: int | None = None
    decline: Difference | None = None
    back_at: int | None = None
    trend: Trend | None = None
    of: int = 0


@dataclass(frozen=True, slots=True)
class Setting:
    """All trials of one configuration, whatever their seed. Settings are ranked; a trial is an example of one.

    Attributes:
        id: of its first trial. config: without the seed. trials: ids. counted: ids of those behind `metrics`: the ones that
            ran to their budget, or all where none did. whole: whether they ran to it.
        rank: by the mean of the objective, among whole settings that meet the constraints. checks, meets: constraints on
            the means.
        shares: the setting that has a place for the same best checkpoints: one finding is ranked once; else empty.
        front: on the Pareto front of skill (`verdicts.skill_of`) and refusal: no other setting is known to be better in both.
            None: no refusal was scored.
    """

    id: str
    label: str
    config: Mapping[str, Any]
    trials: tuple[str, ...]
    counted: tuple[str, ...]
    whole: bool
    states: Mapping[str, int]
    metrics: Mapping[str, SettingMetric]
    checks: tuple[Check, ...] = ()
    meets: bool | None = True
    rank: int | None = None
    verdicts: tuple[Verdict, ...] = ()
    front: bool | None = None
    shares: str = ""

    @property
    def model(self) -> str:
        return str(self.config.get("model", ""))

    @property
    def ended(self) -> bool:
        """True where every trial has ended, stopped or not: their best checkpoints will not change."""
        return set(self.states) <= ENDED

    @property
    def budget(self) -> int | None:
        steps = self.config.get("steps")
        return int(steps) if isinstance(steps, int | float) else None


@dataclass(frozen=True, slots=True)
class Rivalry:
    """Two settings, compared: `first` minus `other`. `items`: compared item by item, on so many; None without outcomes."""

    first: str
    other: str
    metric: str
    difference: Difference
    items: int | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of the first screen and the numbers it is built from.

    Attributes:
        about: which question it answers: best, settings, long-enough, safety, ties, cost; or state, where there is no best.
    """

    about: str
    sentence: str
    numbers: Mapping[str, Any]
