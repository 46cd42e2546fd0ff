"""All findings of a report on one sweep: the JSON of `dipsweep report --json`.

`Summary.to_json()` is stable: keys are added, never renamed (`as_json` says how numbers and curves are written).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sweeps.journal.reader import no_collector
from sweeps.journal.rows import TierRow
from sweeps.journal.start_ups import StartUps
from sweeps.report.analysis.findings.as_json import FORMAT, plain, thinned, with_shared_steps
from sweeps.report.analysis.findings.axes import Axis, Contrast, Effect, Group, Importance
from sweeps.report.analysis.findings.settings import Finding, Rivalry, Setting, SweepVerdict
from sweeps.report.analysis.findings.trials import Paired, Spent, Trial, UserNote
from sweeps.report.analysis.inference import Winner
from sweeps.report.analysis.shape import Measured


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
            found["trials"] = [with_shared_steps(trial) for trial in found["trials"]]
            return found

    def trial(self, id: str) -> Trial:
        return next(t for t in self.trials if t.id == id)

    def setting(self, trial: str) -> Setting:
        """Returns the setting that a trial is an example of."""
        return next(s for s in self.settings if trial in s.trials)

    def sign(self, metric: str) -> float:
        """Returns +1 where more of a metric is better, -1 where less is."""
        return next((s.metrics[metric].sign for s in self.settings if metric in s.metrics), 1.0)

    def place(self, trial: Trial) -> int | None:
        """Returns a trial's rank; where its best checkpoint is another's too, and is ranked there, that one's."""
        return self.trial(trial.shares).rank if trial.shares else trial.rank

    def ranked(self) -> list[Setting]:
        """Returns the ranked settings, best first."""
        return sorted((s for s in self.settings if s.rank is not None), key=lambda s: s.rank or 0)
