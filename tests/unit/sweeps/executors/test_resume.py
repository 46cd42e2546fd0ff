"""Going on: a pause ends for whoever resumes, from wherever, and limits that were changed stay changed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.jobs import entrypoint as driver
from cluster.jobs.resume import paused, prepare_resumed_sweep, request_resume_on_cluster
from cluster.run_sweep import write_spec
from sweeps import Sweep
from sweeps.controller.requests import pending
from sweeps.journal.writer import SweepJournal
from sweeps.storage.factory import open_store
from tests.support.rows import make_row
from tests.unit.cluster.jobs.test_submit import FakeJobs, send, server

__all__ = ["server"]

SWEEP = Sweep(name="goes-on", limits={"gpu_hours": 50.0})


class Kept:
    """A sweep in a storage, with what was asked of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.journal = root, SweepJournal(root / SWEEP.id, beating=False)
        self.home = open_store(root / SWEEP.id)
        write_spec(SWEEP, self.home)

    def asked(self, *actions: str) -> None:
        for action in actions:
            self.journal.append(make_row("control", SWEEP.id, extra={"action": action, "who": "ana"}))

    def requests(self) -> list[str]:
        return [r.action for r in pending(open_store(self.root), SWEEP.id)]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.journal.close()


@pytest.mark.parametrize(
    ("asked", "is_paused"),
    [
        ((), False),
        (("pause",), True),
        (("pause", "interrupt"), True),  # its driver was stopped: the next one still finds the pause
        (("pause", "interrupt", "resume"), False),
        (("pause", "resume", "limits"), False),
    ],
)
def test_a_pause_lasts_until_somebody_resumes(kept: Kept, asked: tuple[str, ...], is_paused: bool):
    kept.asked(*asked)
    assert paused(kept.home) is is_paused


def test_a_resumed_job_leaves_word_that_the_pause_is_over_and_keeps_changed_limits(kept: Kept):
    kept.asked("pause", "interrupt")
    write_spec(SWEEP.model_copy(update={"limits": SWEEP.limits.model_copy(update={"gpu_hours": 100.0})}), kept.home)
    sweep = prepare_resumed_sweep(SWEEP, str(kept.root))
    assert (sweep.id, sweep.limits.gpu_hours) == (SWEEP.id, 100.0)
    assert kept.requests() == ["resume"]


def test_a_sweep_that_nobody_paused_just_goes_on(kept: Kept, tmp_path: Path):
    assert prepare_resumed_sweep(SWEEP, str(kept.root)) == SWEEP
    assert kept.requests() == []
    assert prepare_resumed_sweep(SWEEP, str(tmp_path / "elsewhere")) == SWEEP  # nothing is there yet
    assert request_resume_on_cluster(SWEEP.id, str(kept.root)) == ""
    assert request_resume_on_cluster(SWEEP.id, "/nowhere/that/this/machine/sees") == ""


def test_only_a_resumed_job_is_told_to_go_on(server: FakeJobs, monkeypatch, kept: Kept):
    send()
    server.becomes(next(iter(server.jobs)), state="stopped")
    send(again=True)
    first, second = (shlex.split(r["entrypoint"])[3:] for r in server.requests)
    assert [a for a in second if a not in first] == [driver.RESUME]
    monkeypatch.setattr(driver, "sent_sweep", lambda sweep_id: SWEEP)
    kept.asked("pause")
    assert driver._arguments([SWEEP.id, "--storage", str(kept.root)]) == (SWEEP, str(kept.root))
    assert kept.requests() == []
    driver._arguments([SWEEP.id, "--storage", str(kept.root), driver.RESUME])
    assert kept.requests() == ["resume"]
