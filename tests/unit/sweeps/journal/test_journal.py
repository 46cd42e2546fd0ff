"""The log: rows come back as written, damage is named, and of two drivers only one goes on."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.errors import Fenced, JournalError, StorageError, SweepBusy, Unreachable
from sweeps.journal.codec import parse
from sweeps.journal.compaction import segment_key
from sweeps.journal.lease import Record
from sweeps.journal.reader import parse_lines, segments
from sweeps.journal.rows import ReportRow, Row, split_finite
from sweeps.journal.writer import LogReader, SweepJournal, is_sweep, read_rows, sweeps_in
from sweeps.storage.base import Store
from sweeps.storage.factory import open_store
from sweeps.storage.memory import MemoryStore
from tests.support.faulty_store import Calls, Died, FaultyStore, out_of_reach
from tests.support.rows import make_row


@pytest.fixture(params=["folder", "objects"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Where a sweep is kept: in files that grow, or in objects that do not."""
    return open_store(tmp_path / "s") if request.param == "folder" else MemoryStore() / "s"


_OPENED: list[SweepJournal] = []


@pytest.fixture(autouse=True)
def _closed():
    yield
    while _OPENED:
        _OPENED.pop().close()


def take_over(home: Store) -> SweepJournal:
    """Opens the journal of a driver that was killed: nobody said goodbye, and nobody waits in a test."""
    _OPENED.append(SweepJournal(home, lease_s=0, beating=False))
    return _OPENED[-1]


def report(step: int) -> Row:
    return make_row("report", "s", "t-1", 1, step, metrics={"transfer/score": 0.5}, se={"transfer/score": 0.01})


def steps(rows: list[Row]) -> list[int | None]:
    return [r.step for r in rows if r.kind == "report"]


def test_rows_come_back_as_they_were_written_with_their_place(home: Store):
    with take_over(home) as journal:
        written = [journal.append(report(i)) for i in range(3)]
        assert journal.rows()[1:] == written
    rows = read_rows(home)
    assert rows[1:] == written
    assert [r.seq for r in rows] == [0, 1, 2, 3]
    assert rows[0].kind == "lease"
    assert rows[0].pid > 0


def test_the_next_driver_goes_on_in_a_segment_of_its_own(home: Store):
    for step in (1, 2):
        with take_over(home) as journal:
            journal.append(report(step))
    assert steps(read_rows(home)) == [1, 2]
    assert [r.seq for r in read_rows(home)] == [0, 1, 2, 3]
    assert segments(home)[:1] == [0]
    assert 2 in segments(home)


def test_a_torn_last_line_does_not_count_and_the_next_row_takes_its_place(tmp_path: Path):
    with take_over(open_store(tmp_path)) as journal:
        journal.append(report(1))
    with open(tmp_path / segment_key(0), "ab") as f:
        f.write(b'{"v":1,"seq":2,"kind":"rep')
    assert steps(read_rows(tmp_path)) == [1]
    with take_over(open_store(tmp_path)) as journal:
        journal.append(report(2))
    assert steps(read_rows(tmp_path)) == [1, 2]


@pytest.mark.parametrize(
    "damage", [b"nonsense\n", b'{"kind":"report","seq":7,"sweep":"s"}\n', b'{"kind":"wrong","seq":2}\n', b"[]\n", b"\n"]
)
def test_a_damaged_line_in_the_middle_is_named_not_skipped(tmp_path: Path, damage: bytes):
    with take_over(open_store(tmp_path)) as journal:
        journal.append(report(1))
    with open(tmp_path / segment_key(0), "ab") as f:
        f.write(damage)
    with pytest.raises(JournalError, match=r"000000000\.jsonl:3"):
        read_rows(tmp_path)


def test_a_segment_that_is_gone_is_missed(home: Store):
    for step in (1, 2, 3):
        with take_over(home) as journal:
            journal.append(report(step))
    home.delete(segment_key(2))
    with pytest.raises(JournalError, match="the log has no rows 2 to "):
        read_rows(home)


def test_rows_of_a_batch_are_durable_together_at_its_end(home: Store):
    calls = Calls(writes_only=True)
    with take_over(FaultyStore(home, calls)) as journal:
        before = len(calls.log)
        with journal.batch():
            journal.append(report(1))
            with journal.batch():
                journal.append(report(2))
            assert steps(read_rows(home)) == []
            assert steps(journal.rows()) == [1, 2]
        assert steps(read_rows(home)) == [1, 2]
        with journal.batch():
            pass
        if home.local() is None:
            assert calls.log[before:] == [f"create {segment_key(1)}"]


def test_what_was_taken_in_before_an_error_in_a_batch_is_written(home: Store):
    with take_over(home) as journal:
        with pytest.raises(ZeroDivisionError), journal.batch():
            _append_and_fail(journal)
        journal.append(report(2))
    assert steps(read_rows(home)) == [1, 2]


def _append_and_fail(journal: SweepJournal) -> float:
    journal.append(report(1))
    return 1 / 0


def test_a_driver_that_was_overtaken_learns_it_at_its_next_row_and_nobody_reads_that_row(home: Store):
    old = take_over(home)
    old.append(report(1))
    if home.local() is not None:
        assert old._lock is not None
        old._lock.close()  # as on a shared file system whose locks do not reach the other host
    new = take_over(home)
    with pytest.raises(Fenced, match="has taken this sweep over; this one writes nothing more"):
        old.append(report(666))
    new.append(report(2))
    with pytest.raises(JournalError):
        old.append(report(667))
    new.append(report(3))
    assert steps(read_rows(home)) == steps(new.rows()) == [1, 2, 3]
    old.close()
    new.append(report(4))
    assert steps(read_rows(home)) == [1, 2, 3, 4]


def test_a_row_that_the_old_driver_wrote_while_the_new_one_was_starting_is_kept(tmp_path: Path, monkeypatch):
    home = open_store(tmp_path)
    old = take_over(home)
    assert old._lock is not None
    old._lock.close()
    create, races = type(home).create, [1]

    def late(self: Store, key: str, data: bytes) -> bool:
        if key.startswith("log/") and races:
            races.pop()
            old.append(report(1))  # after the new driver has read, before its segment is there
        return create(self, key, data)

    monkeypatch.setattr(type(home), "create", late)
    new = take_over(home)
    assert steps(new.rows()) == steps(read_rows(home)) == [1]
    assert segments(home) == [0, 2]


def test_a_reader_that_follows_drops_what_an_overtaken_driver_wrote(tmp_path: Path):
    home, reader = open_store(tmp_path), LogReader(tmp_path)
    old = take_over(home)
    assert old._lock is not None
    old._lock.close()
    old.append(report(1))
    assert steps(reader.rows()) == [1]
    new = take_over(home)
    with open(tmp_path / segment_key(0), "ab") as zombie:
        zombie.write(report(666).at(2).line().encode())
    assert steps(reader.rows()) == [1]
    new.append(report(2))
    assert steps(reader.rows()) == steps(LogReader(home).rows()) == [1, 2]


def test_a_reader_reads_each_object_once(monkeypatch):
    calls = Calls()
    home = MemoryStore() / "s"
    reader = LogReader(FaultyStore(home, calls))
    with take_over(home) as journal:
        for step in range(5):
            journal.append(report(step))
            reader.rows()
    assert steps(reader.rows()) == [0, 1, 2, 3, 4]
    read = [c for c in calls.log if c.startswith("read log/")]
    assert len(read) == len(set(read)) == 6
    assert sum(c.startswith("read lease/") for c in calls.log) == 1


def test_a_second_driver_is_refused_while_the_first_one_lives(tmp_path: Path):
    with SweepJournal(tmp_path / "s"), pytest.raises(SweepBusy, match=r"driver pid \d+ on \S+ is running this sweep"):
        SweepJournal(tmp_path / "s")
    SweepJournal(tmp_path / "s").close()


def test_a_refused_driver_leaves_the_holder_alone():
    home = MemoryStore() / "s"
    with SweepJournal(home, lease_s=0.5) as first:
        with pytest.raises(SweepBusy, match=r"driver pid \d+ on \S+, since 20.* is running this sweep"):
            SweepJournal(home, lease_s=0.5)
        first.append(report(1))
    assert steps(read_rows(home)) == [1]
    assert Record.parse(home.read("lease/000001.json")).released


def test_no_sweep_and_no_place_to_write_are_told_apart(tmp_path: Path):
    with pytest.raises(StorageError, match="no sweep here"):
        read_rows(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be opened for reading or writing"):
        SweepJournal(tmp_path / "file" / "s")


def test_a_number_that_is_not_finite_never_reaches_the_log(home: Store):
    with take_over(home) as journal:
        with pytest.raises(JournalError, match="split_finite"):
            journal.append(ReportRow("s", "t-1", 1, 1, metrics={"train/loss": math.nan}))
        journal.append(report(1))
    assert steps(read_rows(home)) == [1]
    assert split_finite({"a": math.inf, "b": 1}) == ({"b": 1.0}, {"a": "inf"})


@settings(deadline=None)
@given(
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=8),
    text=st.text(max_size=20),
    whole=st.integers(-(2**80), 2**80),
)
def test_numbers_and_text_come_back_to_the_last_bit(numbers: list[float], text: str, whole: int):
    """The fast reader and `json` must agree: a verdict replayed from the log sees what the first one saw."""
    row = make_row("report", "s", "t-1", 1, 1, metrics={f"train/{i}": x for i, x in enumerate(numbers)},
              extra={"text": text, "whole": whole}).at(0)  # fmt: skip
    (again,) = parse_lines([row.line().encode().rstrip()], 0, "here", 0)
    assert again == row == parse(json.loads(row.line()))
    assert repr(again.metrics) == repr(row.metrics)


VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=3)
ANYTHING = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
KEYS = st.sampled_from(
    ["v", "seq", "sweep", "trial", "attempt", "step", "metrics", "se", "config", "extra", "colour", "suite"]
)


@settings(deadline=None, max_examples=300)
@given(data=st.dictionaries(KEYS, ANYTHING, max_size=5), kind=st.sampled_from(["report", "end", "no-kind", None, []]))
def test_a_row_of_a_shape_that_was_seen_before_is_read_as_the_first_one_was(data: dict, kind: object):
    """Twice the same, then with other values of the same types: never another answer than by looking at each key."""
    again = {**data, "kind": kind}
    first = outcome(again)
    assert outcome(again) == first
    assert outcome({k: 7 if type(v) is int else v for k, v in again.items()}) == outcome(
        {k: 7 if type(v) is int else v for k, v in reversed(again.items())}
    )
    if isinstance(first, Row):
        assert parse({**first.to_json(), **first.extra}) == first


def outcome(data: object) -> Row | str:
    try:
        return parse(data)
    except (JournalError, ValueError, TypeError) as e:
        return type(e).__name__


@pytest.mark.parametrize("field", ["trial", "suite", "checkpoint"])
def test_text_that_is_no_text_is_refused(field: str):
    with pytest.raises(JournalError, match=f"got {field} .*; expected text"):
        parse({"kind": "report", "sweep": "s", "seq": 0, field: ["t"]})


def test_half_a_surrogate_pair_in_an_errors_text_does_not_make_the_log_unreadable(home: Store):
    told = make_row("end", "s", "t-1", extra={"of": "scoring", "status": "failed", "detail": "no file '\udcff.jsonl'"})
    with take_over(home) as journal:
        journal.append(told)
    assert read_rows(home)[-1].detail == told.detail
    with pytest.raises(JournalError, match="NaN is no JSON"):
        parse_lines([b'{"kind":"report","seq":0,"metrics":{"a":NaN}}'], 0, "here", 0)


def test_keys_from_a_later_version_are_kept():
    data = {"v": 1, "kind": "report", "sweep": "s", "trial": "t", "step": 3, "colour": "blue"}
    row = parse(data)
    assert row.extra == {"colour": "blue"}
    assert row.to_json()["colour"] == "blue"


def test_sweeps_are_found_by_their_log(tmp_path: Path):
    store = MemoryStore()
    for name in ("b-1", "a-2"):
        SweepJournal(tmp_path / name).close()
        take_over(store / name).close()
    (tmp_path / "no-sweep").mkdir()
    store.write("no-sweep/spec.yaml", b"")
    assert [p.name for p in sweeps_in(tmp_path)] == [s.name for s in sweeps_in(store)] == ["a-2", "b-1"]
    assert list(sweeps_in(tmp_path / "missing")) == []
    assert is_sweep(tmp_path / "a-2")
    assert not is_sweep(tmp_path / "no-sweep")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_cut_off_at_any_call_the_next_driver_has_every_row_that_was_confirmed(moment):
    """Death at the n-th call of the storage, for every n: what `append` returned for is there, once, in order."""
    whole = Calls()
    _drive(MemoryStore() / "s", whole, [])
    points = len(whole.log)
    assert points >= 10
    for n in range(1, points + 1):
        home, confirmed = MemoryStore() / "s", list[Row]()
        with pytest.raises(Died):
            _drive(home, Calls(n, moment), confirmed)
        _drive(home, Calls(), confirmed)
        rows = read_rows(home)
        assert [r.seq for r in rows] == list(range(len(rows)))
        assert [r for r in rows if r in confirmed] == confirmed, f"call {n}"
        extra = [r for r in rows if r not in confirmed and r.kind != "lease"]
        assert len(extra) <= 2, "only what was on its way when it died"


def _drive(home: Store, calls: Calls, confirmed: list[Row]) -> None:
    journal = SweepJournal(FaultyStore(home, calls), lease_s=0, beating=False)
    for step in range(4):
        confirmed.append(journal.append(report(step)))
    with journal.batch():
        pair = [journal.append(report(step)) for step in (10, 11)]
    confirmed += pair
    journal.close()


@pytest.mark.parametrize("n", range(1, 12))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_outage_that_patience_does_not_outlast_ends_the_driver_and_loses_nothing(moment, n: int):
    home, confirmed = MemoryStore() / "s", list[Row]()
    with contextlib.suppress(Unreachable, JournalError):
        _drive(home, Calls(n, moment, out_of_reach), confirmed)
    _drive(home, Calls(), confirmed)
    rows = read_rows(home)
    assert [r for r in rows if r in confirmed] == confirmed


def test_the_log_is_plain_json_lines(home: Store):
    with take_over(home) as journal:
        journal.append(report(1))
    text = b"".join(home.read(segment_key(first)) for first in segments(home))
    assert [json.loads(line)["kind"] for line in text.splitlines()] == ["lease", "report"]
