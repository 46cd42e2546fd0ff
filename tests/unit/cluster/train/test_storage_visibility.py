"""The look from every node before a sweep: what is gone needs none, what does not answer is named. Against a stand-in for Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.train import storage_visibility as module
from cluster.train.storage_visibility import check_nodes
from cluster.train.worker import explain
from sweeps.errors import DipsweepError, InputError, NodeTrouble, StorageDenied, StorageUnavailable
from sweeps.failures import FailureKind
from sweeps.storage.factory import open_store
from sweeps.storage.probe import VerifyStorageBefore, write_marker

LOST = ray.exceptions.NodeDiedError("the node died")
UNPLACED = ray.exceptions.TaskUnschedulableError("the node of the affinity does not exist any more")
LATE = ray.exceptions.GetTimeoutError("Get timed out")
CRASHED = ray.exceptions.WorkerCrashedError()


def failed(cause: Exception) -> Exception:
    return ray.exceptions.RayTaskError("see", "Traceback …", cause)


class Machines:
    """Nodes called a, b, c, …; each answers as written down, and those in `leave` or `drain` go during the look.

    Args:
        answers: by node, what asking it raises; nothing for a node that sees the folder.
    """

    def __init__(self, answers: Mapping[str, Exception], leave: str = "", drain: str = "", drained: str = "") -> None:
        self.answers, self.leave, self.drain, self.drained = answers, leave, drain, drained
        self.asked: list[str] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": n * 56, "NodeManagerHostname": f"host-{n}", "Alive": not (self.asked and n in self.leave)}
            for n in "abc"
        ]

    def draining(self) -> dict[str, int]:
        return {n * 56: 1 for n in self.drained + (self.drain if self.asked else "")}

    def remote(self, **options: Any) -> Any:
        return lambda work: self

    def options(self, scheduling_strategy: Any) -> Any:
        machines, node = self, scheduling_strategy.node_id[0]

        class Call:
            def remote(self, home: str, token: str) -> str:
                machines.asked.append(node)
                return str(node)

        return Call()

    def get(self, node: str, timeout: float) -> None:
        if node in self.answers:
            raise self.answers[node]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Any:
    def look(*args: Any, **kwargs: Any) -> list[str]:
        machines = Machines(*args, **kwargs)
        for name in ("nodes", "remote", "get"):
            monkeypatch.setattr(module.ray, name, getattr(machines, name))
        monkeypatch.setattr(module, "draining_nodes", machines.draining)
        check_nodes("/shared/s-1", "token")
        return machines.asked

    return look


def test_every_node_is_asked_but_one_that_is_leaving_already(look: Any):
    assert look({}) == ["a", "b", "c"]
    assert look({"b": LATE}, drained="b") == ["a", "c"]


@pytest.mark.parametrize("what", [LOST, UNPLACED], ids=["died", "cannot be placed"])
def test_a_node_that_goes_during_the_look_needs_none(look: Any, what: Exception):
    look({"b": what})
    look({"b": what}, leave="b")


def test_a_node_that_drains_during_the_look_needs_none_though_it_never_answers(look: Any):
    look({"b": LATE}, drain="b")
    look({"b": CRASHED}, leave="b")


def test_a_node_that_does_not_answer_is_named_with_what_to_do(look: Any):
    with pytest.raises(DipsweepError, match=r"host-b.*within 120 s.*ray drain-node.*again") as late:
        look({"b": LATE})
    assert "\n" not in str(late.value)


def test_a_node_whose_worker_crashes_is_named(look: Any):
    with pytest.raises(DipsweepError, match=r"host-c.*worker died"):
        look({"c": CRASHED})


def test_a_node_that_goes_hides_nothing_of_the_others(look: Any):
    with pytest.raises(InputError, match="host-c: not allowed"):
        look({"b": LOST, "c": failed(StorageDenied("not allowed"))})
    with pytest.raises(InputError, match="storage: on node host-c: node c does not see it"):
        look({"b": LATE, "c": failed(StorageUnavailable("node c does not see it"))}, drain="b")


def test_a_folder_that_is_gone_from_one_node_fails_no_trial_there(tmp_path: Path):
    """Unmounted on one of many nodes, it would fail each trial that is placed there, one after the other, for good."""
    home, ran = open_store(tmp_path / "shared/s-1"), list[int]()
    work = VerifyStorageBefore(ran.append, home.root, write_marker(home))
    work(1)
    (tmp_path / "shared").rename(tmp_path / "elsewhere")
    (tmp_path / "shared").mkdir()  # an empty mount point
    with pytest.raises(StorageUnavailable, match=r"does not see .*shared/s-1 as the driver does; mount it there") as e:
        work(2)
    assert isinstance(e.value, NodeTrouble)
    assert explain(ray.exceptions.RayTaskError("train", "Traceback …", e.value)).kind is FailureKind.STORAGE
    (tmp_path / "shared").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "shared")
    work(3)
    assert ran == [1, 3]
