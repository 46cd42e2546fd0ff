"""Where a sweep stands, from rows and a clock: what is done, how long it takes yet, what waits and why."""

from dataclasses import replace
from functools import partial

import pytest

from cluster.preflight.cost import predicted
from cluster.run_sweep import run
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.failures import Failure, FailureKind
from sweeps.journal.rows import LeaseRow, SweepRow
from sweeps.journal.state import SweepState
from sweeps.journal.writer import MemoryJournal
from sweeps.planning.progress import Progress, ProgressMeter, progress_text
from sweeps.planning.speeds import Figure, Speed, speeds_from_json, speeds_to_json
from sweeps.stopping.base import Action, NeverStop, Verdict
from tests.support.fakes import FakeTrainer, fake_evaluate

STEP_S, SCORE_S = 2.0, 5.0
SCORES = {"transfer/score": 0.5}
TRUNK = {"steps": 40, "lr_scheduler_type": "wsd", "warmup_steps": 1}


class Driven:
    """A sweep that is run step by step on a clock of its own, on one machine that trains and scores."""

    def __init__(self, saved=(20, 40), units=("cpu_s",), predict=None, **more):
        self.saved, self.units = saved, units  # of an evaluation: a process that holds a GPU counts its CPU too
        fields = {"space": {"replay": grid(0.0, 0.1, 0.2)}, "trainer": {"steps": 40}, **more}
        self.plan = Plan(Sweep(name="s", **{"evaluation": {"at": [20, 40]}, **fields}))
        journal = MemoryJournal()
        journal.append(LeaseRow(self.plan.sweep_id, since="2026-01-01 00:00:00 UTC"))
        self.now = 1767225600.0  # the same moment
        self.slow: list[float] = []  # seconds of the first evaluations
        rule, self.verdict = NeverStop(self.plan.sweep.goal), Verdict(Action.CONTINUE, "")
        rule.decide = lambda trial: self.verdict
        self.state = SweepState(history=rule.history)
        self.meter = ProgressMeter(self.plan, self.state)
        self.controller = SweepController(
            self.plan,
            journal,
            rule,
            state=self.state,
            subscribers=[lambda row: self.meter.apply(row, self.now)],
            predict=(lambda: predict(self.plan)) if predict else dict,
        )

    def score(self):
        while (job := self.controller.next_eval()) is not None:
            seconds = self.slow.pop(0) if self.slow else SCORE_S
            self.now += seconds
            self.controller.scored(job, SCORES, se={}, n={}, suite="mini", cost=dict.fromkeys(self.units, seconds))

    def begin(self):
        self.launch, self.cost = self.controller.next(), 0.0
        self.score()

    def train(self, begin, end, every=5):
        trial, attempt = self.launch.spec.id, self.launch.attempt
        for step in range(begin + every, end + 1, every):
            self.now += STEP_S * every
            self.cost += STEP_S * every
            self.controller.report(trial, attempt, step, {"train/loss": 1.0 / step}, cost={self.units[-1]: self.cost})
            if step in self.saved:
                self.controller.saved(trial, attempt, Saved(step, f"{trial}/{step}"))
                self.score()
        if end == 40:
            self.controller.trained(trial, attempt)

    def ahead(self):
        """Device seconds that are said to be left."""
        told = self.meter.progress(self.now)
        spent = sum(told.spent.values())
        return spent / told.done - spent


def test_the_time_left_is_what_is_ahead_at_the_pace_so_far():
    sweep = Driven()
    sweep.begin()
    sweep.train(0, 40)
    sweep.begin()
    sweep.train(0, 20)
    told = sweep.meter.progress(sweep.now)
    truth = 1.5 * 40 * STEP_S + 3 * SCORE_S
    assert told.left.value == pytest.approx(truth, rel=0.05)
    assert told.left.low < truth < told.left.high
    assert told.done == pytest.approx(1 - truth / (3 * 40 * STEP_S + 7 * SCORE_S), abs=0.01)
    assert told.states == {"completed": 1, "running": 1, "not started": 1}


def test_whoever_reads_the_journal_later_measures_from_when_the_driver_began():
    sweep = Driven()
    for _ in range(2):
        sweep.begin()
        sweep.train(0, 40)
    state = SweepState()
    meter = ProgressMeter(sweep.plan, state)
    for row in sweep.controller.journal.rows():
        state.apply(row)
        meter.apply(row)
    left = meter.progress(sweep.now).left
    assert left.value == pytest.approx(40 * STEP_S + 2 * SCORE_S, rel=0.05)
    assert meter.progress(sweep.now + 170).left.value == pytest.approx(2 * left.value, rel=0.1)  # it stands still


def test_nothing_is_said_of_the_time_before_anything_was_spent_and_after_the_end():
    sweep = Driven()
    assert sweep.meter.progress(sweep.now).left is None
    for _ in range(3):
        sweep.begin()
        sweep.train(0, 40)
    assert sweep.controller.finish_if_done()
    told = sweep.meter.progress(sweep.now)
    assert (told.left, told.done) == (None, 1.0)


def test_a_machine_that_became_slower_is_believed():
    sweep = Driven()
    sweep.begin()
    sweep.train(0, 20)
    sweep.now += 300  # somebody else had the machine
    sweep.train(20, 40)
    calm = Driven()
    calm.begin()
    calm.train(0, 40)
    slow, usual = (s.meter.progress(s.now).left for s in (sweep, calm))
    assert slow.value > 2 * usual.value
    assert slow.high / slow.low > usual.high / usual.low  # and what is not steady is not known as well


def test_what_the_base_and_one_cold_evaluation_cost_is_not_expected_of_the_others():
    sweep = Driven()
    sweep.slow = [60.0, SCORE_S, SCORE_S, SCORE_S, 60.0]  # the base's, and one of the third trial
    for _ in range(2):
        sweep.begin()
        sweep.train(0, 40)
    sweep.begin()
    sweep.train(0, 20)
    told = sweep.meter.progress(sweep.now)
    truth = 20 * STEP_S + SCORE_S
    assert told.left.low < truth < told.left.high
    assert told.left.value < 2 * truth


def test_work_that_goes_on_between_two_rows_does_not_look_like_a_slow_machine():
    sweep = Driven()
    sweep.begin()
    sweep.train(0, 40)
    sweep.begin()
    sweep.train(0, 20)
    before = sweep.meter.progress(sweep.now).left
    within = sweep.meter.progress(sweep.now + 0.9 * 5 * STEP_S).left
    assert within.value == pytest.approx(before.value - 0.9 * 5 * STEP_S)
    assert sweep.meter.progress(sweep.now + 300).left.value > 2 * before.value  # it stands still


def test_seconds_of_a_gpu_count_once_though_its_process_spends_as_many_on_a_cpu():
    told = []
    for units in (("cpu_s",), ("cpu_s", "gpu_s")):
        sweep = Driven(units=units)
        sweep.begin()
        sweep.train(0, 40)
        sweep.begin()
        sweep.train(0, 20)
        told.append(sweep.meter.progress(sweep.now))
    assert told[0].done == pytest.approx(told[1].done)
    assert told[0].left.value == pytest.approx(told[1].left.value)


def test_a_sweep_that_trains_on_gpus_and_on_cpus_counts_both():
    mixed, alike = Driven(units=("cpu_s", "gpu_s")), Driven()
    for sweep in (mixed, alike):
        sweep.begin()
        sweep.train(0, 40)
        sweep.units = ("cpu_s",)
        sweep.begin()
        sweep.train(0, 40)
    now, usual = (sweep.meter.progress(sweep.now) for sweep in (mixed, alike))
    assert mixed.state.costs.trained_s == alike.state.costs.trained_s == 80 * STEP_S
    assert (now.done, now.left.value) == (pytest.approx(usual.done), pytest.approx(usual.left.value))


def test_neither_evaluations_that_failed_nor_scores_that_were_looked_up_tell_how_long_one_takes():
    sweep = Driven(saved=())
    sweep.begin()
    sweep.train(0, 20)
    sweep.controller.saved(sweep.launch.spec.id, 1, Saved(20, "20"))
    sweep.controller.eval_failed(
        sweep.controller.next_eval(), Failure(FailureKind.USER, "error"), {"cpu_s": 3 * SCORE_S}
    )
    sweep.score()
    rest = 2.5 * 40 * STEP_S + 5 * SCORE_S
    assert sweep.ahead() == pytest.approx(rest)
    sweep.saved = (40,)
    sweep.train(20, 40)
    sweep.begin()
    sweep.train(0, 20)
    sweep.controller.saved(sweep.launch.spec.id, 1, Saved(20, "20"))
    job = sweep.controller.next_eval()
    sweep.controller.scored(job, SCORES, se={}, n={}, suite="mini", cost={"cpu_s": 0.01}, cached=True)
    assert sweep.ahead() == pytest.approx(1.5 * 40 * STEP_S + 3 * SCORE_S)


def test_a_run_in_one_process_is_predicted_to_hold_whole_gpus_and_evaluators_on_ray_their_shares(tmp_path):
    shares = {"models": {"tiny-s": {"gpus_per_worker": 0.5}}, "evaluation": {"at": [20, 40], "gpus_per_worker": 0.5}}
    ahead = dict[bool, float]()
    for in_process in (True, False):
        sweep = Driven(predict=partial(predicted, storage=tmp_path, in_process=in_process), units=("gpu_s",), **shares)
        sweep.slow = [1e6]  # the base's, which is not expected of the others
        sweep.begin()
        ahead[in_process] = sweep.ahead()
    (head,) = (row for row in sweep.controller.journal.rows() if isinstance(row, SweepRow))
    (speed,) = speeds_from_json(head.predicted["speeds"]).values()
    assert ahead[True] - ahead[False] == pytest.approx(6 * 0.5 * speed.evaluation.seconds, rel=1e-3)


def test_branches_wait_for_their_trunk_and_that_is_said():
    sweep = Driven(space={"steps": grid(20, 40)}, trainer=TRUNK)
    sweep.begin()
    told = sweep.meter.progress(sweep.now)
    ((branch, why),) = told.waiting
    assert why == f"for {told.running[0]} to reach step 17"
    assert branch != told.running[0]


def test_a_branch_waits_for_its_trunk_also_where_that_has_an_earlier_checkpoint():
    sweep = Driven(space={"steps": grid(20, 40)}, trainer=TRUNK, saved=(5, 20, 40))
    sweep.begin()
    sweep.train(0, 5)
    ((_, why),) = sweep.meter.progress(sweep.now).waiting
    assert why.endswith("to reach step 17")


def test_a_branch_of_a_trunk_that_was_given_up_is_not_ahead_under_promotion():
    promoted = {"search": {"promote": True}, "stopping": {"rule": "dip-aware"}}
    sweep = Driven(space={"steps": grid(20, 40)}, trainer=TRUNK, **promoted)
    sweep.begin()
    sweep.train(0, 20)
    trunk = sweep.launch.spec.id
    assert sweep.meter.progress(sweep.now).done < 1.0
    sweep.verdict = Verdict(Action.STOP, "no chance")
    sweep.controller.report(trunk, 1, 25, {"train/loss": 0.1}, cost={"cpu_s": sweep.cost})
    told = sweep.meter.progress(sweep.now)
    ((_, why),) = told.waiting
    assert why == f"for its trunk {trunk}, which is pruned"
    assert told.left.high == 0.0


@pytest.mark.parametrize("end", ["given up", "stopped", "failed"])
def test_steps_that_a_trunk_left_out_are_ahead_of_a_branch_that_begins_without_it(end):
    sweep = Driven(space={"steps": grid(20, 40)}, trainer=TRUNK, saved=(5, 20, 40))
    sweep.begin()
    sweep.train(0, 5)
    trunk = sweep.launch.spec.id
    sweep.verdict = Verdict(Action.STOP if end == "given up" else Action.CONTINUE, "no chance")
    sweep.controller.report(trunk, 1, 10, {"train/loss": 0.1}, cost={"cpu_s": 10 * STEP_S})
    sweep.verdict = Verdict(Action.CONTINUE, "")
    if end == "stopped":
        sweep.controller.stop(trunk, "ada")
    elif end == "failed":
        sweep.controller.failed(trunk, 1, Failure(FailureKind.USER, "error"))

    assert sweep.ahead() == pytest.approx(15 * STEP_S + SCORE_S)  # from step 5, and not from its fork at 17
    sweep.begin()
    assert sweep.launch.resume.step == 5
    assert sweep.ahead() == pytest.approx(15 * STEP_S + SCORE_S)


def test_money_and_hours_stand_beside_their_limits():
    sweep = Driven(limits={"gpu_hours": 2.0, "usd": 10.0, "usd_per_gpu_hour": 3.0})
    sweep.begin()
    sweep.controller.report(sweep.launch.spec.id, 1, 5, {"train/loss": 1.0}, cost={"gpu_s": 3600.0})
    told = sweep.meter.progress(sweep.now)
    assert told.limits == {"gpu_hours": (1.0, 2.0), "usd": (3.0, 10.0)}
    assert "1 of 2 GPU hours; 3 of 10 USD" in progress_text(told)
    assert Progress.from_json(told.to_json()).limits == told.limits


def test_what_is_not_over_is_not_wholly_done():
    sweep = Driven()
    sweep.begin()
    told = sweep.meter.progress(sweep.now)
    assert progress_text(replace(told, done=0.998)).startswith("99% done")
    assert progress_text(replace(told, done=1.0)).startswith("100% done")


def test_speeds_are_read_as_they_were_written():
    figure = Figure(1.5, 0.2, "a probe")
    speeds = {("tiny-s", 2, "bf16", True): Speed(figure, figure, figure, 1024)}
    assert speeds_from_json(speeds_to_json(speeds)) == speeds


@pytest.mark.parametrize("error", [BrokenPipeError(), RuntimeError("the bar has no width"), ZeroDivisionError()])
def test_no_sweep_ends_for_want_of_a_progress_bar(tmp_path, error):
    def bar(progress):
        raise error

    said = []
    sweep = Sweep(name="s", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 8})
    how = {"train": FakeTrainer(), "evaluate": fake_evaluate, "backend": "in-process"}
    results = run(sweep, storage=tmp_path, say=said.append, on_progress=bar, **how)
    assert {trial.state for trial in results.trials} == {"completed"}
    assert sum(line.startswith("progress is unknown from here on") for line in said) == 1
