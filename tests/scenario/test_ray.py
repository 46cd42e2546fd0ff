"""The run loop on a real local Ray of two CPUs, with stand-ins for training and evaluation."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.connect.ray_logging import DIED
from sweeps.journal.history import History
from sweeps.journal.rows import Row
from sweeps.journal.writer import read_rows, sweeps_in
from tests.support.fakes import by_trial
from tests.support.programs import Process, Start, ray_programs

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the program in one of its modes, in a Ray of its own."""
    with ray_programs("tests.scenario.programs.stand_ins") as (go, _):
        yield lambda mode: go(mode, tmp_path)


def rows(root: Path) -> list[Row]:
    folders = list(sweeps_in(root))
    return read_rows(folders[0]) if folders else []


def wait_for(condition: Callable[[], bool], process: Process) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_after_each_of_three_stops_every_cpu_is_back_within_five_seconds(start, tmp_path: Path):
    process = start("stops")
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    result = json.loads(out.splitlines()[-1])
    assert DIED not in out + err  # what Ray says of each process that ends of itself
    assert len(result["freed_s"]) == 3
    assert all(s <= 5 for s in result["freed_s"]), result
    assert result["free_at_end"] == 2.0
    assert {c.state for c in History(rows(tmp_path)).trials()} == {"pruned"}


def test_a_trial_that_raises_diverges_or_loses_its_worker_is_told_apart_and_the_sweep_goes_on(start, tmp_path: Path):
    process = start("failures")
    _, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    journal = rows(tmp_path)
    ended = {c.config["learning_rate"]: c for c in History(journal).trials()}
    assert (ended[666.0].state, ended[666.0].reason) == ("failed", "error")
    assert (ended[667.0].state, ended[667.0].reason) == ("failed", "diverged")
    assert (ended[999.0].state, ended[999.0].attempt) == ("completed", 2)  # its worker died once, after step 4
    assert (ended[1e-3].state, ended[1e-3].attempt) == ("completed", 1)
    again = [r for r in by_trial(journal, "attempt")[ended[999.0].trial] if r.attempt == 2]
    assert again[0].step == 4
    details = {r.detail for r in journal if r.kind == "end" and r.reason == "error"}
    assert details == {"RuntimeError: this learning rate is cursed"}


def test_killed_in_mid_sweep_and_resumed_no_finished_trial_runs_again_and_each_row_stands_once(start, tmp_path: Path):
    first = start("sweep")

    def one_done_one_open() -> bool:
        curves = list(History(rows(tmp_path)).trials())
        open_ = [c for c in curves if c.state == "running" and len(c.points) > 2 and c.last_step < (c.budget or 0) - 2]
        return any(c.state == "completed" for c in curves) and bool(open_)

    wait_for(one_done_one_open, first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    before = rows(tmp_path)
    finished = {c.trial for c in History(before).trials() if c.state == "completed"}

    second = start("sweep")
    _, err = second.communicate()
    assert second.returncode == 0, err[-3000:]
    journal = rows(tmp_path)
    assert journal[: len(before)] == before
    assert [c.state for c in History(journal).trials()] == ["completed"] * 3, (
        err[-3000:],
        [r.line() for r in journal[len(before) :]],
    )
    assert not [r for r in journal[len(before) :] if r.trial in finished and r.kind in ("attempt", "commit")]
    resumed = [r for r in journal[len(before) :] if r.kind == "attempt" and r.attempt == 2]
    last = {t: max(c.step for c in commits) for t, commits in by_trial(before, "commit").items()}
    assert {r.trial: r.step for r in resumed} == {r.trial: last.get(r.trial, 0) for r in resumed}
    assert any(r.step > 0 for r in resumed)
    scored = [(r.trial, r.step) for r in journal if r.kind == "report" and r.suite]
    assert len(scored) == len(set(scored)) == 1 + 3 * 8  # the base, and eight snapshots of each trial


def test_ctrl_c_twice_ends_a_sweep_at_once_whose_trials_do_not_listen(start, tmp_path: Path):
    process = start("deaf")
    wait_for(lambda: any(r.kind == "report" for r in rows(tmp_path)), process)
    os.kill(process.pid, signal.SIGINT)
    wait_for(lambda: any(r.kind == "control" for r in rows(tmp_path)), process)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err[-3000:]
    assert "interrupted at once; resume continues" in err
    assert [c.state for c in History(rows(tmp_path)).trials()] == ["running"]


@pytest.mark.parametrize(
    "name", ["SIGINT", "SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGHUP", "SIGUSR1"))]
)
def test_ctrl_c_and_its_kin_save_and_exit_130_and_the_sweep_can_be_resumed(start, tmp_path: Path, name: str):
    process = start("sweep")
    wait_for(lambda: sum(r.kind == "commit" for r in rows(tmp_path)) >= 2, process)
    number = getattr(signal, name)
    if name == "SIGHUP":
        os.killpg(process.pid, number)  # a terminal that is closed reaches Ray's processes too
    else:
        os.kill(process.pid, number)
    _, err = process.communicate()
    assert process.returncode == 130, err[-3000:]
    assert "resume continues from the last checkpoints" in err
    journal = rows(tmp_path)
    assert [r.reason for r in journal if r.kind == "control"] == ["Ctrl-C" if name == "SIGINT" else name]
    assert all(c.state in ("running", "waiting") for c in History(journal).trials())
