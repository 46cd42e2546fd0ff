"""Outcomes of evaluations: scores, failures, checkpoints that are skipped, and trials that are complete by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeps.config.eval_job import EvalJob
from sweeps.controller.evaluation.queue import EVAL_TRIES
from sweeps.controller.record import SweepRecord
from sweeps.controller.verdicts import Verdicts
from sweeps.failures import Failure, FailureKind
from sweeps.journal.rows import (
    EndRow,
    EvalRow,
    ReportRow,
    split_finite,
)
from sweeps.journal.vocabulary import (
    EndOf,
    EndStatus,
    EvalStatus,
    TrialStatus,
)
from sweeps.stopping.base import Verdict


class Scores:
    """Takes the outcomes of evaluations."""

    def __init__(self, record: SweepRecord, verdicts: Verdicts) -> None:
        self.record, self.verdicts = record, verdicts

    def request(self, trial: str) -> None:
        """Queues what is to be scored of a trial."""
        self.record.evaluations.request(trial)
        self._give_up_overtaken()

    def is_needed(self, job: EvalJob) -> bool:
        """False once the scores of a job are not needed any more."""
        return self.record.evaluations.queue.is_needed(job)

    def scored(
        self,
        job: EvalJob,
        metrics: Mapping[str, float],
        *,
        se: Mapping[str, float],
        n: Mapping[str, int],
        suite: str,
        cost: Mapping[str, float],
        items: Mapping[str, Any] | None = None,
        parts: Mapping[str, Sequence[str]] | None = None,
        asked: Mapping[str, Any] | None = None,
        seconds: float | None = None,
        cached: bool = False,
    ) -> Verdict | None:
        """Takes the scores of a checkpoint; returns the verdict when its trial is not to go on.

        Args:
            items, parts: outcomes item by item of each task, and the tasks behind each metric.
            asked: of an evaluation that ended before all items were asked: how many, `of` how many, and why.
            cost: of what its evaluator holds. seconds: wall clock of one that answered on a GPU. cached: they were looked up.
        """
        if not self.record.evaluations.queue.forget(job) or not self.is_needed(job):
            return None
        if mismatch := self.record.evaluations.suite_mismatch(job, suite):
            row = self._without_scores(job, EvalStatus.FAILED, mismatch)
            self._give_up(job, replace(row, failure=FailureKind.USER, cost=cost, seconds=seconds))
            return None
        good, bad = split_finite(metrics)
        verdict = self.verdicts.report(
            ReportRow(
                self.record.sweep_id,
                job.trial,
                job.attempt,
                job.step,
                metrics=good,
                se=se,
                n=n,
                invalid=bad,
                suite=suite,
                items=items or {},
                parts=parts,
            )
        )
        # After the scores: cut off between the two rows, a resumed sweep has them and does not score again.
        self.record.write(
            EvalRow(
                self.record.sweep_id,
                job.trial,
                job.attempt,
                job.step,
                suite=suite,
                cost=cost,
                status=EvalStatus.DONE,
                asked=asked or {},
                seconds=seconds,
                cached=cached or None,
            )
        )
        self._give_up_overtaken()
        self.complete_if_scored(job.trial)
        return verdict

    def failed(self, job: EvalJob, failure: Failure, cost: Mapping[str, float] | None = None) -> None:
        """An evaluation broke: tried again, then given up; never the end of the trial.

        A machine or a storage that was taken away does not count as a try (`Failure.counts`).
        """
        given_up = failure.counts and job.tries >= EVAL_TRIES
        row = self._without_scores(job, EvalStatus.FAILED, failure.detail or failure.reason, given_up=given_up)
        row = replace(row, failure=failure.kind, cost=cost or {})
        if given_up:
            self._give_up(job, row)
        else:
            self.record.write(row)
            self.record.evaluations.queue.again(job, counted=failure.counts)

    def _give_up(self, job: EvalJob, row: EvalRow) -> None:
        """Writes down that a checkpoint will have no scores: its evaluation failed, or it was skipped."""
        self.record.evaluations.queue.forget(job)
        self.record.write(row)
        self.complete_if_scored(job.trial)

    def _without_scores(self, job: EvalJob, status: EvalStatus, reason: str, *, given_up: bool = True) -> EvalRow:
        return EvalRow(
            self.record.sweep_id,
            job.trial,
            job.attempt,
            job.step,
            status=status,
            reason=reason,
            tries=job.tries,
            given_up=given_up,
        )

    def _give_up_overtaken(self) -> None:
        for job, reason in self.record.evaluations.overtaken():
            self._give_up(job, self._without_scores(job, EvalStatus.SKIPPED, reason))

    def end_training(self, trial: str) -> None:
        """Notes that a trial was trained to its budget; it is complete once its scores are there."""
        self.record.write(
            EndRow(
                self.record.sweep_id,
                trial,
                self.record.state.trials[trial].attempt,
                self.record.specs[trial].steps,
                of=EndOf.TRAINING,
                status=EndStatus.COMPLETED,
            )
        )
        self.request(trial)
        self.complete_if_scored(trial)

    def complete_if_scored(self, trial: str) -> None:
        """Ends a trained trial whose scores are all there, or will never be."""
        known = self.record.state.trials.get(trial)
        if known is None or known.status is not TrialStatus.SCORING or not self.record.evaluations.is_complete(trial):
            return
        metric, last = self.record.plan.sweep.goal.metric, known.curve.points.get(self.record.specs[trial].steps)
        if last is not None and metric in last.metrics:
            self.verdicts.end(trial, EndStatus.COMPLETED, "")
        else:
            why = f"trained to its budget, but '{metric}' was never measured there"
            self.verdicts.fail(trial, Failure(FailureKind.USER, "no-metrics", why))
