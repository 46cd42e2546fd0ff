"""Stop rules for plain Optuna: a `BasePruner` around any rule of `sweeps.stopping`.

    study = optuna.create_study(direction="maximize", pruner=RulePruner(budget=640, top=3))

The objective reports `trial.report(score, step)` and asks `trial.should_prune()`, as always; a pruned trial raises
`optuna.TrialPruned`, so Optuna keeps it as PRUNED at its step. Optuna stores scores only: a standard error that was
set with `trial.set_user_attr("se", 0.018)` is used, otherwise noise is estimated from the curves; the base model's
score is whatever is reported at step 0. There is no parking here: a trial that Optuna pruned is gone.
"""

from __future__ import annotations

from typing import Any

import optuna

from sweeps.journal.rows import Row, split_finite
from sweeps.stopping.base import Action, Goal, StopRule, Verdict
from sweeps.stopping.registry import make_rule

METRIC = "objective"


class RulePruner(optuna.pruners.BasePruner):  # type: ignore[misc]
    """Asks a stop rule whenever a trial asks `should_prune`.

    The rule is rebuilt from the study's own record at every question that finds it behind, so a study that was loaded
    from a storage goes on as if it had never stopped.

    Args:
        budget: steps of a run, or the parameter or user attribute that holds them.
        rule: name of the rule; `settings` are its own. top: how many of the best trials must not be lost.
    """

    def __init__(self, budget: int | str, *, rule: str = "dip-aware", top: int = 3, **settings: Any) -> None:
        self.budget, self.rule_name, self.top, self.settings = budget, rule, top, settings
        if rule == "dip-aware":
            self.settings = {**settings, "park": False}
        make_rule(rule, Goal(METRIC, top=top), **self.settings)  # refuses a wrong setting at once
        self._rule: StopRule | None = None
        self._study: str = ""
        self._told: set[tuple[int, int]] = set()
        self._ended: set[int] = set()
        self.verdicts: dict[int, Verdict] = {}

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Returns whether `trial` should end now; the reason is kept in `verdicts[trial.number]`."""
        if self._rule is None or self._study != study.study_name:
            goal = Goal(METRIC, study.direction == optuna.study.StudyDirection.MAXIMIZE, self.top)
            self._rule, self._study = make_rule(self.rule_name, goal, **self.settings), study.study_name
            self._told, self._ended = set(), set()
        for other in study.get_trials(deepcopy=False):
            if other.number != trial.number:
                self._tell(self._rule, other)
        self._tell(self._rule, trial)
        verdict = self.verdicts[trial.number] = self._rule.decide(str(trial.number))
        return verdict.action is not Action.CONTINUE

    def _tell(self, rule: StopRule, trial: optuna.trial.FrozenTrial) -> None:
        """Hands the rule what it has not seen of a trial."""
        if trial.number in self._ended or not trial.intermediate_values:
            return
        name = str(trial.number)
        if name not in rule.history.curves:
            rule.observe(
                Row("trial", "optuna", name, budget=self._budget_of(trial), config={"model": "", **trial.params})
            )
        for step, value in sorted(trial.intermediate_values.items()):
            if (trial.number, step) not in self._told:
                self._told.add((trial.number, step))
                good, bad = split_finite({METRIC: value})
                se = trial.user_attrs.get("se")
                errors = {METRIC: float(se)} if isinstance(se, (int, float)) else {}
                rule.observe(Row("report", "optuna", name, step=step, metrics=good, se=errors, invalid=bad))
        if trial.state.is_finished():
            self._ended.add(trial.number)
            done = trial.state == optuna.trial.TrialState.COMPLETE
            rule.observe(Row("end", "optuna", name, extra={"status": "completed" if done else "pruned"}))

    def _budget_of(self, trial: optuna.trial.FrozenTrial) -> int | None:
        if isinstance(self.budget, int):
            return self.budget
        found = trial.params.get(self.budget, trial.user_attrs.get(self.budget))
        return int(found) if found is not None else None
