"""A sweep in a bucket on a real local Ray: driver killed, S3 server killed and started again, resumed to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeps.errors import StorageError
from sweeps.history import History
from sweeps.journal import read_rows
from sweeps.storage import open_store
from tests.fakes import by_trial
from tests.s3 import S3Server

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(600)]
REPO = Path(__file__).parents[2]
CANARY = "canary-5e3c1d"


@pytest.fixture
def start(s3_url: str) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory(prefix="ds", dir="/tmp", ignore_cleanup_errors=True) as temp:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
        env |= {"PYTHONPATH": str(REPO), "RAY_TMPDIR": temp, "PYTHONUNBUFFERED": "1", "MY_SERVICE_TOKEN": CANARY}

        def go() -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.scenario.s3_program", s3_url], cwd=REPO, env=env, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            started.append(process)
            return process

        yield go
        for process in started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        _no_secret_in(Path(temp), os.environ["AWS_SECRET_ACCESS_KEY"], CANARY)


def _no_secret_in(folder: Path, *secrets: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.suffix in (".log", ".out", ".err", ".json", ".txt"):
            data = file.read_bytes()
            assert not [s for s in secrets if s.encode() in data], file


def test_driver_and_server_are_killed_and_the_sweep_ends_as_if_nothing_had_happened(
    start, s3_url: str, s3_server: S3Server
):
    home = f"{s3_url}/{_sweep_id()}"

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


def _sweep_id() -> str:
    code = "from tests.scenario.s3_program import SWEEP; print(SWEEP.id)"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout.strip()
