"""Checkpoints on their way to a bucket and back: what counts, what waits, what is found to be damaged."""

from __future__ import annotations

import pickle
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.checkpoints import manifest, transfer
from sweeps.checkpoints.manifest import MANIFEST, STATE, read_manifest, seal, verify
from sweeps.checkpoints.scratch import room, scratch
from sweeps.checkpoints.transfer import CheckpointUploader, drop_checkpoint, fetch, push
from sweeps.config.trial import Saved
from sweeps.errors import DamagedCheckpoint, InputError, StorageDenied, StorageUnavailable, TrialFailed
from sweeps.storage.base import storage_trouble
from sweeps.storage.memory import MemoryStore
from tests.support.faulty_store import Calls, Died, FaultyStore

KEY = "s-1/trials/t-1/attempt-1"
FILES = {"model.safetensors": b"w" * 100, "config.json": b"{}", STATE: b"m" * 200, "trainer.json": b"{}"}


def checkpoint(folder: Path, step: int = 4) -> Saved:
    where = folder / f"step-{step:06d}"
    where.mkdir(parents=True)
    for name, data in FILES.items():
        (where / name).write_bytes(data)
    return seal(where, step)


class Heard:
    """Hooks that write down what they hear, and in which thread."""

    def __init__(self) -> None:
        self.news: list[Any] = []
        self.threads: set[str] = set()

    def _hear(self, what: Any) -> None:
        self.news.append(what)
        self.threads.add(threading.current_thread().name)

    def report(self, step, metrics, *, progress, cost) -> None:
        self._hear(step)

    def saved(self, checkpoint: Saved) -> None:
        self._hear(checkpoint)

    def stop_asked(self) -> bool:
        return False


class Gate(MemoryStore):
    """A store whose uploads wait until the gate opens."""

    def __init__(self) -> None:
        super().__init__("s3://bucket/sweeps")
        self.open = threading.Event()

    def upload(self, source: Path, key: str) -> None:
        assert self.open.wait(20)
        super().upload(source, key)


def test_a_checkpoint_comes_back_byte_for_byte(tmp_path: Path):
    store = MemoryStore()
    saved = checkpoint(tmp_path)
    push(Path(saved.path), store, KEY + "/step-000004")
    manifest = fetch(store / KEY / "step-000004", tmp_path / "down")
    assert manifest.step == 4
    assert manifest.digest == saved.digest
    assert verify(tmp_path / "down") == read_manifest(saved.path)
    assert {p.name: p.read_bytes() for p in (tmp_path / "down").iterdir() if p.name in FILES} == FILES


def test_an_evaluator_leaves_the_trainers_own_files_where_they_are(tmp_path: Path):
    store = MemoryStore()
    push(Path(checkpoint(tmp_path).path), store, KEY)
    fetch(store / KEY, tmp_path / "down", lambda name: name != STATE)
    assert not (tmp_path / "down" / STATE).exists()
    assert (tmp_path / "down" / "model.safetensors").exists()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_cut_off_at_any_call_an_upload_is_whole_or_it_is_none(tmp_path: Path, moment):
    folder = Path(checkpoint(tmp_path).path)
    whole = Calls()
    push(folder, FaultyStore(MemoryStore(), whole), KEY)
    assert whole.log[-1] == f"upload {KEY}/{MANIFEST}"
    for n in range(1, len(whole.log) + 1):
        store = MemoryStore()
        with pytest.raises(Died):
            push(folder, FaultyStore(store, Calls(n, moment)), KEY)
        if n == len(whole.log) and moment == "after":
            fetch(store / KEY, tmp_path / f"down-{n}")
            continue
        with pytest.raises(DamagedCheckpoint, match=r"has no manifest\.json: it was never finished"):
            fetch(store / KEY, tmp_path / f"down-{n}")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["gone", "short", "flipped"])
def test_damage_in_the_bucket_is_found_and_named(tmp_path: Path, name: str, damage: str):
    store = MemoryStore()
    push(Path(checkpoint(tmp_path).path), store, KEY)
    data = store.read(f"{KEY}/{name}")
    if damage == "gone":
        store.delete(f"{KEY}/{name}")
    else:
        store.write(f"{KEY}/{name}", data[:-1] if damage == "short" else bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(DamagedCheckpoint, match=rf"is damaged: {name} .*use an earlier one") as e:
        fetch(store / KEY, tmp_path / "down")
    assert (e.value.reason, isinstance(e.value, TrialFailed)) == ("bad-checkpoint", True)
    again = pickle.loads(pickle.dumps(e.value))
    assert (str(again), again.reason) == (str(e.value), "bad-checkpoint")


def test_a_copy_that_went_wrong_on_the_way_is_made_again(tmp_path: Path):
    class Once(MemoryStore):
        bad = 1

        def download(self, key: str, target: Path) -> None:
            super().download(key, target)
            if self.bad and key.endswith("model.safetensors"):
                Once.bad = 0
                target.write_bytes(b"garbage")

    files: dict[str, bytes] = {}
    push(Path(checkpoint(tmp_path).path), MemoryStore("memory://x", files), KEY)
    fetch(Once(f"memory://x/{KEY}", files), tmp_path / "down")
    assert (tmp_path / "down" / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path):
    store = MemoryStore()
    push(Path(checkpoint(tmp_path).path), store, KEY)
    text = store.read(f"{KEY}/{MANIFEST}").replace(b'"config.json"', b'"../../evil"')
    store.write(f"{KEY}/{MANIFEST}", text)
    with pytest.raises(DamagedCheckpoint, match="tampered with"):
        fetch(store / KEY, tmp_path / "down")


def test_training_goes_on_while_uploads_wait_and_hears_of_them_in_its_own_thread(tmp_path: Path):
    gate, heard = Gate(), Heard()
    uploads = CheckpointUploader(heard, gate, KEY, 10**9, pytest.fail)
    first = checkpoint(tmp_path, 4)
    uploads.saved(first)
    uploads.report(5, {}, progress={}, cost={})
    uploads.saved(checkpoint(tmp_path, 8))
    assert heard.news == [5], "not whole in the bucket: not told"
    assert Path(first.path).is_dir()
    gate.open.set()
    uploads.drain()
    assert [s.path for s in heard.news[1:]] == [f"{gate.root}/{KEY}/step-00000{n}" for n in (4, 8)]
    assert heard.news[1].digest == first.digest
    assert heard.threads == {threading.current_thread().name}
    assert not list(tmp_path.glob("step-*")), "what is in the bucket is not kept here"


def test_beyond_the_room_for_waiting_training_waits_and_says_so(tmp_path: Path):
    gate, heard, said = Gate(), Heard(), list[str]()
    uploads = CheckpointUploader(heard, gate, KEY, 100, lambda line: (said.append(line), gate.open.set()))
    uploads.saved(checkpoint(tmp_path, 4))
    assert said == [], "one may always wait"
    uploads.saved(checkpoint(tmp_path, 8))
    assert len(said) == 1
    assert said[0].startswith("training waits: 2 checkpoints")
    assert len(heard.news) >= 1
    uploads.drain()
    assert [s.step for s in heard.news] == [4, 8]


def test_an_upload_that_can_never_work_is_told_to_the_trainer(tmp_path: Path):
    class Closed(MemoryStore):
        def upload(self, source: Path, key: str) -> None:
            raise StorageDenied("s3://b: access denied (403)")

    uploads = CheckpointUploader(Heard(), Closed(), KEY, 10**9, pytest.fail)
    uploads.saved(checkpoint(tmp_path))
    with pytest.raises(StorageDenied, match="403"):
        uploads.drain()


def test_a_checkpoint_is_removed_manifest_first(tmp_path: Path):
    store, calls = MemoryStore(), Calls()
    push(Path(checkpoint(tmp_path).path), store, KEY)
    with pytest.raises(Died):
        drop_checkpoint(FaultyStore(store, Calls(2)), KEY)
    with pytest.raises(DamagedCheckpoint, match="never finished"):
        fetch(store / KEY, tmp_path / "down")
    drop_checkpoint(FaultyStore(store, calls), KEY)
    assert store.list() == []


def test_scratch_is_where_it_was_put_and_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPSWEEP_SCRATCH", str(tmp_path / "fast"))
    assert scratch("write", "s-1") == tmp_path / "fast" / "write" / "s-1"
    assert (tmp_path / "fast").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("DIPSWEEP_SCRATCH_GIB", "1.5")
    assert room() == int(1.5 * 2**30)
    monkeypatch.setenv("DIPSWEEP_SCRATCH_GIB", "much")
    with pytest.raises(ValueError, match="expected a number of GiB such as 50"):
        room()


class Late(MemoryStore):
    """A store that loses what is uploaded, or does not list it yet, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__("s3://bucket/sweeps")
        self.times = times

    def list(self, prefix: str = "") -> list[Any]:
        self.times -= 1
        return [] if self.times >= 0 else super().list(prefix)


def test_an_upload_that_is_not_listed_yet_is_tried_again_and_then_the_storages_fault(tmp_path: Path, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", waited.append)
    saved, tries = checkpoint(tmp_path), len(transfer.PAUSES)
    for late in range(tries):
        waited.clear()
        store = Late(late)
        push(Path(saved.path), store, KEY)
        assert waited == list(transfer.PAUSES[: late + 1])
        assert fetch(store / KEY, tmp_path / f"down-{late}").digest == saved.digest
    waited.clear()
    with pytest.raises(StorageUnavailable, match="did not arrive whole; nothing counts yet"):
        push(Path(saved.path), Late(tries), KEY)
    assert waited == list(transfer.PAUSES)  # each is followed by a look


@pytest.mark.parametrize("name", [MANIFEST, "config.json"])
def test_a_checkpoint_that_was_cleared_away_before_its_upload_does_not_damage_the_one_that_it_began_from(
    tmp_path: Path, name: str
):
    """Something tidies the folder for temporary files; as a damaged checkpoint the attempt's own start would be given up."""
    store = Gate()
    uploads = CheckpointUploader(Heard(), store, KEY, 10**9, print)
    first, second = checkpoint(tmp_path, 4), checkpoint(tmp_path, 8)
    uploads.saved(first)
    uploads.saved(second)
    (Path(second.path) / name).unlink()
    store.open.set()
    with pytest.raises(StorageUnavailable, match=r"step-000008 was not uploaded"):
        uploads.drain()


@pytest.mark.parametrize("what", ["never sealed", "elsewhere"])
def test_what_is_no_checkpoint_when_it_is_saved_is_the_trainers_fault_and_not_tried_for_ever(tmp_path: Path, what: str):
    uploads = CheckpointUploader(Heard(), MemoryStore("s3://bucket/sweeps"), KEY, 10**9, print)
    (tmp_path / "never sealed").mkdir()
    with pytest.raises(
        InputError, match=r"step 4 .* no whole checkpoint \(.*has no manifest\.json.*expected what .*seal"
    ) as e:
        uploads.saved(Saved(4, str(tmp_path / what), ""))
    assert storage_trouble(e.value) is None
    uploads.drain()


def test_a_trainer_may_give_its_folder_as_a_path(tmp_path: Path):
    heard = Heard()
    uploads = CheckpointUploader(heard, MemoryStore("s3://bucket/sweeps"), KEY, 10**9, print)
    uploads.saved(replace(checkpoint(tmp_path), path=tmp_path / "step-000004"))  # type: ignore[arg-type]
    uploads.drain()
    assert [saved.path for saved in heard.news] == [f"s3://bucket/sweeps/{KEY}/step-000004"]


def test_a_folder_in_a_checkpoint_travels_along(tmp_path: Path):
    """A tokenizer with several chat templates has one for all but the first."""
    store, folder = MemoryStore(), Path(checkpoint(tmp_path).path)
    (folder / MANIFEST).unlink()
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/rag.jinja").write_text("{{ messages }}")
    (folder / ".nfs000000000c1a7e").write_text("goes by itself")
    seal(folder, 4)
    (folder / ".nfs000000000c1a7e").unlink()
    assert "additional_chat_templates/rag.jinja" in verify(folder).files
    push(folder, store, KEY)
    fetch(store / KEY, tmp_path / "down")
    assert verify(tmp_path / "down") == read_manifest(folder)
    store.delete(f"{KEY}/additional_chat_templates/rag.jinja")
    with pytest.raises(DamagedCheckpoint, match=r"rag\.jinja is missing"):
        fetch(store / KEY, tmp_path / "again")


def test_every_folder_of_a_checkpoint_is_on_the_disk_before_its_manifest(tmp_path: Path, monkeypatch):
    folder, synced = tmp_path / "step-000004", list[Path]()
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/c.jinja").write_text("{{ messages }}")
    sync = manifest.sync

    def noted(place: Path) -> None:
        assert not (folder / MANIFEST).exists() or place in (folder, tmp_path)
        synced.append(place)
        sync(place)

    monkeypatch.setattr(manifest, "sync", noted)
    seal(folder, 4)
    assert {folder / "a/b/c.jinja", folder / "a/b", folder / "a", folder} <= set(synced)


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "a/../../evil", "a//b", "./a", MANIFEST, "a\\u0000b"])
def test_no_name_in_a_manifest_leads_out_of_its_folder(tmp_path: Path, name: str):
    folder = Path(checkpoint(tmp_path).path)
    text = (folder / MANIFEST).read_text().replace('"config.json"', f'"{name}"')
    (folder / MANIFEST).write_text(text)
    with pytest.raises(DamagedCheckpoint, match="tampered with"):
        verify(folder)
