"""The findings of a report: plain frozen objects, the JSON of `dipsweep report --json`.

`Summary.to_json()` is stable: keys are added, never renamed. A curve is written as parallel arrays `step, value, se, n`
in order of step (`n` as one number where it is the same at every step; without `step` where its steps are its trial's
`steps`); what was not measured is null or absent, never 0.
Of a metric that nobody judges, such as `train/loss`, at most `MAX_POINTS` points are written; the journal has all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, Final

from sweeps.journal.reader import no_collector
from sweeps.journal.rows import TierRow
from sweeps.journal.start_ups import StartUps
from sweeps.report.analysis.inference import Difference, Winner
from sweeps.report.analysis.shape import Measured, Reading

FORMAT: Final = 3
DIGITS: Final = 6
DERIVED_DIGITS: Final = 4
ERROR_DIGITS: Final = 3
MAX_POINTS: Final = 60  # of a curve that is not judged; scored curves have fewer, training loss has many more


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
        p: two-sided, of "no difference", by the sign-flip test over the items. looks: comparisons of the whole sweep.
        different: p is small enough for all of those together (`inference.Level`). visible: the smallest true difference
            that would be called different four times in five; it says what to measure, and decides nothing.
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
class Decision:
    """One verdict of the stop rule on a trial, as it stood in the journal.

    Attributes:
        seq: place in the journal. step: the trial's step. action: CONTINUE, PAUSE or STOP. reason: the rule's sentence.
    """

    seq: int
    step: int | None
    action: str
    phase: str
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptRun:
    """One run of a trial on machines. `start`: the step that it went on from, 0 from scratch."""

    attempt: int
    start: int
    training: Spent


@dataclass(frozen=True, slots=True)
class UserNote:
    """A user's note on a trial, or on the sweep (`trial` is empty then). `when`: their clock as text, UTC."""

    trial: str
    text: str
    who: str
    when: str


@dataclass(frozen=True, slots=True)
class Picked:
    """The best checkpoint of a trial, by which it is ranked under `objective: {at: best}`.

    Attributes:
        metric: that it is best by. step: of the checkpoint whose score is the highest. of: checkpoints to choose from.
        value, se: what it is worth, less its luck in having been chosen. n: items behind it.
        by: what the luck was found by, `held-out items` or `its whole curve`; empty where scores came without errors, and nothing
            was corrected.
        outcomes: per task and item, those that `value` is the mean of; not part of the JSON.
    """

    metric: str
    step: int
    value: float
    se: float | None
    n: int | None
    of: int
    by: str
    outcomes: Sequence[Sequence[float]] | None = None

    @property
    def score(self) -> Measured:
        """What it is worth as a score."""
        return Measured(self.step, self.value, self.se, self.n)


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial.

    Attributes:
        label: the settings that tell it from the others.
        state: waiting, running, paused, scoring, completed, pruned or failed. reason: why it ended, or was paused.
        steps_run: optimizer steps, the parent's included. own_steps: without the parent's.
        curves: every metric measured after step 0, also those that nobody judges (`train/loss`).
        readings: shape of each judged metric. invalid: `metric@step = nan` for each number that was not finite.
        evals_open: checkpoints queued for scoring without a result yet. evals_failed: their reasons. evals_skipped:
            steps that were left out because the evaluators could not keep up.
        evals_early: steps whose evaluation ended early (`sweeps.controller.evaluation.early_stopping`), with the items
        asked and those there are.
        paired: the last score of each panel against the base on the same items, where outcomes were kept.
        training, scoring: what was spent on it, all attempts together.
        meets: whether all constraints are met; None when one of them was not scored.
        rank: place of the trial's setting (`Summary.settings`), from 1. decisions: every verdict of the stop rule.
        tags: those that people gave it. picked: its best checkpoint, where trials are worth theirs; None where their ends count.
        runs: its attempts, in order.
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
    decisions: tuple[Decision, ...] = ()
    tags: tuple[str, ...] = ()
    picked: Picked | None = None
    runs: tuple[AttemptRun, ...] = ()

    def stands(self, metric: str) -> Measured | None:
        """Returns the score that the trial is judged by: of its best checkpoint where that counts, else the last one."""
        points = self.curves.get(metric, ())
        if self.picked is None:
            return points[-1] if points else None
        if metric == self.picked.metric:
            return self.picked.score
        return next((p for p in points if p.step == self.picked.step), None)


class Kind(StrEnum):
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


class Outcome(StrEnum):
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
        front: on the Pareto front of objective and refusal: no other setting is known to be better in both. None: no
            refusal was scored.
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

    @property
    def model(self) -> str:
        return str(self.config.get("model", ""))

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


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting that was crossed in full, with its levels in the order of the sweep file."""

    name: str
    levels: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """What an axis does to the change from the base, all other axes held: a coefficient of one least-squares fit.

    Attributes:
        contrast: `level against reference` for listed levels, `x 10` or `+ 0.1` for a number on a scale.
        runs: trials in the fit. spare: runs less coefficients; the error is estimated from the residuals when there are
            at least three, else from the items alone (`over: residuals | items`).
    """

    axis: str
    contrast: str
    metric: str
    difference: Difference
    runs: int
    spare: int
    over: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Importance:
    """How much of a metric's variation between trials an axis, or the interplay of two, accounts for.

    Attributes:
        axes: one name, or two for an interaction. share: of the sum of squares, of what it explains beyond all other axes
            (type II). p: of the F test. q, real: as in `inference.Difference`.
    """

    axes: tuple[str, ...]
    metric: str
    share: float
    p: float
    q: float = 1.0
    real: bool = False


@dataclass(frozen=True, slots=True)
class GroupMetric:
    """One metric over the completed trials of a group.

    Attributes:
        held: trials whose last score is no more than 2 standard errors below the base, `of` those where this is known.
        mean_change, low, high: last score minus base, mean and range over the trials.
        visible: a typical change that these items can tell from nothing (2 standard errors, median over the trials).
        n: fewest and most items behind a score.
        stopped: pruned and paused trials that were scored, which the mean leaves out. as_stopped, as_top: what the mean
            would be if those had stayed where they stood, and if they had come up to the worst of the top k.
    """

    metric: str
    held: int
    of: int
    mean_change: float
    low: float
    high: float
    visible: float | None
    n: tuple[int, int] | None
    stopped: int = 0
    as_stopped: float | None = None
    as_top: float | None = None


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
        steps_saved: steps that pruned and paused trials did not run; `share_saved` of `steps_planned`. Failed trials
            save nothing: their missing steps are `steps_lost`.
        steps_shared: steps that branches took over from a parent's checkpoint; in no other figure here.
        estimated_saved: `steps_saved` at each trial's own cost per step: an estimate, those steps never ran.
        starts: what bringing attempts to their first step took.
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
    starts: StartUps = field(default_factory=StartUps)


@dataclass(frozen=True, slots=True)
class Summary:
    """A sweep, read from its journal.

    Attributes:
        version: of the journal's rows. seq: last journal row read. planned: trials of the whole sweep, where it says.
        headline: the first sentences of `answer`. suite: the suite whose scores are shown.
        panels: the metrics that a reader wants to see first, one figure each.
        bases: step-0 scores by model, then metric.
        best: one trial for each of the top k settings, the seed nearest to the mean. tied: those whose setting is not told
            apart from the first.
        rivals: the best trial against the others of the top k, item by item.
        notes: what a reader has to know before believing the numbers.
        settings: in order of appearance. answer: the first screen. rivalries: the best setting against every other ranked.
        verdict: on the whole sweep; None while nothing was scored on the objective.
        corrected: the best setting's score, corrected for having been picked (`inference.winner`).
        effects, importances: what the axes do, listed and sampled ones.
        comparisons: tests in the sweep's one family. threshold: the p-value up to which a difference is called real.
        spread: standard deviation between seeds by metric, pooled, where settings were repeated.
        tiers: what each tier is for each model: rows, tokens, what is learnt, lost, repeated, known from the evaluation.
        user_notes, tags: what people wrote on the sweep and its trials, oldest first; the sweep's tags (`with_notes`).
        predicted: device seconds that its plan expected without stops, as `value`, `low` and `high`; empty where it had none.
        at: what a trial is worth: its score at the `end`, or that of its `best` checkpoint.
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
    settings: tuple[Setting, ...] = ()
    answer: tuple[Finding, ...] = ()
    rivalries: tuple[Rivalry, ...] = ()
    corrected: Winner | None = None
    effects: tuple[Effect, ...] = ()
    importances: tuple[Importance, ...] = ()
    comparisons: int = 0
    threshold: float = 0.05
    spread: Mapping[str, float] = field(default_factory=dict)
    tiers: tuple[TierRow, ...] = ()
    verdict: SweepVerdict | None = None
    predicted: Mapping[str, float] = field(default_factory=dict)
    user_notes: tuple[UserNote, ...] = ()
    tags: tuple[str, ...] = ()
    at: str = "end"

    def to_json(self) -> dict[str, Any]:
        """Returns the summary as plain JSON."""
        trials = tuple(
            replace(t, curves={m: c if m in t.readings else thinned(c) for m, c in t.curves.items()})
            for t in self.trials
        )
        with no_collector():
            found = {"format": FORMAT, **plain(replace(self, trials=trials))}
            found["trials"] = [_with_steps(trial) for trial in found["trials"]]
            return found

    def trial(self, id: str) -> Trial:
        return next(t for t in self.trials if t.id == id)

    def setting(self, trial: str) -> Setting:
        """Returns the setting that a trial is an example of."""
        return next(s for s in self.settings if trial in s.trials)

    def ranked(self) -> list[Setting]:
        """Returns the ranked settings, best first."""
        return sorted((s for s in self.settings if s.rank is not None), key=lambda s: s.rank or 0)


def same_level(a: Any, b: Any) -> bool:
    """Whether two settings are one level: 1 and 1.0 are, 1 and true are not."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def plain(value: Any) -> Any:
    """Returns dataclasses, mappings, tuples and enums as plain JSON; a tuple of scores as parallel arrays.

    Numbers keep `DIGITS` significant digits, those computed from scores `DERIVED_DIGITS`, errors of curves `ERROR_DIGITS`.
    """
    if isinstance(value, float):
        return rounded(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple) and value and isinstance(value[0], Measured):
        return arrays(value)
    if isinstance(value, Measured | Winner):
        return _derived(value._asdict())
    if isinstance(value, Reading | SettingMetric | Difference):
        return _derived({f.name: v for f in fields(value) if (v := getattr(value, f.name)) is not None})
    if isinstance(value, Picked):
        return _derived({f.name: getattr(value, f.name) for f in fields(value) if f.name != "outcomes"})
    if isinstance(value, TierRow):
        return {k: plain(v) for k, v in value.to_json().items() if k not in ("v", "seq", "kind", "sweep")}
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def _derived(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was computed from scores, with `DERIVED_DIGITS`; the scores themselves stand in the curves."""
    return {
        k: rounded(v, DERIVED_DIGITS) if isinstance(v, float) else plain(v) for k, v in found.items() if k != "limit"
    }


def rounded(value: float | None, digits: int = DIGITS) -> float | None:
    """Returns a number with that many significant digits; what the journal holds has no more that mean anything."""
    return None if value is None else float(f"{value:.{digits}g}")


def _with_steps(trial: dict[str, Any]) -> dict[str, Any]:
    """Writes the steps that most curves of a trial have once, beside them: a third of the file was steps."""
    curves: dict[str, dict[str, Any]] = trial["curves"]
    if not curves:
        return trial | {"steps": []}
    common = Counter(tuple(c["step"]) for c in curves.values()).most_common(1)[0][0]
    shared = list(common)
    short = {m: {k: v for k, v in c.items() if k != "step" or v != shared} for m, c in curves.items()}
    return trial | {"steps": shared, "curves": short}


def arrays(points: Sequence[Measured]) -> dict[str, Any]:
    """Returns scores as parallel arrays `step, value, se, n`, without those of which nothing is known.

    `n` is one number when all scores have as many items.
    """
    steps, values, errors, items = zip(*points, strict=True)
    found: dict[str, Any] = {"step": list(steps), "value": [rounded(v) for v in values]}
    if any(e is not None for e in errors):
        found["se"] = [rounded(e, ERROR_DIGITS) for e in errors]
    if any(n is not None for n in items):
        found["n"] = items[0] if len(set(items)) == 1 else list(items)
    return found


def thinned(points: Sequence[Measured]) -> tuple[Measured, ...]:
    """Returns at most `MAX_POINTS` of a long curve, evenly in the logarithm of the step, both ends included."""
    if len(points) <= MAX_POINTS:
        return tuple(points)
    top = math.log(len(points))
    kept = {round(math.exp(top * i / (MAX_POINTS - 1))) - 1 for i in range(MAX_POINTS)}
    return tuple(points[i] for i in sorted(kept))
