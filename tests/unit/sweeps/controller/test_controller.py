"""The controller on its own: what is started, journalled, decided, and how it goes on after a cut at any row."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sweeps import Sweep, grid
from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.config.trial import Hooks, Saved, TrialSpec
from sweeps.controller.controller import SweepController
from sweeps.controller.evaluation.queue import EVAL_TRIES
from sweeps.errors import Interrupted, LimitError, StorageError
from sweeps.executors.local import InProcess
from sweeps.failures import Failure, FailureKind
from sweeps.journal.rows import AttemptRow, Row, SweepRow
from sweeps.journal.writer import MemoryJournal, SweepJournal
from sweeps.stopping import Action, DipAware, NeverStop, Phase, StopRule, Verdict
from tests.support.fakes import FakeScores, FakeTrainer, by_trial, fake_evaluate
from tests.support.rows import make_row


def sweep(**changes) -> Sweep:
    settings = {
        "name": "d",
        "space": {"replay": grid(0.0, 0.1), "steps": grid(8, 16)},
        "trainer": {"learning_rate": 1e-3},
    }
    return Sweep(**{**settings, **changes})


class StopAtStep(StopRule):
    """Stops or pauses every trial without replay at a step; resumes a paused one when asked a second time."""

    def __init__(self, goal, action: Action, step: int, resumes: int = 0) -> None:
        super().__init__(goal)
        self.action, self.step, self.resumes = action, step, resumes

    def decide(self, trial: str) -> Verdict:
        curve = self.history.curves[trial]
        if curve.config["replay"] == 0.0 and self.step in curve.steps("transfer/score") and self.resumes != -1:
            return Verdict(self.action, f"step {self.step} is seen", Phase.COLLAPSE)
        return Verdict(Action.CONTINUE, "fine")

    def choose_trial_to_resume(self, paused):
        if self.resumes > 0:
            self.resumes = -1
            return paused[0]
        return None


def run(tmp_path: Path, definition: Sweep, journal=None, rule=None, trainer=None):
    journal = journal if journal is not None else MemoryJournal()
    controller = SweepController(Plan(definition), journal, rule or NeverStop(definition.goal))
    InProcess(controller, trainer or FakeTrainer(), fake_evaluate, tmp_path).run()
    return controller


def test_every_trial_runs_to_its_budget_and_every_snapshot_is_scored_once(tmp_path: Path):
    controller = run(tmp_path, sweep())
    curves = list(controller.history.trials())
    assert [c.state for c in curves] == ["completed"] * 4
    for curve in curves:
        assert curve.steps("transfer/score") == list(controller.plan.trial(curve.config).snapshots)
    scored = [(r.trial, r.step) for r in controller.journal.rows() if r.kind == "report" and r.suite]
    assert len(scored) == len(set(scored))
    assert ("base-tiny-s", 0) in scored


def test_the_journal_is_numbered_without_gaps_and_every_row_can_be_written(tmp_path: Path):
    rows = run(tmp_path, sweep()).journal.rows()
    assert [r.seq for r in rows] == list(range(len(rows)))
    assert rows[0].kind == "sweep"


def test_in_one_process_an_attempt_has_one_worker_whatever_its_model_asks_for(tmp_path: Path):
    """Plans read from it what one worker takes for a token: two that were one would count as twice as fast."""
    wide = sweep(models={"tiny-xs": {"workers": 2}}, space={"model": grid("tiny-xs"), "steps": grid(8)})
    rows = [row for row in run(tmp_path, wide).journal.rows() if isinstance(row, AttemptRow)]
    assert rows
    assert {row.workers for row in rows} == {1}


def test_a_sweep_writes_down_the_defaults_of_its_stop_rule_when_it_begins(tmp_path: Path):
    rule = DipAware(sweep().goal)
    (first, *_) = run(tmp_path, sweep(), rule=rule).journal.rows()
    assert isinstance(first, SweepRow)
    assert first.to_json()["rule"] == {"max_lost_winners": rule.max_lost_winners}


@pytest.mark.parametrize(
    "lr", [(666.0, "error", "cursed"), (667.0, "diverged", "nan"), (668.0, "no-metrics", "without a checkpoint")]
)
def test_a_trial_that_breaks_ends_failed_with_its_reason_and_the_sweep_goes_on(tmp_path: Path, lr):
    value, reason, detail = lr
    controller = run(tmp_path, sweep(space={"learning_rate": grid(value, 1e-3)}, trainer={"steps": 8}))
    broken, fine = controller.history.trials()
    end = by_trial(controller.journal.rows(), "end")[broken.trial][-1]
    assert (broken.state, broken.reason, fine.state) == ("failed", reason, "completed")
    assert detail in end.detail


def test_a_value_that_is_not_finite_stands_in_invalid_and_never_in_metrics(tmp_path: Path):
    controller = run(tmp_path, sweep(space={"learning_rate": grid(667.0)}, trainer={"steps": 8}))
    curve = next(controller.history.trials())
    assert curve.points[3].invalid == {"train/loss": "nan"}
    assert "train/loss" not in curve.points[3].metrics


def test_a_stop_ends_the_trial_as_pruned_and_is_written_with_what_it_had_seen(tmp_path: Path):
    definition = sweep()
    controller = run(tmp_path, definition, rule=StopAtStep(definition.goal, Action.STOP, 4))
    states = {(c.config["replay"], c.config["steps"]): (c.state, c.last_step) for c in controller.history.trials()}
    assert states == {
        (0.0, 8): ("pruned", 4),
        (0.0, 16): ("pruned", 4),
        (0.1, 8): ("completed", 8),
        (0.1, 16): ("completed", 16),
    }
    for verdict in (r for r in controller.journal.rows() if r.kind == "verdict" and r.action == "STOP"):
        assert verdict.seen == verdict.seq - 1
        assert verdict.reason == "step 4 is seen"


def test_a_paused_trial_that_nobody_resumes_ends_pruned_and_the_sweep_ends(tmp_path: Path):
    definition = sweep()
    controller = run(tmp_path, definition, rule=StopAtStep(definition.goal, Action.PAUSE, 4))
    states = [c.state for c in controller.history.trials()]
    assert sorted(states) == ["completed", "completed", "pruned", "pruned"]


def test_a_paused_trial_that_is_resumed_goes_on_from_its_checkpoint(tmp_path: Path):
    definition = sweep(space={"replay": grid(0.0)}, trainer={"steps": 8, "learning_rate": 1e-3})
    trainer = FakeTrainer()
    controller = run(
        tmp_path, definition, rule=StopAtStep(definition.goal, Action.PAUSE, 4, resumes=1), trainer=trainer
    )
    curve = next(controller.history.trials())
    assert (curve.state, curve.attempt) == ("completed", 2)
    assert [step for _, _, step in trainer.log] == list(range(1, 9))  # no step twice


def test_interrupted_anywhere_and_started_again_nothing_is_lost_or_done_twice(tmp_path: Path):
    definition = sweep()
    target = Plan(definition).known_trials()[1]
    for step in range(1, 17):
        journal, trainer = MemoryJournal(), FakeTrainer()
        trainer.die_at = (target.id, step)
        with pytest.raises(Interrupted):
            run(tmp_path / str(step), definition, journal, trainer=trainer)
        controller = run(tmp_path / str(step), definition, journal, trainer=trainer)
        assert [c.state for c in controller.history.trials()] == ["completed"] * 4
        reports = [(r.trial, r.step, tuple(r.metrics)) for r in journal.rows() if r.kind == "report"]
        assert len(reports) == len(set(reports))
        others = [t for t, _, _ in trainer.log if t != target.id]
        assert len(others) == 8 + 8 + 16  # finished trials never ran again


def test_cut_after_any_row_of_the_journal_the_sweep_ends_with_the_same_curves(tmp_path: Path):
    definition = sweep()
    rule = lambda: StopAtStep(definition.goal, Action.STOP, 6)  # noqa: E731
    whole = run(tmp_path / "whole", definition, rule=rule())
    rows = whole.journal.rows()
    expected = {
        c.trial: (c.state, dict(zip(c.steps("transfer/score"), c.values("transfer/score"), strict=True)))
        for c in whole.history.trials()
    }
    for cut in range(1, len(rows)):
        again = run(tmp_path / f"cut{cut}", definition, MemoryJournal(relocated(rows[:cut])), rule=rule())
        got = {
            c.trial: (c.state, dict(zip(c.steps("transfer/score"), c.values("transfer/score"), strict=True)))
            for c in again.history.trials()
        }
        assert got == expected, f"cut after row {cut}: {rows[cut - 1].kind}"


def relocated(rows: list[Row]) -> list[Row]:
    return rows  # checkpoints of the first run stay readable where they were written


def test_a_lost_machine_is_tried_again_within_the_limit_and_then_fails(tmp_path: Path):
    definition = sweep(space={"replay": grid(0.1)}, trainer={"steps": 8, "learning_rate": 1e-3}, limits={"retries": 2})
    controller = SweepController(Plan(definition), MemoryJournal(), NeverStop(definition.goal))
    for attempt in (1, 2, 3):
        launch = controller.next(lambda spec: True)
        assert launch is not None
        assert launch.attempt == attempt
        controller.failed(launch.spec.id, attempt, Failure(FailureKind.WORKER_LOST, "lost", "node died"))
    assert controller.next(lambda spec: True) is None
    assert next(controller.history.trials()).state == "failed"


def test_who_was_asked_to_leave_for_a_pause_that_is_over_goes_on_instead_of_failing():
    definition = sweep(space={"replay": grid(0.1)}, trainer={"steps": 8, "learning_rate": 1e-3})
    controller = SweepController(Plan(definition), MemoryJournal(), NeverStop(definition.goal))
    launch = controller.next()
    assert launch is not None
    trial = launch.spec.id
    controller.control("pause", "ana")
    controller.control("resume", "ana")  # before the attempt has saved and left
    controller.trained(trial, 1, asked=True)
    again = controller.next()
    assert again is not None
    assert (again.spec.id, again.attempt) == (trial, 2)
    controller.trained(trial, 2)  # nobody asked: this is no end that was meant
    assert controller.history.curves[trial].reason == "no-metrics"


def test_a_resumed_trial_is_not_paused_again_for_steps_that_it_was_paused_for():
    class PauseInTheDip(StopRule):
        """Pauses a trial that is low at its last step, as a rule does that does not know that it has seen this."""

        def decide(self, trial: str) -> Verdict:
            curve = self.history.curves[trial]
            low = curve.values("train/loss")[-1] > 1.0
            return Verdict(Action.PAUSE if low else Action.CONTINUE, "low" if low else "fine", Phase.DIP)

        def choose_trial_to_resume(self, paused):
            return paused[0]

    definition = sweep(space={"replay": grid(0.1)}, trainer={"steps": 8, "learning_rate": 1e-3})
    controller = SweepController(Plan(definition), MemoryJournal(), PauseInTheDip(definition.goal))
    losses, ended = {2: 0.5, 4: 1.5, 6: 1.4, 8: 0.4}, []
    while not ended:
        launch = controller.next()
        assert launch is not None
        assert launch.attempt <= 3
        trial, attempt = launch.spec.id, launch.attempt
        for step, loss in losses.items():  # it has no checkpoint, so it begins anew each time
            controller.report(trial, attempt, step, {"train/loss": loss})
            if not controller.is_current_attempt(trial, attempt):
                break
        else:
            ended.append((attempt, step))
    assert ended == [(3, 8)]  # paused at 4, and then at 6
    verdicts = by_trial(controller.journal.rows(), "verdict")[trial]
    assert [v.step for v in verdicts if v.action == "PAUSE"] == [4, 6]


def test_a_resumed_trial_that_is_worth_a_number_of_its_trainers_is_judged_by_the_next_of_them():
    """The scores of its checkpoints come less often, and say nothing of that."""

    class PausesAt(StopRule):
        def decide(self, trial: str) -> Verdict:
            low = self.history.curves[trial].last_step in (5, 6)
            return Verdict(Action.PAUSE if low else Action.CONTINUE, "high loss", Phase.PLATEAU)

        def choose_trial_to_resume(self, paused):
            return paused[0]

    definition = sweep(
        space={"replay": grid(0.1)},
        trainer={"steps": 8, "learning_rate": 1e-3},
        evaluation={"at": [4, 8]},
        objective={"metric": "train/loss", "goal": "minimize"},
    )
    controller = SweepController(Plan(definition), MemoryJournal(), PausesAt(definition.goal))
    launch = controller.next()
    assert launch is not None
    trial = launch.spec.id
    controller.report(trial, 1, 4, {"train/loss": 1.0})
    controller.saved(trial, 1, Saved(4, "/4", "a"))
    while (job := controller.next_eval()) is not None:
        controller.scored(job, {"transfer/score": 0.2}, se={}, n={}, suite="mini", cost={})
    controller.report(trial, 1, 5, {"train/loss": 1.0})
    assert not controller.is_current_attempt(trial, 1)
    assert controller.next() is not None
    controller.report(trial, 2, 5, {"train/loss": 1.0})
    assert controller.is_current_attempt(trial, 2)
    controller.report(trial, 2, 6, {"train/loss": 1.0})
    assert not controller.is_current_attempt(trial, 2)


def test_a_trial_whose_steps_are_all_run_is_not_given_up_by_its_trainers_last_report():
    """Its last checkpoint comes after that report: paused then, it would have cost everything and have no last score."""

    class PausesAtTheEnd(StopRule):
        def decide(self, trial: str) -> Verdict:
            late = self.history.curves[trial].last_step >= 8
            return Verdict(Action.PAUSE if late else Action.CONTINUE, "low", Phase.PLATEAU)

    definition = sweep(
        space={"replay": grid(0.1)}, trainer={"steps": 8, "learning_rate": 1e-3}, evaluation={"at": [4, 8]}
    )
    controller = SweepController(Plan(definition), MemoryJournal(), PausesAtTheEnd(definition.goal))
    launch = controller.next()
    assert launch is not None
    trial = launch.spec.id

    def score() -> None:
        while (job := controller.next_eval()) is not None:
            controller.scored(job, {"transfer/score": 0.2}, se={}, n={}, suite="mini", cost={})

    controller.saved(trial, 1, Saved(4, "/4", "a"))
    score()
    controller.report(trial, 1, 8, {"train/loss": 0.5})
    assert controller.is_current_attempt(trial, 1)
    controller.saved(trial, 1, Saved(8, "/8", "b"))
    controller.trained(trial, 1)
    score()
    assert controller.history.curves[trial].state == "completed"


def test_an_attempt_that_was_superseded_can_say_nothing_any_more(tmp_path: Path):
    definition = sweep(space={"replay": grid(0.1)}, trainer={"steps": 8, "learning_rate": 1e-3})
    controller = SweepController(Plan(definition), MemoryJournal(), NeverStop(definition.goal))
    first = controller.next(lambda spec: True)
    assert first is not None
    trial = first.spec.id
    controller.failed(trial, 1, Failure(FailureKind.WORKER_LOST, "lost"))
    controller.next(lambda spec: True)
    before = len(controller.journal.rows())
    controller.report(trial, 1, 4, {"train/loss": 1.0})
    controller.saved(trial, 1, Saved(4, "/nowhere", "sha256:0"))
    controller.trained(trial, 1)
    controller.failed(trial, 1, Failure(FailureKind.USER, "error"))
    assert len(controller.journal.rows()) == before
    assert controller.is_current_attempt(trial, 2)


def test_an_evaluation_that_breaks_is_tried_again_and_then_given_up_without_ending_the_trial(tmp_path: Path):
    definition = sweep(space={"replay": grid(0.1)}, trainer={"steps": 8, "learning_rate": 1e-3})
    calls: list[int] = []

    def flaky(job) -> FakeScores:
        calls.append(job.step)
        if job.step == 4:
            raise RuntimeError("judge is out")
        return fake_evaluate(job)

    controller = SweepController(Plan(definition), MemoryJournal(), NeverStop(definition.goal))
    InProcess(controller, FakeTrainer(), flaky, tmp_path).run()
    curve = next(controller.history.trials())
    assert calls.count(4) == EVAL_TRIES
    assert curve.state == "completed"
    assert 4 not in curve.steps("transfer/score")


def test_what_does_not_fit_waits_and_nothing_overtakes_it():
    controller = SweepController(Plan(sweep()), MemoryJournal(), NeverStop(sweep().goal))
    assert controller.next(lambda spec: False) is None
    assert not controller.finish_if_done()
    launch = controller.next(lambda spec: True)
    assert launch is not None
    assert launch.spec.id == Plan(sweep()).known_trials()[0].id


def test_checkpoints_that_nobody_needs_are_offered_for_deletion_but_never_the_last_two_or_the_best(tmp_path: Path):
    controller = run(tmp_path, sweep(space={"replay": grid(0.1)}, trainer={"steps": 16, "learning_rate": 1e-3}))
    trial = next(controller.history.trials()).trial
    gone = {c.step for _, c in controller.checkpoints_to_delete()}
    assert gone == set(controller.plan.known_trials()[0].snapshots) - {11, 16}  # 16 is the best as well
    for t, checkpoint in controller.checkpoints_to_delete():
        controller.checkpoint_deleted(t, checkpoint)
    assert controller.checkpoints_to_delete() == []
    assert trial


def test_a_limit_ends_the_sweep_resumable(tmp_path: Path):
    definition = sweep(limits={"gpu_hours": 1.0})
    trainer = FakeTrainer()

    def costly(trial, hooks, *, folder, resume):
        hooks.report(1, {"train/loss": 1.0}, progress={}, cost={"gpu_s": 4000.0})
        trainer(trial, hooks, folder=folder, resume=resume)

    journal = MemoryJournal()
    controller = SweepController(Plan(definition), journal, NeverStop(definition.goal))
    with pytest.raises(LimitError, match=r"1\.11 GPU hours are spent, 1\.0 are allowed"):
        InProcess(controller, costly, fake_evaluate, tmp_path).run()
    assert SweepController(Plan(definition), journal, NeverStop(definition.goal)).next(lambda spec: True) is not None


@pytest.mark.parametrize(("limit", "cost"), [({"gpu_hours": 1.0}, {"gpu_s": 500.0}), ({"wall_hours": 1e-9}, {})])
def test_a_limit_is_looked_at_at_every_report_and_what_was_trained_is_saved(tmp_path: Path, limit, cost):
    """Also where a trial has one checkpoint only, at its end."""
    definition = sweep(space={"replay": grid(0.1)}, trainer={"steps": 40, "learning_rate": 1e-3},
                       evaluation={"at": [40]}, limits=limit)  # fmt: skip
    done: list[int] = []

    def costly(trial, hooks, *, folder, resume):
        for step in range(1, trial.steps + 1):
            if hooks.stop_asked():
                return
            done.append(step)
            hooks.report(step, {"train/loss": 1.0}, progress={}, cost={u: s * step for u, s in cost.items()})

    journal = MemoryJournal()
    controller = SweepController(Plan(definition), journal, NeverStop(definition.goal))
    with pytest.raises(LimitError, match=next(iter(limit))):
        InProcess(controller, costly, fake_evaluate, tmp_path).run()
    assert done == list(range(1, 9 if cost else 2))  # 8 x 500 s are over an hour
    assert [(r.who, r.action) for r in journal.rows() if r.kind == "control"] == [("limits", "interrupt")]
    assert [c.state for c in controller.history.trials()] == ["running"]  # it goes on in the next run


def test_what_earlier_drivers_spent_counts_lost_work_and_evaluation_included(tmp_path: Path):
    definition = sweep(
        space={"replay": grid(0.1)}, trainer={"steps": 8, "learning_rate": 1e-3}, limits={"gpu_hours": 1.0}
    )
    journal = MemoryJournal()
    first = SweepController(Plan(definition), journal, NeverStop(definition.goal))
    launch = first.next()
    assert launch is not None
    first.report(launch.spec.id, 1, 4, {"train/loss": 1.0}, cost={"gpu_s": 2000.0})
    first.failed(
        launch.spec.id, 1, Failure(FailureKind.WORKER_LOST, "lost")
    )  # without a checkpoint: all of it was for nothing
    job = first.next_eval()
    assert job is not None
    first.eval_failed(job, Failure(FailureKind.USER, "error", "the judge is out"), {"gpu_s": 1700.0})
    again = SweepController(Plan(definition), MemoryJournal(journal.rows()), NeverStop(definition.goal))
    assert again.over_limit(0.0) == "limits.gpu_hours: 1.03 GPU hours are spent, 1.0 are allowed"


def test_in_this_process_an_evaluation_that_gives_no_scores_is_paid_for_too(tmp_path: Path):
    definition = sweep(space={"replay": grid(0.1)}, trainer={"steps": 8, "learning_rate": 1e-3})

    def on_a_gpu(trial, hooks, *, folder, resume):
        class Charging:
            saved, stop_asked = hooks.saved, hooks.stop_asked

            def report(self, step, metrics, *, progress, cost):
                hooks.report(step, metrics, progress=progress, cost={"gpu_s": 0.001})

        FakeTrainer()(trial, Charging(), folder=folder, resume=resume)

    def judge(job):
        time.sleep(0.01)
        raise RuntimeError("the judge is out")

    controller = SweepController(Plan(definition), MemoryJournal(), NeverStop(definition.goal))
    InProcess(controller, on_a_gpu, judge, tmp_path).run()
    assert controller.state.costs.scoring["gpu_s"] >= 0.01
    assert controller.state.costs.scoring["cpu_s"] > 0


def test_ctrl_c_in_process_saves_and_stops_and_the_next_run_goes_on_from_there(tmp_path: Path):
    definition = sweep(space={"replay": grid(0.1)}, trainer={"steps": 16, "learning_rate": 1e-3})
    journal, trainer = MemoryJournal(), FakeTrainer()

    def pressed(trial, hooks, *, folder, resume):
        class Pressing:
            report, stop_asked = hooks.report, hooks.stop_asked

            def saved(self, checkpoint):
                hooks.saved(checkpoint)
                if checkpoint.step == 8:
                    signal.raise_signal(signal.SIGINT)

        trainer(trial, Pressing(), folder=folder, resume=resume)

    controller = SweepController(Plan(definition), journal, NeverStop(definition.goal))
    with pytest.raises(Interrupted):
        InProcess(controller, pressed, fake_evaluate, tmp_path).run()
    assert [r.reason for r in journal.rows() if r.kind == "control"] == ["Ctrl-C"]
    run(tmp_path, definition, journal, trainer=trainer)
    assert [step for _, _, step in trainer.log] == list(range(1, 17))  # no step twice
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_row_that_was_cut_off_in_the_middle_is_followed_by_no_other(tmp_path: Path, monkeypatch):
    journal = SweepJournal(tmp_path / "s")
    journal.append(make_row("control", "s", action="pause"))
    monkeypatch.setattr(os, "fsync", lambda fd: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        journal.append(make_row("control", "s", action="pause"))
    monkeypatch.undo()
    with pytest.raises(StorageError, match="a write was interrupted"):
        journal.append(make_row("control", "s", action="pause"))
    journal.close()
    with SweepJournal(tmp_path / "s") as again:
        again.append(make_row("control", "s", action="pause"))
        assert [r.seq for r in again.rows()] == list(range(len(again.rows())))


def test_evidence_that_is_not_finite_is_left_out_and_never_ends_a_trial(tmp_path: Path):
    class Odd(StopRule):
        def decide(self, trial: str) -> Verdict:
            return Verdict(Action.CONTINUE, "open", Phase.DIP, {"cut": float("-inf"), "p": 0.5})

    definition = sweep()
    controller = run(tmp_path, definition, rule=Odd(definition.goal))
    assert {c.state for c in controller.history.trials()} == {"completed"}
    assert {tuple(r.evidence) for r in controller.journal.rows() if r.kind == "verdict"} == {("p",)}


def test_a_constraint_in_doubt_does_not_break_the_dip_aware_rule(tmp_path: Path):
    from sweeps.stopping.dip_aware import DipAware

    definition = sweep(
        space={"replay": grid(0.0, 0.06, 0.1, 0.2, 0.3)},
        trainer={"steps": 16, "learning_rate": 1e-3},
        constraints=[{"metric": "safety/refusal", "at_least": 0.55}],
    )
    controller = run(tmp_path, definition, rule=DipAware(definition.goal))
    assert {c.state for c in controller.history.trials()} <= {"completed", "pruned"}


def test_a_sweep_that_was_moved_goes_on_from_its_checkpoints_in_the_new_place(tmp_path: Path):
    definition = sweep(space={"replay": grid(0.1)}, trainer={"steps": 16, "learning_rate": 1e-3})
    plan, trainer = Plan(definition), FakeTrainer()
    trainer.die_at = (plan.known_trials()[0].id, 9)
    old, new = tmp_path / "old" / plan.sweep_id, tmp_path / "new" / plan.sweep_id
    with SweepJournal(old) as journal, pytest.raises(Interrupted):
        InProcess(
            SweepController(plan, journal, NeverStop(definition.goal), home=old), trainer, fake_evaluate, old.parent
        ).run()
    new.parent.mkdir()
    old.rename(new)
    with SweepJournal(new) as journal:
        controller = SweepController(plan, journal, NeverStop(definition.goal), home=new)
        launch = controller.next(lambda spec: True)
        assert launch is not None
        assert launch.resume is not None
        assert launch.resume.step == 8
        assert Path(launch.resume.path).is_dir()
        assert Path(launch.resume.path).is_relative_to(new)


def test_the_end_of_the_sweep_is_written_once(tmp_path: Path):
    journal = MemoryJournal()
    for _ in range(2):
        assert run(tmp_path, sweep(), journal).finish_if_done()
    assert [r.of for r in journal.rows() if r.kind == "end" and not r.trial] == ["sweep"]


def test_what_scoring_in_the_same_process_costs_is_not_the_trainers_as_well(tmp_path: Path):
    burnt = 0.05

    def evaluate(job: EvalJob) -> FakeScores:
        began = time.process_time()
        while time.process_time() < began + burnt:
            pass
        return FakeScores({"transfer/score": 0.5}, cost={"cpu_s": burnt})

    def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None:
        began = time.process_time()
        for step in range(1, trial.steps + 1):
            if step in trial.saves:
                where = folder / f"{step}"
                where.mkdir(parents=True)
                hooks.saved(Saved(step, str(where)))
        cost = {"cpu_s": time.process_time() - began}
        hooks.report(trial.steps, {"train/loss": 1.0}, progress={}, cost=cost)

    one = sweep(space={"steps": grid(16)}, evaluation={"at": {"every": 2}})
    controller = SweepController(Plan(one), MemoryJournal(), NeverStop(one.goal))
    InProcess(controller, train, evaluate, tmp_path).run()
    costs = controller.state.costs
    assert costs.scoring["cpu_s"] == pytest.approx(9 * burnt)
    assert costs.training["cpu_s"] < 4 * burnt  # of which nothing but writing rows is its own
