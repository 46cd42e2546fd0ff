"""Two drivers of one sweep, as real processes: the second is refused, or takes over; the first, woken, changes nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.errors import StorageError
from sweeps.journal.history import History
from sweeps.journal.rows import Row
from sweeps.journal.writer import read_rows
from tests.chaos.driver_program import SWEEP
from tests.support.crash import finished_stay_finished, no_row_twice
from tests.support.programs import Process, Start, programs

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a driver; with a gate it stops at step 8 until that file is there."""
    with programs("tests.chaos.driver_program") as go:
        yield lambda storage, gate="", lease_s=60.0: go(storage, lease_s, gate)


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "runs") if request.param == "folder" else request.getfixturevalue("s3_url")


def rows(storage: str) -> list[Row]:
    try:
        return read_rows(f"{storage}/{SWEEP.id}")
    except StorageError:
        return []


def until_commits(storage: str, count: int, process: Process) -> None:
    while sum(r.kind == "commit" for r in rows(storage)) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


def held(journal: list[Row]) -> None:
    assert [r.seq for r in journal] == list(range(len(journal)))
    no_row_twice(journal)
    finished_stay_finished(journal)
    assert [c.state for c in History(journal).trials()] == ["completed"] * 2


def test_a_second_driver_is_refused_and_the_first_ends_undisturbed(start: Start, storage: str, tmp_path: Path):
    gate = tmp_path / "gate"
    first = start(storage, gate)
    until_commits(storage, 3, first)
    second = start(storage)
    _, err = second.communicate()
    assert second.returncode == 2, err
    assert "is running this sweep; stop it first" in err
    gate.touch()
    _, err = first.communicate()
    assert first.returncode == 0, err
    held(rows(storage))
    assert sum(r.kind == "lease" for r in rows(storage)) == 1


def test_a_driver_that_was_frozen_and_overtaken_changes_nothing_when_it_wakes(
    start: Start, s3_url: str, tmp_path: Path
):
    """In a folder of one kernel a frozen process still holds its lock, so there the second is refused (below)."""
    gates = tmp_path / "one", tmp_path / "two"
    first = start(s3_url, gates[0], lease_s=5.0)
    until_commits(s3_url, 3, first)
    os.kill(first.pid, signal.SIGSTOP)
    before = rows(s3_url)
    second = start(s3_url, gates[1], lease_s=5.0)  # watches the lease run out, then goes on
    while sum(r.kind == "attempt" for r in rows(s3_url)) < 2:
        assert second.poll() is None, second.communicate()
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGCONT)
    gates[0].touch()
    _, err = first.communicate()
    assert first.returncode == 1, err
    assert "has taken this sweep over; this one writes nothing more" in err
    gates[1].touch()
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert "looking for 5 s whether it lives" in out
    journal = rows(s3_url)
    assert journal[: len(before)] == before
    held(journal)
    [_, taken] = [r for r in journal if r.kind == "lease"]
    assert taken.pid == second.pid
    trial = next(r.trial for r in before if r.kind == "commit")
    mine = [r for r in journal if r.seq > taken.seq and r.trial == trial and r.kind in ("report", "commit")]
    assert {r.attempt for r in mine if not getattr(r, "suite", "") and not getattr(r, "dropped", False)} == {2}


def test_a_frozen_driver_on_this_machine_keeps_its_sweep(start: Start, tmp_path: Path):
    storage, gate = str(tmp_path / "runs"), tmp_path / "gate"
    first = start(storage, gate)
    until_commits(storage, 3, first)
    os.kill(first.pid, signal.SIGSTOP)
    second = start(storage)
    _, err = second.communicate()
    os.kill(first.pid, signal.SIGCONT)
    assert second.returncode == 2, err
    assert f"driver pid {first.pid} on" in err
    gate.touch()
    _, err = first.communicate()
    assert first.returncode == 0, err
    held(rows(storage))


def test_killed_and_started_again_at_once_the_next_driver_does_not_wait(start: Start, storage: str, tmp_path: Path):
    first = start(storage, tmp_path / "gate")
    until_commits(storage, 3, first)
    first.kill()
    first.communicate()
    second = start(storage)
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert "looking for" not in out  # this kernel knows that the holder is dead
    held(rows(storage))
