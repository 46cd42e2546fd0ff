"""Processes that run one attempt after another: the same bits as in processes of their own, and nothing left behind."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from sweeps.checkpoints.manifest import STATE
from sweeps.config.plan import Plan
from sweeps.controller.controller import SweepController
from sweeps.executors.local import InProcess
from sweeps.journal.history import History
from sweeps.journal.rows import Row
from sweeps.journal.writer import SweepJournal, read_rows, sweeps_in
from sweeps.stopping import NeverStop
from tests.support.fakes import fake_evaluate
from tests.support.programs import ray_programs

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the program in one of its modes, in a Ray of its own; returns what it printed."""

    def go(mode: str, folder: Path = tmp_path, **env: str) -> dict[str, Any]:
        with ray_programs("tests.scenario.programs.reuse", **env) as (start, _):
            process = start(mode, folder)
            out, err = process.communicate()
        assert process.returncode == 0, err[-3000:]
        return dict(json.loads(out.splitlines()[-1]))

    return go


def rows(root: Path) -> list[Row]:
    return read_rows(next(iter(sweeps_in(root))))


def checkpoints(root: Path) -> dict[tuple[str, int], dict[str, bytes]]:
    """Returns every tensor of every checkpoint: weights and optimizer. Random states are another in each process."""
    home = next(iter(sweeps_in(root)))
    found = {}
    for row in read_rows(home):
        if row.kind == "commit" and not row.dropped:
            folder = Path(home.root) / row.path
            tensors = {**load_file(folder / "model.safetensors"), **load_file(folder / STATE)}
            found[row.trial, row.step or 0] = {n: t.tobytes() for n, t in tensors.items() if not n.startswith("rng/")}
    return found


def test_branches_that_follow_in_the_same_process_are_bitwise_those_of_other_processes(run: Run, tmp_path: Path):
    from cluster.train.functions import train_model
    from tests.scenario.programs.reuse import BRANCHES

    result = run("branches", tmp_path / "ray")
    reused = [first["perf/reused_processes"] for first in result["first"].values() if first]
    assert reused == [0.0, 1.0, 1.0, 1.0]  # one process for all that train: two trials are a part of another
    in_memory = [first["perf/resumed_in_memory"] for first in result["first"].values() if first]
    assert in_memory == [0.0, 1.0, 0.0, 1.0]  # trunk, its branch; trunk, its branch
    assert result["free_at_end"] == 1.0
    plan = Plan(BRANCHES)
    with SweepJournal(tmp_path / "here" / plan.sweep_id) as journal:
        InProcess(
            SweepController(plan, journal, NeverStop(BRANCHES.goal)), train_model, fake_evaluate, tmp_path / "here"
        ).run()
    ours, theirs = checkpoints(tmp_path / "ray"), checkpoints(tmp_path / "here")
    assert len(ours) >= 6
    assert all(any(name.startswith("adam/") for name in tensors) for tensors in ours.values())
    assert ours == theirs


def test_an_attempt_finds_nothing_that_another_left_and_an_error_or_a_thread_that_goes_on_ends_the_process(
    run: Run, tmp_path: Path
):
    result = run("faults")
    first = list(result["first"].values())
    assert [f["perf/dirt"] for f in first] == [0.0] * 5
    for a, b in itertools.pairwise(first):  # each attempt of a process draws what the first one drew
        assert (a["perf/pid"] == b["perf/pid"]) == (a["perf/torch_random"] == b["perf/torch_random"])
        assert (a["perf/pid"] == b["perf/pid"]) == (a["perf/random"] == b["perf/random"])
    pids = [f["perf/pid"] for f in first]
    assert pids[0] == pids[1] != pids[2]  # the second raised: its process ended
    assert pids[2] == pids[3] != pids[4]  # the fourth left a thread
    states = {c.config["replay"]: c.state for c in History(rows(tmp_path)).trials()}
    assert states == {0.0: "completed", 0.1: "failed", 0.2: "completed", 0.3: "completed", 0.4: "completed"}
    assert result["free_at_end"] == 1.0


def test_small_trials_whose_processes_are_up_do_not_keep_a_larger_one_waiting(run: Run, tmp_path: Path):
    result = run("mixed")
    curves = {c.trial: c for c in History(rows(tmp_path)).trials()}
    assert {c.state for c in curves.values()} == {"completed"}
    order = [str(curves[t].config["model"]) for t in result["first"]]
    assert order == ["small"] * 4 + ["large"] * 4  # as the grid has them: nothing overtook
    pids = [f["perf/pid"] for f in result["first"].values()]
    assert len(set(pids[:4])) == 2
    assert len(set(pids[4:])) == 1
    assert result["free_at_end"] == 2.0


@pytest.mark.slow
def test_what_the_second_process_of_a_group_leaves_behind_ends_the_group(run: Run):
    pids = [first["perf/pid"] for first in run("second")["first"].values()]
    assert pids[0] == pids[1] != pids[2]


@pytest.mark.slow
def test_two_workers_go_on_together_with_the_bits_of_new_ones(run: Run, tmp_path: Path):
    warm = run("two", tmp_path / "warm")
    assert [first["perf/reused_processes"] for first in warm["first"].values() if first] == [0.0, 1.0, 1.0, 1.0]
    cold = run("two", tmp_path / "cold", DIPSWEEP_REUSE_WORKERS="0")
    assert [first["perf/reused_processes"] for first in cold["first"].values() if first] == [0.0] * 4
    assert checkpoints(tmp_path / "warm") == checkpoints(tmp_path / "cold")
