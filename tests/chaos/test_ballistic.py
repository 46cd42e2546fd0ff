"""Processes of a running sweep are shot at random moments, over and over; at its end nothing is lost and nothing stands twice.

Targets: the driver (killed, or asked to end by SIGTERM), whoever reads its output, the actor of a trial, a training process, an
evaluator, and the storage: the server of a bucket, or a disk that is filled up and emptied. In every other life of the
driver, processes are reused from attempt to attempt. The sweep has one slot, so its verdicts and its best trial must be those
of a run that nobody shot at.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil
import pytest

from cluster.run_sweep import run, stop_rule
from sweeps.errors import StorageError
from sweeps.journal.history import History
from sweeps.journal.rows import Row
from sweeps.journal.writer import read_rows
from sweeps.storage.factory import open_store
from tests.chaos.ballistic_program import SWEEP
from tests.support.crash import Y, finished_stay_finished, no_row_twice, outcome, verdicts, verdicts_replay
from tests.support.fakes import SealingTrainer, fake_evaluate
from tests.support.machines.heads import clean_env
from tests.support.machines.processes import ATTEMPT, EVALUATOR, TRAINING
from tests.support.machines.s3 import S3Server
from tests.support.programs import REPO

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(2400)]
PATIENCE_S = 600
SIGHT_S = 60  # how long to wait for a process that is to be shot
CANARY = "canary-81f0c2d4"
TARGETS = {
    "driver": "",
    "SIGTERM": "",
    "output": "",
    "trial actor": ATTEMPT,
    "training process": TRAINING,
    "evaluator": EVALUATOR,
}
RESUMABLE = 130


class Range:
    """Where the shooting happens: one sweep, what it lies on, and what was hit.

    Args:
        url: the root of its storage. storage_fault: breaks that for a while, and mends it. secret: of its server.
    """

    def __init__(self, url: str, temp: Path, seed: int, storage_fault: Callable[[float], None], secret: str) -> None:
        self.url, self.temp, self.random, self.secret = url, temp, random.Random(seed), secret
        self.storage_fault = storage_fault
        self.targets = [*TARGETS, "storage"]
        self.aim = self._aim()
        self.round = 0
        self.hits = Counter[str]()
        self.lives = 0
        self.log = (temp / "driver.log").open("ab")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {**clean_env(), "PYTHONPATH": str(REPO), "RAY_TMPDIR": str(self.temp), "MY_SERVICE_TOKEN": CANARY}
        env["RAY_raylet_start_wait_time_s"] = "300"  # patience with a busy machine
        env["DIPSWEEP_REUSE_WORKERS"] = str(self.lives % 2)
        argv = [sys.executable, "-m", "tests.chaos.ballistic_program", self.storage]
        self.process = subprocess.Popen(
            argv, cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=self.log, start_new_session=True
        )
        assert self.process.stdout is not None
        self.reader = Reader(self.process.stdout, self.log)
        self.reader.start()
        self.lives += 1

    def _aim(self) -> Iterator[str]:
        """Every seven shots hit every sort once, in an order of their own."""
        while True:
            yield from self.random.sample(self.targets, len(self.targets))

    @property
    def storage(self) -> str:
        """Each round has an empty storage of its own."""
        return f"{self.url}/round-{self.round}"

    def rows(self) -> list[Row]:
        with contextlib.suppress(StorageError):
            return read_rows(f"{self.storage}/{SWEEP.id}")
        return []

    def told(self) -> str:
        return (self.temp / "driver.log").read_bytes().decode(errors="replace")[-4000:]

    def await_rows(self, count: int) -> bool:
        """Waits until the journal has so many rows; False when the driver ended first."""
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE_S
        while len(self.rows()) < count:
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.2)
        return True

    def processes(self, title: str = "") -> list[psutil.Process]:
        """The processes of our own Ray whose title matches: what names our folder, and its children.

        A Ray worker's title takes the place of its arguments and of its environment, so it is known by its parent.
        """
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(self.temp) in " ".join(process.cmdline()):
                    found |= {p.pid: p for p in [process, *process.children(recursive=True)]}
        return [p for p in found.values() if re.search(title, _title(p))]

    def shoot(self, target: str) -> bool:
        """Kills one process of a sort, or does to it what the sort says; False when none comes into sight."""
        assert self.process is not None
        if target == "driver":
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
        elif target == "SIGTERM":
            os.kill(self.process.pid, signal.SIGTERM)
            self.process.wait(PATIENCE_S)
        elif target == "output":
            self.reader.leave()
        elif target == "storage":
            self.storage_fault(self.random.uniform(0, 4))
        else:
            until = time.monotonic() + SIGHT_S
            while not (victims := self.processes(TARGETS[target])):
                if self.process.poll() is not None or time.monotonic() > until:
                    return False
                time.sleep(0.2)
            with contextlib.suppress(psutil.NoSuchProcess):
                self.random.choice(victims).kill()
        self.hits[target] += 1
        return True

    def end(self) -> None:
        """Ends what is left: the driver, then by their ids the processes of its Ray."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.log.close()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "gone"


class Reader(threading.Thread):
    """Whoever reads the driver's output: writes it down, until told to leave, which closes the pipe."""

    def __init__(self, pipe: IO[bytes], log: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.pipe, self.log, self.left = pipe, log, threading.Event()

    def run(self) -> None:
        with self.pipe:
            while not self.left.is_set():
                if select.select([self.pipe], [], [], 0.2)[0]:
                    if not (data := os.read(self.pipe.fileno(), 65536)):
                        return
                    self.log.write(data)
                    self.log.flush()

    def leave(self) -> None:
        self.left.set()
        self.join()


@contextmanager
def bucket(server: S3Server, url: str) -> Iterator[tuple[str, Callable[[float], None], str]]:
    """A bucket whose server is killed, and comes back some seconds later."""

    def kill(seconds: float) -> None:
        server.kill()
        time.sleep(seconds)
        server.start()

    yield url, kill, server.secret


@contextmanager
def disk(place: Path) -> Iterator[tuple[str, Callable[[float], None], str]]:
    """A disk of its own that somebody fills up to the last byte, and empties some seconds later."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small disk (root)")

    def fill(seconds: float) -> None:
        ballast = place / "somebody-elses"
        with ballast.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(b"x" * 4096)
        time.sleep(seconds)
        ballast.unlink()

    try:
        yield str(place), fill, CANARY
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(params=["bucket", "disk"])
def field(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Range]:
    lies_on = (
        bucket(request.getfixturevalue("s3_server"), request.getfixturevalue("s3_url"))
        if request.param == "bucket"
        else disk(tmp_path / "disk")
    )
    seed = int(os.environ.get("DIPSWEEP_CHAOS_SEED", "6"))
    with (
        lies_on as (url, fault, secret),
        tempfile.TemporaryDirectory(prefix="dsb", dir="/tmp", ignore_cleanup_errors=True) as temp,
    ):
        ground = Range(url, Path(temp), seed, fault, secret)
        yield ground
        ground.end()


def run_under_fire(field: Range, shots: int) -> None:
    """Runs the sweep to its end, and shoots up to so often on the way; each shot only after news since the one before."""
    field.start()
    for _ in range(shots):
        if not field.await_rows(len(field.rows()) + field.random.randint(1, 5)):
            break
        time.sleep(field.random.uniform(0, 1.5))
        field.shoot(next(field.aim))
        assert field.process is not None
        if field.process.poll() is not None:
            assert field.process.returncode in (0, -signal.SIGKILL, RESUMABLE), field.told()
            field.start()
    assert field.process is not None
    field.process.wait(PATIENCE_S)
    assert field.process.returncode == 0, field.told()


def hold(field: Range, whole: list[Row]) -> None:
    """What must be true of the sweep, by its journal, its bucket, and a run of it that nobody shot at."""
    rows = field.rows()
    assert [r.seq for r in rows] == list(range(len(rows)))
    no_row_twice(rows)
    verdicts_replay(rows, stop_rule(SWEEP))
    finished_stay_finished(rows)
    assert outcome(rows) == outcome(whole)
    assert verdicts(rows) == verdicts(whole)
    assert best(rows) == best(whole)
    assert not [row for row in rows if row.kind == "end" and row.status == "failed"]
    store = open_store(field.url)
    secrets = CANARY.encode(), field.secret.encode()
    for entry in store.list():
        assert not [s for s in secrets if s in store.read(entry.key)], entry.key
    for file in field.temp.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert not [s for s in secrets if s in file.read_bytes()], file


def best(rows: list[Row]) -> str:
    curves = [c for c in History(rows).trials() if c.state == "completed"]
    return max(curves, key=lambda c: c.values(Y)[-1]).trial


def undisturbed(folder: Path) -> list[Row]:
    """The same sweep in this process, one trial after the other."""
    home = run(
        SWEEP,
        storage=folder,
        backend="in-process",
        train=SealingTrainer(),
        evaluate=fake_evaluate,
        say=lambda line: None,
    )
    return read_rows(home.path)


def test_shot_at_over_and_over_a_sweep_loses_nothing_and_does_nothing_twice(field: Range, tmp_path: Path):
    shots = int(os.environ.get("DIPSWEEP_CHAOS_SHOTS", "28")) // 2  # for each of the two storages
    whole = undisturbed(tmp_path)
    while (left := shots - sum(field.hits.values())) > 0:
        field.round += 1
        run_under_fire(field, left)
        print(f"round {field.round}: {sum(field.hits.values())} hits in {field.lives} lives: {dict(field.hits)}; "
              f"{len(field.rows())} rows")  # fmt: skip
        hold(field, whole)
    assert field.hits.keys() == set(field.targets) or shots < len(field.targets)
