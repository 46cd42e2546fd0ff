"""Trials that begin from another's checkpoint: budgets on one trunk, run by the controller."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps import Sweep, grid, uniform
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.attempts import LESS_MEMORY
from sweeps.controller.controller import SweepController
from sweeps.errors import TrialFailed
from sweeps.executors.local import InProcess
from sweeps.failures import Failure, FailureKind
from sweeps.journal.writer import MemoryJournal
from sweeps.report import summarize
from sweeps.stopping import NeverStop
from tests.support.fakes import FakeTrainer, by_trial, fake_evaluate


def sweep(schedule: str = "wsd", **changes) -> Sweep:
    space = {"steps": grid(10, 20, 40)}
    return Sweep(
        **{
            "name": "b",
            "space": space,
            "trainer": {"learning_rate": 1e-3, "lr_scheduler_type": schedule, "warmup_steps": 2},
            **changes,
        }
    )


def run(tmp_path: Path, definition: Sweep, trainer=None, journal=None) -> SweepController:
    controller = SweepController(Plan(definition), journal or MemoryJournal(), NeverStop(definition.goal))
    InProcess(controller, trainer or FakeTrainer(), fake_evaluate, tmp_path).run()
    return controller


def ids(definition: Sweep) -> dict[int, str]:
    return {t.steps: t.id for t in Plan(definition).known_trials()}


def test_the_trunk_trains_first_and_the_branches_only_what_it_has_not(tmp_path: Path):
    trainer = FakeTrainer()
    controller = run(tmp_path, sweep(), trainer)
    trial = ids(sweep())
    assert [t for t, _, _ in trainer.log] == [trial[40]] * 40 + [trial[10]] + [trial[20]] * 3
    assert len(trainer.log) == Plan(sweep()).steps_to_run()
    assert all(c.state == "completed" for c in controller.history.trials())
    for steps, curve in ((s, controller.history.curves[t]) for s, t in trial.items()):
        # what it did not run it has from its trunk, where the trunk was scored
        assert curve.steps("transfer/score")[-1] == steps
        assert curve.budget == steps
    inherited = [r for r in controller.journal.rows() if getattr(r, "inherited", "")]
    assert {r.trial for r in inherited} == {trial[10], trial[20]}
    costs = summarize(controller.journal.rows()).costs
    assert (costs.steps_run, costs.steps_planned, costs.steps_shared) == (44, 44, 9 + 17)


def test_sampled_configurations_share_a_trunk_each(tmp_path: Path):
    space = {"steps": grid(10, 20, 40), "weight_decay": uniform(0.0, 0.1)}
    definition = sweep(space=space, search={"algorithm": "random", "trials_per_cell": 3})
    trainer = FakeTrainer()
    controller = run(tmp_path, definition, trainer)
    assert [c.state for c in controller.history.trials()] == ["completed"] * 9
    assert len(trainer.log) == 3 * (40 + 1 + 3)  # instead of 3 * 70
    assert len({c.config["weight_decay"] for c in controller.history.trials()}) == 3


def test_under_a_constant_rate_the_trunk_trains_all_of_it(tmp_path: Path):
    trainer = FakeTrainer()
    controller = run(tmp_path, sweep("constant"), trainer)
    trial = ids(sweep("constant"))
    assert {t for t, _, _ in trainer.log} == {trial[40]}
    assert [controller.history.curves[t].state for t in trial.values()] == ["completed"] * 3
    [commit] = by_trial(controller.journal.rows(), "commit")[trial[10]]
    assert commit.path == next(r.path for r in by_trial(controller.journal.rows(), "commit")[trial[40]] if r.step == 10)
    assert controller.spent() == run(tmp_path / "x", sweep("constant", space={"steps": grid(40)})).spent() | {
        "cpu_s": controller.spent()["cpu_s"]
    }


def test_a_checkpoint_that_a_branch_needs_or_has_is_kept(tmp_path: Path):
    controller = run(tmp_path, sweep("constant"))
    lent = {r.path for t, rows in by_trial(controller.journal.rows(), "commit").items()
            if t != ids(sweep("constant"))[40] for r in rows}  # fmt: skip
    assert lent
    assert not lent & {saved.path for _, saved in controller.checkpoints_to_delete(keep=0)}


def test_a_branch_of_a_trunk_that_broke_goes_its_own_way(tmp_path: Path):
    class Breaks(FakeTrainer):
        def __call__(self, trial, hooks, *, folder, resume):
            if trial.steps < 40:
                return super().__call__(trial, hooks, folder=folder, resume=resume)

            class Stops:
                def report(self, step, *args, **kwargs):
                    if step > 12:
                        raise TrialFailed("diverged", "here")
                    hooks.report(step, *args, **kwargs)

                saved = staticmethod(hooks.saved)
                stop_asked = staticmethod(hooks.stop_asked)

            return super().__call__(trial, Stops(), folder=folder, resume=resume)

    trainer = Breaks()
    controller = run(tmp_path, sweep(), trainer)
    trial = ids(sweep())
    states = {s: controller.history.curves[t].state for s, t in trial.items()}
    assert states == {10: "completed", 20: "completed", 40: "failed"}
    starts = {t: rows[0].step for t, rows in by_trial(controller.journal.rows(), "attempt").items()}
    assert starts[trial[10]] == 9
    assert 9 <= starts[trial[20]] < 17


@pytest.mark.parametrize("cut", [3, 9, 20, 33, 60])
def test_cut_anywhere_branches_go_on_the_same(tmp_path: Path, cut: int):
    whole = run(tmp_path / "a", sweep()).journal.rows()
    journal = MemoryJournal(whole[:cut])
    again = run(tmp_path / "a", sweep(), journal=journal)
    for trial, curve in run(tmp_path / "b", sweep()).history.curves.items():
        assert again.history.curves[trial].values("transfer/score") == curve.values("transfer/score")
        assert again.history.curves[trial].state == curve.state


def director_with_checkpoints(tmp_path: Path) -> tuple[SweepController, str]:
    definition = sweep(space={}, trainer={"learning_rate": 1e-3, "steps": 8})
    controller = SweepController(Plan(definition), MemoryJournal(), NeverStop(definition.goal))
    InProcess(controller, FakeTrainer(), fake_evaluate, tmp_path)
    launch = controller.next()
    assert launch is not None
    return controller, launch.spec.id


def test_an_attempt_that_cannot_start_from_a_checkpoint_goes_back_to_the_one_before(tmp_path: Path):
    from sweeps.config.trial import Saved

    controller, trial = director_with_checkpoints(tmp_path)
    for step in (2, 4):
        controller.saved(trial, 1, Saved(step, str(tmp_path / str(step)), f"sha256:{step}"))
    controller.failed(trial, 1, Failure(FailureKind.WORKER_LOST, "lost"))
    for attempt, start in ((2, 4), (3, 2), (4, None)):
        launch = controller.next()
        assert launch is not None
        assert (launch.attempt, launch.resume.step if launch.resume else None) == (attempt, start)
        controller.failed(
            trial,
            attempt,
            Failure(FailureKind.BAD_CHECKPOINT, "bad-checkpoint", "its weights have changed"),
        )
    assert controller.history.curves[trial].state == "failed"  # from the base model there is nothing earlier
    damaged = [r for r in controller.journal.rows() if getattr(r, "damaged", False)]
    assert [r.step for r in damaged] == [4, 2]


def test_out_of_memory_is_tried_again_once_and_then_says_what_to_change(tmp_path: Path):
    controller, trial = director_with_checkpoints(tmp_path)
    controller.failed(trial, 1, Failure(FailureKind.OUT_OF_MEMORY, "oom", "used 80 GiB"))
    assert controller.next() is not None
    controller.failed(trial, 2, Failure(FailureKind.OUT_OF_MEMORY, "oom", "used 80 GiB"))
    curve = controller.history.curves[trial]
    assert (curve.state, curve.reason) == ("failed", "oom")
    assert LESS_MEMORY in curve.detail


def test_the_report_takes_of_a_trunk_what_the_branch_took_of_it():
    """The trunk was paused before the fork: the branch began earlier, and its own steps from there on are its own."""
    definition, journal = sweep(evaluation={"at": [4, 8, 12, 16]}), MemoryJournal()
    at = SweepController(Plan(definition), journal, NeverStop(definition.goal))
    trunk = at.next()
    assert trunk is not None
    at.saved(trunk.spec.id, 1, Saved(4, "/trunk/4", "d"))
    at.stop(trunk.spec.id, "ana")
    branch = at.launch(ids(definition)[20]) if at.next_trials(3) else None
    assert branch is not None
    assert branch.resume is not None
    assert branch.resume.step == 4
    for step in (8, 12, 16, 20):
        at.report(branch.spec.id, 1, step, {"transfer/score": step / 100}, progress={}, cost={})
    summary = summarize(journal.rows())
    found = next(t for t in summary.trials if t.id == branch.spec.id)
    assert found.fork_step == 4
    assert [p.step for p in found.curves["transfer/score"]] == [8, 12, 16, 20]
