"""What an attempt waits for reaches the journal, `status` and the log, and is gone with its next checkpoint."""

from __future__ import annotations

from cluster.mailbox import AttemptWaits, CheckpointSaved
from cluster.train.worker import attempt_of
from sweeps.config.trial import Saved
from sweeps.failures import Failure, FailureKind
from sweeps.journal.rows import ControlRow
from sweeps.report.console import EventFormatter
from tests.unit.cluster.driver.test_reassign import Driver

WHY = "no room is left on this disk: free some"


def test_a_worker_that_waits_for_room_on_its_disk_tells_the_driver(monkeypatch):
    driver = Driver(monkeypatch, {"m": 1}, cpus=1)
    attempt = attempt_of(driver.start().launch)
    driver.loop._handle(AttemptWaits(attempt, WHY))
    curve = driver.controller.state.history.curves[attempt.trial]
    assert (curve.state, curve.reason) == ("running", WHY)
    (row,) = [row for row in driver.controller.journal.rows() if isinstance(row, ControlRow)]
    assert WHY in (EventFormatter(driver.controller.plan, driver.controller.state).format(row) or "")
    driver.loop._handle(CheckpointSaved(attempt, Saved(4, "path", "sha256:0")))
    assert curve.reason == ""


def test_an_attempt_that_was_superseded_waits_for_nothing(monkeypatch):
    driver = Driver(monkeypatch, {"m": 1}, cpus=1)
    attempt = attempt_of(driver.start().launch)
    driver.loop._handle(AttemptWaits(attempt._replace(number=attempt.number - 1), WHY))
    assert driver.controller.state.history.curves[attempt.trial].reason == ""


def test_a_node_without_the_storage_holds_nothing_back_but_itself(monkeypatch):
    """Its trial goes on elsewhere, and whoever reads the journal hears which node it is."""
    driver = Driver(monkeypatch, {"m": 1}, cpus=3)
    attempt, other = driver.start(), driver.start()
    why = "node a does not see /shared; mount it there (Ray's node n1)"
    driver.loop._exited(attempt, Failure(FailureKind.STORAGE, "storage", why, node="n1"))
    assert driver.loop.nodes.avoided() == {"n1"}
    assert not driver.loop.storage_backoff.waiting
    curve = driver.controller.state.history.curves[attempt.launch.spec.id]
    assert (curve.state, curve.reason) == ("waiting", why)
    assert driver.loop.next_launch() is not None  # on n0
    other.nodes.add("n1")
    driver.loop._exited(other, None)
    assert not driver.loop.nodes.avoided()  # something ended well there


def test_trouble_that_may_be_everybodys_holds_all_starts_back(monkeypatch):
    driver = Driver(monkeypatch, {"m": 1}, cpus=2)
    driver.loop._exited(driver.start(), Failure(FailureKind.STORAGE, "storage", "no room is left"))
    assert driver.loop.storage_backoff.waiting
    assert driver.loop.next_launch() is None
