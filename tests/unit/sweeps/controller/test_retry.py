"""A failed trial is tried again when somebody asks for it: same id, from its last checkpoint, with all its retries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps import Sweep, grid, loguniform
from sweeps.config.plan import Plan
from sweeps.controller.controller import SweepController
from sweeps.controller.request_handler import POLL_S, RequestHandler
from sweeps.controller.requests import Request, post
from sweeps.errors import TrialFailed
from sweeps.executors.local import InProcess
from sweeps.journal.rows import ControlRow, EndRow
from sweeps.journal.writer import MemoryJournal
from sweeps.stopping import NeverStop
from sweeps.storage.memory import MemoryStore
from tests.support.fakes import FakeTrainer, by_trial, fake_evaluate

SWEEP = Sweep(name="r", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 16, "learning_rate": 1e-3})


class FailsOnce(FakeTrainer):
    """Breaks at step 9 of each trial without replay, as long as it is `broken`."""

    def __init__(self, broken: bool = True) -> None:
        super().__init__()
        self.broken = broken

    def __call__(self, trial, hooks, **where: Any) -> None:
        class Breaks:
            saved, stop_asked = staticmethod(hooks.saved), staticmethod(hooks.stop_asked)

            def report(_, step, *args, **kwargs):
                hooks.report(step, *args, **kwargs)
                if self.broken and step > 8 and trial.config["replay"] == 0.0:
                    raise TrialFailed("diverged", "here")

        super().__call__(trial, Breaks(), **where)


class Runs:
    """A sweep that is run again and again over one journal and one storage."""

    def __init__(self, folder: Path, definition: Sweep = SWEEP) -> None:
        self.folder, self.plan, self.goal = folder, Plan(definition), definition.goal
        self.journal, self.store, self.trainer = MemoryJournal(), MemoryStore(), FailsOnce()

    def run(self) -> SweepController:
        controller = SweepController(self.plan, self.journal, NeverStop(self.goal))
        clock = [0.0]
        steering = RequestHandler(controller, self.store, clock=lambda: clock[0])

        def look() -> None:
            clock[0] += POLL_S
            steering()

        InProcess(controller, self.trainer, fake_evaluate, self.folder, steer=look).run()
        return controller

    def ask(self, action: str, trial: str = "", **args: Any) -> ControlRow:
        """Leaves a request, runs the sweep, and returns the row that answers it."""
        request = post(self.store, self.plan.sweep_id, Request(action, trial, args, who="ana"))  # type: ignore[arg-type]
        self.run()
        [row] = [r for r in self.journal.rows() if isinstance(r, ControlRow) and r.request == request]
        return row


@pytest.fixture
def failed(tmp_path: Path) -> tuple[Runs, str]:
    runs = Runs(tmp_path)
    controller = runs.run()
    [trial] = [c.trial for c in controller.history.trials() if c.state == "failed"]
    assert controller.state.done
    return runs, trial


def test_a_failed_trial_of_a_finished_sweep_goes_on_from_its_last_checkpoint(failed: tuple[Runs, str]):
    runs, trial = failed
    runs.trainer.broken = False
    before = len(runs.trainer.log)
    row = runs.ask("retry", trial)
    assert (row.who, row.refused, row.trial) == ("ana", False, trial)
    assert row.reason == f"{trial} is tried again from step 8; it had failed: diverged"
    attempts = by_trial(runs.journal.rows(), "attempt")[trial]
    assert [(a.attempt, a.step) for a in attempts] == [(1, 0), (2, 8)]
    assert [step for _, _, step in runs.trainer.log[before:]] == list(range(9, 17))
    ends = [r for r in runs.journal.rows() if isinstance(r, EndRow) and r.of == "scoring" and r.trial == trial]
    assert [e.status for e in ends] == ["failed", "completed"]
    assert [r.status for r in runs.journal.rows() if isinstance(r, EndRow) and not r.trial] == ["done", "done"]


def test_all_that_failed_are_tried_again_and_what_fails_again_stays_failed(failed: tuple[Runs, str]):
    runs, trial = failed
    row = runs.ask("retry")
    assert row.reason == f"1 trial is tried again: {trial}"
    assert [r.trial for r in runs.journal.rows() if r.kind == "control" and r.action == "retry"] == [trial, ""]
    assert SweepController(runs.plan, runs.journal, NeverStop(runs.goal)).history.curves[trial].state == "failed"


def test_after_a_restart_it_still_waits_for_its_new_attempt(failed: tuple[Runs, str]):
    runs, trial = failed
    controller = SweepController(runs.plan, runs.journal, NeverStop(runs.goal))
    controller.control("retry", "ana", trial)
    again = SweepController(runs.plan, MemoryJournal(runs.journal.rows()), NeverStop(runs.goal))
    assert [t.id for t in again.next_trials(5)] == [t.id for t in controller.next_trials(5)] == [trial]


@pytest.mark.parametrize(
    ("which", "said"), [("other", "is completed; only a trial that failed"), ("none", "no trial ")]
)
def test_what_did_not_fail_is_not_tried_again(failed: tuple[Runs, str], which: str, said: str):
    runs, trial = failed
    other = next(t.id for t in runs.plan.known_trials() if t.id != trial)
    if which == "none":
        runs.trainer.broken = False
        runs.ask("retry", trial)
    row = runs.ask("retry", other if which == "other" else "")
    assert row.refused
    assert said in (row.reason or "")


def test_a_trial_like_one_that_failed_is_refused_and_retry_is_named(failed: tuple[Runs, str]):
    runs, trial = failed
    other = next(t.id for t in runs.plan.known_trials() if t.id != trial)
    hint = f"dipsweep retry {runs.plan.sweep_id} --trial {trial}"
    for row in (runs.ask("add", set={"replay": 0.0}), runs.ask("clone", other, set={"replay": 0.0})):
        assert row.refused
        assert f"{trial} has these settings and has failed (diverged); try it again: {hint}" in (row.reason or "")
    row = runs.ask("add", set={"replay": 0.1})
    assert (row.refused, row.reason) == (False, f"{other} has these settings already: completed")


def test_a_failed_trial_of_a_search_can_be_tried_again(tmp_path: Path):
    space = {"learning_rate": loguniform(1e-4, 1e-3)}
    searched = Sweep(name="r", space=space, search={"algorithm": "optuna-tpe", "trials": 3}, trainer={"steps": 16})
    runs = Runs(tmp_path, searched)
    runs.run()
    runs.trainer.broken = False
    runs.ask("retry")
    controller = runs.run()
    assert [c.state for c in controller.history.trials()] == ["completed"] * 3
    assert controller.finish_if_done()
