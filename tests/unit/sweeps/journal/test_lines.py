"""A line that changed is found, and so is a line of another sweep; what an earlier version wrote is read as it stands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sweeps.checkpoints.gc import collect
from sweeps.checkpoints.transfer import drop_checkpoint
from sweeps.errors import JournalError, StorageError
from sweeps.journal.compaction import segment_key
from sweeps.journal.lines import sealed, unsealed
from sweeps.journal.rows import ReportRow
from sweeps.journal.writer import SweepJournal, read_rows
from sweeps.storage.local import LocalStore
from sweeps.storage.memory import MemoryStore

MINE, THEIRS = "mine-00000001", "theirs-00000002"


def row(sweep: str, step: int) -> ReportRow:
    return ReportRow(sweep, "t-1", 1, step, metrics={"transfer/score": 0.25})


def sweep(root: Path, name: str, steps: int = 3) -> Path:
    """Writes a sweep with a checkpoint that no row names; returns its folder."""
    with SweepJournal(root / name, beating=False) as journal:
        for step in range(1, steps + 1):
            journal.append(row(name, step))
    (root / name / "trials/t-1/attempt-1/step-000001").mkdir(parents=True)
    (root / name / "trials/t-1/attempt-1/step-000001/weights").write_bytes(b"w")
    return root / name


def test_any_changed_character_of_a_line_is_found():
    line = sealed(row(MINE, 1).at(0).line())
    text = unsealed(line[:-1])
    assert text + b"\n" == row(MINE, 1).at(0).line().encode()
    for place in range(len(text) - 1):
        changed = bytearray(line[:-1])
        changed[place] ^= 1
        with pytest.raises(JournalError, match="checksum"):
            unsealed(bytes(changed))


def test_a_changed_digit_is_damage_with_file_and_line_and_gc_touches_nothing(tmp_path: Path):
    home = sweep(tmp_path, MINE)
    log = home / segment_key(0)
    log.write_bytes(log.read_bytes().replace(b'"transfer/score":0.25', b'"transfer/score":0.95', 1))
    with pytest.raises(JournalError, match=r"000000000\.jsonl:2: .*checksum does not fit"):
        read_rows(home)
    with pytest.raises(JournalError):
        collect(home, apply=True, lease_s=0)
    assert (home / "trials/t-1/attempt-1/step-000001/weights").exists()


@pytest.mark.parametrize("ending", [b"\r\n", b" \n", b"\t\r\n"])
def test_a_copy_with_other_line_ends_is_read_and_its_checksums_still_count(tmp_path: Path, ending: bytes):
    home = sweep(tmp_path, MINE)
    log = home / segment_key(0)
    rows = read_rows(home)
    log.write_bytes(log.read_bytes().replace(b"\n", ending))
    assert read_rows(home) == rows
    log.write_bytes(log.read_bytes().replace(b'"transfer/score":0.25', b'"transfer/score":0.95', 1))
    with pytest.raises(JournalError, match=r"000000000\.jsonl:2: .*checksum does not fit"):
        read_rows(home)


def test_a_line_of_an_earlier_version_has_no_checksum_and_is_read(tmp_path: Path):
    home = sweep(tmp_path, MINE)
    log = home / segment_key(0)
    log.write_bytes(b"".join(unsealed(line) + b"\n" for line in log.read_bytes().splitlines()))
    assert b"crc" not in log.read_bytes()
    assert [r.step for r in read_rows(home)[1:]] == [1, 2, 3]


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("change", [{"kind": "horoscope"}, {"v": 2}])
def test_what_a_newer_version_wrote_is_never_to_be_cut_off(tmp_path: Path, change: dict[str, object], checksum: bool):
    home = sweep(tmp_path, MINE)
    log = home / segment_key(0)
    first, second, *rest = log.read_bytes().splitlines(keepends=True)
    changed = json.dumps(json.loads(unsealed(second.strip())) | change, separators=(",", ":"))
    log.write_bytes(first + (sealed(changed) if checksum else changed.encode() + b"\n") + b"".join(rest))
    with pytest.raises(JournalError, match=r"000000000\.jsonl:2: ") as e:
        read_rows(home)
    assert ("cut it" in str(e.value)) == (not checksum and "kind" in change)  # nothing tells that this is no damage
    assert ("with a newer one" in str(e.value)) == (checksum or "v" in change)


def test_the_log_of_another_sweep_is_damage_and_gc_touches_nothing(tmp_path: Path):
    home, other = sweep(tmp_path, MINE), sweep(tmp_path, THEIRS, steps=5)
    shutil.copyfile(other / segment_key(0), home / segment_key(0))
    with pytest.raises(JournalError, match=rf"000000000\.jsonl:1: a row of sweep {THEIRS} in the log of {MINE}"):
        read_rows(home)
    for apply in (False, True):
        with pytest.raises(JournalError):
            collect(home, apply=apply, lease_s=0)
    assert (home / "trials/t-1/attempt-1/step-000001/weights").exists()


def test_in_a_bucket_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sweeps.journal.compaction.PACK", 2)
    store = MemoryStore(f"memory://x/{MINE}")
    with SweepJournal(store, beating=False) as journal:
        for step in range(1, 6):
            journal.append(row(MINE, step))
    assert [r.step for r in read_rows(store)[1:]] == [1, 2, 3, 4, 5]
    packs = [e.key for e in store.list("log") if "-" in e.key]
    for key in packs:  # a copy for readers: the segments are read instead
        store.write(key, store.read(key).replace(b"0.25", b"0.26"))
    assert {r.metrics["transfer/score"] for r in read_rows(store) if isinstance(r, ReportRow)} == {0.25}
    assert packs


def test_a_link_out_of_the_sweeps_folder_is_not_followed_when_something_is_removed(tmp_path: Path):
    home, outside = sweep(tmp_path, MINE), tmp_path / "models/mine"
    outside.mkdir(parents=True)
    for name in ("manifest.json", "weights"):
        (outside / name).write_text("precious")
    store = LocalStore(home)
    (home / "trials/t-1/attempt-1/step-000002").symlink_to(outside)
    (home / "trials/t-2").symlink_to(outside.parent)
    for key in ("trials/t-1/attempt-1/step-000002", "trials/t-2/mine"):
        with pytest.raises(StorageError, match="leads out of"):
            drop_checkpoint(store, key)
    assert {f.read_text() for f in outside.iterdir()} == {"precious"}
