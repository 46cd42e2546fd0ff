"""How a sweep stands, as status, list and watch say it: also after people have steered it."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from cluster.cli.render import state_of, sweep_line
from cluster.cli.watch import picture
from cluster.observe.exporter import exported
from cluster.observe.metrics import SweepMetrics
from sweeps import Sweep, grid, loguniform
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.controller.request_handler import RequestHandler
from sweeps.controller.requests import Request
from sweeps.journal.state import SweepState
from sweeps.journal.writer import MemoryJournal
from sweeps.stopping import NeverStop
from sweeps.storage.memory import MemoryStore

GRID = Sweep(
    name="g",
    space={"replay": grid(0.0, 0.1)},
    trainer={"learning_rate": 1e-3, "lr_scheduler_type": "wsd", "warmup_steps": 2, "steps": 16},
)
SAMPLED = Sweep(name="r", space={"learning_rate": loguniform(1e-4, 1e-3)}, search={"algorithm": "random", "trials": 2})


class Steered:
    """A sweep whose trials stand in the journal, and which does what it is asked."""

    def __init__(self, sweep: Sweep, known: int = 9) -> None:
        self.sweep, self.journal = sweep, MemoryJournal()
        self.controller = SweepController(Plan(sweep), self.journal, NeverStop(sweep.goal))
        self.trials = [spec.id for spec in self.controller.next_trials(known)]
        self.steering = RequestHandler(self.controller, MemoryStore())

    def ask(self, action: str, trial: str = "", **args: Any) -> Steered:
        self.steering.take(Request(action, trial, args, who="ana"))
        return self

    @property
    def state(self) -> dict[str, Any]:
        return state_of(self.sweep, SweepState(self.journal.rows()))

    def total(self) -> int:
        """The number that status says, and that the metrics say too."""
        meters = SweepMetrics(self.sweep)
        for row in self.journal.rows():
            meters.apply(row)
        (planned,) = [s.value for s in meters.samples() if s.name == "dipsweep_planned_trials"]
        assert planned == self.state["trials"]
        return int(planned)


def test_trials_that_people_add_clone_or_extend_count_beside_the_plans():
    steered = Steered(GRID)
    assert steered.total() == 2
    assert steered.ask("add", set={"replay": 0.3}).total() == 3
    first = steered.trials[0]
    assert steered.ask("clone", first, set={"learning_rate": 5e-4}).total() == 4
    steered.controller.launch(first)
    steered.controller.saved(first, 1, Saved(8, "x", "d"))
    assert steered.ask("extend", first, steps=32).total() == 5
    assert sweep_line(steered.state).endswith("5 trials: 1 running, 4 waiting")


def test_a_request_that_was_refused_adds_nothing():
    steered = Steered(GRID).ask("add", trials=2).ask("clone", "t-00000000", set={"learning_rate": 1.0})
    assert steered.total() == 2


def test_trials_added_to_a_search_count_before_they_are_proposed_and_once_for_the_next_driver():
    steered = Steered(SAMPLED, known=1).ask("add", trials=3)
    assert len(steered.trials) == 1
    assert steered.total() == 5
    grown = SweepController(Plan(SAMPLED), steered.journal, NeverStop(SAMPLED.goal))
    assert grown.plan.total == 5
    assert steered.total() == 5


def test_a_trial_of_the_grid_that_is_asked_for_before_its_turn_counts_once():
    steered = Steered(GRID, known=1).ask("add", set={"replay": 0.1})
    assert [r.by for r in steered.journal.rows() if r.kind == "trial"] == ["", "ana"]
    assert steered.total() == 2


def test_base_models_are_no_trials():
    steered = Steered(GRID)
    steered.controller.launch(steered.trials[0])
    job = steered.controller.next_eval()
    assert job is not None
    assert job.trial.startswith("base-")
    steered.controller.scored(job, {"transfer/score": 0.5}, se={}, n={}, suite="s", cost={})
    assert steered.total() == 2


def test_watch_never_shows_more_ended_than_there_are():
    steered = Steered(GRID).ask("add", set={"replay": 0.3})
    for trial in [r.trial for r in steered.journal.rows() if r.kind == "trial"]:
        steered.ask("stop", trial)
    console = Console(width=100)
    with console.capture() as shown:
        console.print(picture(steered.state, 10))
    assert "3 of 3 trials ended: 3 pruned" in shown.get()


@pytest.mark.parametrize(("goal", "order"), [("maximize", "cab"), ("minimize", "acb")])
def test_watch_shows_the_better_first_and_what_has_no_score_last(goal: str, order: str):
    each = [{"trial": name, "label": name, "state": "completed", "phase": "", "step": 1, "budget": 1, "m": score}
            for name, score in (("a", -2.0), ("b", None), ("c", -1.0))]  # fmt: skip
    console = Console(width=60)
    with console.capture() as shown:
        console.print(picture({"sweep": "s", "status": "done", "saving": 0, "trials": 3, "states": {}, "each": each,
                               "objective": "m", "goal": goal}, 10))  # fmt: skip
    rows = [line.split()[0] for line in shown.get().splitlines() if " completed " in line]
    assert rows == list(order)


def test_the_exporter_of_a_resumed_driver_counts_what_was_asked_for_once(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr("cluster.observe.exporter.job_reporter", lambda: lines.append)
    monkeypatch.setattr("cluster.observe.exporter.Exporter.push", lambda self: None)
    steered = Steered(SAMPLED).ask("add", trials=3)
    again = SweepController(Plan(SAMPLED), steered.journal, NeverStop(SAMPLED.goal))
    with exported(again, every_s=0.01):
        pass
    assert lines[-1] == "0 of 5 trials ended"


def test_after_its_driver_has_left_no_trial_is_said_to_run():
    steered = Steered(GRID)
    steered.controller.launch(steered.trials[0])
    assert steered.state["states"] == {"running": 1, "waiting": 1}
    steered.controller.interrupt("ana", "asked to stop")
    assert steered.state["states"] == {"waiting": 2}
