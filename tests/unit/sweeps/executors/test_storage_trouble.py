"""What an attempt or a score stumbles over because of the storage is tried again, and counts against nobody."""

from __future__ import annotations

import errno
import os
import pickle
import sys
from pathlib import Path

import pytest
import ray

from cluster.run_sweep import run
from cluster.train.worker import explain
from sweeps import Sweep, grid
from sweeps.errors import NodeTrouble, StorageDenied, StorageFull, Unreachable
from sweeps.executors import local, storage_backoff
from sweeps.failures import FailureKind
from sweeps.journal.history import History
from sweeps.journal.writer import read_rows
from sweeps.storage.base import storage_trouble
from tests.support.fakes import FakeTrainer, fake_evaluate

SWEEP = Sweep(
    name="s", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 8, "learning_rate": 1e-3}, limits={"retries": 0}
)
TROUBLES = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    OSError(errno.EIO, os.strerror(errno.EIO)),
    OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
    OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN)),
    OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)),
    OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), "/shared/model.safetensors"),
    RuntimeError("I/O error: File too large (os error 27)"),
    RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'),
    StorageDenied("s3://b: the storage refuses these credentials (ExpiredToken)"),
    Unreachable("s3://b: the storage answers 503"),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
def test_no_trial_and_no_score_is_given_up_for_the_storage(tmp_path: Path, monkeypatch, trouble: Exception):
    monkeypatch.setattr(storage_backoff, "FIRST_S", 0.01)
    monkeypatch.setattr(storage_backoff, "LONGEST_S", 0.02)
    monkeypatch.setattr(local, "PAUSE_S", 0.005)
    train, left, said = FakeTrainer(), {"train": 5, "score": 9}, list[str]()

    def stumble(what: str) -> None:
        left[what] -= 1
        if left[what] >= 0:
            raise trouble

    def training(*args, **kwargs) -> None:
        train(*args, **kwargs)
        stumble("train")

    def scoring(job):
        stumble("score")
        return fake_evaluate(job)

    run(SWEEP, storage=tmp_path, backend="in-process", train=training, evaluate=scoring, say=said.append)
    rows = read_rows(tmp_path / SWEEP.id)
    assert {c.state for c in History(rows).trials()} == {"completed"}
    assert all(c.steps("transfer/score")[-1] == 8 for c in History(rows).trials())
    assert any(line.startswith("paused: ") for line in said)


def test_a_connection_of_the_users_own_code_is_not_the_storage(tmp_path: Path):
    def training(*args, **kwargs) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    run(SWEEP, storage=tmp_path, backend="in-process", train=training, evaluate=fake_evaluate, say=lambda line: None)
    assert {c.state for c in History(read_rows(tmp_path / SWEEP.id)).trials()} == {"failed"}


def test_code_that_exits_ends_its_trial_or_evaluation_and_not_the_sweep(tmp_path: Path):
    train, left = FakeTrainer(), {"train": 1, "score": 1}

    def leave(what: str) -> None:
        left[what] -= 1
        if left[what] >= 0:
            sys.exit(what)

    def training(*args, **kwargs) -> None:
        leave("train")
        train(*args, **kwargs)

    def scoring(job):
        leave("score")
        return fake_evaluate(job)

    run(SWEEP, storage=tmp_path, backend="in-process", train=training, evaluate=scoring, say=lambda line: None)
    rows = read_rows(tmp_path / SWEEP.id)
    details = {c.state: c.detail for c in History(rows).trials()}
    assert details["completed"] == ""
    assert details["failed"].startswith("SystemExit: train (raised by training function ")
    assert "SystemExit: score" in str(rows)


class Mute(Exception):
    """Whoever asks for its text gets another error, as of an exception whose `__init__` was never run to its end."""

    def __str__(self) -> str:
        raise AttributeError("no text")


@pytest.mark.parametrize("error", [Mute(), ValueError("x" * 10**7)], ids=lambda e: type(e).__name__)
def test_an_error_without_a_text_or_with_an_endless_one_is_one_like_others(tmp_path: Path, error: Exception):
    def fails(*args, **kwargs) -> None:
        raise error

    run(SWEEP, storage=tmp_path, backend="in-process", train=fails, evaluate=fails, say=lambda line: None)
    trials = History(read_rows(tmp_path / SWEEP.id)).trials()
    assert [(t.state, t.detail[: len(type(error).__name__)]) for t in trials] == [("failed", type(error).__name__)] * 2
    assert all(len(t.detail) < 3000 for t in trials)
    assert explain(error).reason == "error"


def test_the_time_between_tries_doubles_up_to_a_minute_and_begins_anew_once_something_worked():
    now, said = [0.0], list[str]()
    backoff = storage_backoff.StorageBackoff(said.append, lambda: now[0])
    waits = []
    for _ in range(9):
        backoff.failed("no room is left")
        backoff.failed("no room is left")  # another one at the same time
        began = now[0]
        while backoff.waiting:
            now[0] += 0.5
        waits.append(now[0] - began)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert len(said) == 9
    backoff.worked()
    backoff.failed("no room is left")
    assert "tried again in 1 s" in said[-1]


def test_a_node_that_does_not_see_the_storage_is_left_alone_for_longer_each_time_and_others_are_not():
    now, said = [0.0], list[str]()
    nodes = storage_backoff.NodeBackoff(said.append, lambda: now[0])
    waits = []
    for _ in range(4):
        nodes.failed("n1", "node one does not see /shared")
        nodes.failed("n1", "node one does not see /shared")  # another one at the same time
        began = now[0]
        while "n1" in nodes.avoided():
            assert nodes.avoided() == {"n1"}
            now[0] += 0.5
        waits.append(now[0] - began)
    assert waits == [15, 30, 60, 60]
    assert len(said) == 4
    assert said[0].startswith(
        "nothing starts on one node for 15 s, others go on: node one does not see /shared, or drain it"
    )
    nodes.failed("n1", "again")
    nodes.failed("n2", "too")
    assert nodes.avoided() == {"n1", "n2"}
    nodes.worked(["n1"])
    assert nodes.avoided() == {"n2"}
    nodes.failed("n1", "again")
    assert "for 15 s" in said[-1]


def test_what_is_one_machines_own_trouble_says_which_machine_and_is_carried_to_others():
    trouble = NodeTrouble("node a does not see /shared; mount it there").on("0123")
    carried = pickle.loads(pickle.dumps(trouble))
    assert (type(carried), carried.node) == (NodeTrouble, "0123")
    failure = explain(ray.exceptions.RayTaskError("train", "Traceback", carried))
    assert (failure.kind, failure.node) == (FailureKind.STORAGE, "0123")
    assert failure.detail == "node a does not see /shared; mount it there (Ray's node 0123)"
    full = storage_trouble(FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"))
    assert isinstance(full, NodeTrouble)
    assert isinstance(full, StorageFull)
    assert explain(OSError(errno.ENOSPC, "no space")).node == ""  # it may be the storage that all share
