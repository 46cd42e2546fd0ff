from __future__ import annotations

import math
from pathlib import Path

import pytest

from sweeps.errors import JournalError, StorageError, SweepBusy
from sweeps.journal import LOG, FileJournal, read_rows, sweeps_in
from sweeps.records import Row, parse, split_finite


def report(step: int) -> Row:
    return Row("report", "s", "t-1", 1, step, metrics={"transfer/score": 0.5}, se={"transfer/score": 0.01})


def test_rows_come_back_as_they_were_written_with_their_place(tmp_path: Path):
    with FileJournal(tmp_path / "s") as journal:
        written = [journal.append(report(i)) for i in range(3)]
    assert [r.seq for r in written] == [0, 1, 2]
    assert read_rows(tmp_path / "s") == written


def test_a_torn_last_line_is_dropped_and_cut_off_before_the_next_row(tmp_path: Path):
    with FileJournal(tmp_path / "s") as journal:
        journal.append(report(1))
    with open(tmp_path / "s" / LOG, "ab") as f:
        f.write(b'{"v":1,"seq":1,"kind":"rep')
    assert len(read_rows(tmp_path / "s")) == 1
    with FileJournal(tmp_path / "s") as journal:
        journal.append(report(2))
    assert [r.step for r in read_rows(tmp_path / "s")] == [1, 2]


@pytest.mark.parametrize(
    "damage", [b"nonsense\n", b'{"kind":"report","seq":7,"sweep":"s"}\n', b'{"kind":"wrong","seq":1}\n', b"[]\n"]
)
def test_a_damaged_line_in_the_middle_is_named_not_skipped(tmp_path: Path, damage: bytes):
    with FileJournal(tmp_path / "s") as journal:
        journal.append(report(1))
    with open(tmp_path / "s" / LOG, "ab") as f:
        f.write(damage)
    with pytest.raises(JournalError, match=r"driver\.jsonl:2"):
        read_rows(tmp_path / "s")


def test_a_second_driver_is_refused_while_the_first_one_lives(tmp_path: Path):
    with FileJournal(tmp_path / "s"), pytest.raises(SweepBusy, match=r"driver pid \d+ is running this sweep"):
        FileJournal(tmp_path / "s")
    FileJournal(tmp_path / "s").close()


def test_no_sweep_and_no_place_to_write_are_told_apart(tmp_path: Path):
    with pytest.raises(StorageError, match="no sweep here"):
        read_rows(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be opened for writing"):
        FileJournal(tmp_path / "file" / "s")


def test_a_number_that_is_not_finite_never_reaches_the_log(tmp_path: Path):
    with FileJournal(tmp_path / "s") as journal, pytest.raises(JournalError, match="split_finite"):
        journal.append(Row("report", "s", "t-1", 1, 1, metrics={"train/loss": math.nan}))
    assert read_rows(tmp_path / "s") == []
    assert split_finite({"a": math.inf, "b": 1}) == ({"b": 1.0}, {"a": "inf"})


def test_keys_from_a_later_version_are_kept():
    data = {"v": 9, "kind": "report", "sweep": "s", "trial": "t", "step": 3, "colour": "blue"}
    row = parse(data)
    assert row.extra == {"colour": "blue"}
    assert row.to_json()["colour"] == "blue"


def test_sweeps_are_found_by_their_log(tmp_path: Path):
    for name in ("b-1", "a-2"):
        FileJournal(tmp_path / name).close()
    (tmp_path / "no-sweep").mkdir()
    assert [p.name for p in sweeps_in(tmp_path)] == ["a-2", "b-1"]
    assert list(sweeps_in(tmp_path / "missing")) == []
