"""What is collected, what is left alone, and why: from the journal alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeps.checkpoints.gc import STALE_S, Garbage, collect, collect_all, collect_scratch
from sweeps.checkpoints.scratch import scratch
from sweeps.errors import SweepBusy
from sweeps.journal.rows import Row
from sweeps.journal.writer import SweepJournal, read_rows
from sweeps.storage.base import Store
from sweeps.storage.factory import open_store
from sweeps.storage.memory import MemoryStore
from tests.support.rows import make_row


@pytest.fixture(params=["folder", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path / "runs" / "s-1") if request.param == "folder" else MemoryStore() / "s-1"


def write(home: Store, *rows: Row) -> None:
    with SweepJournal(home, lease_s=0, beating=False) as journal:
        for row in rows:
            journal.append(row)


def attempt(trial: str, number: int) -> Row:
    return make_row("attempt", "s-1", trial, number, 0)


def commit(trial: str, number: int, step: int, **extra: object) -> Row:
    path = f"trials/{trial}/attempt-{number}/step-{step:06d}"
    return make_row("commit", "s-1", trial, number, step, extra={"path": path, **extra})


def end(trial: str) -> Row:
    return make_row("end", "s-1", trial, 1, 8, extra={"of": "scoring", "status": "completed"})


def saved(home: Store, trial: str, number: int, step: int) -> str:
    key = f"trials/{trial}/attempt-{number}/step-{step:06d}"
    for name in ("model.safetensors", "manifest.json"):
        home.write(f"{key}/{name}", b"12345")
    return key


def sweep(home: Store) -> dict[str, str]:
    """A sweep with one of everything; returns the folders that are of no use, with the reason."""
    trial = [make_row("trial", "s-1", t, extra={"number": i}) for i, t in enumerate(("t-done", "t-open"))]
    write(home, *trial, attempt("t-done", 1), commit("t-done", 1, 2), commit("t-done", 1, 2, dropped=True),
          commit("t-done", 1, 4), commit("t-done", 1, 6), commit("t-done", 1, 6, damaged=True), end("t-done"),
          attempt("t-open", 1), commit("t-open", 1, 2), attempt("t-open", 2))  # fmt: skip
    saved(home, "t-done", 1, 4)
    saved(home, "t-open", 1, 2)
    return {
        saved(home, "t-done", 1, 2): "its removal was cut off",
        saved(home, "t-done", 1, 6): "damaged",
        saved(home, "t-done", 1, 8): "before the sweep heard of",
        saved(home, "t-open", 1, 4): "before the sweep heard of",
        saved(home, "t-other", 1, 2): "of no trial of this sweep",
    }


def keys(home: Store, found: list[Garbage]) -> dict[str, str]:
    return {g.what.removeprefix(home.root + "/"): g.why for g in found}


def test_what_no_row_counts_on_is_found_with_its_size_and_reason_and_nothing_is_touched(home: Store):
    useless = sweep(home)
    before = home.list()
    found = collect(home)
    assert keys(home, found).keys() == useless.keys()
    assert {key: why for key, why in keys(home, found).items() if useless[key] not in why} == {}
    assert {g.size for g in found} == {10}
    assert home.list() == before


def test_applied_it_is_gone_and_what_counts_is_there(home: Store):
    useless = sweep(home)
    assert keys(home, collect(home, apply=True, lease_s=0)).keys() == useless.keys()
    left = {e.key.rpartition("/")[0] for e in home.list("trials")}
    assert left == {"trials/t-done/attempt-1/step-000004", "trials/t-open/attempt-1/step-000002"}
    assert collect(home, apply=True, lease_s=0) == []
    assert read_rows(home)[1].kind == "trial", "the log is never collected"


def test_what_an_attempt_may_be_writing_now_is_left_alone_unless_nobody_drives(home: Store):
    useless = sweep(home)
    writing = saved(home, "t-open", 2, 4)
    assert keys(home, collect(home)).keys() == useless.keys()
    assert writing in keys(home, collect(home, apply=True, lease_s=0))


def test_nothing_is_removed_while_a_driver_holds_the_sweep(tmp_path: Path):
    home = open_store(tmp_path / "s-1")
    sweep(home)
    before = home.list("trials")
    with SweepJournal(home):
        with pytest.raises(SweepBusy):
            collect(home, apply=True)
        assert collect_all(tmp_path, apply=True) == []
    assert home.list("trials") == before


def test_a_write_that_was_never_finished_is_collected(tmp_path: Path):
    home = open_store(tmp_path / "s-1")
    write(home)
    (tmp_path / "s-1" / ".spec.yaml.77-abc.part").write_text("name: s")
    assert keys(home, collect(home, apply=True)) == {".spec.yaml.77-abc.part": "a write that was never finished"}
    assert not (tmp_path / "s-1" / ".spec.yaml.77-abc.part").exists()


def test_scratch_goes_after_a_day_without_a_touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPSWEEP_SCRATCH", str(tmp_path))
    old, new = scratch("write", "s-1", "t-1"), scratch("write", "s-2", "t-1")
    for folder in (old, new):
        (folder / "weights").write_bytes(b"123")
    now = (new / "weights").stat().st_mtime
    for path in (old / "weights", old, old.parent):
        os.utime(path, (now - 2 * STALE_S, now - 2 * STALE_S))
    assert [(g.what, g.size) for g in collect_scratch(now=now)] == [(str(old.parent), 3)]
    assert old.exists()
    collect_scratch(now=now, apply=True)
    assert not old.parent.exists()
    assert (new / "weights").exists()
