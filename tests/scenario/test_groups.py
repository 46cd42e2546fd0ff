"""Groups of workers on a real local Ray with fake GPUs and fake nodes: mixed sizes, elastic trials, machines that go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeps.journal.writer import read_rows, sweeps_in

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
REPO = Path(__file__).parents[2]


@pytest.fixture
def program() -> Iterator[Callable[..., list[dict[str, object]]]]:
    """Runs a module in a Ray of its own; returns the JSON lines that it printed."""
    with tempfile.TemporaryDirectory(prefix="ds", dir="/tmp", ignore_cleanup_errors=True) as temp:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
        env |= {"PYTHONPATH": str(REPO), "RAY_TMPDIR": temp}

        def go(module: str, *arguments: str) -> list[dict[str, object]]:
            command = [sys.executable, "-m", module, *arguments]
            done = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, start_new_session=True)
            assert done.returncode == 0, done.stderr[-3000:]
            return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

        yield go


def whole(result: dict[str, object], trials: int, gpus: int) -> None:
    assert result["states"] == {"completed": trials}, result
    assert result["peak"] <= gpus
    assert result["free_at_end"] == gpus


def test_a_small_mix_of_sizes_runs_to_its_end_and_gives_every_gpu_back(program):
    result, of_all = program("benchmarks.scale.mixes_ray", "--mixes", "1", "--trials", "5", "--seconds", "1")
    whole(result, 5, 8)
    assert (of_all["completed"], of_all["peak"], of_all["least_free_at_end"]) == (5, result["peak"], 8)


@pytest.mark.slow
def test_three_mixes_of_twenty_trials_run_to_their_end(program):
    *results, of_all = program("benchmarks.scale.mixes_ray", "--mixes", "3", "--trials", "20", "--seconds", "4")
    assert len(results) == of_all["mixes"] == 3
    for result in results:
        whole(result, 20, 8)


@pytest.mark.slow
def test_after_each_of_ten_stops_everything_is_free_within_five_seconds_beside_another_ray(program):
    (result,) = program("benchmarks.scale.stop_release", "--stops", "10", "--beside")
    assert result["stops"] == result["freed"] == result["within_5_s"] == 10


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize("inside", [[], ["light"]], ids=["ray-train", "without"])
def test_an_elastic_trial_leaves_a_drained_node_survives_a_dead_one_and_none_of_it_counts_as_a_failure(
    program, tmp_path: Path, inside: list[str]
):
    (result,) = program("tests.scenario.programs.nodes", str(tmp_path), *inside)
    rows = read_rows(next(iter(sweeps_in(tmp_path))))
    attempts = [(r.attempt, r.step, r.workers) for r in rows if r.kind == "attempt"]
    assert attempts == [(1, 0, 2), (2, 8, 2), (3, 16, 1)]  # retries is 0: nothing of this was a failure
    retries = [r.to_json() for r in rows if r.kind == "control"]
    assert [r["reason"] for r in retries] == ["preempted", "preempted"]
    assert [r.status for r in rows if r.kind == "end" and r.of == "scoring"] == ["completed"]
    there, free = result["cpus"]
    assert there == free
    assert there in (1.0, 2.0)  # Ray takes the drained node away when it likes, within its minute


@pytest.mark.slow
@pytest.mark.chaos
def test_two_sweeps_share_one_cluster_by_their_weights_and_both_end_although_the_fair_share_actor_dies(
    program, tmp_path: Path
):
    (result,) = program("tests.scenario.programs.two_sweeps", str(tmp_path))
    assert result["codes"] == [0, 0]
    assert {s["sweep"]: set(s["states"]) for s in result["sweeps"]} == {"heavy": {"completed"}, "light": {"completed"}}
    assert 0.65 <= result["share"]["heavy"] <= 0.85, result  # weights of 3 and 1, while both had trials to start
    assert result["used"] <= 1.0  # never more than there are


def test_a_group_or_an_evaluator_lies_on_no_node_that_is_left_alone_while_there_is_another(program):
    *lines, evaluators = program("tests.scenario.programs.avoided")
    bad, other = evaluators["bad"], {"first": "second", "second": "first"}[evaluators["bad"]]
    assert (evaluators["failed"], evaluators["scored"]) == ([bad], other)
    assert evaluators["beside a full one"] == evaluators["all left alone"] == bad  # where alone there is room
    assert len(lines) == 9
    for line in lines:
        other = {"first": ["second"], "second": ["first"]}[line["off"]]
        assert line["on"] == (other if line["avoid"] == 1 else []), line


def test_trials_and_evaluators_of_half_a_gpu_cost_half_of_their_time(program, tmp_path: Path):
    (result,) = program("tests.scenario.programs.shares", str(tmp_path))
    rows = read_rows(next(iter(sweeps_in(tmp_path))))
    assert [r.gpus for r in rows if r.kind == "attempt"] == [0.5, 0.5]
    evaluations = [r for r in rows if r.kind == "eval"]
    assert [(r.cost, r.seconds) for r in evaluations] == [({"cpu_s": 0.1, "gpu_s": 2.0}, 4.0)] * 3
    assert result["scoring"]["gpu_s"] == pytest.approx(3 * 2.0)
    reports = [r for r in rows if r.kind == "report" and r.cost]
    assert all(r.cost["gpu_s"] == pytest.approx(r.progress["seconds"] / 2) for r in reports)
    last = {r.trial: r.progress["seconds"] for r in reports}
    assert result["training"]["gpu_s"] == pytest.approx(sum(last.values()) / 2)
    assert len(last) == 2
