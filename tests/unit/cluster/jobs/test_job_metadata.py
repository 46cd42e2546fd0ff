"""What a job says of itself was written by whoever submitted it: it names a sweep, never a place on this machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.cli.job_text import status_of
from cluster.connect.address import JobsEndpoint
from cluster.jobs.client import Jobs
from cluster.locate import find, is_id
from cluster.run_sweep import write_spec
from sweeps import Sweep
from sweeps.errors import InputError
from sweeps.journal.writer import SweepJournal
from tests.support.rows import make_row

SWEEP = Sweep(name="mine", space={"learning_rate": {"grid": [1e-3, 1e-4]}})


def kept(root: Path, sweep: str = SWEEP.id, trial: str = "t-11111111") -> Path:
    """Leaves a sweep with one trial under a root."""
    with SweepJournal(root / sweep, beating=False) as journal:
        journal.append(make_row("trial", sweep, trial, budget=8, config={"learning_rate": 1e-3}))
    write_spec(SWEEP, root / sweep)
    return root / sweep


def told(job: str, **metadata: str) -> Any:
    """A job as Ray tells of it."""
    return SimpleNamespace(submission_id=job, metadata={"dipsweep": "0.1.0", **metadata}, status="RUNNING", message="",
                           driver_exit_code=None, start_time=1, end_time=0)  # fmt: skip


class Board(Jobs):
    """A cluster with these jobs."""

    def __init__(self, *jobs: Any) -> None:
        self.endpoint = JobsEndpoint("http://10.1.1.1:8265", {}, "2.60.0", True)
        self._client = SimpleNamespace(list_jobs=lambda: list(jobs))


@pytest.mark.parametrize("sweep", ["/home/me/runs/mine-1a2b3c4d", "../mine-1a2b3c4d", "s3://b/mine-1a2b3c4d", "mine", "",
                                   "mine-1A2B3C4D", "mine-1a2b3c4d\n", "mine-1a2b3c4d/log", "."])  # fmt: skip
def test_a_job_whose_metadata_names_no_sweep_by_its_id_is_no_sweeps(sweep: str):
    board = Board(
        told("x-1a2b3c4d", sweep=sweep, storage="/shared"), told(SWEEP.id, sweep=SWEEP.id, storage="s3://b/x")
    )
    assert [job.sweep for job in board.all()] == [SWEEP.id]
    with pytest.raises(InputError, match="no sweep 'x-1a2b3c4d'"):
        board.find("x-1a2b3c4d")


@pytest.mark.parametrize("storage", ["", ".", "runs", "~/runs"])
def test_a_job_whose_storage_is_relative_to_whoever_asks_is_no_sweeps(storage: str):
    assert Board(told(SWEEP.id, sweep=SWEEP.id, storage=storage), told(SWEEP.id, sweep=SWEEP.id)).all() == []


def test_every_id_a_sweep_can_have_is_one():
    assert is_id(SWEEP.id)
    assert is_id(Sweep(name="a" * 63).id)
    assert is_id(Sweep(name="0-1a2b3c4d").id)


def test_the_status_of_a_job_is_read_from_its_storage_though_a_folder_here_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept(tmp_path / "here", trial="t-22222222")
    kept(tmp_path / "there", trial="t-33333333")
    monkeypatch.chdir(tmp_path / "here")
    board = Board(told(SWEEP.id, sweep=SWEEP.id, storage=str(tmp_path / "there")))
    _, text = status_of(board, SWEEP.id, None)
    assert "t-33333333" in text
    assert "t-22222222" not in text


def test_the_named_storage_wins_over_a_folder_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, there = kept(tmp_path / "here"), kept(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "here")
    assert find(SWEEP.id, str(tmp_path / "there")).root == str(there)
    assert find(SWEEP.id).root == str(here)  # without one it is the folder, as before
    assert find(str(there)).root == str(there)


@pytest.mark.parametrize("name", ["{here}", "../here/{id}"])
def test_a_folder_beside_a_named_storage_is_refused_with_what_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    here = kept(tmp_path / "here")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(InputError, match=r"under .*there.*leave --storage out"):
        find(name.format(here=here, id=SWEEP.id), str(tmp_path / "there"))
