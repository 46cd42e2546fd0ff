"""What people may ask of a running sweep, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps import Sweep, grid, loguniform, uniform
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.controller.request_handler import POLL_S, RequestHandler
from sweeps.controller.requests import Request, pending, post
from sweeps.errors import InputError, Interrupted, StorageDenied
from sweeps.executors.local import InProcess
from sweeps.failures import Failure, FailureKind
from sweeps.journal.rows import CommitRow, ControlRow, Row
from sweeps.journal.state import SweepState
from sweeps.journal.writer import MemoryJournal, SweepJournal, read_rows
from sweeps.stopping import NeverStop
from sweeps.storage.local import LocalStore
from sweeps.storage.memory import MemoryStore
from tests.support.fakes import FakeTrainer, by_trial, fake_evaluate

WSD = {"learning_rate": 1e-3, "lr_scheduler_type": "wsd", "warmup_steps": 2}


def sweep(**changes) -> Sweep:
    settings = {"name": "d", "space": {"replay": grid(0.0, 0.1)}, "trainer": {**WSD, "steps": 16}}
    return Sweep(**{**settings, **changes})


class Desk:
    """A sweep in this process that hears requests at chosen moments: `at[n]` is posted before the n-th look."""

    def __init__(self, tmp_path: Path, definition: Sweep, at: dict[int, list[Request]], journal=None) -> None:
        self.plan, self.at, self.looks, self.clock = Plan(definition), at, 0, 0.0
        self.journal = journal if journal is not None else MemoryJournal()
        self.controller = SweepController(self.plan, self.journal, NeverStop(definition.goal))
        self.store, self.trainer = MemoryStore(), FakeTrainer()
        self.changes = 0
        self.steering = RequestHandler(self.controller, self.store, self.changed, clock=lambda: self.clock)
        self.loop = InProcess(self.controller, self.trainer, fake_evaluate, tmp_path, steer=self.look)

    def changed(self) -> None:
        self.changes += 1

    def look(self) -> None:
        self.clock += POLL_S
        for request in self.at.pop(self.looks, []):
            post(self.store, self.plan.sweep_id, request)
        self.looks += 1
        self.steering()

    def run(self) -> Desk:
        self.loop.run()
        return self

    @property
    def controls(self) -> list[Row]:
        return [r for r in self.journal.rows() if r.kind == "control" and r.who != "driver"]

    @property
    def curves(self):
        return self.controller.history.curves


def known(definition: Sweep) -> list[str]:
    return [t.id for t in Plan(definition).known_trials()]


def test_a_stopped_trial_ends_pruned_and_the_others_go_on(tmp_path: Path):
    first, second = known(sweep())
    desk = Desk(tmp_path, sweep(), {5: [Request("stop", first, who="ana")]}).run()
    assert (desk.curves[first].state, desk.curves[first].reason) == ("pruned", "stopped by ana")
    assert desk.curves[first].last_step < 16
    assert desk.curves[second].state == "completed"
    assert pending(desk.store, desk.plan.sweep_id) == []


def test_a_stopped_sweep_ends_resumable_and_goes_on(tmp_path: Path):
    desk = Desk(tmp_path, sweep(), {5: [Request("stop", who="ana")]})
    with pytest.raises(Interrupted, match="stopped by ana"):
        desk.run()
    again = Desk(tmp_path, sweep(), {}, desk.journal).run()
    assert [c.state for c in again.curves.values()] == ["completed"] * 2
    assert not again.controller.stopping


def test_a_paused_sweep_trains_nothing_until_it_may_go_on_and_loses_nothing(tmp_path: Path):
    desk = Desk(tmp_path, sweep(), {9: [Request("pause", who="ana")], 14: [Request("resume", who="bo")]}).run()
    assert [r.action for r in desk.controls] == ["pause", "resume"]
    first = known(sweep())[0]
    assert [r.attempt for r in by_trial(desk.journal.rows(), "attempt")[first]] == [1, 2]
    assert [c.state for c in desk.curves.values()] == ["completed"] * 2


def test_a_driver_that_is_ending_does_not_promise_to_go_on(tmp_path: Path):
    asked = [Request("pause", who="ana"), Request("stop", who="ana"), Request("resume", who="bo")]
    desk = Desk(tmp_path, sweep(), {3: asked})
    with pytest.raises(Interrupted):
        desk.run()
    assert [(r.action, r.refused) for r in desk.controls if r.who == "bo"] == [("resume", True)]
    assert desk.controller.is_paused


def test_a_pause_outlives_the_driver(tmp_path: Path):
    journal = MemoryJournal()
    desk = Desk(tmp_path, sweep(), {3: [Request("pause", who="ana"), Request("stop", who="ana")]}, journal)
    with pytest.raises(Interrupted):
        desk.run()
    again = Desk(tmp_path, sweep(), {}, journal)
    assert again.controller.is_paused
    assert again.controller.next() is None
    assert not again.controller.finish_if_done()


def test_an_extended_trial_goes_on_from_before_its_rate_fell(tmp_path: Path):
    first, _ = known(sweep())
    wish = Request("extend", first, {"steps": 32}, who="ana")
    desk = Desk(tmp_path, sweep(), {25: [wish]}).run()
    new = next(c for c in desk.curves.values() if c.budget == 32)
    assert new.state == "completed"
    [attempt] = by_trial(desk.journal.rows(), "attempt")[new.trial]
    assert (attempt.parent, attempt.fork_step, attempt.step) == (first, 14, 14)
    assert "as one run of that budget" in desk.controls[0].reason
    inherited = [r.step for r in desk.journal.rows() if getattr(r, "inherited", "") == first]
    assert inherited == [s for s in desk.curves[first].steps("transfer/score") if s <= 14]
    assert min(step for t, _, step in desk.trainer.log if t == new.trial) == 15
    assert not any(r.cost for r in desk.journal.rows() if getattr(r, "inherited", ""))


def test_an_extension_that_is_no_longer_exact_says_so(tmp_path: Path):
    definition = sweep(trainer={"learning_rate": 1e-3, "steps": 16, "lr_scheduler_type": "cosine"})
    first, _ = known(definition)
    desk = Desk(tmp_path, definition, {25: [Request("extend", first, {"steps": 32}, who="ana")]}).run()
    assert "lr_scheduler_type cosine ties every step to the budget" in desk.controls[0].reason
    assert next(c for c in desk.curves.values() if c.budget == 32).state == "completed"


def test_a_clone_starts_cold_or_warm(tmp_path: Path):
    first, _ = known(sweep())
    wishes = [
        Request("clone", first, {"set": {"learning_rate": lr}, "warm": warm}, who="ana")
        for lr, warm in ((5e-4, False), (6e-4, True))
    ]
    desk = Desk(tmp_path, sweep(), {25: wishes}).run()
    cold, warm = (next(c for c in desk.curves.values() if c.config["learning_rate"] == lr) for lr in (5e-4, 6e-4))
    assert (cold.state, warm.state) == ("completed", "completed")
    starts = {t: rows[0].step for t, rows in by_trial(desk.journal.rows(), "attempt").items()}
    assert starts[cold.trial] == 0
    assert 0 < starts[warm.trial] < 16


@pytest.mark.parametrize("steps", ["many", [3], None, {}])
def test_a_clone_with_steps_that_are_no_number_is_refused_and_ends_no_driver(tmp_path: Path, steps: object):
    first = Plan(sweep()).known_trials()[0].id
    clone = Request("clone", first, {"set": {"steps": steps}, "warm": True}, who="ana")
    desk = Desk(tmp_path, sweep(), {2: [clone]}).run()
    assert desk.controls[0].reason.startswith("steps: got ")


def test_no_more_trials_can_be_added_than_a_sweep_may_have(tmp_path: Path):
    definition = sweep(space={"replay": uniform(0.0, 0.1)}, search={"algorithm": "random", "trials": 2})
    desk = Desk(tmp_path, definition, {2: [Request("add", "", {"trials": 10**30}, who="ana")]}).run()
    assert desk.controls[0].reason == f"2 trials and {10**30:,} more are more than 100,000"


@pytest.mark.parametrize("lost", ["dropped", "damaged"])
def test_a_warm_clone_whose_start_is_lost_fails_and_does_not_begin_elsewhere(tmp_path: Path, lost: str):
    (first,) = known(sweep(space={}))
    clone = Request("clone", first, {"set": {"learning_rate": 5e-4}, "warm": True}, who="ana")
    longer = Request("extend", first, {"steps": 32}, who="ana")
    desk = Desk(tmp_path, sweep(space={}), {25: [clone]})
    controller = desk.controller
    assert controller.next() is not None
    for step in (4, 8):
        controller.saved(first, 1, Saved(step, str(tmp_path / str(step)), f"sha256:{step}"))
    desk.steering.take(clone)
    desk.steering.take(longer)
    where = controller.state.trials[first].checkpoints[8].path
    controller._record.write(CommitRow(controller.plan.sweep_id, first, 1, 8, path=where, **{lost: True}))
    controller.failed(first, 1, Failure(FailureKind.USER, "error"))
    warm, extended = (t for t in controller.state.trials.values() if t.parent == first)
    for _ in range(2):  # also when it is tried again
        assert [spec.id for spec in controller.next_trials(3)] == [extended.id]
        assert controller.branches_of([first]) == [controller.specs[extended.id]]
        assert (warm.status, warm.curve.reason) == ("failed", "bad-checkpoint")
        assert f"it begins from step 8 of {first}, whose checkpoint is deleted or damaged" in warm.curve.detail
        desk.steering.take(Request("retry", warm.id, id="again"))
    launch = controller.launch(extended.id)  # the same run up to there, so that it may begin earlier
    assert launch.resume is not None
    assert launch.resume.step == 4


def test_a_warm_clone_does_not_take_the_place_of_a_planned_trial(tmp_path: Path):
    rates = {"space": {"learning_rate": grid(1e-3, 2e-3)}}
    first, second = known(sweep(**rates))
    wish = Request("clone", first, {"set": {"learning_rate": 2e-3}, "warm": True}, who="ana")
    desk = Desk(tmp_path, sweep(**rates), {6: [wish]}).run()
    assert f"{second} is a trial of the plan with these settings" in desk.controls[-1].reason
    assert by_trial(desk.journal.rows(), "trial")[second][0].parent == ""
    assert [step for trial, _, step in desk.trainer.log if trial == second] == list(range(1, 17))


def test_a_trial_can_be_added_to_a_grid_and_trials_to_a_search(tmp_path: Path):
    desk = Desk(tmp_path, sweep(), {5: [Request("add", args={"set": {"replay": 0.3}}, who="ana")]}).run()
    assert sorted(c.config["replay"] for c in desk.curves.values()) == [0.0, 0.1, 0.3]
    searched = sweep(space={"learning_rate": loguniform(1e-4, 1e-3)}, search={"algorithm": "random", "trials": 2})
    desk = Desk(tmp_path, searched, {5: [Request("add", args={"trials": 3}, who="ana")]}).run()
    assert len(desk.curves) == 5
    again = SweepController(Plan(searched), desk.journal, NeverStop(searched.goal))
    assert again.finish_if_done()
    assert again.plan.total == 5


def test_limits_change_while_the_sweep_runs(tmp_path: Path):
    desk = Desk(tmp_path, sweep(), {5: [Request("limits", args={"set": {"gpu_hours": 50.0}}, who="ana")]}).run()
    assert desk.controller.plan.sweep.limits.gpu_hours == 50.0
    assert desk.changes == 1
    assert desk.plan.sweep_id == desk.controller.plan.sweep_id


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Request("stop", "t-00000000"), "there is no trial t-00000000"),
        (Request("extend", "", {"steps": 32}), "extend needs a trial"),
        (Request("extend", "FIRST", {"steps": 16}), "has a budget of 16 steps already"),
        (Request("extend", "FIRST", {"steps": "many"}), "needs steps as a whole number"),
        (Request("clone", "FIRST", {"set": {"lrr": 1.0}}), "unknown key 'lrr'"),
        (Request("clone", "FIRST", {"set": {"learning_rate": -1.0}}), "learning_rate"),
        (Request("clone", "FIRST"), "clone needs settings"),
        (Request("add", args={"trials": 2}), "the search has no more trials"),
        (Request("add", args={"set": {"learning_rate": 1e-4}}), "needs a value for replay"),
        (Request("limits", args={"set": {"gpu_hour": 1.0}}), "did you mean 'gpu_hours'?"),
        (Request("limits", args={"set": {"gpu_hours": -1.0}}), "limits.gpu_hours"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence_and_nothing_changes(tmp_path: Path, wish, said):
    first = known(sweep())[0]
    wish = Request(wish.action, wish.trial.replace("FIRST", first), wish.args, who="ana")
    desk = Desk(tmp_path, sweep(), {20: [wish]}).run()
    [row] = desk.controls
    assert (row.action, row.refused) == (wish.action, True)
    assert said in row.reason
    assert [c.state for c in desk.curves.values()] == ["completed"] * 2


@pytest.mark.parametrize(
    "wish",
    [Request("extend", "FIRST", {"steps": 10**8}), Request("add", args={"set": {"replay": 0.0, "steps": 10**8}})],
)
def test_what_would_be_scored_more_often_than_any_trial_of_a_sweep_is_refused(tmp_path: Path, wish: Request):
    """A list of as many steps would take all of the driver's memory."""
    often = sweep(evaluation={"at": {"every": 1}})
    wish = Request(wish.action, wish.trial.replace("FIRST", known(often)[0]), wish.args, who="ana")
    desk = Desk(tmp_path, often, {20: [wish]}).run()
    [row] = desk.controls
    assert row.refused
    assert "100,000,000 evaluations a trial; expected at most 10,000" in row.reason
    assert [c.state for c in desk.curves.values()] == ["completed"] * 2


def test_a_request_in_the_journal_is_not_carried_out_again(tmp_path: Path):
    first, _ = known(sweep())
    desk = Desk(tmp_path, sweep(), {5: [Request("extend", first, {"steps": 32}, who="ana")]})
    gone: list[str] = []
    desk.store.delete = gone.append  # the driver dies before it has taken the request away
    desk.run()
    assert len(desk.controls) == 1
    assert len(gone) > 1


def test_a_request_that_is_gone_when_it_is_read_is_left_out():
    class Quick(MemoryStore):
        def read(self, key: str) -> bytes:
            self.delete(key)
            return super().read(key)

    store = Quick()
    post(store, "s", Request("pause"))
    assert pending(store, "s") == []


def test_what_is_no_request_is_left_out(tmp_path: Path):
    desk = Desk(tmp_path, sweep(), {})
    for name, text in (("1", b"{"), ("2", b"[]"), ("3", b'{"action": "explode", "id": "3"}')):
        desk.store.write(f"{desk.plan.sweep_id}/control/{name}.json", text)
    assert pending(desk.store, desk.plan.sweep_id) == []


DEEP = "[" * 300 + "]" * 300
NO_REQUESTS = {
    "a number that is none": '{"action": "extend", "trial": "T", "args": {"steps": NaN}}',
    "a number without end": '{"action": "limits", "args": {"set": {"usd": 1e400}}}',
    "a list of settings": '{"action": "clone", "trial": "T", "args": {"set": [1]}}',
    "a number of settings": '{"action": "add", "args": {"set": 5}}',
    "text for limits": '{"action": "limits", "args": {"set": "usd"}}',
    "nested": f'{{"action": "extend", "trial": "T", "args": {{"steps": {DEEP}}}}}',
    "endless": f'{{"action": "extend", "trial": "T", "args": {{"steps": "{"9" * 10_000}"}}}}',
    "cut off": '{"action": "pau',
    "no object": "[]",
}


def handler(tmp_path: Path, journal: Any) -> RequestHandler:
    controller = SweepController(Plan(sweep()), journal, NeverStop(sweep().goal))
    controller.next()
    times = iter(range(0, 10**6, 10))
    return RequestHandler(controller, LocalStore(tmp_path), clock=lambda: float(next(times)))


def ask(tmp_path: Path, text: str) -> Path:
    file = tmp_path / sweep().id / "control/00000000000000000001-aa.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.replace('"T"', f'"{known(sweep())[0]}"'))
    return file


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_what_is_no_request_ends_no_driver_and_leaves_a_log_that_can_be_read(tmp_path: Path, name: str):
    """It lies there still when the sweep is resumed, so it would end every driver to come."""
    ask(tmp_path, NO_REQUESTS[name])
    with SweepJournal(tmp_path / sweep().id, beating=False) as journal:
        look = handler(tmp_path, journal)
        look()
        look()
    assert not [row for row in read_rows(tmp_path / sweep().id) if row.kind == "control"]


@pytest.mark.parametrize("id", ["../../x", "", "a\\u0000b", "another"])
def test_a_request_is_its_file_whatever_it_calls_itself(tmp_path: Path, id: str):
    file = ask(tmp_path, f'{{"action": "pause", "id": "{id}"}}')
    with SweepJournal(tmp_path / sweep().id, beating=False) as journal:
        look = handler(tmp_path, journal)
        look()
        look()
    assert not file.exists()
    (row,) = [row for row in read_rows(tmp_path / sweep().id) if row.kind == "control"]
    assert isinstance(row, ControlRow)
    assert row.request == file.stem


def test_a_request_of_another_user_that_may_not_be_read_or_removed_ends_no_driver(
    tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture
):
    look = handler(tmp_path, MemoryJournal())
    file = ask(tmp_path, '{"action": "pause"}')

    def refused(self: LocalStore, key: str = "") -> Any:
        raise StorageDenied(f"{key}: this user may not read or write here")

    for name in ("read", "list", "delete"):
        with monkeypatch.context() as m:
            m.setattr(LocalStore, name, refused)
            look()
            look()
    told = [record.getMessage().partition(" cannot be read")[0] for record in caplog.records]
    assert told == [
        f"what was asked in {place}" for place in (f"{sweep().id}/control/{file.name}", sweep().id)
    ]  # once each
    rows = [row for row in look.controller.journal.rows() if row.kind == "control"]
    assert len(rows) == 1  # carried out once, although it could not be taken away


def test_whoever_asks_for_what_no_driver_takes_is_told_at_once():
    with pytest.raises(InputError, match="expected settings by name, of finite numbers and text"):
        post(MemoryStore(), "s-1", Request("clone", "t-1", {"set": {"learning_rate": float("nan")}}))


def failed_twice(tmp_path: Path) -> SweepController:
    """A sweep whose trials have both failed, after a worker of each was lost once."""
    controller = SweepController(Plan(sweep()), MemoryJournal(), NeverStop(sweep().goal), home=tmp_path)
    for kind in (FailureKind.WORKER_LOST, FailureKind.USER):
        for spec in controller.next_trials(2):
            controller.failed(spec.id, controller.launch(spec.id).attempt, Failure(kind, "lost"))
    return controller


@pytest.mark.parametrize("who", ["driver", "", " ", "ana"])
@pytest.mark.parametrize("all_of_them", [True, False])
def test_a_trial_that_is_tried_again_has_all_its_tries_whatever_the_name_of_who_asks(
    tmp_path: Path, who: str, all_of_them: bool
):
    controller, store = failed_twice(tmp_path), MemoryStore()
    first, second = known(sweep())
    sweep_id = controller.plan.sweep_id
    assert [controller.state.trials[t].lost for t in (first, second)] == [1, 1]
    post(store, sweep_id, Request("retry", "" if all_of_them else first, who=who))
    RequestHandler(controller, store)()
    for state in (controller.state, SweepState(controller.journal.rows())):
        assert state.trials[first].lost == 0
        assert state.trials[first].asked_for
        assert state.trials[second].lost == (0 if all_of_them else 1)


@pytest.mark.parametrize("who", ["", "  ", None, "driver", "ana"])
def test_a_trial_that_somebody_without_a_name_adds_was_asked_for(tmp_path: Path, who: str | None):
    controller, store = SweepController(Plan(sweep()), MemoryJournal(), NeverStop(sweep().goal)), MemoryStore()
    body = {"action": "add", "args": {"set": {"replay": 0.3}}, "who": who}
    store.create(f"{controller.plan.sweep_id}/control/1.json", json.dumps(body).encode())
    RequestHandler(controller, store)()
    (added,) = controller.state.trials.values()
    assert added.asked_for
    assert added.row.by == ((who or "").strip() or "somebody")


@pytest.mark.parametrize("who", ["", "driver", "ana"])
@pytest.mark.parametrize("action", ["pause", "stop"])
def test_a_sweep_pauses_and_stops_whoever_asks(who: str, action: str):
    controller, store = SweepController(Plan(sweep()), MemoryJournal(), NeverStop(sweep().goal)), MemoryStore()
    post(store, controller.plan.sweep_id, Request(action, who=who))
    RequestHandler(controller, store)()
    assert (controller.is_paused, bool(controller.stopping)) == (action == "pause", action == "stop")
