"""A log whose end was lost is damage: nothing in the log names what came after it, so the driver's lease does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeps.checkpoints.gc import collect
from sweeps.errors import JournalError
from sweeps.journal.compaction import segment_key
from sweeps.journal.lease import Record, driver_state, known_rows, latest_record
from sweeps.journal.rows import ReportRow
from sweeps.journal.writer import LogReader, SweepJournal, read_rows
from sweeps.storage.base import Store
from sweeps.storage.local import LocalStore
from sweeps.storage.memory import MemoryStore

SWEEP = "mine-00000001"


@pytest.fixture(params=["folder", "objects"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    root: Store = LocalStore(tmp_path) if request.param == "folder" else MemoryStore()
    return root / SWEEP


def drive(home: Store, *steps: int, killed: bool = False) -> list[int]:
    """One driver's life; one that was killed has beaten once after its last row. Returns the log's segments."""
    journal = SweepJournal(home, beating=False, lease_s=0)
    for step in steps:
        journal.append(ReportRow(SWEEP, "t-1", 1, step, metrics={"transfer/score": 0.25}))
    if killed:
        journal.lease.beat()
        for file in (journal._file, journal._lock):
            if file is not None:
                file.close()
    else:
        journal.close()
    return [int(Path(entry.key).stem) for entry in home.list("log")]


@pytest.mark.parametrize("killed", [False, True])
def test_the_last_segment_is_missing(home: Store, killed: bool):
    drive(home, 1, 2)
    last = drive(home, 3, 4, killed=killed)[-1]
    home.delete(segment_key(last))
    with pytest.raises(JournalError, match=rf"the log ends after {last} rows, and its driver had written 6: restore"):
        read_rows(home)
    with pytest.raises(JournalError, match="the log ends after"):
        collect(home, apply=True, lease_s=0)
    for _ in range(2):  # trying again makes no difference: the next holder says what the one before it said
        with pytest.raises(JournalError, match="the log ends after"):
            SweepJournal(home, lease_s=0)
    assert [int(Path(entry.key).stem) for entry in home.list("log")][-1] < last


def test_the_last_rows_of_a_segment_are_missing(tmp_path: Path):
    home = LocalStore(tmp_path) / SWEEP
    drive(home, 1, 2, 3)
    log = home.read(segment_key(0))
    home.write(segment_key(0), b"".join(log.splitlines(keepends=True)[:-1]))
    with pytest.raises(JournalError, match="ends after 3 rows, and its driver had written 4"):
        read_rows(home)


def test_the_whole_log_is_missing_and_the_sweep_does_not_begin_anew(home: Store):
    drive(home, 1, 2, 3)
    home.delete_tree("log")
    with pytest.raises(JournalError, match="ends after 0 rows"):
        SweepJournal(home, lease_s=0)


def test_whoever_has_no_copy_removes_the_leases_and_goes_on(home: Store):
    drive(home, 1, 2)
    last = drive(home, 3)[-1]
    home.delete(segment_key(last))
    with pytest.raises(JournalError, match=r"to go on without it, remove \S*lease"):
        read_rows(home)
    home.delete_tree("lease")
    assert len(read_rows(home)) == last
    drive(home, 5)
    assert known_rows(home) == len(read_rows(home)) == last + 2


def test_a_lease_of_an_earlier_version_says_nothing_of_the_log(home: Store):
    drive(home, 1)
    last = drive(home, 2)[-1]
    number, record = latest_record(home)
    assert record is not None
    facts = json.loads(record.line())
    del facts["rows"]
    home.write(f"lease/{number:06d}.json", json.dumps(facts).encode())
    home.delete(segment_key(last))
    assert len(read_rows(home)) == last


def test_a_reader_of_a_growing_log_is_never_told_of_rows_that_are_to_come(home: Store):
    with SweepJournal(home, beating=False, lease_s=0) as journal:
        for step in range(4):
            with journal.batch():
                journal.append(ReportRow(SWEEP, "t-1", 1, step, metrics={"transfer/score": 0.25}))
                journal.lease.beat()  # the row waits for the end of the batch, and does not count yet
            assert len(LogReader(home).rows()) == step + 2
            journal.lease.beat()
            assert known_rows(home) == step + 2


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"host": "h", "pid": 1, "beat": 1e400, "released": false}',
        b'{"host": "h", "pid": 1, "beat": 1, "released": false, "at": 1e400}',
        b'{"host": "h", "pid": 1, "beat": 1, "released": false, "at": 1e18}',
        b'{"host": "h", "pid": 1, "beat": 1, "released": false, "at": NaN}',
        b'{"host": "h", "pid": 1, "beat": 1, "released": false, "rows": Infinity}',
        b'{"host": "h", "pid": "x", "beat": 1, "released": false}',
        b'{"host": ["h"], "pid": 1, "boot": {}, "beat": 1, "released": true}',
    ],
)
def test_a_damaged_lease_is_one_of_nobody_known(text: bytes):
    home = MemoryStore() / SWEEP
    home.write("lease/000007.json", text)
    home.write("lease/\N{SUPERSCRIPT TWO}.json", b"")
    number, record = latest_record(home)
    assert number == 7
    assert record is not None
    assert record.rows == 0
    if not record.released:
        home.write("lease/000007.json", Record(record.holder, released=True).line())
    assert driver_state(home).kind == "none"
