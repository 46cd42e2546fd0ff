"""Leases under a clock of the test's own: who may drive, who has to wait, who has lost it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.errors import StorageFull, SweepBusy
from sweeps.journal.lease import DriverState, Holder, Lease, Record, driver_state, driver_states, latest_record
from sweeps.storage.base import Store
from sweeps.storage.local import LocalStore
from sweeps.storage.memory import MemoryStore


class Clock:
    """Time that passes only while somebody sleeps; `meanwhile` happens then."""

    def __init__(self, meanwhile: Callable[[float], None] = lambda now: None) -> None:
        self.now, self.meanwhile = 1000.0, meanwhile

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile(self.now)


def lease(store: Store, clock: Clock | None = None, **settings) -> Lease:
    clock = clock or Clock()
    return Lease(store, **{"beating": False, "clock": clock, "sleep": clock.sleep, "gone": lambda h: False, **settings})


@pytest.fixture
def store() -> Store:
    return MemoryStore()


def test_a_free_sweep_is_taken_at_once_and_given_back_without_waiting(store: Store):
    clock = Clock()
    for _ in range(3):
        held = lease(store, clock)
        held.take()
        held.release()
    assert clock.now == 1000.0
    assert held.number == 3


def test_a_holder_that_does_not_move_is_taken_over_after_the_lease_time(store: Store):
    first, said = lease(store), list[str]()
    first.take()
    clock = Clock()
    second = lease(store, clock, lease_s=30.0, say=said.append)
    second.take()
    assert 30.0 <= clock.now - 1000.0 <= 32.0
    assert "has not given this sweep back; looking for 30 s whether it lives" in said[0]
    first.beat()
    assert first.fenced_by == second.holder


def test_a_holder_that_beats_keeps_its_sweep(store: Store):
    first = lease(store)
    first.take()
    clock = Clock(lambda now: first.beat() if now > 1020 else None)
    with pytest.raises(SweepBusy, match=rf"driver pid {first.holder.pid} on .* is running this sweep; stop it first"):
        lease(store, clock).take()
    assert clock.now < 1030
    first.beat()
    assert first.fenced_by is None


def test_time_in_which_the_storage_was_out_of_reach_does_not_count_against_the_holder(store: Store):
    first = lease(store)
    first.take()
    clock = Clock()
    slow = iter([200.0])  # one read that took this long: retries through an outage
    read = store.read

    def reading(key: str) -> bytes:
        clock.now += next(slow, 0.0)
        return read(key)

    second = lease(store, clock, lease_s=30.0)
    second._latest()  # the slow read is not the first
    slow = iter([0.0, 200.0])
    store.read = reading  # type: ignore[method-assign]
    second.take()
    assert clock.now - 1000.0 >= 230.0


def test_a_sweep_given_back_while_it_is_watched_is_free_at_once(store: Store):
    first = lease(store)
    first.take()
    clock = Clock(lambda now: first.release())
    lease(store, clock).take()
    assert clock.now < 1005


def test_a_holder_known_to_be_dead_is_not_waited_for(store: Store):
    lease(store).take()
    clock = Clock()
    lease(store, clock, gone=lambda holder: True).take()
    assert clock.now == 1000.0


def test_a_release_does_not_touch_the_lease_of_the_next_holder(store: Store):
    first = lease(store)
    first.take()
    second = lease(store, lease_s=0.0)
    second.take()
    first.release()
    assert Record.parse(store.read("lease/000002.json")) == Record(second.holder)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"beat": "x"}', b"\xff\xfe"])
def test_a_lease_that_makes_no_sense_is_watched_like_any_other(store: Store, text: bytes):
    store.write("lease/000007.json", text)
    clock = Clock()
    held = lease(store, clock, lease_s=30.0)
    held.take()
    assert held.number == 8
    assert clock.now - 1000 >= 30


def test_a_driver_of_a_newer_version_whose_lease_nobody_here_can_read_is_seen_to_live(store: Store):
    """Its heartbeat is somewhere in there; taken for dead it would be fenced in the middle of its work."""

    def beat(now: float) -> None:
        holder = {"version": 7, "holder": {"machine": "a-machine-with-a-long-name.example.org"}, "counter": int(now)}
        store.write("lease/000001.json", json.dumps(holder).encode())

    beat(0)
    with pytest.raises(SweepBusy, match="an unknown host"):
        lease(store, Clock(beat)).take()
    assert driver_states([store], sleep=lambda seconds: beat(seconds + 1))[0].alive
    assert driver_states([store], sleep=lambda seconds: None)[0].kind == "lost"


def test_what_else_lies_beside_leases_is_nobodys_lease(store: Store):
    store.write("lease/notes.json", b"who put this here?")
    held = lease(store, Clock())
    held.take()
    assert held.number == 1


def test_of_sixteen_that_race_for_a_sweep_one_wins_and_the_others_are_told_who():
    store, won, lost = MemoryStore(), list[Lease](), list[str]()
    start = threading.Barrier(16)

    def race() -> None:
        held = Lease(store, lease_s=1.0)
        start.wait()
        try:
            held.take()
            won.append(held)
        except SweepBusy as e:
            lost.append(str(e))

    racers = [threading.Thread(target=race) for _ in range(16)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(won) == 1
    assert len(lost) == 15
    won[0].release()


def test_a_process_is_known_to_be_dead_by_pid_start_and_kernel_together():
    here = Holder.here()
    assert not here.gone()
    assert replace(here, started="1").gone(), "the pid is another process by now"
    assert not replace(here, started="1", boot="another kernel").gone(), "nobody can know"
    assert not replace(here, started="1", namespace="pid:[1]").gone()
    child = subprocess.Popen(["sleep", "60"])
    child.kill()
    child.wait()
    assert replace(here, pid=child.pid).gone()


def elsewhere(store: Store, at: float, beat: int = 3, **changes) -> None:
    """Leaves the lease of a driver on another machine whose last beat was at a Unix time."""
    holder = Holder("far", 7, boot="another-boot")
    data = json.loads(Record(holder, beat, **changes).line())
    store.write("lease/000001.json", json.dumps({**data, "at": at}).encode())


def test_a_driver_of_this_process_is_alive_and_one_that_gave_the_sweep_back_is_none(store: Store):
    assert driver_state(store) == DriverState("none")
    held = Lease(store, beating=False)
    held.take()
    assert driver_state(store).alive
    assert driver_state(store).message("s-1") == ""
    held.release()
    state = driver_state(store)
    assert state.kind == "none"
    assert state.message("s-1") == f"no driver since {state.since}; dipsweep resume s-1 goes on"


def test_a_driver_that_somebody_stopped_is_told_with_how_it_goes_on(store: Store):
    """Ctrl-Z, and forgotten: it shows no progress for ever, and holds its sweep and its machines."""
    program = "from sweeps.journal.lease import Holder, Record; print(Record(Holder.here()).line().decode(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        store.write("lease/000001.json", driver.stdout.readline())
        assert (driver_state(store).alive, driver_state(store).message("s-1")) == (True, "")
        os.kill(driver.pid, signal.SIGSTOP)
        os.waitpid(driver.pid, os.WUNTRACED)
        state = driver_state(store)
        assert state.alive
        assert (
            f"was stopped, by Ctrl-Z maybe; fg in its shell, or kill -CONT {driver.pid}, lets it go on"
            in state.message("s-1")
        )
        os.kill(driver.pid, signal.SIGCONT)
        driver.communicate(b"\n")


def test_a_driver_that_was_killed_on_this_machine_is_lost_at_once(store: Store):
    program = "from sweeps.journal.lease import Holder, Record; print(Record(Holder.here()).line().decode())"
    line = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    store.write("lease/000001.json", line.encode())
    state = driver_state(store)
    assert (state.kind, state.since != "") == ("lost", True)


def test_a_fresh_beat_of_another_machine_is_a_sign_of_life_and_an_old_one_is_watched(store: Store):
    elsewhere(store, time.time())
    assert driver_states([store], sleep=lambda s: pytest.fail("no need to wait"))[0].alive
    elsewhere(store, time.time() - 3600)
    (lost,) = driver_states([store], sleep=lambda s: None)
    assert lost.kind == "lost"
    assert lost.since[:4] == time.strftime("%Y", time.gmtime(time.time() - 3600))
    (beats_on,) = driver_states([store], sleep=lambda s: elsewhere(store, time.time() - 3600, beat=4))
    assert beats_on.alive  # its clock is an hour behind
    (ends,) = driver_states([store], sleep=lambda s: elsewhere(store, time.time() - 3600, beat=4, released=True))
    assert not ends.alive


def test_a_lease_of_an_earlier_version_has_no_time_and_is_watched(store: Store):
    elsewhere(store, 0.0)
    waited = list[float]()
    assert [s.kind for s in driver_states([store, store], sleep=waited.append)] == ["lost", "lost"]
    assert len(waited) == 1  # side by side


def test_a_driver_that_waits_for_a_full_disk_still_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = LocalStore(tmp_path)
    held = lease(store)
    held.take()

    def full(key: str, data: bytes) -> None:
        raise StorageFull("no room")

    monkeypatch.setattr(store, "write", full)
    before = latest_record(store)[1]
    held.beat()
    held.beat()
    number, after = latest_record(store)
    assert before is not None
    assert after is not None
    assert (number, after.holder, after.beat - before.beat) == (held.number, held.holder, 2)
