"""Scores that come late, twice, out of order, or not at the first try give the curve that they give in order."""

from __future__ import annotations

import random

import pytest

from sweeps import Sweep, grid
from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.controller.evaluation.queue import EVAL_TRIES
from sweeps.failures import Failure, FailureKind
from sweeps.journal.codec import parse
from sweeps.journal.history import Curve
from sweeps.journal.rows import EvalRow
from sweeps.journal.writer import MemoryJournal
from sweeps.stopping import NeverStop
from tests.support.fakes import dip_curve

SWEEP = Sweep(name="late", space={"replay": grid(0.1, 0.2)}, trainer={"steps": 64})


def trained() -> tuple[SweepController, list[EvalJob]]:
    """Two trials whose training is over, and the evaluations that were asked for."""
    controller = SweepController(Plan(SWEEP), MemoryJournal(), NeverStop(SWEEP.goal))
    while (launch := controller.next()) is not None:
        for step in launch.spec.snapshots:
            controller.report(launch.spec.id, 1, step, {"train/loss": 1 / step})
            controller.saved(launch.spec.id, 1, Saved(step, f"/{launch.spec.id}/{step}", f"sha256:{step}"))
        controller.trained(launch.spec.id, 1)
    return controller, list(iter(controller.next_eval, None))


def deliver(controller: SweepController, job: EvalJob) -> None:
    value = 0.9 if job.step == 0 else dip_curve(job.step, 64, 0.5, 0.95)
    controller.scored(
        job, {"transfer/score": value}, se={"transfer/score": 0.02}, n={}, suite="fake@1", cost={"cpu_s": 1}
    )


def points(curve: Curve) -> dict[int, tuple[dict[str, float], dict[str, float], str]]:
    return {step: (p.metrics, p.se, p.suite) for step, p in sorted(curve.points.items())}


def in_order() -> dict[str, object]:
    controller, jobs = trained()
    for job in sorted(jobs, key=lambda job: (job.trial, job.step)):
        deliver(controller, job)
    assert controller.finish_if_done()
    return {c.trial: (points(c), c.state) for c in controller.history.trials()}


@pytest.mark.parametrize("seed", range(20))
def test_late_doubled_shuffled_and_lost_scores_give_the_same_curves(seed):
    draw = random.Random(seed)
    controller, jobs = trained()
    draw.shuffle(jobs)
    late = [(job, draw.random()) for job in jobs]
    mail = [(job, draw.random(), "scores") for job, _ in late]
    mail += [(job, draw.random(), "scores") for job in draw.sample(jobs, 5)]  # delivered twice
    mail.sort(key=lambda letter: letter[1])
    lost = draw.choice([job for job, _, _ in mail])
    mail = [letter for letter in mail if letter[0] is not lost]
    for job, _, _ in mail:
        deliver(controller, job)
    controller.eval_failed(
        lost, Failure(FailureKind.WORKER_CRASHED, "lost", "ActorDiedError: the evaluator was killed")
    )
    assert not controller.finish_if_done()
    again = controller.next_eval()
    assert again is not None
    assert (again.key, again.tries) == (lost.key, 2)
    deliver(controller, again)
    assert controller.finish_if_done()
    assert {c.trial: (points(c), c.state) for c in controller.history.trials()} == in_order()


def test_a_trial_whose_training_is_over_ends_with_its_last_score_and_keeps_what_is_not_scored():
    controller, jobs = trained()
    trial = next(controller.history.trials())
    own = [job for job in jobs if job.trial == trial.trial]
    for job in own[:-1]:
        deliver(controller, job)
        kept = {s.step for t, s in controller.checkpoints_to_delete() if t == trial.trial}
        assert not kept & {job.step for job in own if job.step not in trial.steps("transfer/score")}
        assert trial.state == "scoring"
    deliver(controller, own[-1])
    assert trial.state == "completed"


def test_scores_that_come_twice_are_written_and_paid_for_once():
    controller, jobs = trained()
    for _ in range(2):
        deliver(controller, jobs[-1])
    rows = [r for r in controller.journal.rows() if r.step == jobs[-1].step and r.trial == jobs[-1].trial]
    assert sum(r.kind == "report" and bool(r.suite) for r in rows) == 1
    assert controller.spent()["cpu_s"] == 1


@pytest.mark.parametrize("kind", [FailureKind.NODE_PREEMPTED, FailureKind.STORAGE])
def test_an_evaluation_that_went_with_its_machine_or_its_storage_is_no_try(kind):
    controller, jobs = trained()
    job = jobs[-1]
    for _ in range(2 * EVAL_TRIES):
        controller.eval_failed(job, Failure(kind, "taken away", "ActorDiedError: its node has died"))
        again = controller.next_eval()
        assert again is not None
        assert (again.key, again.tries) == (job.key, 1)
        job = again
    deliver(controller, job)
    assert controller.history.curves[job.trial].points[job.step].suite


def test_what_a_broken_evaluation_cost_is_counted():
    controller, jobs = trained()
    controller.eval_failed(jobs[0], Failure(FailureKind.USER, "error", "TimeoutError: over the limit"), {"gpu_s": 30.0})
    again = controller.next_eval()
    assert again is not None
    deliver(controller, again)
    assert controller.spent() == {"gpu_s": 30.0, "cpu_s": 1.0}


def test_a_row_of_a_broken_evaluation_names_the_kind_of_failure_and_rows_before_that_still_read():
    controller, jobs = trained()
    controller.eval_failed(jobs[0], Failure(FailureKind.OUT_OF_MEMORY, "oom", "CUDA out of memory"))
    row = controller.journal.rows()[-1]
    assert isinstance(row, EvalRow)
    assert (row.failure, row.reason, row.given_up) == (FailureKind.OUT_OF_MEMORY, "CUDA out of memory", False)
    told = row.to_json()
    assert parse(told) == row
    before = parse({k: v for k, v in told.items() if k != "failure"})
    assert isinstance(before, EvalRow)
    assert (before.failure, before.reason, before.tries) == (None, row.reason, row.tries)
