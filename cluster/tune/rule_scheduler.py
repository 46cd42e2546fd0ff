"""Stop rules for plain Ray Tune: a thin `TrialScheduler` around any rule of `sweeps.stopping`.

    tuner = tune.Tuner(
        train_fn,
        param_space={"lr": tune.loguniform(1e-5, 1e-3), "steps": 640},
        tune_config=tune.TuneConfig(num_samples=32, scheduler=RuleScheduler(metric="transfer", mode="max", top=3)),
    )

`train_fn` reports `{"step": 40, "transfer": 0.31, "transfer_se": 0.018}`. Ray does not restore a scheduler with its
experiment (ray-project/ray#30838); given a `journal` file, this one writes down what it saw and reads it back.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweeps.config.objective import Constraint, Goal
from sweeps.controller.verdicts import checked_verdict
from sweeps.errors import InputError
from sweeps.executors.simulated import verdict_row
from sweeps.journal.history import ENDED
from sweeps.journal.rows import AttemptRow, EndRow, ReportRow, Row, TrialRow, base_trial, split_finite
from sweeps.journal.vocabulary import EndStatus
from sweeps.report.replay import read_rows
from sweeps.stopping.base import Action, StopRule
from sweeps.stopping.noise import as_number, as_step, standard_error
from sweeps.stopping.registry import make_rule

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController


class RuleScheduler(FIFOScheduler):  # type: ignore[misc]
    """Asks a stop rule after every report.

    Of a result it also reads `train/loss`, mean nats a token, and `length/truncated`, the share of replies cut off. A trial ends
    as diverged where the loss is not finite, or 0.7 above its lowest twice in a row: name one on another scale otherwise.

    Args:
        metric, mode: what to look for; taken from `TuneConfig` where not given.
        rule: name of the rule; `settings` are its own (`protect="soft"`).
        top: how many of the best trials must not be lost. constraints: see `Constraint`.
        step: result key of the optimizer step. Not `training_iteration`, which starts anew after a restore.
        budget: steps of a run, or the config key that holds them.
        se: result key of the metric's standard error; where it is missing, noise is estimated from the curves.
        base: scores of the base models before training, `{"qwen3-1.7b": {"transfer": 0.38, "transfer_se": 0.01}}`;
            a trial's model is its config's `model` (or "" where there is none).
        pause: pause instead of stop. Needs trials that report a checkpoint with every result and resume from it.
        journal: JSONL file of all rows, from which a restarted experiment is brought up to date.
    """

    _supports_buffered_results = False

    def __init__(
        self,
        metric: str | None = None,
        mode: str | None = None,
        *,
        rule: str = "dip-aware",
        top: int = 3,
        constraints: tuple[Constraint, ...] = (),
        step: str = "step",
        budget: int | str = "steps",
        se: str | None = None,
        base: Mapping[str, Mapping[str, float]] | None = None,
        pause: bool = False,
        journal: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if mode not in (None, "max", "min"):
            raise InputError(f"mode is {mode!r}, but must be 'max' or 'min'")
        self._metric, self._mode = metric, mode
        self._rule_name, self._settings, self._top, self._constraints = rule, settings, top, constraints
        self._step, self._budget, self._se, self._base = step, budget, se, dict(base or {})
        self._pause, self._journal = pause, journal
        self._rule: StopRule | None = None
        self._slots, self._rows = 0, 0
        self._begun_before: set[str] = set()  # known trials that Tune has added again, and that have not reported since
        if metric is not None and mode is not None:
            self._make()  # a wrong setting is refused here, not after the first report

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        if (self._metric and metric) or (self._mode and mode):
            return False
        self._metric, self._mode = self._metric or metric, self._mode or mode
        return True

    @property
    def rule(self) -> StopRule:
        """The rule, brought up to date from the journal when it is first needed."""
        if self._rule is None:
            self._rule = self._make()
            if self._journal and os.path.exists(self._journal):
                for row in read_rows(self._journal):
                    self._rule.observe(row)
                    self._rows += 1
            else:
                self._tell_base()
        return self._rule

    def _make(self) -> StopRule:
        if self._metric is None:
            raise InputError("RuleScheduler needs a metric: give it one, or set TuneConfig(metric=..., mode=...)")
        settings = dict(self._settings)
        if self._rule_name == "dip-aware":
            settings["pause"] = self._pause
        goal = Goal(self._metric, self._mode != "min", self._top, self._constraints)
        return make_rule(self._rule_name, goal, **settings)

    # --- rows ------------------------------------------------------------------------------------------------------

    def _tell(self, row: Row) -> bool:
        row = row.at(self._rows)
        self._rows += 1
        if self._journal:
            with open(self._journal, "a", encoding="utf-8") as out:
                out.write(row.line())
        return self.rule.observe(row)

    def _tell_base(self) -> None:
        for model, scores in self._base.items():
            self._tell(self._report(base_trial(model), 0, scores))

    def _report(self, trial: str, step: int, result: Mapping[str, Any], attempt: int = 0) -> Row:
        wanted = {self._metric or "", "train/loss", "length/truncated", *(c.metric for c in self._constraints)}
        numbers = {m: v for m in sorted(wanted) if (v := as_number(result.get(m))) is not None}
        good, bad = split_finite(numbers)
        errors = {m: e for m in good if (e := standard_error(as_number(result.get(self._error_key(m)))))}
        return ReportRow("tune", trial, attempt, step, metrics=good, se=errors, invalid=bad)

    def _step_of(self, result: Mapping[str, Any]) -> int | None:
        step = as_step(result.get(self._step))
        return step if step is not None and step >= 0 else None

    def _tell_result(self, trial: Trial, step: int, result: Mapping[str, Any]) -> bool:
        attempt = max(self.rule.history.curves[trial.trial_id].attempt, 1)
        return self._tell(self._report(trial.trial_id, step, result, attempt))

    def _begin_again(self, trial: Trial, step: int | None) -> None:
        """Tells that a known trial runs once more, from the last step known before its first result: what it had reported
        beyond is run again, and where its last attempt failed it is back."""
        if trial.trial_id in self._begun_before:
            self._begun_before.remove(trial.trial_id)
            known = self.rule.history.curves[trial.trial_id]
            start = max((s for s in known.points if step is None or s < step), default=0)
            self._tell(AttemptRow("tune", trial.trial_id, max(known.attempt, 1) + 1, start))

    def _error_key(self, metric: str) -> str:
        return self._se if self._se and metric == self._metric else f"{metric}_se"

    def _budget_of(self, trial: Trial) -> int:
        found = as_step(self._budget if isinstance(self._budget, int) else trial.config.get(self._budget))
        if found is None or found < 1:
            raise InputError(
                f"budget of trial {trial.trial_id}: its config has no whole number {self._budget!r}; "
                "give RuleScheduler(budget=640), or budget='the config key that holds the steps'"
            )
        return found

    # --- Ray's side ------------------------------------------------------------------------------------------------

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        if trial.trial_id in self.rule.history.curves:  # its last attempt failed, or the experiment was restored
            self._begun_before.add(trial.trial_id)
        else:
            plain = {k: p for k, v in trial.config.items() if (p := _plain(v)) is not None}
            config = {"model": "", **plain}
            self._tell(TrialRow("tune", trial.trial_id, budget=self._budget_of(trial), config=config))

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        running = sum(t.status == Trial.RUNNING for t in tune_controller.get_trials())
        self._slots = max(self._slots, running)
        step = self._step_of(result)
        if step is None:
            raise InputError(
                f"trial {trial.trial_id}: got {self._step} {result.get(self._step)!r}; expected a whole number of at least 0; it "
                f"reports {', '.join(sorted(result))}"
            )
        self._begin_again(trial, step)
        fresh = self._tell_result(trial, step, result)
        if not fresh or step >= self._budget_of(trial):
            return str(TrialScheduler.CONTINUE)
        verdict = checked_verdict(self.rule.decide(trial.trial_id))
        if verdict.action is Action.CONTINUE:
            return str(TrialScheduler.CONTINUE)
        self._tell(verdict_row("tune", trial.trial_id, verdict, step))
        if verdict.action is Action.PAUSE and self._pause:
            return str(TrialScheduler.PAUSE)
        self._end(trial, "pruned", verdict.reason)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        step = self._step_of(result or {})
        self._begin_again(trial, step)
        if step is not None and not self._ended(trial):
            # Where `RunConfig(stop=...)` ended the trial, Tune has not shown its last result to the scheduler.
            self._tell_result(trial, step, result)
        self._end(trial, "completed")  # Tune also calls this after our own STOP: the first end counts

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        self._end(trial, "failed")

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        self._end(trial, "pruned")

    def _end(self, trial: Trial, status: str, reason: str = "") -> None:
        if not self._ended(trial):
            self._tell(EndRow("tune", trial.trial_id, status=EndStatus(status), reason=reason))

    def _ended(self, trial: Trial) -> bool:
        curve = self.rule.history.curves.get(trial.trial_id)
        return curve is not None and curve.state in ENDED

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """New trials first; then, where a slot is free, the paused trial that the rule wants back; else they end."""
        trials = tune_controller.get_trials()
        for trial in trials:
            if trial.status == Trial.PENDING:
                return trial
        paused = {t.trial_id: t for t in trials if t.status == Trial.PAUSED}
        running = sum(t.status == Trial.RUNNING for t in trials)
        if not paused or running >= max(self._slots, 1):
            return None  # a paused trial that is returned would be staged even with no free machine
        chosen = self.rule.choose_trial_to_resume(list(paused))
        if chosen is not None:
            curve = self.rule.history.curves[chosen]
            # It runs again: the rule no longer counts it as given up.
            self._tell(AttemptRow("tune", chosen, max(curve.attempt, 1), curve.last_step))
            return paused[chosen]
        if not running:
            for trial in paused.values():  # Tune never ends while a trial is paused
                tune_controller.stop_trial(trial)
        return None

    def debug_string(self) -> str:
        return f"stop rule {self._rule_name} on {self._metric}"


def _plain(value: Any) -> str | int | float | bool | None:
    """Returns a setting as plain Python, None where it is no text, number or truth value."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (str, bool)):
        return value
    number = as_number(value)
    if number is None:
        return None
    if not math.isfinite(number):
        return str(number)  # as a row can hold it
    return int(number) if not isinstance(value, float) and number.is_integer() else number
