"""A branch that goes on from memory is, to the byte, the one that goes on from the storage."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest
import torch

from sweeps.checkpoints import transfer
from sweeps.config.trial import Saved
from sweeps.errors import StorageError, StorageFull
from sweeps.storage.memory import MemoryStore
from tests.support.models.tiny_sft import Notes, tier, trial, write_base
from trainers import snapshot
from trainers.checkpoint import step_folder
from trainers.checkpoint_writer import CheckpointWriter
from trainers.loop import train
from trainers.snapshot import SNAPSHOTS, Snapshot, SnapshotCache

FULL = {"lr_scheduler_type": "wsd", "decay": 0.3, "logging_steps": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(autouse=True)
def nothing_kept():
    SNAPSHOTS.clear()
    yield
    SNAPSHOTS.clear()


def run(base, folder, steps, *, forks=(), notes=None, resume=None, **settings):
    notes = notes or Notes()
    spec = dataclasses.replace(trial(base, (steps,), **{**FULL, **settings}), forks=forks)
    train(spec, notes, folder=folder, resume=resume, data=tier())
    return notes


def every_byte(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def reads(monkeypatch):
    """Counts how often a checkpoint's files were verified, which is before they are read."""
    from trainers import checkpoint

    seen, verify = [], checkpoint.verify
    monkeypatch.setattr(checkpoint, "verify", lambda path, **how: seen.append(path) or verify(path, **how))
    return seen


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 4, "lora_alpha": 8.0}, {"precision": "bf16"}])
def test_branches_from_memory_write_the_same_bytes_as_branches_from_the_storage(base, tmp_path, reads, settings):
    if "lora_rank" in settings:
        pytest.importorskip("peft")
    trunk = run(base, tmp_path / "trunk", 12, forks=(4, 6), **settings)
    forks = {c.step: c for c in trunk.checkpoints}
    for fork in (4, 6, 4):  # a branch leaves what is in memory as it was
        run(base, tmp_path / f"memory-{fork}", 8, resume=forks[fork], **settings)
    assert not reads
    SNAPSHOTS.clear()
    for fork in (4, 6):
        run(base, tmp_path / f"storage-{fork}", 8, resume=forks[fork], **settings)
        ours, theirs = (every_byte(step_folder(tmp_path / f"{way}-{fork}", 8)) for way in ("memory", "storage"))
        assert ours == theirs
    assert len(reads) == 2


def test_only_forks_are_kept_and_only_the_last_ones(base, tmp_path, reads):
    trunk = run(base, tmp_path / "trunk", 8, forks=(2, 3, 4))
    for checkpoint, times in zip(trunk.checkpoints, (1, 1, 1, 2), strict=True):  # 2 is too old, 8 is no fork
        run(base, tmp_path / f"branch-{checkpoint.step}", 9, resume=checkpoint)
        assert len(reads) == times


def test_a_checkpoint_that_was_written_anew_or_is_gone_is_read_from_the_storage(base, tmp_path, reads):
    (fork, _) = run(base, tmp_path / "trunk", 6, forks=(3,)).checkpoints
    manifest = Path(fork.path) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text())))  # says the same, and is not what was written
    run(base, tmp_path / "branch", 5, resume=fork)
    assert reads == [fork.path]
    manifest.unlink()
    with pytest.raises(StorageError, match="never finished"):
        run(base, tmp_path / "other", 5, resume=fork)


def test_nothing_is_kept_where_memory_is_short(base, tmp_path, reads, monkeypatch):
    monkeypatch.setattr(snapshot, "available_host_bytes", lambda: 10_000)
    (fork, _) = run(base, tmp_path / "trunk", 6, forks=(3,)).checkpoints
    run(base, tmp_path / "branch", 5, resume=fork)
    assert reads == [fork.path]


def test_the_oldest_make_room_for_the_latest(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "available_host_bytes", lambda: 8 * 100)
    cache = SnapshotCache()
    for name, numbers in (("a", 5), ("b", 10), ("c", 15), ("d", 50)):  # 4 bytes each
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
        cache.put(tmp_path / name, Snapshot(1, {"w": torch.zeros(numbers)}, {}, {}))
    assert [cache.get(tmp_path / name) is not None for name in "abcd"] == [False, True, True, False]
    cache.put(tmp_path / "a", Snapshot(1, {"w": torch.zeros(10)}, {}, {}))
    assert [cache.get(tmp_path / name) is not None for name in "abcd"] == [True, False, True, False]


def test_from_a_bucket_only_what_is_not_in_memory_is_copied(base, tmp_path, monkeypatch):
    downloads = []

    class Bucket(MemoryStore):
        def download(self, key, target):
            downloads.append(target.name)
            super().download(key, target)

    files: dict[str, bytes] = {}
    monkeypatch.setattr(transfer, "open_store", lambda where, **rest: Bucket(str(where), files))
    monkeypatch.setenv("DIPSWEEP_SCRATCH", str(tmp_path / "scratch"))

    def train_here(spec, hooks, *, folder, resume, **rank):
        train(spec, hooks, folder=folder, resume=resume, data=tier())

    def through_a_bucket(steps, *, forks=(), resume=None):
        notes = Notes()
        spec = dataclasses.replace(trial(base, (steps,), **FULL), forks=forks)
        transfer.RemoteStorageTrainFn(train_here, "s3://b")(spec, notes, folder=tmp_path / "attempt-1", resume=resume)
        return notes.checkpoints

    train_here.holds = SNAPSHOTS.holds
    (fork, _) = through_a_bucket(8, forks=(4,))
    (ours,) = through_a_bucket(7, resume=fork)
    assert "config.json" in downloads
    assert not {"model.safetensors", "trainer.safetensors"} & set(downloads)
    SNAPSHOTS.clear()
    (theirs,) = through_a_bucket(7, resume=fork)
    assert {"model.safetensors", "trainer.safetensors"} <= set(downloads)
    assert ours.digest == theirs.digest


# ---- checkpoints beside the training ----------------------------------------------------------------------------------


class Patient(Notes):
    background_saves = True


def test_checkpoints_written_beside_the_training_have_the_bytes_of_those_that_it_waits_for(base, tmp_path):
    ours = run(base, tmp_path / "aside", 8, forks=(3, 4, 5), notes=Patient())
    theirs = run(base, tmp_path / "waiting", 8, forks=(3, 4, 5))
    assert [c.step for c in ours.checkpoints] == [c.step for c in theirs.checkpoints] == [3, 4, 5, 8]
    for a, b in zip(ours.checkpoints, theirs.checkpoints, strict=True):
        left, right = every_byte(Path(a.path)), every_byte(Path(b.path))
        from safetensors.torch import load

        state = [{n: t for n, t in load(f.pop("trainer.safetensors")).items() if n != "rng/cpu"} for f in (left, right)]
        assert all(torch.equal(state[0][n], state[1][n]) for n in state[0] | state[1])
        for files in (left, right):
            files.pop("manifest.json"), files.pop("trainer.json")
        assert left == right


def test_training_goes_on_while_a_checkpoint_is_written_and_hears_of_it_in_its_own_thread():
    told, let = [], threading.Event()

    class Hooks(Patient):
        def saved(self, checkpoint):
            told.append((checkpoint.step, threading.current_thread()))

    writer = CheckpointWriter(Hooks())

    def slow(give_up):
        let.wait()
        return Saved(1, "one")

    writer.write(slow)
    writer.poll()
    assert not told
    let.set()
    writer.write(lambda give_up: Saved(2, "two"))  # waits for the one before
    writer.finish()
    assert told == [(1, threading.main_thread()), (2, threading.main_thread())]
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoint")]


def test_a_disk_without_room_is_heard_of_in_training_and_leaves_no_thread():
    writer = CheckpointWriter(Patient())

    def full(give_up):
        raise StorageFull("no room")

    writer.write(full)
    with pytest.raises(StorageFull):
        writer.finish()
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoint")]


def test_a_stop_ends_the_waiting_for_a_disk():
    class Stopped(Patient):
        def stop_asked(self):
            raise RuntimeError("discarded")

    writer = CheckpointWriter(Stopped())
    gave_up = threading.Event()

    def waits(give_up):
        while not give_up():
            pass
        gave_up.set()
        raise StorageFull("no room")

    writer.write(waits)
    with pytest.raises(RuntimeError, match="discarded"):
        writer.finish()
    assert gave_up.is_set()


def test_a_run_that_breaks_tells_first_of_what_it_saved(base, tmp_path):
    class Breaks(Patient):
        def report(self, step, *rest, **more):
            if step == 5:
                raise RuntimeError("broken")

    notes = Breaks()
    with pytest.raises(RuntimeError, match="broken"):
        run(base, tmp_path, 8, forks=(4,), notes=notes)
    assert [c.step for c in notes.checkpoints] == [4]
