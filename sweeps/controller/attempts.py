"""What happens to an attempt: it starts, reports, saves checkpoints, ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sweeps.config.shared_prefix import same_until
from sweeps.config.trial import Saved
from sweeps.controller.branches import has_begun
from sweeps.controller.launch import Launch
from sweeps.controller.record import SweepRecord
from sweeps.controller.scores import Scores
from sweeps.controller.verdicts import Verdicts
from sweeps.failures import Failure, FailureKind
from sweeps.journal.rows import (
    AttemptRow,
    CommitRow,
    ControlRow,
    ReportRow,
    split_finite,
)
from sweeps.journal.state import TrialState, reserved
from sweeps.journal.vocabulary import (
    DRIVER,
    ControlAction,
    TrialStatus,
)
from sweeps.stopping.base import Verdict

LESS_MEMORY: Final = (
    "lower batch_tokens or max_length, set pack_tokens or gradient_checkpointing, or give the model more workers"
)
PREEMPTIONS: Final = 100
"""Machines taken away are nobody's fault; a trial that lost this many will not end by itself."""


class Attempts:
    """Starts attempts, and takes what happened to them."""

    def __init__(self, record: SweepRecord, verdicts: Verdicts, scores: Scores) -> None:
        self.record, self.verdicts, self.scores = record, verdicts, scores

    def launch(self, trial: str, workers: int, *, alone: bool = False) -> Launch:
        """Starts an attempt, from the trial's last checkpoint or its parent's; `alone`: its process has the machine to itself."""
        known, spec = self.record.state.trials[trial], self.record.specs[trial]
        spec = replace(spec, model=spec.model.alone) if alone else spec
        parent = self.record.state.trials.get(known.parent)
        resume, branched = known.last(), False
        if resume is None and parent is not None:
            resume, branched = parent.last(known.fork_step), True
        step = resume.step if resume else 0
        self.record.write(
            AttemptRow(
                self.record.sweep_id,
                trial,
                known.attempt + 1,
                step,
                budget=spec.steps,
                workers=workers,
                gpus=spec.model.gpus(workers) or None,
                parent=known.parent if branched else "",
                fork_step=step if branched else None,
            )
        )
        self.wake_branches(known)
        if branched:
            for step in sorted(self.record.state.history.curves[known.parent].points):
                self.verdicts.inherit(trial, step)
        self.record.evaluations.request_base(spec)
        return Launch(spec, known.attempt, self.record.saved(resume) if resume else None, workers)

    def wake_branches(self, trunk: TrialState) -> None:
        """Lets the branches wait for a trunk again that were paused with it before they began, where it goes on, or had come to
        their fork: the news of that may come after the verdict."""
        last = trunk.last()
        for child in self.record.state.children.get(trunk.id, ()):
            branch = self.record.state.trials[child]
            if branch.status is not TrialStatus.PAUSED or has_begun(branch):
                continue
            if trunk.status is TrialStatus.RUNNING:
                why = f"its trunk {trunk.id} goes on; it begins where that reaches step {branch.fork_step}"
            elif last is not None and last.step >= branch.fork_step:
                why = f"its trunk {trunk.id} had come to step {last.step}; it begins at step {branch.fork_step}"
            else:
                continue
            self.record.write(
                ControlRow(self.record.sweep_id, child, who=DRIVER, action=ControlAction.YIELD, reason=why)
            )

    def lost_start(self, trial: str) -> str:
        """Returns why a trial cannot begin where it was asked to, as one sentence; empty where it can.

        A branch that begins earlier than planned repeats steps of its trunk, and is the same run. A warm clone, which has other
        settings than its parent, would be another experiment under the same id.
        """
        known = self.record.state.trials[trial]
        parent, fork = self.record.state.trials.get(known.parent), known.row.fork_step
        if parent is None or not fork or known.last() is not None:
            return ""
        start = parent.last(fork)
        if start is not None and start.step == fork:
            return ""
        if same_until(self.record.specs[trial].config, self.record.specs[parent.id].config, fork):
            return ""
        return (
            f"it begins from step {fork} of {parent.id}, whose checkpoint is deleted or damaged; "
            "a new clone can begin from one that is kept"
        )

    def is_current(self, trial: str, attempt: int) -> bool:
        """False once an attempt is to end: its trial was stopped or paused, or a newer attempt has taken over."""
        known = self.record.state.trials.get(trial)
        return known is not None and known.status is TrialStatus.RUNNING and known.attempt == attempt

    def report(
        self,
        trial: str,
        attempt: int,
        step: int,
        metrics: Mapping[str, float],
        *,
        progress: Mapping[str, float] | None = None,
        cost: Mapping[str, float] | None = None,
    ) -> Verdict | None:
        """Takes the trainer's own numbers; returns the verdict when the trial is not to go on.

        Args:
            cost: as the workers measured it (`sweeps.config.trial.Hooks`); the row has what they hold of GPUs.
        """
        if not self.is_current(trial, attempt):
            return None
        good, bad = split_finite(metrics)
        return self.verdicts.report(
            ReportRow(
                self.record.sweep_id,
                trial,
                attempt,
                step,
                budget=self.record.specs[trial].steps,
                metrics=good,
                invalid=bad,
                progress=progress or {},
                cost=reserved(cost or {}, self.record.state.trials[trial].gpus_each),
            )
        )

    def saved(self, trial: str, attempt: int, checkpoint: Saved) -> None:
        """Takes the news that a checkpoint is whole, and queues it for scoring."""
        known = self.record.state.trials.get(trial)
        if known is None or attempt != known.attempt or known.status not in (TrialStatus.RUNNING, TrialStatus.PAUSED):
            return
        self.record.write(
            CommitRow(
                self.record.sweep_id,
                trial,
                attempt,
                checkpoint.step,
                checkpoint=checkpoint.digest,
                path=self.record.inside(checkpoint.path),
            )
        )
        if known.status is TrialStatus.PAUSED:
            self.wake_branches(known)
        self.scores.request(trial)

    def trained(self, trial: str, attempt: int, *, asked: bool = False) -> None:
        """The training function returned. Without a checkpoint at the budget that was not the end it was meant to be.

        Args:
            asked: it was asked to save and leave, for a pause that may be over by now.
        """
        if not self.is_current(trial, attempt):
            return
        last = self.record.state.trials[trial].last()
        if last is not None and last.step >= self.record.specs[trial].steps:
            self.scores.end_training(trial)
        elif asked or self.record.state.paused_by:
            self.suspended(trial, attempt, "the sweep was paused")
        else:
            step = last.step if last else 0
            why = f"training ended without a checkpoint at its budget; the last was at step {step}"
            self.failed(trial, attempt, Failure(FailureKind.USER, "no-metrics", why))

    def failed(self, trial: str, attempt: int, failure: Failure) -> None:
        """The attempt broke. An error of the trial is its end; a lost machine is tried again within `limits.retries`.

        A machine that was taken away, and a storage that is away, do not count against them.
        """
        if not self.is_current(trial, attempt):
            return
        known, kind = self.record.state.trials[trial], failure.kind
        damaged = kind is FailureKind.BAD_CHECKPOINT and self._mark_checkpoint_damaged(known, failure.detail)
        if damaged or kind is FailureKind.STORAGE:
            self.suspended(trial, attempt, failure.detail)
        elif kind is FailureKind.OUT_OF_MEMORY and known.out_of_memory:
            self.verdicts.fail(trial, replace(failure, detail=f"out of memory twice: {failure.detail}; {LESS_MEMORY}"))
        elif not self._may_retry(known, failure):
            self.verdicts.fail(trial, failure)
        else:
            self.record.write(
                ControlRow(
                    self.record.sweep_id,
                    trial,
                    attempt,
                    who=DRIVER,
                    action=ControlAction.RETRY,
                    failure=kind,
                    reason=failure.reason,
                    detail=failure.detail,
                )
            )

    def _may_retry(self, trial: TrialState, failure: Failure) -> bool:
        if failure.kind is FailureKind.NODE_PREEMPTED:
            return trial.preempted < PREEMPTIONS
        return failure.retryable and trial.lost < self.record.plan.sweep.limits.retries

    def _mark_checkpoint_damaged(self, trial: TrialState, detail: str) -> bool:
        """Marks the checkpoint that an attempt could not start from as damaged; False when it started from none."""
        begun = trial.started_from
        owners = [
            t
            for t in self.record.state.trials.values()
            if begun and t.checkpoints.get(begun.step) is not None and t.checkpoints[begun.step].path == begun.path
        ]
        if begun is None or not owners:
            return False
        for owner in owners:
            self.record.write(
                CommitRow(
                    self.record.sweep_id,
                    owner.id,
                    owner.attempt,
                    begun.step,
                    path=begun.path,
                    damaged=True,
                    reason=detail,
                )
            )
        return True

    def waits(self, trial: str, attempt: int, reason: str) -> None:
        """An attempt cannot go on for now, but keeps its machines."""
        if self.is_current(trial, attempt):
            self.record.write(
                ControlRow(self.record.sweep_id, trial, attempt, who=DRIVER, action=ControlAction.WAIT, reason=reason)
            )

    def suspended(self, trial: str, attempt: int, reason: str) -> None:
        """An attempt released its machines before its end; the trial is resumed later, and this is no failure."""
        if self.is_current(trial, attempt):
            self.record.write(
                ControlRow(self.record.sweep_id, trial, attempt, who=DRIVER, action=ControlAction.YIELD, reason=reason)
            )
