"""When a sweep lets an evaluation end early, and where that is written down."""

from __future__ import annotations

import pytest

from sweeps import Sweep, grid
from sweeps.config.eval_job import Question
from sweeps.config.objective import Constraint, Goal
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.controller.evaluation.early_stopping import early_end, questions
from sweeps.errors import SpecError
from sweeps.executors.local import take_scores
from sweeps.journal.writer import MemoryJournal
from sweeps.report import summarize
from sweeps.report.analysis.comparisons.pairing import common
from sweeps.reported import checked_scores
from sweeps.stopping import NeverStop

SETTINGS = {"space": {"replay": grid(0.1)}, "trainer": {"steps": 64}}


def early(**more):
    return Sweep(name="early", evaluation={"stop_early": 0.05}, **{**SETTINGS, **more})


def test_ending_early_is_part_of_what_a_sweep_is():
    assert early().id != Sweep(name="early", **SETTINGS).id


def test_what_puts_a_checkpoint_out_of_the_running_follows_from_objective_and_constraints():
    limits = (
        Constraint("safety/refusal", relative_to_base=-0.1),
        Constraint("general/score", at_least=0.4),
        Constraint("safety/over_refusal", at_most=0.2),
        Constraint("length/mean", at_most=900),  # no share of right items
        Constraint("math/score@8", at_least=0.2),  # of other replies
    )
    assert questions(Goal("transfer/score", constraints=limits)) == (
        Question("transfer/score"),
        Question("safety/refusal", -0.1),
        Question("general/score", 0.4, against_base=False),
        Question("safety/over_refusal", 0.2, against_base=False, ceiling=True),
    )
    assert questions(Goal("safety/over_refusal", maximize=False)) == (Question("safety/over_refusal", ceiling=True),)


def test_last_checkpoints_and_those_that_branches_begin_from_are_asked_in_full():
    sweep = early(space={"steps": grid(64, 128)}, trainer={"lr_scheduler_type": "constant", "warmup_steps": 4.0})
    short, long = Plan(sweep).known_trials()
    assert early_end(sweep, short, 64) is early_end(sweep, long, 128) is early_end(sweep, long, 64) is None
    assert early_end(sweep, long, 32) == early_end(sweep, short, 32)
    plain = Sweep(name="early", **SETTINGS)
    assert early_end(plain, Plan(plain).known_trials()[0], 32) is None


class Told:
    """Scores of an evaluation that was told after `items` of 100."""

    def __init__(self, items: int, *, cached: bool = False) -> None:
        self.cached = cached
        self.metrics, self.se, self.n = {"transfer/score": 0.3}, {"transfer/score": 0.1}, {"transfer/score": items}
        self.suite, self.cost, self.outcomes, self.parts = "fake@1", {"cpu_s": 1.0}, {}, {}
        self.asked = {"items": items, "of": 100, "clear": "transfer/score is below its base"} if items < 100 else {}


def test_the_journal_and_the_report_say_what_was_not_asked():
    controller = SweepController(Plan(early()), MemoryJournal(), NeverStop(early().goal))
    launch = controller.next()
    for step in (4, 64):
        controller.saved(launch.spec.id, 1, Saved(step, f"/c/{step}"))
    controller.trained(launch.spec.id, 1)
    base = controller.next_eval()
    assert base.early is None
    assert controller.next_eval().step == 64  # asked in full, so it need not wait for the base
    assert controller.next_eval() is None  # step 4 is compared with its base as it goes
    take_scores(controller, base, checked_scores(Told(100, cached=True)))
    way = controller.next_eval()
    assert (way.step, way.early.base) == (4, "builtin")
    take_scores(controller, way, checked_scores(Told(13)))
    rows = {row.step: row for row in controller.journal.rows() if row.kind == "eval"}
    assert (rows[4].status, rows[0].status) == ("done", "done")
    assert rows[4].asked == {"items": 13, "of": 100, "clear": "transfer/score is below its base"}
    assert rows[0].asked == {}
    assert (rows[0].cached, rows[4].cached) == (True, None)
    found = summarize(controller.journal.rows())
    assert found.trials[0].evals_early == ((4, 13, 100),)
    assert any("1 evaluation ended early" in note and "87 of 100 items" in note for note in found.notes)


def test_checkpoints_of_which_one_was_asked_less_are_compared_on_what_was_asked_of_both():
    assert common([[1, 0, 1], [0]], [[0, 1], [1, 1]]) == ([[1, 0], [0]], [[0, 1], [1]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluation": {"stop_early": 0.05, "suite": "lm-eval:math/gsm8k"}}, "lm-eval asks its own items"),
        ({"evaluation": {"stop_early": 0.05}, "objective": {"metric": "length/mean"}}, "no share of right items"),
        ({"evaluation": {"stop_early": 0.05}, "objective": {"metric": "math/score@8"}}, "no share of right items"),
        ({"evaluation": {"stop_early": 0.0}}, "expected a number > 0"),
        ({"evaluation": {"stop_early": 1}}, "expected a number <= 0.5"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(settings, message):
    with pytest.raises(SpecError, match=message):
        Sweep(name="x", **settings)
