"""Stop rules for plain Optuna: a `BasePruner` around any rule of `sweeps.stopping`.

    study = optuna.create_study(direction="maximize", pruner=RulePruner(budget=640, top=3))

The objective reports `trial.report(score, step)` and asks `trial.should_prune()`, as always; a pruned trial raises
`optuna.TrialPruned`, so Optuna keeps it as PRUNED at its step. Optuna stores scores only: a standard error that was
set with `trial.set_user_attr("se", 0.018)` is used, otherwise noise is estimated from the curves; the base model's
score is whatever is reported at step 0. There is no pausing here: a trial that Optuna pruned is gone.
"""

from __future__ import annotations

import math
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import optuna

from sweeps.config.objective import Goal
from sweeps.errors import InputError
from sweeps.journal.rows import EndRow, ReportRow, TrialRow, VerdictRow, split_finite
from sweeps.journal.vocabulary import EndStatus
from sweeps.stopping.base import Action, StopRule, Verdict
from sweeps.stopping.noise import as_number, as_step, standard_error
from sweeps.stopping.registry import make_rule

METRIC = "objective"
_ENDS = {
    optuna.trial.TrialState.COMPLETE: EndStatus.COMPLETED,
    optuna.trial.TrialState.PRUNED: EndStatus.PRUNED,
    optuna.trial.TrialState.FAIL: EndStatus.FAILED,
}


@dataclass(slots=True)
class _Told:
    """What the rule of one study has been told, by trial number."""

    rule: StopRule
    reports: set[tuple[int, int]] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    verdicts: dict[int, Verdict] = field(default_factory=dict)


class RulePruner(optuna.pruners.BasePruner):  # type: ignore[misc]
    """Asks a stop rule whenever a trial asks `should_prune`.

    A rule belongs to a study. It is brought up to date from the study's own record at every question, so a study that was
    loaded from a storage goes on as if it had never stopped, and one pruner may serve several studies.

    Args:
        budget: steps of a run, or the parameter or user attribute that holds them.
        rule: name of the rule; `settings` are its own. top: how many of the best trials must not be lost.

    Raises:
        InputError: a setting is wrong; from `prune`, a trial's budget is not to be found.
    """

    def __init__(self, budget: int | str, *, rule: str = "dip-aware", top: int = 3, **settings: Any) -> None:
        self.budget, self.rule_name, self.top, self.settings = budget, rule, top, settings
        if rule == "dip-aware":
            self.settings = {**settings, "pause": False}
        make_rule(rule, Goal(METRIC, top=top), **self.settings)  # refuses a wrong setting at once
        self._forget()

    def _forget(self) -> None:
        self._studies: weakref.WeakKeyDictionary[optuna.Study, _Told] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()  # `optimize(n_jobs=4)` asks from four threads
        self.verdicts: dict[int, Verdict] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A pruner that is copied or sent elsewhere takes its settings along; its rules are rebuilt from the studies."""
        return {k: self.__dict__[k] for k in ("budget", "rule_name", "top", "settings")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Returns whether `trial` should end now; the reason is kept in `verdicts[trial.number]`."""
        with self._lock:
            told = self._studies.get(study)
            if told is None:
                goal = Goal(METRIC, study.direction == optuna.study.StudyDirection.MAXIMIZE, self.top)
                told = self._studies[study] = _Told(make_rule(self.rule_name, goal, **self.settings))
            for other in study.get_trials(deepcopy=False):
                if other.number != trial.number:
                    self._tell(told, other)
            self._tell(told, trial)
            verdict = told.rule.decide(str(trial.number))
            if verdict.action is not Action.CONTINUE and (trial.last_step or 0) >= self._budget_of(trial):
                verdict = Verdict(Action.CONTINUE, f"the budget is run; else: {verdict.reason}")
            told.verdicts[trial.number], self.verdicts = verdict, told.verdicts
            return verdict.action is not Action.CONTINUE

    def _tell(self, told: _Told, trial: optuna.trial.FrozenTrial) -> None:
        """Hands the rule what it has not seen of a trial."""
        if trial.number in told.ended or not trial.intermediate_values:
            return
        name, rule = str(trial.number), told.rule
        if name not in rule.history.curves:
            config = {"model": "", **trial.params}
            rule.observe(TrialRow("optuna", name, budget=self._budget_of(trial), config=config))
        for step, value in sorted(trial.intermediate_values.items()):
            if (trial.number, step) not in told.reports:
                told.reports.add((trial.number, step))
                good, bad = split_finite({METRIC: float(value)})
                se = standard_error(as_number(trial.user_attrs.get("se")))
                errors = {METRIC: se} if se and good else {}
                rule.observe(ReportRow("optuna", name, step=step, metrics=good, se=errors, invalid=bad))
        if trial.state.is_finished():
            told.ended.add(trial.number)
            status, last = _ENDS[trial.state], max(trial.intermediate_values)
            if status is EndStatus.PRUNED and math.isfinite(trial.intermediate_values[last]):
                evidence = {"p_top": 0.0}  # given up for its odds: it counts in the budget
                stop = VerdictRow("optuna", name, step=last, action=Action.STOP, reason="pruned", evidence=evidence)
                rule.observe(stop)
            rule.observe(EndRow("optuna", name, status=status))

    def _budget_of(self, trial: optuna.trial.FrozenTrial) -> int:
        found = self.budget
        if isinstance(found, str):
            found = trial.params.get(found, trial.user_attrs.get(found))
        budget = as_step(found)
        if budget is None or budget < 1:
            raise InputError(
                f"budget of trial {trial.number}: got {found!r}, expected a whole number of steps of at least 1; give "
                "RulePruner(budget=640), or the name of the parameter or user attribute that holds it"
            )
        return budget
