"""Where a file is expected there is none: pipes, folders, links to nowhere or to themselves. Nothing waits, nothing is lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.checkpoints.gc import collect
from sweeps.errors import DipsweepError, StorageError, StorageUnavailable
from sweeps.journal.compaction import segment_key
from sweeps.journal.lease import driver_state
from sweeps.journal.writer import SweepJournal, is_sweep, read_rows, sweeps_in
from sweeps.report.html.sweep_catalog import SweepCatalog
from sweeps.storage.base import storage_trouble
from sweeps.storage.factory import open_store
from sweeps.storage.local import LocalStore
from tests.support.rows import make_row

ID = "s-00000000"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with SweepJournal(LocalStore(tmp_path / ID), beating=False) as journal:
        journal.append(make_row("report", ID, "t-1", 1, 1, metrics={"transfer/score": 0.5}))
    return tmp_path / ID


def pipe(file: Path) -> None:
    os.mkfifo(file)


def loop(file: Path) -> None:
    file.symlink_to(file.name)


def nowhere(file: Path) -> None:
    file.symlink_to(file.parent / "moved-away")


def socket_file(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(file))  # the path of a socket is short


def folder_elsewhere(file: Path) -> None:
    elsewhere = file.with_name("elsewhere")
    elsewhere.mkdir()
    file.symlink_to(elsewhere)


ODD = [pipe, socket_file, loop, nowhere, Path.mkdir, folder_elsewhere]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("put", ODD)
def test_a_log_that_is_no_file_is_an_error_at_once_and_not_an_empty_log(home: Path, put: Callable[[Path], None]):
    segment = home / segment_key(0)
    segment.unlink()
    put(segment)
    with pytest.raises(DipsweepError, match=r"000000000\.jsonl"):
        read_rows(home)
    with pytest.raises(DipsweepError):  # it would take every checkpoint for nobody's
        collect(home)
    assert is_sweep(home)  # so that the list of sweeps shows it, with what is wrong


@pytest.mark.parametrize("kind", ["a file", "not to be read"])
def test_a_log_whose_folder_is_none_or_may_not_be_read_is_no_absent_sweep(
    home: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    log, real = home / "log", os.scandir
    if kind == "a file":
        shutil.rmtree(log)
        log.write_text("")
    else:

        def scandir(path: Any) -> Any:
            if Path(path) == log:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError, match=re.escape(str(log))):
        read_rows(home)
    with pytest.raises(StorageError, match=re.escape(str(log))):
        collect(home)
    assert [store.root for store in sweeps_in(str(home.parent))] == [str(home)]
    listed = SweepCatalog(home.parent).all()
    assert [(sweep.counts, str(log) in sweep.trouble) for sweep in listed] == [("unreadable", True)]


def test_a_file_called_log_in_any_other_folder_makes_no_sweep_of_it(home: Path):
    (home.parent / "notes").mkdir()
    (home.parent / "notes/log").write_text("what I did\n")
    assert [store.root for store in sweeps_in(str(home.parent))] == [str(home)]


def test_a_segment_that_may_not_be_read_is_named(home: Path, monkeypatch: pytest.MonkeyPatch):
    segment, real = home / segment_key(0), os.open

    def refusing(path: Any, *arguments: Any, **keywords: Any) -> int:
        if Path(path) == segment:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(StorageError, match=re.escape(str(segment))):
        read_rows(home)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("put", [pipe, Path.mkdir])
def test_a_lease_or_a_definition_that_is_no_file_is_an_error_at_once(home: Path, put: Callable[[Path], None]):
    for name in ("lease/000001.json", "spec.yaml"):
        (home / name).unlink(missing_ok=True)
        put(home / name)
        with pytest.raises(StorageError, match="a pipe, a socket, a device or a folder"):
            LocalStore(home).read(name)


@pytest.mark.parametrize("put", [pipe, loop, nowhere, Path.touch])
def test_what_is_no_folder_beside_a_sweep_hides_no_sweep(home: Path, put: Callable[[Path], None]):
    put(home.parent / "other-12345678")
    assert [store.root for store in sweeps_in(str(home.parent))] == [str(home)]


def test_a_storage_that_is_a_file_is_not_an_empty_storage(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="give a folder"):
        list(sweeps_in(str(tmp_path / "file")))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE], ids=errno.errorcode.get)
def test_too_many_open_files_are_the_machines_trouble_and_end_no_trial(number: int):
    trouble = storage_trouble(OSError(number, os.strerror(number), "/data/step-000004"))
    assert isinstance(trouble, StorageUnavailable)
    assert "ulimit -n" in str(trouble)


def test_an_editor_that_wrote_other_line_ends_and_zeros_behind_the_log_change_nothing(home: Path):
    before, segment = read_rows(home), home / segment_key(0)
    segment.write_bytes(segment.read_bytes().replace(b"\n", b"\r\n") + bytes(512))
    assert [row.trial for row in read_rows(home)] == [row.trial for row in before]


def test_other_files_in_the_logs_folder_are_no_segments(home: Path):
    before = read_rows(home)
    for name in (".DS_Store", ".nfs0001", "000000000.jsonl~", "ü\n.jsonl", os.fsdecode(b"\xff.jsonl")):
        (home / "log" / name).write_bytes(b"x")
    assert read_rows(home) == before
    assert driver_state(open_store(home)).kind == "none"
