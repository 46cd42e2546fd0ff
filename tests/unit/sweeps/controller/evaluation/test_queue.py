"""Which checkpoint is scored next, and which never will be."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps import Sweep, grid
from sweeps.config.plan import Plan, snapshot_steps
from sweeps.config.trial import EvalSpec, Saved
from sweeps.controller.controller import SweepController
from sweeps.controller.evaluation.queue import (
    EvalJob,
    ScoreQueue,
    TrialEvalState,
    Urgency,
    is_suspect,
    milestones,
    overtaken,
    urgency,
)
from sweeps.journal.writer import MemoryJournal
from sweeps.stopping import Action, NeverStop, Phase, Verdict
from tests.support.fakes import FakeScores

LOG = snapshot_steps("log", 640)


def job(step: int, trial: str = "t-1", order: int = -1, tries: int = 1) -> EvalJob:
    return EvalJob(trial, 1, step, f"/step-{step}", "tiny-s", EvalSpec("mini"), tries, order if order >= 0 else step)


@pytest.mark.parametrize(
    ("snapshots", "expected"),
    [
        (LOG, {10, 20, 40, 80, 160, 320, 640}),
        (snapshot_steps({"every": 10}, 640), {10, 20, 40, 80, 160, 320, 640}),
        (snapshot_steps({"every": 100}, 400), {100, 200, 400}),
        (snapshot_steps([3, 5, 90, 100], 100), {3, 5, 90, 100}),  # the nearest to 100, 50, 25, 12.5, 6.25, 3.125
        (snapshot_steps([], 7), {7}),
    ],
)
def test_milestones_are_the_log_spaced_part_of_any_grid(snapshots, expected):
    assert milestones(snapshots) == expected


@pytest.mark.parametrize(
    ("step", "eval_state", "expected"),
    [
        (0, None, Urgency.BASE),
        (640, TrialEvalState(LOG), Urgency.LAST),
        (40, TrialEvalState(LOG), Urgency.MILESTONE),
        (40, TrialEvalState(LOG, suspect=True), Urgency.MILESTONE),
        (57, TrialEvalState(LOG, suspect=True), Urgency.SUSPECT),
        (57, TrialEvalState(LOG), Urgency.SPARE),
        (57, TrialEvalState(LOG, scored=640), Urgency.SPARE),
    ],
)
def test_how_urgent_a_checkpoint_is(step, eval_state, expected):
    assert urgency(job(step), eval_state) is expected


@pytest.mark.parametrize(
    ("phase", "evidence", "expected"),
    [
        (Phase.BEFORE, {}, False),
        (Phase.DIP, {}, True),
        (Phase.RECOVERY, {}, True),
        (Phase.COLLAPSE, {}, True),
        (Phase.PLATEAU, {"p_top": 0.9, "bar": 0.05}, False),
        (Phase.PLATEAU, {"p_top": 0.14, "bar": 0.05}, True),
        (Phase.BEFORE, {"held": True}, True),
        (Phase.PLATEAU, {"p_top": 0.14}, False),
    ],
)
def test_a_dip_or_odds_near_their_bar_ask_for_a_closer_look(phase, evidence, expected):
    assert is_suspect(phase, evidence) is expected


def test_the_queue_hands_out_the_most_urgent_first_and_the_oldest_of_a_class():
    standings = {"t-1": TrialEvalState(LOG), "t-2": TrialEvalState(LOG, suspect=True)}
    queue = ScoreQueue(lambda j: standings.get(j.trial))
    for number, (trial, step) in enumerate(
        [("t-1", 14), ("t-1", 20), ("t-2", 14), ("t-2", 10), ("t-1", 640), ("t-1", 10), ("base-tiny-s", 0)]
    ):
        queue.add(job(step, trial, order=number))
    out = [(j.trial, j.step) for j in iter(queue.next, None)]
    assert out == [
        ("base-tiny-s", 0), ("t-1", 640), ("t-1", 20), ("t-2", 10), ("t-1", 10), ("t-2", 14), ("t-1", 14),
    ]  # fmt: skip
    assert queue.open("t-2")
    for trial, step in out:
        queue.forget(job(step, trial))
    assert not queue


def test_a_job_is_queued_once_and_a_broken_one_lets_its_equals_go_first():
    queue = ScoreQueue(lambda j: TrialEvalState(LOG))
    for step in (10, 10, 20):
        queue.add(job(step))
    first = queue.next()
    assert first == job(10)
    queue.add(job(10))  # it is being scored
    queue.again(first)
    assert [(j.step, j.tries) for j in iter(queue.next, None)] == [(20, 1), (10, 2)]


def test_what_waits_for_a_trial_that_is_over_is_forgotten():
    queue = ScoreQueue(lambda j: TrialEvalState(LOG, over=True))
    queue.add(job(10))
    assert queue.next() is None
    assert not queue


@pytest.mark.parametrize(
    ("eval_state", "backlog", "gone"),
    [
        (TrialEvalState(LOG, scored=40), 9, []),  # all of them fit
        (TrialEvalState(LOG, scored=40), 2, [14, 28]),  # 57 is not overtaken, the others are milestones
        (TrialEvalState(LOG, scored=40), 4, [14]),
        (TrialEvalState(LOG, scored=40, suspect=True), 0, []),
        (TrialEvalState(LOG), 0, []),
    ],
)
def test_only_spare_checkpoints_that_were_overtaken_are_given_up_and_only_under_a_backlog(eval_state, backlog, gone):
    waiting = [job(s) for s in (14, 20, 28, 57, 80)]
    assert [j.step for j in overtaken(waiting, lambda j: eval_state, backlog)] == gone


class InDoubt(NeverStop):
    """Sees a dip in every trial that has a score at step 40 or before."""

    def decide(self, trial):
        steps = self.history.curves[trial].steps("transfer/score")
        return Verdict(Action.CONTINUE, "looks", Phase.DIP if steps and steps[-1] <= 40 else Phase.BEFORE)


def slow_pool(rule=NeverStop, trained=640) -> tuple[SweepController, list[int]]:
    """A trial whose trainer is done before the first score is in, with a backlog of 1; returns the scored steps too."""
    sweep = Sweep(name="slow", space={"replay": grid(0.1)}, trainer={"steps": 640}, evaluation={"backlog": 1})
    controller = SweepController(Plan(sweep), MemoryJournal(), rule(sweep.goal))
    launch = controller.next()
    assert launch is not None
    for step in [s for s in launch.spec.snapshots if s <= trained]:
        controller.saved(launch.spec.id, 1, Saved(step, f"/c/step-{step}", f"sha256:{step}"))
    if trained == 640:
        controller.trained(launch.spec.id, 1)
    scored = []
    while (job := controller.next_eval()) is not None:
        scored.append(job.step)
        controller.scored(job, {"transfer/score": 0.5}, se={}, n={}, suite="fake@1", cost={})
    return controller, scored


def test_a_pool_that_cannot_keep_up_scores_the_log_spaced_part_and_says_what_it_left_out():
    controller, scored = slow_pool()
    assert scored == [0, 640, *sorted(milestones(LOG) - {640})]
    skipped = [row for row in controller.journal.rows() if row.kind == "eval" and row.status == "skipped"]
    assert {row.step for row in skipped} == set(LOG) - milestones(LOG)
    assert skipped[0].reason == "12 checkpoints wait, and step 640 has scores"
    assert next(controller.history.trials()).state == "completed"
    assert {s.step for _, s in controller.checkpoints_to_delete()} >= {row.step for row in skipped} - {
        453
    }  # the last two stay
    assert controller.finish_if_done()


def test_where_a_dip_is_suspected_every_checkpoint_is_scored():
    _, calm = slow_pool(trained=40)
    _, dip = slow_pool(InDoubt, trained=40)
    assert set(calm) < set(dip) == {0, 10, 14, 20, 28, 40}


def test_a_driver_that_starts_again_asks_for_the_same_checkpoints_in_the_same_order():
    sweep = Sweep(name="again", space={"replay": grid(0.1, 0.2)}, trainer={"steps": 64})
    controller = SweepController(Plan(sweep), MemoryJournal(), NeverStop(sweep.goal))
    for launch in (controller.next(), controller.next()):
        assert launch is not None
        for step in (1, 3, 4):
            controller.saved(launch.spec.id, 1, Saved(step, str(Path("/c") / launch.spec.id / str(step))))
    again = SweepController(Plan(sweep), MemoryJournal(controller.journal.rows()), NeverStop(sweep.goal))
    first, second = ([j.key for j in iter(d.next_eval, None)] for d in (controller, again))
    assert first == second
    assert len(first) == 7


def test_scores_of_another_suite_are_refused_with_a_row_and_never_reach_the_curve():
    sweep = Sweep(name="other", space={"replay": grid(0.1)}, trainer={"steps": 8})
    controller = SweepController(Plan(sweep), MemoryJournal(), NeverStop(sweep.goal))
    launch = controller.next()
    assert launch is not None
    controller.saved(launch.spec.id, 1, Saved(8, "/c/8"))
    base, last = controller.next_eval(), controller.next_eval()
    assert base is not None
    assert last is not None
    for asked, suite in ((base, "mini@11111111"), (last, "mini@22222222")):
        scores = FakeScores({"transfer/score": 0.5}, suite=suite)
        controller.scored(asked, scores.metrics, se={}, n={}, suite=scores.suite, cost={})
    assert "mini@22222222, the sweep's are of mini@11111111" in controller.journal.rows()[-1].reason
    assert next(controller.history.trials()).steps("transfer/score") == []
