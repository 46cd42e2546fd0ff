"""What a report says of one trial: its scores, costs, decisions, constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.report.analysis.shape import Measured, Reading


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
        trained_by: the trial that trained it: this one, or one that it turned off from after that step.
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
    trained_by: str = ""

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
        rank: place of the trial's setting (`Summary.settings`), from 1. shares: the trial whose setting has a place for the same
            best checkpoint, so that this one has none; else empty. decisions: every verdict of the stop rule.
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
    shares: str = ""

    def judged_score(self, metric: str) -> Measured | None:
        """Returns the score that the trial is judged by: of its best checkpoint where that counts, else the last one."""
        points = self.curves.get(metric, ())
        if self.picked is None:
            return points[-1] if points else None
        if metric == self.picked.metric:
            return self.picked.score
        return next((p for p in points if p.step == self.picked.step), None)
