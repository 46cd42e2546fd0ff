"""What a driver left undone when it died is done by the next one: verdicts, scores, checkpoints that are still needed."""

from __future__ import annotations

import pytest

from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.failures import Failure, FailureKind
from sweeps.journal.writer import MemoryJournal
from sweeps.stopping import Action, NeverStop, StopRule, Verdict
from tests.support.rows import make_row

Y = "transfer/score"
SWEEP = Sweep(name="left", space={"replay": grid(0.1)}, trainer={"steps": 16, "learning_rate": 1e-3})
TRUNK = Sweep(
    name="left",
    space={"steps": grid(8, 16)},
    trainer={"learning_rate": 1e-3, "lr_scheduler_type": "wsd", "warmup_steps": 2},
)


class StopAtFour(StopRule):
    """Stops a trial when its last word is the score of step 4: asked later, it has no opinion."""

    def decide(self, trial: str) -> Verdict:
        last = max(self.history.curves[trial].points, default=0)
        return Verdict(Action.STOP if last == 4 else Action.CONTINUE, f"step {last}")


def controller(sweep: Sweep, journal: MemoryJournal, rule: type[StopRule] = NeverStop) -> SweepController:
    return SweepController(Plan(sweep), journal, rule(sweep.goal))


def score(at: SweepController) -> list[int]:
    """Scores all that waits; returns at which steps."""
    steps = []
    while (job := at.next_eval()) is not None:
        at.scored(job, {Y: 0.5}, se={Y: 0.1}, n={Y: 10}, suite="s@1", cost={})
        steps.append(job.step)
    return steps


@pytest.mark.parametrize("cut", ["report", "verdict"])
def test_a_verdict_and_an_end_that_were_owed_are_given(cut: str):
    journal = MemoryJournal()
    first = controller(SWEEP, journal, StopAtFour)
    launch = first.next()
    assert launch is not None
    first.report(launch.spec.id, 1, 4, {Y: 0.5})
    rows = journal.rows()
    last = max(i for i, r in enumerate(rows) if r.kind == cut)
    again = controller(SWEEP, left := MemoryJournal(rows[: last + 1]), StopAtFour)
    assert [r.kind for r in left.rows()] == [r.kind for r in rows]
    score(again)  # of the base model
    assert again.finish_if_done()
    assert [c.state for c in again.history.trials()] == ["pruned"]


def test_a_score_that_comes_before_its_trial_goes_on_is_judged_too():
    journal = MemoryJournal()
    first = controller(SWEEP, journal, StopAtFour)
    launch = first.next()
    assert launch is not None
    first.saved(launch.spec.id, 1, Saved(4, "/4", "d"))
    again = controller(SWEEP, journal, StopAtFour)
    assert 4 in score(again)
    assert [c.state for c in again.history.trials()] == ["pruned"]
    assert again.next() is None


def test_steps_that_are_trained_anew_after_a_damaged_checkpoint_are_scored_anew():
    journal = MemoryJournal()
    at = controller(SWEEP, journal)
    launch = at.next()
    assert launch is not None
    trial, snapshots = launch.spec.id, launch.spec.snapshots
    early, late = snapshots[1], snapshots[2]
    for step in (early, late):
        at.saved(trial, 1, Saved(step, f"/{step}", "d"))
    score(at)
    at.failed(trial, 1, Failure(FailureKind.WORKER_LOST, "lost"))
    second = at.next()
    assert second is not None
    assert second.resume is not None
    assert second.resume.step == late
    at.failed(trial, 2, Failure(FailureKind.BAD_CHECKPOINT, "bad-checkpoint", "its sha256 does not match"))
    third = at.next()
    assert third is not None
    assert third.resume is not None
    assert third.resume.step == early
    at.saved(trial, 3, Saved(late, "/3", "d"))
    assert score(at) == [late]
    assert at.history.curves[trial].steps(Y) == [early, late]


def test_late_scores_of_a_superseded_attempt_do_not_stand_for_the_new_one():
    at = controller(SWEEP, MemoryJournal())
    launch = at.next()
    assert launch is not None
    trial, step = launch.spec.id, launch.spec.snapshots[1]
    at.saved(trial, 1, Saved(step, "/1", "d"))
    score_of_base = at.next_eval()
    old = at.next_eval()
    assert score_of_base is not None
    assert old is not None
    at.failed(trial, 1, Failure(FailureKind.WORKER_LOST, "lost"))
    assert at.next() is not None
    at.failed(trial, 2, Failure(FailureKind.BAD_CHECKPOINT, "bad-checkpoint", "its sha256 does not match"))
    assert at.next() is not None
    at.scored(old, {Y: 0.9}, se={}, n={}, suite="s@1", cost={})
    at.saved(trial, 3, Saved(step, "/3", "d"))
    assert step in score(at)


def test_a_fork_is_kept_until_its_branch_has_a_checkpoint_of_its_own():
    journal = MemoryJournal()
    at = controller(TRUNK, journal)
    trunk = at.next()
    assert trunk is not None
    for step in sorted(trunk.spec.saves):
        at.saved(trunk.spec.id, 1, Saved(step, f"/{step}", "d"))
    at.trained(trunk.spec.id, 1)
    score(at)
    branch = at.next()
    assert branch is not None
    assert branch.resume is not None
    fork = branch.resume.step
    assert fork not in gone(at)
    again = controller(TRUNK, journal)  # the branch died before its first checkpoint
    assert fork not in gone(again)
    once_more = again.next()
    assert once_more is not None
    assert once_more.resume == branch.resume
    again.saved(once_more.spec.id, 2, Saved(8, "/b/8", "d"))
    again.trained(once_more.spec.id, 2)
    score(again)
    assert fork not in gone(again)  # a trial that the search has yet to name may begin there
    assert again.next() is None
    assert fork in gone(again)


@pytest.mark.parametrize("at_best", [True, False])
def test_the_best_of_a_branch_is_kept_where_its_trunk_made_it(at_best: bool):
    more = {"objective": {"at": "best"}} if at_best else {}
    trunk_of = {"space": {"steps": grid(10, 20)}, "trainer": {**TRUNK.trainer.model_dump(), "decay": 0.2}}
    definition = Sweep(name="left", evaluation={"at": [2, 4, 6, 8, 12, 16, 18]}, **trunk_of, **more)
    at = controller(definition, MemoryJournal())
    trunk = at.next()
    assert trunk is not None
    scores = {2: 0.9, 16: 0.95}
    for step in sorted(trunk.spec.saves):
        at.saved(trunk.spec.id, 1, Saved(step, f"/{step}", "d"))
    while (job := at.next_eval()) is not None:
        at.scored(job, {Y: scores.get(job.step, 0.5)}, se={Y: 0.1}, n={Y: 10}, suite="s@1", cost={})
        assert not {2, 16} & gone(at) or job.step < 16
    at.trained(trunk.spec.id, 1)
    assert 2 not in gone(at)  # the branch has yet to be named
    branch = at.next()
    assert branch is not None
    assert branch.resume is not None
    at.saved(branch.spec.id, 1, Saved(10, "/b/10", "d"))
    at.trained(branch.spec.id, 1)
    score(at)
    assert at.next() is None
    assert at.history.curves[branch.spec.id].points[2].metrics[Y] == 0.9
    assert not {2, 16} & gone(at)
    assert {4, 6, 12} <= gone(at)


def test_the_best_checkpoint_that_meets_the_constraints_is_kept():
    constraint = {"metric": "safety/score", "at_least": 0.8}
    definition = Sweep(**{**SWEEP.to_json(), "objective": {"at": "best"}, "constraints": [constraint],
                          "evaluation": {"at": [2, 4, 6, 8, 10, 12]}})  # fmt: skip
    at = controller(definition, MemoryJournal())
    launch = at.next()
    assert launch is not None
    for step in sorted(launch.spec.saves):
        at.saved(launch.spec.id, 1, Saved(step, f"/{step}", "d"))
    while (job := at.next_eval()) is not None:
        score_there = {2: 0.6, 4: 0.9}.get(job.step, 0.5)
        metrics = {Y: score_there, "safety/score": 0.5 if job.step == 4 else 0.9}
        at.scored(job, metrics, se={}, n={}, suite="s@1", cost={})
    at.trained(launch.spec.id, 1)
    assert not {2, 4} & gone(at)
    assert {6, 8, 10} <= gone(at)


def gone(at: SweepController) -> set[int]:
    return {c.step for _, c in at.checkpoints_to_delete()}


def test_a_report_of_a_trial_that_has_ended_is_owed_no_verdict():
    journal = MemoryJournal()
    at = controller(SWEEP, journal)
    launch = at.next()
    assert launch is not None
    at.stop(launch.spec.id, "ana")
    journal.append(make_row("report", SWEEP.id, launch.spec.id, 1, 4, metrics={Y: 0.5}))
    before = len(journal.rows())
    controller(SWEEP, journal, StopAtFour)
    assert len(journal.rows()) == before
