"""Which checkpoints are to be scored: the queue of evaluation jobs, kept in step with what the journal says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.config.trial import TrialSpec
from sweeps.controller.evaluation.early_stopping import early_end
from sweeps.controller.evaluation.queue import ScoreQueue, TrialEvalState, is_suspect
from sweeps.journal.rows import base_trial
from sweeps.journal.state import SweepState, TrialState


def unscored(trial: TrialState, spec: TrialSpec) -> list[int]:
    """Returns the steps of a trial that are to be scored, have a checkpoint, and have no scores yet."""
    done = trial.scored | trial.given_up | trial.deleted
    return sorted(s for s in trial.checkpoints if s in spec.snapshots and s not in done)


class Evaluations:
    """The evaluations of one sweep that wait or run.

    Args:
        plan: the sweep's. state: what is known of it. specs: its trials by id.
        address: from a checkpoint's path in the journal to where its files lie.
    """

    def __init__(
        self, plan: Plan, state: SweepState, specs: Mapping[str, TrialSpec], address: Callable[[str], str]
    ) -> None:
        self.plan, self.state, self.specs, self.address = plan, state, specs, address
        self.queue = ScoreQueue(self._eval_state)
        self._bases: set[str] = set()

    def request_base(self, spec: TrialSpec) -> None:
        """Queues the base model of a trial, unless it has scores or is queued already."""
        model = str(spec.config["model"])
        if model in self._bases:
            return
        self._bases.add(model)
        trial = base_trial(model)
        scored = self.state.history.base.get(trial)
        if scored is None or not scored.points:
            self.queue.add(EvalJob(trial, 0, 0, spec.model.path, model, spec.evaluation))

    def request(self, trial: str) -> None:
        """Queues what is to be scored of a trial."""
        known, spec = self.state.trials[trial], self.specs[trial]
        for step in unscored(known, spec):
            saved = known.checkpoints[step]
            self.queue.add(
                EvalJob(
                    trial,
                    known.attempt,
                    step,
                    self.address(saved.path),
                    str(spec.config["model"]),
                    spec.evaluation,
                    order=saved.seq,
                    early=early_end(self.plan.sweep, spec, step),
                    digest=saved.digest,
                )
            )

    def is_complete(self, trial: str) -> bool:
        """True when nothing of a trial is left to be scored."""
        return not unscored(self.state.trials[trial], self.specs[trial]) and not self.queue.open(trial)

    def overtaken(self) -> list[tuple[EvalJob, str]]:
        """Returns the jobs to give up because more wait than the evaluators will get to, each with the reason."""
        evaluation = self.plan.sweep.evaluation
        jobs, waiting = self.queue.overtaken(evaluation.backlog * evaluation.workers), len(self.queue.waiting)
        return [
            (job, f"{waiting - i} checkpoints wait, and step {max(self.state.trials[job.trial].scored)} has scores")
            for i, job in enumerate(jobs)
        ]

    def suite_mismatch(self, job: EvalJob, suite: str) -> str | None:
        """Returns what is wrong when scores are of another suite than those that a curve and its base have already."""
        known = self.state.history.suite(job.trial)
        if known in ("", suite):
            return None
        return (
            f"these scores are of suite {suite}, the sweep's are of {known}; go on with the version that began the "
            "sweep, or rename the sweep"
        )

    def _eval_state(self, job: EvalJob) -> TrialEvalState | None:
        trial = self.state.trials.get(job.trial)
        if trial is None:
            return None
        spec = self.specs[job.trial]
        return TrialEvalState(spec.snapshots, max(trial.scored, default=0), is_close_to_verdict(trial), trial.ended)


def is_close_to_verdict(trial: TrialState) -> bool:
    """True when the stop rule suspects a dip in a trial, or is close to a decision on it."""
    return trial.verdict is not None and is_suspect(trial.verdict.phase, trial.verdict.evidence)
