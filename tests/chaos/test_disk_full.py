"""A disk that fills up in the middle of a sweep: said clearly, nothing corrupt, and it goes on when there is room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.run import run
from sweeps import Sweep, grid
from sweeps.config.trial import Hooks, Saved, TrialSpec
from sweeps.errors import StorageFull, TrialFailed
from sweeps.journal.history import History
from sweeps.journal.writer import read_rows
from tests.support.crash import finished_stay_finished, no_row_twice
from tests.support.fakes import FakeTrainer, fake_evaluate

pytestmark = pytest.mark.chaos
SWEEP = Sweep(name="full", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 16, "lr": 1e-3})


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
    """FakeTrainer whose checkpoints weigh something; as the real one, it ends its trial when no room is left for them."""

    def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None:
        class Heavy:
            report, stop_asked = hooks.report, hooks.stop_asked

            def saved(self, checkpoint: Saved) -> None:
                try:
                    (Path(checkpoint.path) / "weights").write_bytes(b"w" * kib * 1024)
                except OSError as e:
                    (Path(checkpoint.path) / "weights").unlink()
                    raise TrialFailed("disk-full", f"no room is left for checkpoint {checkpoint.path}") from e
                hooks.saved(checkpoint)

        FakeTrainer()(trial, Heavy(), folder=folder, resume=resume)

    return train


def go(disk: Path, kib: int) -> None:
    run(SWEEP, storage=disk, backend="in-process", train=heavy(kib), evaluate=fake_evaluate, say=lambda line: None)


def held(disk: Path) -> None:
    rows = read_rows(disk / SWEEP.id)
    no_row_twice(rows)
    finished_stay_finished(rows)


def test_no_room_for_a_checkpoint_fails_that_trial_with_a_reason_and_the_log_goes_on(disk: Path):
    go(disk, 300)
    curves = list(History(read_rows(disk / SWEEP.id)).trials())
    assert {(c.state, c.reason) for c in curves} == {("failed", "disk-full")}
    assert "no room is left for checkpoint" in curves[0].detail
    held(disk)


def test_no_room_for_the_log_ends_the_sweep_clearly_and_with_room_it_goes_on_where_it_was(disk: Path):
    filler = disk / "somebody-elses"
    lines: list[str] = []

    def fill_up(line: str) -> None:
        """Somebody else takes all the room that is left, at the second line of progress."""
        lines.append(line)
        if len(lines) == 4:
            with filler.open("wb", buffering=0) as out:
                try:
                    while True:
                        out.write(b"x" * 512)
                except OSError:
                    pass

    with pytest.raises(StorageFull, match=r"no room is left on this disk .*; free some, then resume the sweep"):
        run(SWEEP, storage=disk, backend="in-process", train=heavy(4), evaluate=fake_evaluate, say=fill_up)
    before = read_rows(disk / SWEEP.id)
    assert len(before) > 10
    filler.unlink()
    go(disk, 4)
    rows = read_rows(disk / SWEEP.id)
    assert rows[: len(before)] == before
    assert {c.state for c in History(rows).trials()} == {"completed"}
    held(disk)
