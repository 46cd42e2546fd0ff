"""What every storage promises, held against a folder, memory, and a real S3 server."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from sweeps.errors import InputError, NotFound, StorageError, StorageUnavailable
from sweeps.storage.base import Entry, Store, inside, join, url_fault
from sweeps.storage.factory import open_store
from sweeps.storage.local import LocalStore
from sweeps.storage.memory import MemoryStore

KINDS = ("folder", "memory", "s3")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    where = tmp_path / "root" if request.param == "folder" else request.getfixturevalue("s3_url")
    return open_store(where)


def test_what_is_written_is_read_back_and_the_last_write_counts(store: Store):
    store.write("a/b", b"one")
    store.write("a/b", b"two")
    assert store.read("a/b") == b"two"
    assert store.exists("a/b")


def test_what_is_not_there_is_said_with_its_whole_address(store: Store):
    with pytest.raises(NotFound, match="nowhere/x does not exist") as e:
        store.read("nowhere/x")
    assert store.root in str(e.value)
    assert not store.exists("nowhere")
    assert store.list() == store.list("nowhere") == store.folders() == []
    store.delete("nowhere/x")
    store.delete_tree("nowhere")


def test_a_folder_is_listed_at_any_depth_and_in_order(store: Store):
    for key in ("b/2", "a/x/1", "a/3", "ab/4"):
        store.write(key, key.encode())
    assert store.list() == [Entry("a/3", 3), Entry("a/x/1", 5), Entry("ab/4", 4), Entry("b/2", 3)]
    assert store.list("a") == store.list("a/") == [Entry("a/3", 3), Entry("a/x/1", 5)]
    assert store.folders() == ["a", "ab", "b"]
    assert store.folders("a") == ["x"]


def test_removing_a_folder_leaves_its_namesakes(store: Store):
    for key in ("a/1", "a/2/3", "ab/1"):
        store.write(key, b"")
    store.delete_tree("a")
    assert [e.key for e in store.list()] == ["ab/1"]


def test_a_key_is_created_once_and_then_left_alone(store: Store):
    assert store.create("log/0", b"mine")
    assert not store.create("log/0", b"yours")
    assert store.read("log/0") == b"mine"


def test_of_sixteen_that_race_for_a_key_exactly_one_wins(store: Store):
    won: list[int] = []
    start = threading.Barrier(16)

    def race(number: int) -> None:
        start.wait()
        if store.create("lease/1", f"racer {number}".encode()):
            won.append(number)

    racers = [threading.Thread(target=race, args=(i,)) for i in range(16)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(won) == 1
    assert store.read("lease/1") == f"racer {won[0]}".encode()


def test_files_travel_whole_in_both_directions(store: Store, tmp_path: Path):
    data = bytes(range(256)) * 5000
    (tmp_path / "up").write_bytes(data)
    store.upload(tmp_path / "up", "step-1/weights")
    store.download("step-1/weights", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == data
    assert store.list() == [Entry("step-1/weights", len(data))]
    with pytest.raises(NotFound):
        store.download("step-1/other", tmp_path / "down")


def test_a_part_of_a_store_is_a_store(store: Store):
    home = store / "sweep-1"
    home.write("log/0", b"x")
    assert store.read("sweep-1/log/0") == b"x"
    assert home.name == "sweep-1"
    assert str(home) == f"{store.root}/sweep-1"
    assert [e.key for e in home.list()] == ["log/0"]


def test_nothing_is_left_over_after_whole_writes(store: Store):
    store.write("a", b"1")
    assert store.create("b", b"2")
    assert not store.create("b", b"3")
    assert store.leftovers() == []


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../up", "a/../../up", "a//b", "./a", "a\x00b"])
def test_a_key_cannot_lead_out_of_its_store(store: Store, key: str):
    for call in (store.read, store.exists, store.delete, lambda k: store.create(k, b""), lambda k: store / k):
        with pytest.raises(InputError, match="got the storage key"):
            call(key)


def test_a_store_travels_as_its_address_alone(tmp_path: Path, s3_url: str, s3_server):
    for where in (tmp_path, s3_url):
        store = open_store(where)
        store.write("a", b"1")
        pickled = pickle.dumps(store)
        again = pickle.loads(pickled)
        assert again.read("a") == b"1"
        assert s3_server.secret.encode() not in pickled
        assert s3_server.key.encode() not in pickled


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("gs://bucket/x", "got 'gs://'; expected a path or s3://bucket/prefix"),
        ("file:///tmp/x", "expected a plain path"),
        ("s3://key:secret@bucket/x", "credentials or a port inside"),
        ("s3://host:9000/bucket", "credentials or a port inside"),
        ("s3://My_Bucket/x", "expected 3 to 63"),
        ("s3:///x", "expected 3 to 63"),
        ("s3://bucket/x?endpoint_override=evil", "'?' or '#'"),
        ("s3://bucket/a/../b", "without '..'"),
    ],
)
def test_an_address_that_cannot_work_is_refused_with_what_would_do(url: str, fault: str):
    assert fault in url_fault(url)
    with pytest.raises(InputError):
        open_store(url)


def test_addresses_are_joined_and_taken_apart_as_text():
    assert join("s3://b/p/", "x", "", "y/z") == "s3://b/p/x/y/z"
    assert inside("s3://b/p/x/y", "s3://b/p") == "x/y"
    assert inside("s3://b/other", "s3://b/p") is None
    assert inside("s3://b/p", "s3://b/p") is None
    assert inside("/a/b/../../etc", "/a/b") is None


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_is_away_is_not_a_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    store, stat = LocalStore(tmp_path), Path.stat

    def away(path: Path, **how: Any) -> os.stat_result:
        if path.name == "a":
            raise OSError(number, os.strerror(number), str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", away)
    with pytest.raises(StorageUnavailable):
        store.exists("a")


def test_links_in_a_circle_are_no_place_to_remove_from(tmp_path: Path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(StorageError, match="leads out of"):
        open_store(tmp_path).delete("a/file")
    with pytest.raises(StorageError):
        open_store(tmp_path).delete_tree("a")
