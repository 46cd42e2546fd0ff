"""What the cache holds: removed when it was not used for long, never while a process uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import fsspec
import pytest

from trainers.data.sources import download_cache
from trainers.data.sources.cache_gc import DAY_S, collect_cache
from trainers.data.sources.download_cache import fetched


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A file that was fetched 40 days ago, by a process that has ended."""
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download_cache, "_HELD", {})
    fsspec.filesystem("memory").pipe_file("/old/ours.jsonl", b"{}")
    home = fetched("memory://old/ours.jsonl").parent
    os.close(download_cache._HELD.pop(home))
    _last_used(home, 40)
    return home


def _last_used(path, days):
    then = time.time() - days * DAY_S
    os.utime(path, (then, then))


def test_it_is_listed_with_its_size_and_removed_only_when_asked(copy):
    (found,) = collect_cache(30)
    assert (found.path, found.size, found.in_use, found.goes) == (copy, 2, False, True)
    assert copy.is_dir()
    assert collect_cache(30, apply=True) == [found._replace(unused_s=pytest.approx(found.unused_s, abs=60))]
    assert not copy.exists()
    assert not download_cache.record_of(copy).exists()
    assert collect_cache(30) == []


def test_what_was_used_lately_stays(copy):
    assert [c.goes for c in collect_cache(50, apply=True)] == [False]
    assert fetched("memory://old/ours.jsonl").read_text() == "{}"
    os.close(download_cache._HELD.pop(copy))
    assert [c.goes for c in collect_cache(30, apply=True)] == [False]  # that was a use
    assert copy.is_dir()


HOLDS = """
import sys
from pathlib import Path
from trainers.data.sources import download_cache
download_cache._hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_what_another_process_uses_stays_however_old_it_is(copy):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout.readline() == "held\n"
        _last_used(copy, 40)
        assert [(c.in_use, c.goes) for c in collect_cache(30, apply=True)] == [(True, False)]
        assert copy.is_dir()
        user.stdin.close()
    assert [(c.in_use, c.goes) for c in collect_cache(30, apply=True)] == [(False, True)]
    assert not copy.exists()


def test_rows_and_downloads_that_were_cut_off_are_of_it(copy):
    rows = copy.parents[1] / "rows" / "abc.safetensors"
    rows.parent.mkdir()
    rows.write_bytes(b"12345")
    torn = copy.with_name(f".{copy.name}")
    torn.mkdir()
    for path in (rows, torn):
        _last_used(path, 31)
    assert {c.path: c.size for c in collect_cache(30, apply=True) if c.goes} == {copy: 2, rows: 5, torn: 0}
    assert not any(path.exists() for path in (copy, rows, torn))


LEFT_OVER = """
import os, signal, sys
from pathlib import Path
from trainers.data.sources.download_cache import file_digest

Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
file_digest(Path(sys.argv[1]))
"""


def test_what_a_process_that_was_killed_had_begun_to_write_goes_when_it_is_old(copy, tmp_path):
    subprocess.run([sys.executable, "-c", LEFT_OVER, __file__], check=False)
    cache, elsewhere = copy.parents[1], tmp_path / "weights"
    elsewhere.write_bytes(b"1" * 1000)
    (digest,) = (cache / "digests").iterdir()
    rows, record = cache / "rows" / ".abc.safetensors.12", copy.with_name(".another.sha256.12")
    overlay = cache / "templates" / ".abc-model.12"
    overlay.mkdir(parents=True)
    (overlay / "weights").symlink_to(elsewhere)
    rows.parent.mkdir()
    for file in (rows, record):
        file.write_bytes(b"12345")
    whole = cache / "digests" / "abc"
    whole.write_text("0" * 64)
    left = {digest, rows, record, overlay}
    assert {c.path for c in collect_cache(0, apply=True) if c.in_use} == left  # somebody may still write them
    for path in [*left, whole]:
        _last_used(path, 31)
    gone = {c.path: c.size for c in collect_cache(30, apply=True) if c.goes}
    assert gone.pop(overlay) < 1000  # not what it links to
    assert gone == {digest: 64, rows: 5, record: 5}
    assert not any(path.exists() for path in left)
    assert (whole.exists(), elsewhere.stat().st_size) == (True, 1000)


def test_a_cache_that_cannot_be_written_is_used_all_the_same(copy, monkeypatch):
    monkeypatch.setattr(download_cache, "use_lock", lambda home: copy / "no" / "such" / "folder")
    assert fetched("memory://old/ours.jsonl").read_text() == "{}"
