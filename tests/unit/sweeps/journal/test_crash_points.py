"""Every moment at which a driver can die, one after the other: the sweep ends as if nothing had happened.

n = 1 … N counts each call of the storage, each training step, each evaluation, each deletion; the driver dies before or
after the n-th, a new one goes on. `make chaos` walks them closely, the quick tests take every so many.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.storage.factory import open_store
from sweeps.storage.memory import MemoryStore
from tests.support.crash import CASES, World, check, run_killed, run_whole
from tests.support.faulty_store import Calls

OBJECTS = [(moment, False) for moment in ("before", "after")]
FOLDER = [("before", False), ("before", True), ("after", False)]


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch):
    """So that a driver can die at one."""
    monkeypatch.setattr("sweeps.journal.compaction.PACK", 8)


def walk(name: str, files: Path, stride: int, *, folder: bool) -> int:
    """Kills a sweep at every `stride`-th moment; returns at how many it was killed."""
    case, points = CASES[name], 0

    def store(part: str):
        return open_store(files / part / "store") if folder else MemoryStore()

    whole = run_whole(case, store("whole"), files / "whole")
    check(whole, whole)
    for i, (moment, tear) in enumerate(FOLDER if folder else OBJECTS):
        for n in range(1 + i * stride // 2 % stride, len(whole.calls.log) + 1, stride):
            part = f"{moment}{tear}{n}"
            calls = Calls(n, moment, tear=tear)
            world = run_killed(case, store(part), files / part, calls)
            assert calls.dead, f"nothing died at {n}"
            _explain(world, whole, f"killed {moment} call {n} ({whole.calls.log[n - 1]}), tear={tear}")
            points += 1
    return points


def _explain(world: World, whole: World, moment: str) -> None:
    try:
        check(world, whole)
    except AssertionError as e:
        raise AssertionError(f"{moment}: {e}") from e


QUICK = [*((name, False) for name in CASES), ("damaged checkpoints, broken evaluations, failing trials", True)]


@pytest.mark.parametrize(("name", "folder"), QUICK)
def test_killed_at_some_moments_a_sweep_ends_as_if_nothing_had_happened(tmp_path: Path, name: str, folder: bool):
    assert walk(name, tmp_path, 90, folder=folder) >= 3


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("folder", "stride", "least"), [(False, 7, 50), (True, 11, 25)], ids=["objects", "folder"])
@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_moment_a_sweep_ends_as_if_nothing_had_happened(
    tmp_path: Path, name: str, folder: bool, stride: int, least: int
):
    points = walk(name, tmp_path, stride, folder=folder)
    print(f"{points} crash points: {name}, {'folder' if folder else 'objects'}")
    assert points >= least
