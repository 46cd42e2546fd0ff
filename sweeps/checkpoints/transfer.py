"""Checkpoints between a machine and a bucket.

A worker writes its checkpoint to scratch and trains on; a thread uploads the files and, last, the manifest; only then is the
checkpoint reported. A worker that resumes, and an evaluator, copy it to their own scratch and check every file's sha256.
With a folder that all machines see there is nothing to carry, and none of this is used.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sweeps.checkpoints.manifest import (
    MANIFEST,
    STATE,
    Manifest,
    fault,
    is_weights,
    parse_manifest,
    read_manifest,
    unfinished,
)
from sweeps.checkpoints.scratch import folder_lock, room, scratch
from sweeps.config.eval_job import EvalJob
from sweeps.config.trial import Hooks, Saved, TrialSpec, waiting_of
from sweeps.errors import DamagedCheckpoint, InputError, NotFound, StorageError, StorageUnavailable
from sweeps.reported import checked_saved
from sweeps.storage.base import FOREVER, Store, is_url, join, storage_trouble
from sweeps.storage.factory import open_store

Say = Callable[[str], None]
PAUSES: Final = (0.0, 1.0, 5.0, 15.0)
"""Seconds before each try of an upload: some servers list late what has arrived."""


def push(folder: Path, store: Store, key: str) -> None:
    """Uploads a sealed checkpoint under a key, its manifest last.

    Raises:
        StorageUnavailable: a file did not arrive whole, several times; or as the store says. Nothing counts then.
    """
    manifest = read_manifest(folder)
    missing = list(manifest.files)
    for pause in PAUSES:
        time.sleep(pause)
        for name in missing:
            store.upload(folder / name, f"{key}/{name}")
        there = {e.key.removeprefix(f"{key}/"): e.size for e in store.list(key)}
        missing = [name for name, (size, _) in manifest.files.items() if there.get(name) != size]
        if not missing:
            break
    else:
        raise StorageUnavailable(f"{join(store.root, key)}: {missing[0]} did not arrive whole; nothing counts yet")
    store.upload(folder / MANIFEST, f"{key}/{MANIFEST}")


def drop_checkpoint(store: Store, key: str) -> None:
    """Removes a checkpoint, its manifest first: what is half removed does not count as whole."""
    store.delete(f"{key}/{MANIFEST}")
    store.delete_tree(key)


def fetch(store: Store, target: Path, wanted: Callable[[str], bool] = lambda name: True) -> Manifest:
    """Copies a checkpoint to a local folder and checks every file; processes of one machine may ask for the same.

    Args:
        store: the checkpoint's own. target: a folder for this checkpoint alone. wanted: which files to copy.

    Raises:
        DamagedCheckpoint: a file is missing, short or changed.
    """
    target.mkdir(parents=True, exist_ok=True)
    with folder_lock(target):
        try:
            data = store.read(MANIFEST)
        except NotFound:
            raise unfinished(store) from None
        manifest = parse_manifest(data, f"{store}/{MANIFEST}")
        faults = [f for name in manifest.files if wanted(name) and (f := _fetch_file(store, target, name, manifest))]
        if faults:
            raise DamagedCheckpoint(f"checkpoint {store} is damaged: {'; '.join(faults)}; use an earlier one")
        (target / MANIFEST).write_bytes(data)
    return manifest


def _fetch_file(store: Store, target: Path, name: str, manifest: Manifest) -> str:
    if not fault(target, name, manifest):
        return ""  # another process of this machine was here before
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    wrong = ""
    for _ in range(2):  # a copy can go wrong on the way; what is wrong twice is wrong there
        try:
            store.download(name, target / name)
        except NotFound:
            return f"{name} is missing"
        wrong = fault(target, name, manifest)
        if not wrong:
            return ""
    return wrong


@contextmanager
def local_copy(
    path: str,
    shared: Path | None = None,
    wanted: Callable[[str], bool] = lambda name: True,
    patience_s: float = FOREVER,
) -> Iterator[Path]:
    """Gives a local folder with the checkpoint at a path or an address; a copy is gone when the block ends.

    So nothing is cached here: a checkpoint is read once by each that needs it, and scratch holds no more than is being read.
    Models and data, which all trials read, are kept by `trainers.data.sources.download_cache`.

    Args:
        path: the checkpoint. shared: where to copy it, for processes that use one copy; else it is the caller's own.
        wanted: which files to copy. patience_s: how long to wait for storage that does not answer.
    """
    if not is_url(path):
        yield Path(path)
        return
    target = shared or Path(tempfile.mkdtemp(dir=scratch("read")))
    try:
        fetch(open_store(path, patience_s=patience_s), target, wanted)
        yield target
    finally:
        shutil.rmtree(target, ignore_errors=True)


@contextmanager
def _as_trouble(checkpoint: str) -> Iterator[None]:
    """Makes whatever keeps a checkpoint from its bucket the storage's trouble: the training is sound."""
    try:
        yield
    except (StorageError, OSError) as e:
        raise storage_trouble(e) or StorageUnavailable(f"checkpoint {checkpoint} was not uploaded: {e}") from e


class CheckpointUploader:
    """A trainer's hooks whose checkpoints are uploaded before they are reported.

    Everything is reported in the trainer's own thread, between its steps; only the upload runs in another.

    Args:
        hooks: whom to tell. store: of all sweeps' root. key: the attempt's folder in it.
        room: bytes that may wait for upload; one checkpoint always may. say: takes a sentence when training has to wait.
    """

    def __init__(self, hooks: Hooks, store: Store, key: str, room: int, say: Say) -> None:
        self.hooks, self.store, self.key, self.room, self.say = hooks, store, key, room, say
        self._todo: queue.Queue[Saved | None] = queue.Queue()
        self._done: queue.Queue[Saved | BaseException] = queue.Queue()
        self._sizes: dict[str, int] = {}
        self.background_saves = bool(getattr(hooks, "background_saves", False))
        self._thread = threading.Thread(target=self._work, daemon=True, name="uploads")
        self._thread.start()

    def report(
        self, step: int, metrics: Mapping[str, float], *, progress: Mapping[str, float], cost: Mapping[str, float]
    ) -> None:
        self._tell()
        self.hooks.report(step, metrics, progress=progress, cost=cost)

    def stop_asked(self) -> bool:
        self._tell()
        return self.hooks.stop_asked()

    def waiting(self, reason: str) -> None:
        """Passes on what a checkpoint waits for."""
        waiting_of(self.hooks)(reason)

    def saved(self, checkpoint: Saved) -> None:
        """Queues a checkpoint for upload; waits only when too many bytes wait already.

        Raises:
            InputError: there is no whole checkpoint. Never `DamagedCheckpoint`: that would be the one which the attempt began
                from. StorageError: this one, or one before, cannot be uploaded, or has gone from this machine since.
        """
        checkpoint = checked_saved(checkpoint)
        with _as_trouble(checkpoint.path):
            try:
                self._sizes[checkpoint.path] = read_manifest(checkpoint.path).size
            except DamagedCheckpoint as e:
                raise InputError(
                    f"hooks.saved was told of step {checkpoint.step} in {checkpoint.path}, which is no whole checkpoint "
                    f"({e.detail}); expected what sweeps.checkpoints.manifest.seal returns"
                ) from None
        self._todo.put(checkpoint)
        self._tell()
        waited = False
        while len(self._sizes) > 1 and sum(self._sizes.values()) > self.room:
            if not waited:
                self.say(
                    f"training waits: {len(self._sizes)} checkpoints ({sum(self._sizes.values()) / 2**30:.1f} GiB) are "
                    f"not uploaded yet, and only {self.room / 2**30:.1f} GiB may wait on this machine"
                )
            waited = True
            self._on_uploaded(self._done.get())

    def drain(self) -> None:
        """Waits until everything is uploaded and reported."""
        self._todo.put(None)
        while self._sizes:
            self._on_uploaded(self._done.get())
        self._thread.join()

    def _tell(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._on_uploaded(self._done.get_nowait())

    def _on_uploaded(self, result: Saved | BaseException) -> None:
        if isinstance(result, BaseException):
            self._sizes.clear()
            raise result
        self._sizes.pop(str(result.path))
        shutil.rmtree(result.path, ignore_errors=True)
        self.hooks.saved(replace(result, path=join(self.store.root, self.key, Path(result.path).name)))

    def _work(self) -> None:
        try:
            while (checkpoint := self._todo.get()) is not None:
                with _as_trouble(checkpoint.path):
                    push(Path(checkpoint.path), self.store, f"{self.key}/{Path(checkpoint.path).name}")
                self._done.put(checkpoint)
        except BaseException as e:  # raised where training hears of it
            self._done.put(e)


class RemoteStorageTrainFn:
    """A training function for a sweep whose storage is a bucket: it writes to scratch, and reads from scratch.

    A checkpoint whose tensors are in the memory of this process is copied without them, where the function says so: it has a
    `holds`, which is asked with the bytes of the checkpoint's manifest.

    Args:
        train: the function; it sees local folders only. root: address of all sweeps.
        say: takes a sentence; by default the hooks' `waiting`.
    """

    def __init__(self, train: Callable[..., None], root: str, say: Say | None = None) -> None:
        self.train, self.root, self.say = train, root, say

    @property
    def reuse(self) -> bool:
        """Whether the process may run another attempt afterwards: what the function itself says."""
        return bool(getattr(self.train, "reuse", False))

    def __call__(self, trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, **rank: Any) -> None:
        say = self.say or waiting_of(hooks)
        store = open_store(self.root, patience_s=FOREVER, say=say)
        key = f"{trial.sweep}/trials/{trial.id}/{folder.name}"
        local = scratch("write", trial.sweep, trial.id, folder.name)
        copy = scratch("read", trial.sweep, trial.id) / folder.name
        if rank.get("rank", 0) == 0:
            _clear_but(local)
        with local_copy(resume.path, copy, self._needs(resume)) if resume else contextlib.nullcontext() as begun:
            begin = replace(resume, path=str(begun)) if resume else None
            if rank.get("rank", 0) != 0:
                self.train(trial, hooks, folder=local, resume=begin, **rank)
                return
            uploads = CheckpointUploader(hooks, store, key, room(), say)
            try:
                self.train(trial, uploads, folder=local, resume=begin, **rank)
            except Exception:
                with contextlib.suppress(Exception):  # what was saved before counts; the first error is the one to tell
                    uploads.drain()
                raise
            uploads.drain()
        shutil.rmtree(local, ignore_errors=True)

    def _needs(self, resume: Saved) -> Callable[[str], bool]:
        """Returns which files of a checkpoint have to be copied."""
        holds = getattr(self.train, "holds", None)
        with contextlib.suppress(NotFound):  # copying it will say what is wrong
            if holds is not None and holds(open_store(resume.path, patience_s=FOREVER).read(MANIFEST)):
                return lambda name: name != STATE and not is_weights(name)
        return lambda name: True


def _clear_but(attempt: Path) -> None:
    """Removes what earlier attempts of a trial left on this machine: whatever mattered of it was uploaded."""
    for other in attempt.parent.iterdir():
        if other != attempt:
            shutil.rmtree(other, ignore_errors=True)


class RemoteStorageEvalFn:
    """An evaluation for a sweep whose storage is a bucket: it reads a copy without the trainer's own files."""

    def __init__(self, evaluate: Callable[[EvalJob], Any]) -> None:
        self.evaluate = evaluate

    def __call__(self, job: EvalJob) -> Any:
        if job.step == 0:  # the base model: its path is the model's own source
            return self.evaluate(job)
        # Two thirds of the bytes are a trainer's.
        with local_copy(job.path, wanted=lambda name: name != STATE) as folder:
            return self.evaluate(replace(job, path=str(folder)))
