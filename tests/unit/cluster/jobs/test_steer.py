"""The command line's side of steering: what is refused here, what travels, and how the driver's answer comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.jobs.requests import asker, send_request_and_wait, settings_of
from cluster.locate import definition, find
from cluster.run_sweep import write_spec
from sweeps import Sweep
from sweeps.controller import requests as control
from sweeps.errors import InputError
from sweeps.journal.state import SweepState
from sweeps.journal.writer import SweepJournal
from sweeps.storage.base import Store
from sweeps.storage.factory import open_store
from tests.support.rows import make_row

SWEEP = Sweep(name="steered", space={"learning_rate": {"grid": [1e-3, 1e-4]}})


class Driver:
    """A driver that answers the first request it finds, in a thread; its journal is a real one."""

    def __init__(self, root: Path) -> None:
        self.root, self.taken, self.threads = root, list[control.Request](), list[threading.Thread]()
        self.journal = SweepJournal(root / SWEEP.id, beating=False)
        write_spec(SWEEP, root / SWEEP.id)
        for trial in ("t-11111111", "t-22222222"):
            self.journal.append(make_row("trial", SWEEP.id, trial, budget=8, config={"learning_rate": 1e-3}))

    @property
    def home(self) -> Store:
        return find(SWEEP.id, str(self.root))

    def answers(self, action: str, reason: str) -> threading.Thread:
        def work() -> None:
            store = open_store(self.root)
            while not (waiting := control.pending(store, SWEEP.id)):
                pass
            self.taken.append(waiting[0])
            extra = {"action": action, "who": waiting[0].who, "reason": reason, "request": waiting[0].id}
            self.journal.append(make_row("control", SWEEP.id, extra=extra))
            control.discard(store, SWEEP.id, waiting[0])

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(tmp_path)
    yield driver
    for thread in driver.threads:
        thread.join()
    driver.journal.close()


def test_a_request_travels_with_who_asked_and_the_drivers_words_come_back(driver: Driver):
    driver.answers("extend", "t-33333333 goes on from t-11111111")
    said = send_request_and_wait(driver.home, "extend", "t-11111111", steps=16, wait_s=60)
    assert said == "t-33333333 goes on from t-11111111"
    (request,) = driver.taken
    assert (request.action, request.trial, request.args) == ("extend", "t-11111111", {"steps": 16})
    assert "@" in request.who
    assert request.when.endswith("Z")


def test_what_the_driver_refuses_is_bad_input_here(driver: Driver):
    driver.answers("extend refused", "it has a budget of 8 already")
    with pytest.raises(InputError, match="budget of 8 already"):
        send_request_and_wait(driver.home, "extend", "t-11111111", steps=4, wait_s=60)


def test_without_a_driver_a_request_waits_in_the_storage(driver: Driver):
    said = send_request_and_wait(driver.home, "pause", wait_s=0)
    assert said is None
    assert [r.action for r in control.pending(open_store(driver.root), SWEEP.id)] == ["pause"]


@pytest.mark.parametrize(
    ("action", "trial", "args", "says"),
    [
        ("stop", "t-1111111", {}, "did you mean 't-11111111'"),
        ("clone", "t-11111111", {"set": {"lrr": 1e-4}}, "lrr: unknown key 'lrr'.*did you mean 'learning_rate'"),
        ("clone", "t-11111111", {"set": {"learning_rate": -1.0}}, "learning_rate.*expected a number > 0"),
        ("clone", "t-11111111", {"set": {"lr": 1e-4}}, "lr: is now learning_rate"),
        ("limits", "", {"set": {"gpu_hour": 5}}, "did you mean 'gpu_hours'"),
        ("limits", "", {"set": {"gpu_hours": -5}}, "gpu_hours: got -5"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_it_travels(
    driver: Driver, action: Any, trial: str, args: dict[str, Any], says: str
):
    with pytest.raises(InputError, match=says):
        send_request_and_wait(driver.home, action, trial, wait_s=0, **args)
    assert control.pending(open_store(driver.root), SWEEP.id) == []


def test_settings_read_as_in_a_sweep_file():
    assert settings_of(["learning_rate=1e-4", "data=answer-only", "gpu_hours=null"]) == {
        "learning_rate": 1e-4,
        "data": "answer-only",
        "gpu_hours": None,
    }
    for wrong in (["learning_rate"], ["lr="], ["=1"], ["lr=1", "lr=2"], ["lr=[1"]):
        with pytest.raises(InputError):
            settings_of(wrong)


def test_a_sweep_is_found_by_id_name_or_folder_and_a_near_miss_is_named(driver: Driver):
    assert {find(n, str(driver.root)).root for n in (SWEEP.id, "steered")} == {driver.home.root}
    assert find(str(driver.root / SWEEP.id)).root == driver.home.root
    assert definition(driver.home).id == SWEEP.id
    with pytest.raises(InputError, match=f"did you mean '{SWEEP.id}'"):
        find(f"{SWEEP.id}0", str(driver.root))


def test_a_sweep_whose_driver_was_interrupted_is_left_until_the_next_one_takes_it():
    lease, asked = make_row("lease", "s"), make_row("control", "s", extra={"action": "interrupt"})
    late = make_row("commit", "s", "t-1", 1, 5, path="p")
    assert [str(SweepState(rows).status) for rows in ([lease], [lease, asked, late], [lease, asked, lease])] == [
        "running", "stopped", "running",
    ]  # fmt: skip
    assert SweepState([lease, make_row("end", "s", of="sweep", status="done")]).done


def test_a_user_without_a_name_asks_by_the_machine(monkeypatch):
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1000730000")

    monkeypatch.delenv("DIPSWEEP_USER", raising=False)
    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setattr("socket.gethostname", lambda: "pod-1")
    assert asker() == "pod-1"
