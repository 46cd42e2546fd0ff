"""A log whose disk is full, read-only or broken for a while: nothing is lost, and nothing stands there twice."""

from __future__ import annotations

import errno
import os
import shutil
from io import FileIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeps.errors import Fenced, JournalError, StorageFull, StorageUnavailable, SweepBusy
from sweeps.journal import writer
from sweeps.journal.compaction import segment_key
from sweeps.journal.rows import Row
from sweeps.journal.writer import SweepJournal, read_rows
from sweeps.storage.base import FOREVER, storage_trouble, trouble_at
from sweeps.storage.local import LocalStore
from sweeps.storage.retry import RetryingStore
from sweeps.storage.s3 import explain
from tests.support.rows import make_row

ID = "s-00000000"
TROUBLES = [
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ESHUTDOWN, errno.ETIMEDOUT,
    errno.EKEYEXPIRED,
]  # fmt: skip


def patient(folder: Path, said: list[str]) -> RetryingStore:
    clock = iter(range(0, 10**9, 10))
    return RetryingStore(LocalStore(folder), FOREVER, said.append, lambda: float(next(clock)), lambda s: None)


class Disk:
    """Takes `room` more bytes of a write, then raises, so many times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, times: int, room: int = 7) -> None:
        self.number, self.times, self.room = number, times, room
        write = FileIO.write

        class Segment(FileIO):
            def write(file, data):
                if self.times > 0:
                    if len(data) > self.room:
                        return write(file, bytes(data)[: self.room])
                    self.times -= 1
                    raise OSError(self.number, os.strerror(self.number))
                return write(file, data)

        monkeypatch.setattr(writer, "FileIO", Segment)


def row(step: int) -> Row:
    return make_row("report", ID, "t-1", 1, step, metrics={"transfer/score": 0.5})


@pytest.mark.parametrize("number", TROUBLES, ids=errno.errorcode.get)
def test_the_log_waits_says_why_and_each_row_stands_once(tmp_path: Path, monkeypatch, number: int):
    said = list[str]()
    disk = Disk(monkeypatch, number, 0)
    with SweepJournal(patient(tmp_path / ID, said), beating=False) as journal:
        journal.append(row(1))
        disk.times, disk.room = 4, 20
        with journal.batch():
            journal.append(row(2))
            journal.append(row(3))
    assert [r.step for r in read_rows(tmp_path / ID)[1:]] == [1, 2, 3]
    assert os.strerror(number) in said[0]
    assert "trying again" in said[0]


def test_without_patience_the_driver_ends_and_the_next_one_goes_on(tmp_path: Path, monkeypatch):
    disk = Disk(monkeypatch, errno.ENOSPC, 0)
    with SweepJournal(tmp_path / ID, beating=False) as journal:
        journal.append(row(1))
        disk.times = 1
        with pytest.raises(JournalError, match=r"no room is left on this disk.*resume the sweep once it can"):
            journal.append(row(2))
    with SweepJournal(tmp_path / ID, beating=False) as journal:
        journal.append(row(2))
    assert [r.step for r in read_rows(tmp_path / ID) if r.kind == "report"] == [1, 2]


def test_a_disk_that_comes_back_without_the_last_rows_ends_the_driver_and_nothing_is_made_up(
    tmp_path: Path, monkeypatch
):
    """Truncating to the length that was written would fill the lost rows up with zeros."""
    disk = Disk(monkeypatch, errno.EIO, 0)
    log = tmp_path / ID / segment_key(0)
    with SweepJournal(patient(tmp_path / ID, []), beating=False) as journal:
        journal.append(row(1))
        before = log.read_bytes()
        journal.append(row(2))
        disk.times, disk.room = 1, 10**6
        log.write_bytes(before)
        with pytest.raises(
            JournalError, match=rf"came back with {len(before)} of \d+ bytes: its last rows are missing"
        ):
            journal.append(row(3))
    assert log.read_bytes() == before


def test_a_segment_that_was_taken_away_is_not_written_on(tmp_path: Path):
    with SweepJournal(tmp_path / ID, beating=False) as journal:
        path = tmp_path / ID / segment_key(0)
        path.replace(path.with_suffix(".aside"))
        with pytest.raises(Fenced):
            journal.append(row(1))


@pytest.fixture
def no_hard_links(monkeypatch) -> None:
    def link(source: object, target: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no hard links here")

    monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("no_hard_links")
@pytest.mark.parametrize("torn", [b"", b'{"v":1,"seq":2,"ki'])
def test_a_segment_without_a_whole_row_is_no_other_driver(tmp_path: Path, torn: bytes):
    with SweepJournal(tmp_path / ID, beating=False) as journal:
        journal.append(row(1))
    (tmp_path / ID / segment_key(2)).write_bytes(torn)  # killed, or out of room, in its first write
    with SweepJournal(tmp_path / ID, beating=False) as journal:
        journal.append(row(2))
    assert [r.kind for r in read_rows(tmp_path / ID)] == ["lease", "report", "lease", "report"]


@pytest.mark.usefixtures("no_hard_links")
def test_no_room_for_a_new_segment_leaves_none(tmp_path: Path, monkeypatch):
    store = LocalStore(tmp_path)
    sync, failures = os.fsync, iter([errno.ENOSPC])

    def fsync(handle: int) -> None:
        if "b" in os.readlink(f"/proc/self/fd/{handle}").rpartition("/")[2] and (number := next(failures, 0)):
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr("sweeps.storage.local.write_through", lambda file, data: file.write_bytes(data))
    with pytest.raises(StorageFull):
        store.create("b", b"x")
    assert store.create("b", b"x")


def test_what_is_the_storages_fault_is_told_from_what_is_the_trials():
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    wrapped = RuntimeError("worker failed")
    wrapped.__cause__ = full
    for error in (full, wrapped, StorageFull("full"), ValueError("I/O error: Input/output error (os error 5)")):
        assert isinstance(storage_trouble(error), StorageUnavailable)
    no_temporary = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/home/me']")
    of_ray = type("OutOfDiskError", (Exception,), {})("Local disk is full")  # ray.exceptions has it
    for error in (no_temporary, of_ray):
        assert isinstance(storage_trouble(error), StorageFull)
    for error in (ValueError("no"), FileNotFoundError(2, "none"), JournalError("row"), OSError("without a number")):
        assert storage_trouble(error) is None


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, StorageUnavailable), (errno.EFBIG, StorageFull)])
def test_trouble_of_the_disk_that_a_download_goes_to_is_that_of_a_disk(number: int, kind: type):
    error = explain(OSError(number, os.strerror(number), "/scratch/model"), "s3://bucket/key", "bucket")
    assert isinstance(error, kind)
    assert str(error).startswith("/scratch/model: ")


def test_a_disk_with_room_that_takes_no_more_files_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.statvfs(tmp_path)
    monkeypatch.setattr(
        os, "statvfs", lambda path: SimpleNamespace(f_files=60, f_favail=0, f_bavail=real.f_bavail, f_frsize=4096)
    )
    trouble = storage_trouble(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path)))
    assert "it holds as many files as it can, 60" in str(trouble)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
def test_what_no_waiting_cures_ends_the_driver_and_says_why(tmp_path: Path, monkeypatch, number: int):
    disk = Disk(monkeypatch, number, 0)
    with SweepJournal(patient(tmp_path / ID, []), beating=False) as journal:
        journal.append(row(1))
        disk.times = 1
        with pytest.raises(
            JournalError,
            match=r"000000000\.jsonl: .*; the sweep's log cannot be written now; resume the sweep once it can",
        ):
            journal.append(row(2))
        with pytest.raises(JournalError, match="a write was interrupted"):
            journal.append(row(2))
    assert [r.step for r in read_rows(tmp_path / ID)[1:]] == [1]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT], ids=errno.errorcode.get)
def test_a_look_for_another_driver_that_fails_is_tried_again(tmp_path: Path, monkeypatch, number: int):
    said, left, listdir = list[str](), [3], os.listdir

    def away(path):
        if Path(path).name == "log" and left[0] > 0:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return listdir(path)

    with SweepJournal(patient(tmp_path / ID, said), beating=False) as journal:
        monkeypatch.setattr(os, "listdir", away)
        journal.append(row(1))
        assert left == [0]
        journal.append(row(2))
    assert said
    assert [r.step for r in read_rows(tmp_path / ID)[1:]] == [1, 2]


def test_a_log_that_somebody_removed_ends_its_driver_as_one_that_was_overtaken(tmp_path: Path):
    with SweepJournal(tmp_path / ID, beating=False) as journal:
        shutil.rmtree(tmp_path / ID)
        with pytest.raises(Fenced):
            journal.append(row(1))


def test_a_full_disk_keeps_nobody_from_taking_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The name in the lock is for people; nothing else is written before the log, which waits."""
    write = os.write

    def full(handle: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{handle}").endswith("driver.lock"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    monkeypatch.setattr(os, "write", full)
    with SweepJournal(tmp_path / ID, beating=False) as journal:
        journal.append(row(1))
        with pytest.raises(SweepBusy, match="driver unknown is running this sweep"):
            SweepJournal(tmp_path / ID, beating=False)
    assert [r.step for r in read_rows(tmp_path / ID)[1:]] == [1]


def test_an_error_that_names_its_file_by_a_descriptor_is_told_like_one_that_names_none():
    """As `os.truncate(3, …)` does."""
    said = str(storage_trouble(OSError(errno.ENOSPC, "No space left on device", 3)))
    assert said == "this machine: no room is left on this disk (No space left on device); free some"


def test_trouble_with_a_file_elsewhere_is_told_of_that_file(tmp_path: Path):
    """A tokenizer may copy a file of its model into the checkpoint."""
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", "/models/m/vocab.txt")
    assert str(trouble_at(tmp_path / "step-000004", gone)).startswith("/models/m/vocab.txt: ")
    assert str(trouble_at(tmp_path / "step-000004", OSError(errno.ENOENT, "No such file"))).startswith(str(tmp_path))
