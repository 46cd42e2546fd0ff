"""All decisions of one sweep, and the one writer of its journal.

The controller knows no clock, no Ray and no torch. An executor (in-process, simulated, Ray) asks it what to start and what
to score, and tells it what happened; it writes each fact to the journal first, and only then asks the stop rule. What is
known is what rows say (`sweeps.journal.state`): stop, pause, crash and resume are one path, the attempt ends and the next
one starts from the journal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sweeps.config.blocks import LimitsBlock
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved, TrialSpec
from sweeps.controller import limits, retention
from sweeps.controller.eval_queue import EVAL_TRIES, EvalJob, is_suspect
from sweeps.controller.evaluations import Evaluations, is_close_to_verdict
from sweeps.controller.launch import Launch
from sweeps.controller.launch_queue import LaunchQueue
from sweeps.controller.searcher import Result, Searcher, Suggestion, make_searcher
from sweeps.failures import Failure, FailureKind
from sweeps.journal.history import History
from sweeps.journal.rows import (
    VERSION,
    AttemptRow,
    CommitRow,
    ControlRow,
    EndRow,
    EvalRow,
    LeaseRow,
    ReportRow,
    Row,
    SweepRow,
    TierRow,
    TrialRow,
    VerdictRow,
    split_finite,
)
from sweeps.journal.state import Checkpoint, SweepState, TrialState, address_of
from sweeps.journal.vocabulary import (
    DRIVER,
    Action,
    ControlAction,
    EndOf,
    EndStatus,
    EvalStatus,
    TrialStatus,
)
from sweeps.journal.writer import Journal
from sweeps.stopping.base import StopRule, Verdict
from sweeps.storage.base import inside

LESS_MEMORY: Final = (
    "lower batch_tokens or max_length, set pack_tokens or gradient_checkpointing, or give the model more workers"
)
PREEMPTIONS: Final = 100
"""Machines taken away are nobody's fault; a trial that lost this many will not end by itself."""


class SweepController:
    """Runs one sweep's decisions over a journal; a journal with rows in it is a sweep that goes on.

    Args:
        plan: what is to run. journal: where facts go. rule: who prunes. searcher: who proposes trials.
        home: the sweep's folder; checkpoints inside it are written down relative to it, so that a sweep can be moved.
        subscribers: called with every new row after it was written and applied; see `subscribe`.
        state: an empty state over the rule's history, for who reads it while rows come; made where none is given.

    Attributes:
        state: what is known of the sweep. specs: its trials by id, as their workers see them.
        ending: this driver saves and ends. stopping: who asked the whole sweep to stop, "" for nobody; the executor then
            winds down as after Ctrl-C.
    """

    def __init__(
        self, plan: Plan, journal: Journal, rule: StopRule, searcher: Searcher | None = None, *, home: str | Path = "",
        subscribers: Sequence[Callable[[Row], None]] = (), state: SweepState | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.journal, self.rule, self.home = plan, journal, rule, str(home)
        self.searcher = searcher or make_searcher(plan)
        self.state = state or SweepState(history=rule.history, fold=rule.observe)
        self.specs: dict[str, TrialSpec] = {}
        self.evaluations = Evaluations(plan, self.state, self.specs, lambda path: address_of(path, self.home))
        self.ending, self.stopping = False, ""
        self._subscribers = list(subscribers)
        self._queue = LaunchQueue(self.state, self.specs)
        self._touched: set[str] = set()  # trials whose checkpoints may have been superseded
        self._restore(journal.rows())

    def _restore(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._apply(row, live=False)
        if self.history.sweep is None:
            self._write(self._sweep_row())
        self._queue.restore()
        self._finish_last_decision(rows)
        for trial in list(self.state.trials.values()):
            if not trial.ended:
                self._request_scores(trial.id)
            if trial.attempt:
                self.evaluations.request_base(self.specs[trial.id])

    @property
    def history(self) -> History:
        """The curves of all trials."""
        return self.state.history

    def subscribe(self, subscriber: Callable[[Row], None]) -> Callable[[], None]:
        """Calls `subscriber` with every new row from now on; returns what ends that."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    # ---- what to start ----------------------------------------------------------------------------------------------

    def next_trials(self, limit: int = 1) -> list[TrialSpec]:
        """Returns the trials to be started next, at most `limit`: open ones first, then new ones, then a paused one.

        The search is asked for no more than that: what it proposes early it proposes without knowing later scores. A trial
        whose parent has trained all of its steps needs no start; its training ends here.
        """
        if self.is_paused:
            return []
        while True:
            self._refill(limit)
            head = self._queue.ready(limit)
            trained = [t for t in head if self._queue.has_trained(t)]
            if not trained:
                return [self.specs[t] for t in head]
            for trial in trained:
                self._queue.discard(trial)
                self._take_over_from_parent(trial)
                self._end_training(trial)

    def branches_of(self, parents: Collection[str]) -> list[TrialSpec]:
        """Returns the queued trials that can start now and begin from a checkpoint of one of these parents."""
        return [self.specs[trial] for trial in self._queue.branches_of(parents)] if not self.is_paused else []

    def launch(self, trial: str, workers: int | None = None) -> Launch:
        """Starts an attempt of a queued trial, on `workers` processes (default: as many as its model asks for)."""
        self._queue.remove(trial)
        return self._launch(trial, workers or self.specs[trial].model.workers)

    def next(self, fits: Callable[[TrialSpec], bool] = lambda spec: True) -> Launch | None:
        """Starts an attempt of the trial at the head of the queue, if there is one and `fits` says yes."""
        head = self.next_trials()
        return self.launch(head[0].id) if head and fits(head[0]) else None

    def _refill(self, limit: int) -> None:
        """Asks the search for as many trials as the queue is short of; when it has none, the rule for a paused one."""
        while not self._queue.exhausted and len(self._queue.ready(limit)) < limit:
            suggestion = self.searcher.ask()
            if suggestion is None:
                self._queue.exhausted = True
            else:
                self._add(suggestion)
        if not self._queue and (paused := self.state.with_status(TrialStatus.PAUSED)):
            resumed = self.rule.choose_trial_to_resume([trial.id for trial in paused])
            if resumed is not None:
                self._queue.append(resumed)

    def _take_over_from_parent(self, trial: str) -> None:
        """Takes a parent's checkpoint at the trial's budget over as its own, where it has none."""
        whole = self._queue.whole_at_parent(trial)
        if whole is not None:
            self._launch(trial, 0)
            self.saved(trial, self.state.trials[trial].attempt, self._saved(whole))

    def _add(self, suggestion: Suggestion) -> None:
        branch = self.plan.trunk(suggestion.config)
        self.add(suggestion.config, parent=branch.parent if branch else "", fork_step=branch.step if branch else 0,
                 number=suggestion.number, search=dict(suggestion.state))  # fmt: skip

    def add(
        self, config: Mapping[str, Any], *, parent: str = "", fork_step: int = 0, number: int | None = None,
        search: Mapping[str, Any] | None = None, by: str = "",
    ) -> str:  # fmt: skip
        """Adds a trial and returns its id; a trial that exists already stands for both.

        Args:
            config: all resolved hyperparameters.
            parent: the trial that it begins from, at its last checkpoint not beyond `fork_step`.
            number, search: the search's number of it, and what rebuilds the search. by: who added it instead.
        """
        spec = self.plan.trial(config)
        if spec.id not in self.state.trials:
            self._write(TrialRow(self.plan.sweep_id, spec.id, budget=spec.steps, config=spec.config, parent=parent,
                                 fork_step=fork_step if parent else None, number=number, search=search, by=by))  # fmt: skip
        return spec.id

    def _launch(self, trial: str, workers: int) -> Launch:
        known, spec = self.state.trials[trial], self.specs[trial]
        parent = self.state.trials.get(known.parent)
        resume, branched = known.last(), False
        if resume is None and parent is not None:
            resume, branched = parent.last(known.fork_step), True
        step = resume.step if resume else 0
        self._write(AttemptRow(self.plan.sweep_id, trial, known.attempt + 1, step, budget=spec.steps, workers=workers,
                               parent=known.parent if branched else "", fork_step=step if branched else None))  # fmt: skip
        if branched:
            for step in sorted(self.history.curves[known.parent].points):
                self._inherit(trial, step)
        self.evaluations.request_base(spec)
        return Launch(spec, known.attempt, self._saved(resume) if resume else None, workers)

    def _inherit(self, trial: str, step: int) -> None:
        """Writes what its parent measured at a step that they share as the trial's own, at no cost: one curve a trial."""
        known = self.state.trials[trial]
        point = self.history.curves[known.parent].points.get(step)
        if point is None or not point.suite or not 0 < step <= known.fork_step or known.ended:
            return
        metrics = {k: v for k, v in point.metrics.items() if not k.startswith("perf/")}
        self._write(ReportRow(self.plan.sweep_id, trial, known.attempt, step, budget=self.specs[trial].steps,
                              metrics=metrics, se=point.se, n=point.n, invalid=point.invalid, suite=point.suite,
                              inherited=known.parent))  # fmt: skip

    # ---- what happened to an attempt --------------------------------------------------------------------------------

    def is_current_attempt(self, trial: str, attempt: int) -> bool:
        """False once an attempt is to end: its trial was stopped or paused, or a newer attempt has taken over."""
        known = self.state.trials.get(trial)
        return known is not None and known.status is TrialStatus.RUNNING and known.attempt == attempt

    def report(
        self, trial: str, attempt: int, step: int, metrics: Mapping[str, float], *,
        progress: Mapping[str, float] | None = None, cost: Mapping[str, float] | None = None,
    ) -> Verdict | None:  # fmt: skip
        """Takes the trainer's own numbers; returns the verdict when the trial is not to go on."""
        if not self.is_current_attempt(trial, attempt):
            return None
        good, bad = split_finite(metrics)
        return self._report(ReportRow(self.plan.sweep_id, trial, attempt, step, budget=self.specs[trial].steps,
                                      metrics=good, invalid=bad, progress=progress or {}, cost=cost or {}))  # fmt: skip

    def saved(self, trial: str, attempt: int, checkpoint: Saved) -> None:
        """Takes the news that a checkpoint is whole, and queues it for scoring."""
        known = self.state.trials.get(trial)
        if known is None or attempt != known.attempt or known.status not in (TrialStatus.RUNNING, TrialStatus.PAUSED):
            return
        self._write(CommitRow(self.plan.sweep_id, trial, attempt, checkpoint.step, checkpoint=checkpoint.digest,
                              path=self._inside(checkpoint.path)))  # fmt: skip
        self._request_scores(trial)

    def trained(self, trial: str, attempt: int, *, asked: bool = False) -> None:
        """The training function returned. Without a checkpoint at the budget that was not the end it was meant to be.

        Args:
            asked: it was asked to save and leave, for a pause that may be over by now.
        """
        if not self.is_current_attempt(trial, attempt):
            return
        last = self.state.trials[trial].last()
        if last is not None and last.step >= self.specs[trial].steps:
            self._end_training(trial)
        elif asked or self.is_paused:
            self.suspended(trial, attempt, "the sweep was paused")
        else:
            step = last.step if last else 0
            why = f"training ended without a checkpoint at its budget; the last was at step {step}"
            self.failed(trial, attempt, Failure(FailureKind.USER, "no-metrics", why))

    def failed(self, trial: str, attempt: int, failure: Failure) -> None:
        """The attempt broke. An error of the trial is its end; a lost machine is tried again within `limits.retries`.

        A machine that was taken away, and a storage that is away, do not count against them.
        """
        if not self.is_current_attempt(trial, attempt):
            return
        known, kind = self.state.trials[trial], failure.kind
        damaged = kind is FailureKind.BAD_CHECKPOINT and self._mark_checkpoint_damaged(known, failure.detail)
        if damaged or kind is FailureKind.STORAGE:
            self.suspended(trial, attempt, failure.detail)
        elif kind is FailureKind.OUT_OF_MEMORY and known.out_of_memory:
            self._fail(trial, replace(failure, detail=f"out of memory twice: {failure.detail}; {LESS_MEMORY}"))
        elif not self._may_retry(known, failure):
            self._fail(trial, failure)
        else:
            self._write(ControlRow(self.plan.sweep_id, trial, attempt, who=DRIVER, action=ControlAction.RETRY, failure=kind,
                                   reason=failure.reason, detail=failure.detail))  # fmt: skip

    def _may_retry(self, trial: TrialState, failure: Failure) -> bool:
        if failure.kind is FailureKind.NODE_PREEMPTED:
            return trial.preempted < PREEMPTIONS
        return failure.retryable and trial.lost < self.plan.sweep.limits.retries

    def _mark_checkpoint_damaged(self, trial: TrialState, detail: str) -> bool:
        """Strikes the checkpoint that an attempt could not start from; False when it started from none."""
        begun = trial.started_from
        owners = [t for t in self.state.trials.values() if begun and t.checkpoints.get(begun.step) is not None
                  and t.checkpoints[begun.step].path == begun.path]  # fmt: skip
        if begun is None or not owners:
            return False
        for owner in owners:
            self._write(CommitRow(self.plan.sweep_id, owner.id, owner.attempt, begun.step, path=begun.path, damaged=True,
                                  reason=detail))  # fmt: skip
        return True

    def waits(self, trial: str, attempt: int, reason: str) -> None:
        """An attempt cannot go on for now, but keeps its machines."""
        if self.is_current_attempt(trial, attempt):
            self._write(ControlRow(self.plan.sweep_id, trial, attempt, who=DRIVER, action=ControlAction.WAIT,
                                   reason=reason))  # fmt: skip

    def suspended(self, trial: str, attempt: int, reason: str) -> None:
        """An attempt gave its machines back before its end; the trial goes on later, and nothing counts against it."""
        if self.is_current_attempt(trial, attempt):
            self._write(ControlRow(self.plan.sweep_id, trial, attempt, who=DRIVER, action=ControlAction.YIELD,
                                   reason=reason))  # fmt: skip

    # ---- what people ask for (sweeps.controller.request_handler) ----------------------------------------------------

    @property
    def is_paused(self) -> bool:
        """True from a person's `pause` to their `resume`."""
        return bool(self.state.paused_by)

    def stop(self, trial: str, who: str) -> None:
        """Ends a trial at a person's wish, whatever it does."""
        if not self.state.trials[trial].ended:
            self._end(trial, EndStatus.PRUNED, f"stopped by {who}")

    def control(self, action: ControlAction, who: str, trial: str = "", **keys: Any) -> None:
        """Writes down what a person asked for; it takes effect by this row (`keys`: further ones of `ControlRow`)."""
        self._write(ControlRow(self.plan.sweep_id, trial, action=ControlAction(action), who=who, **keys))

    def checkpoint(self, trial: str, limit: int | None = None) -> Saved | None:
        """Returns a trial's latest checkpoint, not beyond step `limit`."""
        last = self.state.trials[trial].last(limit)
        return self._saved(last) if last is not None else None

    def spec(self, trial: str) -> TrialSpec | None:
        """Returns a trial as its worker sees it; None where there is no such trial."""
        return self.specs.get(trial)

    def describe_tiers(self, rows: Iterable[TierRow]) -> None:
        """Writes down what tiers are for models, where the journal does not say just that already."""
        for row in rows:
            known = self.state.tiers.get(row.key)
            if known is None or known.at(-1) != row.at(-1):
                self._write(row)

    def set_limits(self, limits: LimitsBlock) -> None:
        """Changes what the sweep may cost."""
        self.plan = replace(self.plan, sweep=self.plan.sweep.model_copy(update={"limits": limits}))

    def interrupt(self, who: str, reason: str) -> None:
        """Notes that the sweep was interrupted; open attempts go on in the next driver."""
        self.ending = True
        self.control(ControlAction.INTERRUPT, who, reason=reason)

    # ---- scores -----------------------------------------------------------------------------------------------------

    def next_eval(self) -> EvalJob | None:
        """Returns the next checkpoint to score, or None."""
        return self.evaluations.queue.next()

    def is_score_needed(self, job: EvalJob) -> bool:
        """False once nobody needs the scores of a job any more."""
        return self.evaluations.queue.is_needed(job)

    def scored(
        self, job: EvalJob, metrics: Mapping[str, float], *, se: Mapping[str, float], n: Mapping[str, int],
        suite: str, cost: Mapping[str, float], items: Mapping[str, Any] | None = None,
        parts: Mapping[str, Sequence[str]] | None = None, asked: Mapping[str, Any] | None = None,
    ) -> Verdict | None:  # fmt: skip
        """Takes the scores of a checkpoint; returns the verdict when its trial is not to go on.

        Args:
            items, parts: outcomes item by item of each task, and the tasks behind each metric.
            asked: of an evaluation that ended before all items were asked: how many, `of` how many, and why.
        """
        if not self.evaluations.queue.forget(job) or not self.is_score_needed(job):
            return None
        if mismatch := self.evaluations.suite_mismatch(job, suite):
            self._give_up(job, EvalStatus.FAILED, mismatch, cost)
            return None
        good, bad = split_finite(metrics)
        verdict = self._report(ReportRow(self.plan.sweep_id, job.trial, job.attempt, job.step, metrics=good, se=se, n=n,
                                         invalid=bad, suite=suite, items=items or {}, parts=parts))  # fmt: skip
        # After the scores: cut off between the two rows, a resumed sweep has them and does not score again.
        self._write(EvalRow(self.plan.sweep_id, job.trial, job.attempt, job.step, suite=suite, cost=cost,
                            status=EvalStatus.DONE, asked=asked or {}))  # fmt: skip
        self._give_up_overtaken()
        self._complete_if_scored(job.trial)
        return verdict

    def eval_failed(
        self, job: EvalJob, reason: str, cost: Mapping[str, float] | None = None, *, preempted: bool = False
    ) -> None:
        """An evaluation broke: tried again, then given up; never the end of the trial.

        A machine that was taken away (`preempted`) does not count as a try.
        """
        if job.tries >= EVAL_TRIES and not preempted:
            self._give_up(job, EvalStatus.FAILED, reason, cost)
            return
        self._write(self._eval_failure(job, EvalStatus.FAILED, reason, cost, given_up=False))
        self.evaluations.queue.again(job, counted=not preempted)

    def _give_up(self, job: EvalJob, status: EvalStatus, reason: str, cost: Mapping[str, float] | None = None) -> None:
        """Writes down that a checkpoint will have no scores: its evaluation failed, or it was skipped."""
        self.evaluations.queue.forget(job)
        self._write(self._eval_failure(job, status, reason, cost, given_up=True))
        self._complete_if_scored(job.trial)

    def _eval_failure(
        self, job: EvalJob, status: EvalStatus, reason: str, cost: Mapping[str, float] | None, *, given_up: bool
    ) -> EvalRow:
        return EvalRow(self.plan.sweep_id, job.trial, job.attempt, job.step, cost=cost or {}, status=status, reason=reason,
                       tries=job.tries, given_up=given_up)  # fmt: skip

    def _give_up_overtaken(self) -> None:
        for job, reason in self.evaluations.overtaken():
            self._give_up(job, EvalStatus.SKIPPED, reason)

    def _request_scores(self, trial: str) -> None:
        self.evaluations.request(trial)
        self._give_up_overtaken()

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
        for trial in self.state.with_status(TrialStatus.SCORING):
            self._complete_if_scored(trial.id)
        for trial in self.state.with_status(TrialStatus.PAUSED):
            self._end(trial.id, EndStatus.PRUNED, "paused, and nothing changed in its favour before the sweep ended")
        if not self.state.done:
            self._write(EndRow(self.plan.sweep_id, of=EndOf.SWEEP, status=EndStatus.DONE))
        return True

    def queues(self) -> dict[str, int]:
        """Returns how many trials wait for machines and how many checkpoints for evaluators, or are with them."""
        evaluations = self.evaluations.queue
        return {
            "trials": len(self._queue),
            "evaluations": len(evaluations.waiting),
            "being scored": len(evaluations.running),
        }

    def spent(self) -> dict[str, float]:
        """Returns what the sweep has cost so far: `gpu_s` and `cpu_s` over all attempts and evaluations of all drivers."""
        return self.state.costs.total()

    def over_limit(self, wall_s: float) -> str | None:
        """Returns a sentence when the sweep has used up one of its limits, else None."""
        return limits.exceeded(self.plan.sweep.limits, wall_s, self.spent())

    def checkpoints_to_delete(self, keep: int = 2) -> list[tuple[str, Saved]]:
        """Returns checkpoints that nobody needs: scored, neither among a trial's last `keep` nor its best.

        Looks only at trials with news since the last call.
        """
        goal = self.plan.sweep.goal
        out = [
            (trial, self._saved(checkpoint))
            for trial in sorted(self._touched)
            for checkpoint in retention.superseded(self.state, self.specs[trial], goal, keep)
        ]
        self._touched = {trial for trial, _ in out}  # until all of them are deleted
        return out

    def checkpoint_deleted(self, trial: str, checkpoint: Saved) -> None:
        """Notes that a checkpoint's files are gone."""
        self._write(CommitRow(self.plan.sweep_id, trial, self.state.trials[trial].attempt, checkpoint.step,
                              path=self._inside(checkpoint.path), dropped=True))  # fmt: skip

    def _inside(self, path: str) -> str:
        return inside(path, self.home) or path if self.home else path

    def _saved(self, checkpoint: Checkpoint) -> Saved:
        return Saved(checkpoint.step, address_of(checkpoint.path, self.home), checkpoint.digest)

    # ---- verdicts and ends ------------------------------------------------------------------------------------------

    def _report(self, row: ReportRow) -> Verdict | None:
        return self._judge(row) if self._write(row) else None

    def _judge(self, row: ReportRow) -> Verdict | None:
        """Asks the rule about the trial of a report that was just written, and writes down what is new."""
        for child in self.state.children.get(row.trial, ()) if row.suite else ():
            if self.state.trials[child].attempt and row.step is not None:
                self._inherit(child, row.step)
        known = self.state.trials.get(row.trial)
        if known is None or not known.attempt:
            return None
        if known.status is not TrialStatus.RUNNING and known.id not in self._queue:
            return None  # scores of a trial in the queue count: its attempt broke off, and it may not be worth another
        if row.step is not None and row.step <= known.paused_at:
            return (
                None  # judged before: a trial resumed without a later checkpoint would be paused there again and again
            )
        verdict = self.rule.decide(row.trial)
        if verdict.action is Action.CONTINUE and not self._is_new(verdict, known):
            return None
        self._write(VerdictRow(self.plan.sweep_id, row.trial, known.attempt, row.step, action=verdict.action,
                               phase=verdict.phase, reason=verdict.reason, evidence=_finite(verdict.evidence),
                               seen=self.history.seq))  # fmt: skip
        if verdict.action is Action.STOP:
            self._end(row.trial, EndStatus.PRUNED, verdict.reason)
        return None if verdict.action is Action.CONTINUE else verdict

    def _is_new(self, verdict: Verdict, trial: TrialState) -> bool:
        """True when a verdict changes a trial's phase, or how closely it is looked at."""
        before = trial.verdict.phase if trial.verdict is not None else None
        return verdict.phase != before or is_suspect(verdict.phase, verdict.evidence) != is_close_to_verdict(trial)

    def _end_training(self, trial: str) -> None:
        self._write(EndRow(self.plan.sweep_id, trial, self.state.trials[trial].attempt, self.specs[trial].steps,
                           of=EndOf.TRAINING, status=EndStatus.COMPLETED))  # fmt: skip
        self._request_scores(trial)
        self._complete_if_scored(trial)

    def _complete_if_scored(self, trial: str) -> None:
        known = self.state.trials.get(trial)
        if known is None or known.status is not TrialStatus.SCORING or not self.evaluations.is_complete(trial):
            return
        metric, last = self.plan.sweep.goal.metric, known.curve.points.get(self.specs[trial].steps)
        if last is not None and metric in last.metrics:
            self._end(trial, EndStatus.COMPLETED, "")
        else:
            why = f"trained to its budget, but '{metric}' was never measured there"
            self._fail(trial, Failure(FailureKind.USER, "no-metrics", why))

    def _end(self, trial: str, status: EndStatus, reason: str) -> None:
        known = self.state.trials[trial]
        self._write(EndRow(self.plan.sweep_id, trial, known.attempt, known.curve.last_step, of=EndOf.SCORING,
                           status=status, reason=reason))  # fmt: skip

    def _fail(self, trial: str, failure: Failure) -> None:
        known = self.state.trials[trial]
        self._write(EndRow(self.plan.sweep_id, trial, known.attempt, known.curve.last_step, of=EndOf.SCORING,
                           status=EndStatus.FAILED, failure=failure.kind, reason=failure.reason,
                           detail=failure.detail))  # fmt: skip

    def _finish_last_decision(self, rows: Sequence[Row]) -> None:
        """After a restart: a driver that died between a report and its verdict, or a verdict and its end, left them to us."""
        mine = (r for r in reversed(rows) if not isinstance(r, LeaseRow | TierRow))
        last = next((r for r in mine if not (isinstance(r, ReportRow) and r.inherited)), None)
        if isinstance(last, ReportRow):
            self._judge(last)
        elif isinstance(last, VerdictRow) and last.action is Action.STOP and not self.state.trials[last.trial].ended:
            self._end(last.trial, EndStatus.PRUNED, last.reason)

    # ---- the journal ------------------------------------------------------------------------------------------------

    def _write(self, row: Row) -> bool:
        """Journal first, then everything that follows from the row; False when it says nothing new."""
        if isinstance(row, ReportRow) and not self.history.curve(row.trial).is_news(row):
            return False
        row = self.journal.append(row)
        fresh = self._apply(row, live=True)
        for subscriber in list(self._subscribers):
            subscriber(row)
        return fresh

    def _apply(self, row: Row, *, live: bool) -> bool:
        """Applies a row to the state, and takes into the queue and the search what follows from it.

        Args:
            live: this driver wrote it; else it stands in the journal of a sweep that goes on, and the queue is made after.
        """
        fresh = self.state.apply(row)
        if row.trial in self.state.trials and not (isinstance(row, ReportRow) and not row.suite):
            self._touched.add(row.trial)
        match row:
            case TrialRow():
                self.specs[row.trial] = self.plan.trial(row.config)
                if not live and row.number is not None:
                    self.searcher.restore(Suggestion(row.number, row.config, row.search or {}))
            case ControlRow(refused=False):
                self._apply_control(row, live=live)
            case EndRow(of=EndOf.SCORING) if row.trial in self.state.trials:
                self._tell_search(self.state.trials[row.trial], row.status)
        if live:
            self._queue.apply(row)
        return fresh

    def _apply_control(self, row: ControlRow, *, live: bool) -> None:
        args = row.args or {}
        if row.action is ControlAction.ADD and args.get("trials"):
            self.plan = self.searcher.plan = replace(self.plan, more=self.plan.more + int(args["trials"]))
            self._queue.exhausted = False
        elif row.action is ControlAction.STOP and not row.trial and live:
            self.stopping = row.who or "somebody"
        elif row.action is ControlAction.RETRY and row.trial and live:
            self.evaluations.request(row.trial)  # somebody may have it tried again because its scores failed

    def _tell_search(self, trial: TrialState, status: EndStatus) -> None:
        if trial.row.number is not None:
            metric = self.plan.sweep.goal.metric
            by_step = dict(zip(trial.curve.steps(metric), trial.curve.values(metric), strict=True))
            self.searcher.tell(trial.row.number, Result(status, by_step))

    def _sweep_row(self) -> SweepRow:
        sweep = self.plan.sweep
        return SweepRow(self.plan.sweep_id, name=sweep.name, spec=sweep.to_json(), trials=self.plan.total,
                        version=VERSION, dipsweep=_version())  # fmt: skip


def _finite(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Evidence as it can be written: what is not finite was not measured, so it is absent."""
    return {k: v for k, v in evidence.items() if not (isinstance(v, float) and not math.isfinite(v))}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dipsweep")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
