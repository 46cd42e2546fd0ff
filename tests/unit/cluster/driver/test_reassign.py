"""Whom the processes of an attempt that has ended go to: Ray's view stood in by numbers, no process is started."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.connect.environment import prepare

prepare()

from cluster.driver.loop import MAX_ATTEMPTS, RayLoop  # noqa: E402
from cluster.driver.resource_requests import ResourceRequests  # noqa: E402
from cluster.mailbox import AttemptExited  # noqa: E402
from cluster.resources import placement as module  # noqa: E402
from cluster.resources.bundles import Attempt, StopRequest  # noqa: E402
from cluster.train.worker import attempt_of  # noqa: E402
from sweeps import Sweep, grid  # noqa: E402
from sweeps.config.plan import Plan  # noqa: E402
from sweeps.config.trial import Saved  # noqa: E402
from sweeps.controller.controller import SweepController  # noqa: E402
from sweeps.journal.writer import MemoryJournal  # noqa: E402
from sweeps.stopping import NeverStop  # noqa: E402
from tests.support.fakes import fake_evaluate  # noqa: E402


class Control:
    """The control actor's place: keeps what was assigned."""

    def __init__(self) -> None:
        self.assigned: list[Any] = []
        self.assign = self

    def remote(self, after: Any, launch: Any) -> None:
        self.assigned.append(launch)


class Driver:
    """A run loop whose cluster has so many CPUs, all of them in use once its first attempts run."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, models: dict[str, int], cpus: int, sweep: Sweep | None = None
    ) -> None:
        self.nodes, self.draining = {"n0": {"CPU": float(cpus)}}, frozenset[str]()
        monkeypatch.setattr(module, "available_resources_per_node", lambda: self.nodes)
        monkeypatch.setattr(module, "total_resources_per_node", lambda: {"n0": {"CPU": float(cpus)}})
        monkeypatch.setattr(module, "draining_nodes", lambda: self.draining)
        sweep = sweep or Sweep(
            name="r",
            models={name: {"path": "unused", "workers": n} for name, n in models.items()},
            space={"model": grid(*models), "replay": grid(0.0, 0.1, 0.2)},
            trainer={"steps": 4},
            evaluation={"at": [4]},
        )
        self.controller = SweepController(Plan(sweep), MemoryJournal(), NeverStop(sweep.goal))

        def train(*args: Any, **rest: Any) -> None: ...

        train.reuse = True  # type: ignore[attr-defined]
        self.loop = RayLoop(self.controller, train, fake_evaluate, "unused")
        self.loop.requests = ResourceRequests(self.controller, self.loop.placement, self.loop.say, None)
        self.loop.control = self.control = Control()

    def start(self) -> Attempt:
        launch = self.loop.next_launch()
        assert launch is not None
        self.nodes = {"n0": {"CPU": self.nodes["n0"]["CPU"] - launch.workers}}
        return self.loop.live[attempt_of(launch)]

    def save(self, attempt: Attempt, step: int) -> None:
        self.controller.saved(attempt.launch.spec.id, attempt.launch.attempt, Saved(step, f"/unused/{step}"))

    def end(self, attempt: Attempt, *, reusable: bool = True) -> Any:
        """Ends an attempt in good order; returns what its processes are given to do."""
        launch = attempt.launch
        self.controller.saved(launch.spec.id, launch.attempt, Saved(launch.spec.steps, "/unused"))
        for ended in self.loop._handle(AttemptExited(attempt_of(launch), reusable=reusable)):
            self.loop._reassign(ended)
        return self.control.assigned[-1]


def test_the_next_trial_of_the_same_shape_takes_the_processes_and_the_last_one_lets_them_end(monkeypatch):
    driver = Driver(monkeypatch, {"one": 1}, cpus=1)
    attempt = driver.start()
    for _ in range(2):
        launch = driver.end(attempt)
        assert launch.workers == 1
        (following,) = driver.loop.live.values()
        assert (following.group, following.launch) == (attempt.group, launch)
        attempt = following
    assert driver.end(attempt) is None
    assert not driver.loop.live
    assert driver.loop.busy  # until Tune says that they are gone


def test_a_larger_trial_at_the_head_of_the_queue_gets_the_room_and_not_a_small_one_behind_it(monkeypatch):
    driver = Driver(monkeypatch, {"two": 2, "one": 1}, cpus=2)
    (first,) = [driver.start()]
    assert first.launch.workers == 2
    driver = Driver(monkeypatch, {"one": 1, "two": 2}, cpus=2)
    small = [driver.start(), driver.start()]
    third = driver.end(small[0])
    assert third.workers == 1  # three small ones come first
    assert driver.end(small[1]) is None  # the next is a large one: it needs both places
    assert [a.launch for a in driver.loop.live.values()] == [third]


BUDGETS = Sweep(
    name="b",
    models={"one": {"path": "unused"}},
    space={"model": grid("one"), "replay": grid(0.0, 0.1), "steps": grid(4, 8, 12)},
    trainer={"lr_scheduler_type": "wsd", "decay": 0.5, "warmup_steps": 1},
    evaluation={"at": [12]},
)


def what(attempt_or_launch: Any) -> tuple[float, int, int]:
    launch = getattr(attempt_or_launch, "launch", attempt_or_launch)
    return launch.spec.config["replay"], launch.spec.steps, launch.resume.step if launch.resume else 0


def test_branches_go_on_in_the_processes_that_trained_their_trunk(monkeypatch):
    driver = Driver(monkeypatch, {"one": 1}, 2, BUDGETS)
    one, two = driver.start(), driver.start()
    assert [what(one), what(two)] == [(0.0, 12, 0), (0.1, 12, 0)]
    for attempt in (one, two):
        for step in sorted(attempt.launch.spec.forks):
            driver.save(attempt, step)
    # in the order of the queue the branches of `one` come first
    second = driver.end(two)
    assert what(second)[:2] == (0.1, 4)
    first = driver.end(one)
    assert what(first)[:2] == (0.0, 4)
    order = [what(a)[:2] for a in driver.loop.live.values()]
    assert sorted(order) == [(0.0, 4), (0.1, 4)]
    by_replay = {what(a)[0]: a for a in driver.loop.live.values()}
    assert what(driver.end(by_replay[0.1]))[:2] == (0.1, 8)
    last = {what(a)[0]: a for a in driver.loop.live.values()}[0.1]
    assert what(driver.end(last))[:2] == (0.0, 8)  # nothing of its own is left: what is next in the queue


def test_a_branch_takes_no_turn_of_a_trial_that_fills_a_gap(monkeypatch):
    driver = Driver(monkeypatch, {"one": 1, "two": 2}, cpus=2)
    chosen = driver.start()
    driver.loop.placement.look_ahead_if_blocked = 64
    branch = chosen.launch.spec
    monkeypatch.setattr(driver.controller, "branches_of", lambda parents: [branch])
    (head,) = driver.controller.next_trials()
    assert driver.loop._nearest(head, chosen) is branch
    behind = driver.controller.next_trials(2)[1]
    assert driver.loop._nearest(behind, chosen) is behind


def test_processes_on_a_draining_node_those_that_were_stopped_and_old_ones_end(monkeypatch):
    driver = Driver(monkeypatch, {"one": 1}, cpus=1)
    attempt = driver.start()
    driver.draining = frozenset({"n0"})
    attempt.nodes = {"n0"}
    driver.loop.placement.next_node_check = 0.0
    assert driver.end(attempt) is None
    driver = Driver(monkeypatch, {"one": 1}, cpus=1)
    attempt = driver.start()
    attempt.stop_request = StopRequest.IMMEDIATE
    assert driver.end(attempt) is None
    driver = Driver(monkeypatch, {"one": 1}, cpus=1)
    attempt = driver.start()
    driver.loop.groups[attempt.group] *= MAX_ATTEMPTS
    assert driver.end(attempt) is None


def test_processes_that_are_not_clean_are_told_to_end(monkeypatch):
    driver = Driver(monkeypatch, {"one": 1}, cpus=1)
    assert driver.end(driver.start(), reusable=False) is None
    assert len(driver.control.assigned) == 1


def test_what_a_pruned_trial_leaves_between_two_steps_is_taken_by_the_next(monkeypatch):
    driver = Driver(monkeypatch, {"one": 1}, cpus=1)
    attempt = driver.start()
    attempt.stop_request = StopRequest.DISCARD
    assert driver.end(attempt) is not None


def test_while_a_sweep_ends_nothing_is_assigned(monkeypatch):
    driver = Driver(monkeypatch, {"one": 1}, cpus=1)
    attempt = driver.start()
    driver.loop.limit = "over"
    assert driver.end(attempt) is None


def test_what_is_not_marked_for_reuse_or_switched_off_is_not_reused(monkeypatch):
    from cluster.train.worker import REUSE_VARIABLE, is_reusable
    from sweeps.checkpoints.transfer import RemoteStorageTrainFn
    from sweeps.storage.probe import VerifyStorageBefore

    def train() -> None: ...

    assert not is_reusable(train)
    train.reuse = True  # type: ignore[attr-defined]
    for function in (train, RemoteStorageTrainFn(train, "s3://b"), VerifyStorageBefore(train, "x", "y")):
        assert is_reusable(function)
    monkeypatch.setenv(REUSE_VARIABLE, "0")
    assert not is_reusable(train)
