"""A disk that fills up, or goes away, in the middle of a sweep: it says what it needs, waits, and goes on by itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.run_sweep import run
from sweeps import Sweep, grid
from sweeps.config.trial import Hooks, Saved, TrialSpec
from sweeps.journal.history import History
from sweeps.journal.rows import Row
from sweeps.journal.writer import read_rows
from tests.support.crash import finished_stay_finished, no_row_twice
from tests.support.fakes import FakeTrainer, fake_evaluate
from tests.support.programs import ray_programs

pytestmark = pytest.mark.chaos
SWEEP = Sweep(name="full", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 16, "learning_rate": 1e-3})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a quarter of a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small disk (root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def heavy(kib: int):
    """FakeTrainer whose checkpoints weigh something, and which lets a full disk's error through as any own loop would."""

    def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None:
        class Heavy:
            report, stop_asked = hooks.report, hooks.stop_asked

            def saved(self, checkpoint: Saved) -> None:
                (Path(checkpoint.path) / "weights").write_bytes(b"w" * kib * 1024)
                hooks.saved(checkpoint)

        FakeTrainer()(trial, Heavy(), folder=folder, resume=resume)

    return train


class Person:
    """Reads what the sweep says, and makes room when it says what is needed; `lines` is all of it."""

    def __init__(
        self, makes_room: Callable[[], object], fills: Callable[[], object] = lambda: None, at: int = 0
    ) -> None:
        self.lines, self.makes_room, self.fills, self.at = list[str](), makes_room, fills, at

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) == self.at:
            self.fills()
        if "no room is left on this disk" in line and "free some" in line:
            threading.Timer(1.0, self.makes_room).start()


def go(disk: Path, kib: int, person: Person) -> list[Row]:
    """Runs the sweep once, to its end; returns its rows."""
    run(SWEEP, storage=disk, backend="in-process", train=heavy(kib), evaluate=fake_evaluate, say=person)
    rows = read_rows(disk / SWEEP.id)
    no_row_twice(rows)
    finished_stay_finished(rows)
    return rows


def test_no_room_for_a_checkpoint_pauses_the_sweep_until_somebody_makes_room(disk: Path):
    def enlarge() -> None:
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)

    person = Person(enlarge)
    rows = go(disk, 300, person)
    assert {c.state for c in History(rows).trials()} == {"completed"}
    assert any(line.startswith("paused: ") and "tried again" in line for line in person.lines)


def test_no_room_for_the_log_pauses_the_sweep_and_nothing_is_lost(disk: Path):
    filler = disk / "somebody-elses"

    def fill() -> None:
        with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(b"x" * 512)

    person = Person(lambda: filler.unlink(missing_ok=True), fill, at=4)  # a slow machine is told twice
    rows = go(disk, 4, person)
    assert {c.state for c in History(rows).trials()} == {"completed"}
    assert any("no room is left" in line for line in person.lines)


@pytest.mark.ray
def test_on_ray_no_room_for_checkpoints_or_the_log_pauses_the_sweep_and_it_goes_on(disk: Path):
    with ray_programs("tests.chaos.disk_program") as (start, _):
        process = start(disk)
        assert process.stdout is not None
        lines = list[str]()
        for line in process.stdout:
            lines.append(line)
            if "paused: " in line and "no room is left on this disk" in line:
                subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
                break
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, "".join(lines) + out + err[-3000:]
    rows = read_rows(disk / SWEEP.id)
    no_row_twice(rows)
    assert {c.state for c in History(rows).trials()} == {"completed"}
