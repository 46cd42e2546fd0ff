"""A sweep in a bucket on a real local Ray: driver killed, S3 server killed and started again, resumed to its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.errors import StorageError
from sweeps.journal.history import History
from sweeps.journal.writer import read_rows
from sweeps.storage.factory import open_store
from tests.scenario.programs.s3 import SWEEP
from tests.support.fakes import by_trial
from tests.support.machines.s3 import S3Server
from tests.support.programs import Start, ray_programs

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(600)]
CANARY = "canary-5e3c1d"


@pytest.fixture
def start(s3_url: str) -> Iterator[Start]:
    with ray_programs("tests.scenario.programs.s3", MY_SERVICE_TOKEN=CANARY) as (go, temp):
        yield lambda: go(s3_url)
        _no_secret_in(temp, os.environ["AWS_SECRET_ACCESS_KEY"], CANARY)


def _no_secret_in(folder: Path, *secrets: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.suffix in (".log", ".out", ".err", ".json", ".txt"):
            data = file.read_bytes()
            assert not [s for s in secrets if s.encode() in data], file


def test_driver_and_server_are_killed_and_the_sweep_ends_as_if_nothing_had_happened(
    start, s3_url: str, s3_server: S3Server
):
    home = f"{s3_url}/{SWEEP.id}"

    def rows() -> list:
        try:
            return read_rows(home)
        except StorageError:
            return []

    first = start()
    while sum(r.kind == "commit" for r in rows()) < 3:
        assert first.poll() is None, first.communicate()
        time.sleep(0.3)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    before = rows()

    second = start()
    while sum(r.kind == "commit" for r in rows()) < sum(r.kind == "commit" for r in before) + 1:
        assert second.poll() is None, second.communicate()
        time.sleep(0.3)
    s3_server.kill()
    time.sleep(2)
    s3_server.start()
    _, err = second.communicate()
    assert second.returncode == 0, err[-3000:]

    journal = read_rows(home)
    assert journal[: len(before)] == before
    assert [r.seq for r in journal] == list(range(len(journal)))
    assert [c.state for c in History(journal).trials()] == ["completed"] * 2
    finished = {c.trial for c in History(before).trials() if c.state == "completed"}
    assert not [r for r in journal[len(before) :] if r.trial in finished and r.kind in ("attempt", "commit")]
    scored = [(r.trial, r.step) for r in journal if r.kind == "report" and r.suite]
    assert len(scored) == len(set(scored))
    last = {t: max(c.step for c in commits) for t, commits in by_trial(before, "commit").items()}
    resumed = [r for r in journal[len(before) :] if r.kind == "attempt" and r.attempt == 2]
    assert {r.trial: r.step for r in resumed} == {r.trial: last.get(r.trial, 0) for r in resumed}
    store = open_store(s3_url)
    for entry in store.list():
        data = store.read(entry.key)
        assert s3_server.secret.encode() not in data
        assert CANARY.encode() not in data
