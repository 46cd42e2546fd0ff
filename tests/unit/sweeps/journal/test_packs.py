"""Packs: a reader of a long log in a bucket fetches few objects, and never other rows than the segments hold."""

from __future__ import annotations

import pytest

from sweeps.journal.compaction import listed, pack_key, segment_key
from sweeps.journal.reader import LogReader
from sweeps.journal.rows import Row
from sweeps.journal.writer import SweepJournal, read_rows
from sweeps.storage.memory import MemoryStore
from tests.support.faulty_store import Calls, FaultyStore, out_of_reach
from tests.support.rows import make_row


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sweeps.journal.compaction.PACK", 4)


def write(home: MemoryStore, *batches: int) -> list[Row]:
    """One life of a driver that writes batches of so many rows."""
    with SweepJournal(home, lease_s=0, beating=False) as journal:
        for size in batches:
            with journal.batch():
                for _ in range(size):
                    journal.append(make_row("report", "s", "t-1", 1, len(journal.rows()), metrics={"train/loss": 0.5}))
        return journal.rows()


def fetched(home: MemoryStore) -> tuple[list[Row], list[str]]:
    calls = Calls()
    rows = read_rows(FaultyStore(home, calls))
    return rows, [call.removeprefix("read ") for call in calls.log if call.startswith("read log/")]


def test_of_many_small_segments_a_reader_fetches_the_packs_and_what_came_after():
    home = MemoryStore() / "s"
    written = write(home, 1, 3, 2, 1, 1, 2, 5, 1)
    rows, keys = fetched(home)
    assert rows == written
    assert [r.seq for r in rows] == list(range(17))
    assert sorted(keys) == sorted([pack_key(0, 7), pack_key(7, 16), segment_key(16)])


def test_the_next_driver_packs_what_the_one_before_left_loose():
    home = MemoryStore() / "s"
    write(home, 1, 1)
    assert listed(home)[1] == {}
    written = write(home, 2)
    assert listed(home)[1] == {0: 4}
    written = write(home, 1, 1)
    assert listed(home)[1] == {0: 4, 4: 9}
    assert fetched(home)[0] == written


def test_nobody_can_write_a_packed_row_again():
    home = MemoryStore() / "s"
    write(home, 1, 1, 1, 1)
    assert not home.create(segment_key(3), b"")


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"no json\n", None])
def test_a_pack_that_is_missing_or_damaged_is_read_from_its_segments(damage: bytes | None):
    home = MemoryStore() / "s"
    written = write(home, 1, 3, 2, 1, 1, 2)
    key = pack_key(0, 7)
    home.write(key, home.read(key)[:-20] if damage is None else damage)
    assert fetched(home)[0] == written
    home.delete(key)
    assert fetched(home)[0] == written
    home.write(pack_key(0, 99), b"{}\n")
    assert fetched(home)[0] == written


def test_a_pack_that_vanishes_between_listing_and_reading_costs_nothing():
    home = MemoryStore() / "s"
    written = write(home, 1, 1, 1, 1)

    class Vanishing(MemoryStore):
        def read(self, key: str) -> bytes:
            self.delete(pack_key(0, 4))
            return super().read(key)

    assert read_rows(Vanishing(home.root, home.files)) == written


def test_a_reader_that_follows_a_log_sees_each_row_once_however_it_is_packed():
    home = MemoryStore() / "s"
    reader, seen = LogReader(home), list[int]()
    for size in range(1, 12):
        write(home, size)
        rows = reader.rows()
        seen += [r.seq for r in rows[len(seen) :]]
        assert seen == [r.seq for r in rows] == [r.seq for r in read_rows(home)]
    assert len(listed(home)[1]) >= 4


def test_a_pack_that_cannot_be_written_fails_nothing():
    home = MemoryStore() / "s"

    class Unpackable(FaultyStore):
        def create(self, key: str, data: bytes) -> bool:
            if "-" in key:
                raise out_of_reach()
            return super().create(key, data)

    with SweepJournal(Unpackable(home), lease_s=0, beating=False) as journal:
        for step in range(9):
            journal.append(make_row("report", "s", "t-1", 1, step))
    assert listed(home)[1] == {}
    assert read_rows(home) == journal.rows()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_driver_that_dies_at_a_pack_leaves_a_log_that_goes_on(moment: str):
    for n in range(1, 30):
        home = MemoryStore() / "s"
        calls = Calls(n, moment)
        try:
            journal = SweepJournal(FaultyStore(home, calls), lease_s=0, beating=False)
            for step in range(9):
                journal.append(make_row("report", "s", "t-1", 1, step))
        except BaseException:
            assert calls.dead
        before = read_rows(home) if listed(home)[0] else []
        assert write(home, 1, 1, 1, 1, 1)[: len(before)] == before
        rows = read_rows(home)
        assert [r.seq for r in rows] == list(range(len(rows)))
