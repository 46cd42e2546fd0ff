"""All decisions of one sweep; executors ask for them.

The controller knows no clock, no Ray and no torch. An executor (in-process, simulated, Ray) asks it what to start and what
to score, and tells it what happened; it writes each fact to the journal first, and only then asks the stop rule. What is
known is what rows say (`sweeps.journal.state`): stop, pause, crash and resume are one path, the attempt ends and the next
one starts from the journal.

What follows from a row is in `record`, the stop rule in `verdicts`, attempts in `attempts`, evaluations in `scores`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.config.blocks import LimitsBlock
from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved, TrialSpec
from sweeps.controller import retention
from sweeps.controller.attempts import Attempts
from sweeps.controller.branches import has_begun, trunk_text
from sweeps.controller.launch import Launch
from sweeps.controller.record import SweepRecord
from sweeps.controller.scores import Scores
from sweeps.controller.searcher import Searcher, Suggestion
from sweeps.controller.strategies import UNJUDGED_SINCE
from sweeps.controller.verdicts import Verdicts
from sweeps.errors import InputError, StrategyError
from sweeps.failures import Failure, FailureKind
from sweeps.journal.history import History
from sweeps.journal.rows import (
    CommitRow,
    ControlRow,
    EndRow,
    Row,
    TierRow,
    TrialRow,
)
from sweeps.journal.state import SweepState
from sweeps.journal.vocabulary import (
    DRIVER,
    ControlAction,
    EndOf,
    EndStatus,
    TrialStatus,
)
from sweeps.journal.writer import Journal
from sweeps.stopping.base import StopRule

MOST_REPEATS = (
    1000  # proposals in a row that are trials already, beyond as many as there are trials: a search without an end
)


class SweepController:
    """Makes one sweep's decisions over its journal; a journal that holds rows is a sweep that is resumed.

    Args:
        plan: what is to run. journal: where facts go. rule: who prunes. searcher: who proposes trials.
        home: the sweep's folder; checkpoints inside it are written down relative to it, so that a sweep can be moved.
        subscribers: called with every new row after it was written and applied; see `subscribe`.
        state: an empty state over the rule's history, for who reads it while rows come; made where none is given.
        predict: what the sweep is expected to cost (`SweepRow.predicted`), asked when it begins.
        experience: what earlier sweeps say of it (`SweepRow.experience`), asked when it begins.
        points: those of their trials that its search begins with (`SweepRow.points`), likewise.

    Attributes:
        state: what is known of the sweep. specs: its trials by id, as their workers see them.
        ending: this driver saves and ends. stopping: who asked the whole sweep to stop; the executor then winds down as after
            Ctrl-C.
        is_current_attempt, report, saved, trained, failed, waits, suspended: what happened to an attempt (`Attempts`).
        is_score_needed, scored, eval_failed: what came of an evaluation (`Scores`).
    """

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        rule: StopRule,
        searcher: Searcher | None = None,
        *,
        home: str | Path = "",
        subscribers: Sequence[Callable[[Row], None]] = (),
        state: SweepState | None = None,
        predict: Callable[[], Mapping[str, Any]] = dict,
        experience: Callable[[], Mapping[str, Any]] = dict,
        points: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._record = SweepRecord(
            plan,
            journal,
            rule,
            searcher,
            home=home,
            subscribers=subscribers,
            state=state,
            predict=predict,
            experience=experience,
            points=points,
        )
        self._verdicts = Verdicts(self._record)
        self._scores = Scores(self._record, self._verdicts)
        self._attempts = Attempts(self._record, self._verdicts, self._scores)
        attempts, scores = self._attempts, self._scores
        self.is_current_attempt, self.report, self.saved = attempts.is_current, attempts.report, attempts.saved
        self.trained, self.failed = attempts.trained, attempts.failed
        self.waits, self.suspended = attempts.waits, attempts.suspended
        self.is_score_needed, self.scored, self.eval_failed = scores.is_needed, scores.scored, scores.failed
        self.journal, self.rule, self.searcher, self.home = journal, rule, self._record.searcher, self._record.home
        self.state, self.specs, self.evaluations = self._record.state, self._record.specs, self._record.evaluations
        self.ending, self._repeats = False, 0
        self._told: StrategyError | None = None  # what the latest interrupt row says of the rule or the search
        self._verdicts.restore(journal.rows())
        for trial in list(self.state.trials.values()):
            if not trial.ended:
                self._scores.request(trial.id)
            if trial.status is TrialStatus.PAUSED:
                self._attempts.wake_branches(trial)
            if trial.attempt:
                self.evaluations.request_base(self.specs[trial.id])

    @property
    def plan(self) -> Plan:
        """What is to run; trials that were asked for while the sweep ran are part of it."""
        return self._record.plan

    @property
    def broken(self) -> StrategyError | None:
        """What the stop rule or the search stumbled over; the executor then winds down as after Ctrl-C, and raises it."""
        return self._record.strategies.broken

    @property
    def stopping(self) -> str:
        """Who asked the whole sweep to stop; "" while no one has."""
        return self._record.stopping

    @property
    def history(self) -> History:
        """The curves of all trials."""
        return self.state.history

    def subscribe(self, subscriber: Callable[[Row], None]) -> Callable[[], None]:
        """Calls `subscriber` with every new row from now on; returns what ends that."""
        return self._record.subscribe(subscriber)

    # ---- what to start ----------------------------------------------------------------------------------------------

    def next_trials(self, limit: int = 1) -> list[TrialSpec]:
        """Returns the trials to be started next, at most `limit`: open ones first, then new ones, then a paused one.

        The search is asked for no more than that: what it proposes early it proposes without knowing later scores. A trial
        whose parent has trained all of its steps needs no start; its training ends here. One whose start is lost fails. A branch
        whose trunk was given up before it came to the fork is judged first.
        """
        while not self.is_paused:
            self._refill(limit)
            if self.broken is not None:
                break
            head = self._record.queue.ready(limit)
            unbegun = [(t, trunk) for t in head if (trunk := self._record.queue.trunk_to_judge_by(t)) is not None]
            if unbegun:
                for trial, trunk in unbegun:
                    self._verdicts.judge_unbegun(trial, trunk)
                continue
            trained = [t for t in head if self._record.queue.has_trained(t)]
            lost = {t: why for t in head if t not in trained and (why := self._attempts.lost_start(t))}
            if not trained and not lost:
                return [self.specs[t] for t in head]
            for trial in trained:
                self._record.queue.discard(trial)
                self._take_over_from_parent(trial)
                self._scores.end_training(trial)
            for trial, why in lost.items():
                self._verdicts.fail(trial, Failure(FailureKind.BAD_CHECKPOINT, "bad-checkpoint", why))
        return []

    def branches_of(self, parents: Collection[str]) -> list[TrialSpec]:
        """Returns the queued trials that can start now and begin from a checkpoint of one of these parents."""
        if self.is_paused or self.broken is not None:
            return []
        found = self._record.queue.branches_of(parents)
        return [self.specs[trial] for trial in found if not self._attempts.lost_start(trial)]

    def launch(self, trial: str, workers: int | None = None, *, alone: bool = False) -> Launch:
        """Starts an attempt of a queued trial, on `workers` processes (default: as many as its model asks for).

        Args:
            alone: its process has the machine to itself, so that a share of a GPU costs as much as a whole one.
        """
        self._record.queue.remove(trial)
        return self._attempts.launch(trial, workers or self.specs[trial].model.workers, alone=alone)

    def next(
        self,
        fits: Callable[[TrialSpec], bool] = lambda spec: True,
        *,
        workers: int | None = None,
        alone: bool = False,
    ) -> Launch | None:
        """Starts an attempt of the trial at the head of the queue, if there is one and `fits` says yes, as `launch` does."""
        head = self.next_trials()
        return self.launch(head[0].id, workers, alone=alone) if head and fits(head[0]) else None

    def _refill(self, limit: int) -> None:
        """Asks the rule for paused trials that go before new ones, the search for as many as the queue is short of then, and when
        it has none, the rule for a paused one."""
        queue = self._record.queue
        while queue.begun() < limit and (paused := self._paused()):
            promoted = self._chosen("choose_trial_to_promote", paused)
            if promoted is None:
                break
            queue.promote(promoted)
        while not queue.exhausted and len(queue.ready(limit)) < limit:
            suggestion = self._suggested()
            if self.broken is not None:
                return
            if suggestion is None:
                queue.exhausted = True  # forks that were kept for trials to come are looked at again
                self._record.touched |= {trial for trial, spec in self.specs.items() if spec.forks}
            else:
                self._add(suggestion)
        if queue.is_idle() and (paused := self._paused()):
            resumed = self._chosen("choose_trial_to_resume", paused)
            if resumed is not None:
                queue.append(resumed)

    def _suggested(self) -> Suggestion | None:
        """Returns the configuration that the search proposes next."""
        return self._record.ask_search(self._checked_suggestion, None)

    def _checked_suggestion(self) -> Suggestion | None:
        """Asks the search.

        Raises:
            InputError, or what Python raises for data of another form: it proposes what cannot be run, or the same for ever.
        """
        suggestion = self.searcher.ask()
        if suggestion is None:
            return None
        number, config, state = suggestion.number, suggestion.config, dict(suggestion.state)
        if not isinstance(number, int) or isinstance(number, bool):
            raise InputError(f"ask returned number {number!r}; expected a whole number")
        json.dumps(state, allow_nan=False)  # as the journal is to hold it
        known = self.plan.trial(config).id in self.state.trials
        self._repeats = self._repeats + 1 if known else 0
        if self._repeats > len(self.state.trials) + MOST_REPEATS:
            raise InputError(
                f"ask returned {self._repeats:,} times in a row what is a trial already; expected a new one, or None"
            )
        return Suggestion(number, config, state)

    def _chosen(self, choose: str, paused: Sequence[str]) -> str | None:
        """Returns the paused trial that the rule chooses by its method of that name."""

        def chosen() -> str | None:
            trial: str | None = getattr(self.rule, choose)(paused)
            if trial is not None and trial not in paused:
                raise InputError(
                    f"{choose} got {', '.join(paused)}, and returned {trial!r}; expected one of them, or None"
                )
            return trial

        return self._record.ask_rule(chosen, None)

    def _paused(self) -> list[str]:
        """Returns the paused trials that do not wait to go on already."""
        paused = (trial.id for trial in self.state.with_status(TrialStatus.PAUSED))
        return [trial for trial in paused if trial not in self._record.queue]

    def _take_over_from_parent(self, trial: str) -> None:
        """Takes a parent's checkpoint at the trial's budget over as its own, where it has none."""
        whole = self._record.queue.whole_at_parent(trial)
        if whole is not None:
            self._attempts.launch(trial, 0)
            self.saved(trial, self.state.trials[trial].attempt, self._record.saved(whole))

    def _add(self, suggestion: Suggestion) -> None:
        branch = self.plan.branch_of(suggestion.config)
        self.add(
            suggestion.config,
            parent=branch.parent if branch else "",
            fork_step=branch.step if branch else 0,
            number=suggestion.number,
            search=suggestion.state,
        )

    def add(
        self,
        config: Mapping[str, Any],
        *,
        parent: str = "",
        fork_step: int = 0,
        number: int | None = None,
        search: Mapping[str, Any] | None = None,
        by: str = "",
    ) -> str:
        """Adds a trial and returns its id; one that exists already is not added twice.

        Args:
            config: all resolved hyperparameters.
            parent: the trial that it begins from, at its last checkpoint not beyond `fork_step`.
            number, search: the search's number of it, and what rebuilds the search. by: who added it instead.
        """
        spec = self.plan.trial(config)
        if spec.id not in self.state.trials:
            self._record.write(
                TrialRow(
                    self.plan.sweep_id,
                    spec.id,
                    budget=spec.steps,
                    config=spec.config,
                    parent=parent,
                    fork_step=fork_step if parent else None,
                    number=number,
                    search=search,
                    by=by,
                )
            )
        return spec.id

    # ---- what people ask for (sweeps.controller.request_handler) ----------------------------------------------------

    @property
    def is_paused(self) -> bool:
        """True from a person's `pause` to their `resume`."""
        return bool(self.state.paused_by)

    def stop(self, trial: str, who: str) -> None:
        """Ends a trial at a person's wish, whatever it does."""
        if not self.state.trials[trial].ended:
            self._verdicts.end(trial, EndStatus.PRUNED, f"stopped by {who}")

    def control(self, action: ControlAction, who: str, trial: str = "", **keys: Any) -> None:
        """Writes down what a person asked for; it takes effect by this row (`keys`: further ones of `ControlRow`)."""
        self._record.write(ControlRow(self.plan.sweep_id, trial, action=ControlAction(action), who=who, **keys))

    def checkpoint(self, trial: str, limit: int | None = None) -> Saved | None:
        """Returns a trial's latest checkpoint, not beyond step `limit`."""
        last = self.state.trials[trial].last(limit)
        return self._record.saved(last) if last is not None else None

    def waits_for_parent(self, trial: str) -> bool:
        """True while a trial that has not begun would wait for its parent to reach its fork."""
        return self._record.queue.waits_for_parent(trial)

    def spec(self, trial: str) -> TrialSpec | None:
        """Returns a trial as its worker sees it; None where there is no such trial."""
        return self.specs.get(trial)

    def describe_tiers(self, rows: Iterable[TierRow]) -> None:
        """Writes down what tiers are for models, where the journal does not say just that already."""
        for row in rows:
            known = self.state.tiers.get(row.key)
            if known is None or known.at(-1) != row.at(-1):
                self._record.write(row)

    def set_limits(self, limits: LimitsBlock) -> None:
        """Changes what the sweep may cost."""
        self._record.plan = replace(self.plan, sweep=self.plan.sweep.model_copy(update={"limits": limits}))

    def interrupt(self, who: str, reason: str) -> None:
        """Notes that the sweep was interrupted; open attempts go on in the next driver, which judges what was not judged."""
        self.ending, self._told = True, self.broken
        unjudged = {UNJUDGED_SINCE: self._record.strategies.since} if self.broken is not None else None
        self.control(ControlAction.INTERRUPT, who, reason=reason, args=unjudged)

    def raise_if_broken(self) -> None:
        """Notes that the sweep ends because its stop rule or its search cannot go on, where that is so.

        Raises:
            StrategyError: it is so.
        """
        if self.broken is None:
            return
        if self._told is not self.broken:  # it may have stumbled over what came after Ctrl-C
            self.interrupt(DRIVER, str(self.broken))
        raise self.broken

    # ---- scores -----------------------------------------------------------------------------------------------------

    def next_eval(self) -> EvalJob | None:
        """Returns the next checkpoint to score, or None."""
        return self.evaluations.queue.next()

    # ---- the sweep --------------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """True while an attempt runs or a checkpoint is to be scored, and while the sweep is paused."""
        return bool(self.history.by_state[TrialStatus.RUNNING] or self.evaluations.queue) or self.is_paused

    def finish_if_done(self) -> bool:
        """Ends the sweep when nothing is left to run or to score; trials still paused then end as pruned.

        Returns:
            True when the sweep is done.
        """
        if self.is_busy or self.next_trials() or self.is_busy:  # asking for trials may bring checkpoints to be scored
            return False
        if self.broken is not None:
            return False
        for trial in self.state.with_status(TrialStatus.SCORING):
            self._scores.complete_if_scored(trial.id)
        paused = self.state.with_status(TrialStatus.PAUSED)
        for trial in filter(has_begun, paused):
            self._verdicts.end(
                trial.id, EndStatus.PRUNED, "paused, and nothing changed in its favour before the sweep ended"
            )
        with_trunk = [(trial.id, self.state.trials[trial.parent]) for trial in paused if not has_begun(trial)]
        for branch, trunk in [*with_trunk, *self._record.queue.given_up()]:
            self._verdicts.end(branch, EndStatus.PRUNED, f"ended with {trunk_text(trunk)}")
        if not self.state.done:
            self._record.write(EndRow(self.plan.sweep_id, of=EndOf.SWEEP, status=EndStatus.DONE))
        return True

    def queues(self) -> dict[str, int]:
        """Returns how many trials wait for machines and how many checkpoints for evaluators, or are with them."""
        evaluations = self.evaluations.queue
        return {
            "trials": len(self._record.queue),
            "evaluations": len(evaluations.waiting),
            "being scored": len(evaluations.running),
        }

    def spent(self) -> dict[str, float]:
        """Returns what the sweep has cost so far: `gpu_s` and `cpu_s` over all attempts and evaluations of all drivers."""
        return self.state.costs.total()

    def over_limit(self, wall_s: float) -> str | None:
        """Returns a sentence when the sweep has used up one of its limits, else None."""
        return self.plan.sweep.limits.exceeded(wall_s, self.spent())

    def checkpoints_to_delete(self, keep: int = 2) -> list[tuple[str, Saved]]:
        """Returns checkpoints that are no longer needed: scored, neither among a trial's last `keep` nor its best.

        Looks only at trials with news since the last call.
        """
        goal, more = self.plan.sweep.goal, not self._record.queue.exhausted
        out = [
            (trial, self._record.saved(checkpoint))
            for trial in sorted(self._record.touched)
            for checkpoint in retention.superseded(self.state, self.specs[trial], goal, keep, more=more)
        ]
        self._record.touched = {trial for trial, _ in out}  # until all of them are deleted
        return out

    def checkpoint_deleted(self, trial: str, checkpoint: Saved) -> None:
        """Notes that a checkpoint's files are gone."""
        self._record.write(
            CommitRow(
                self.plan.sweep_id,
                trial,
                self.state.trials[trial].attempt,
                checkpoint.step,
                path=self._record.inside(checkpoint.path),
                dropped=True,
            )
        )
