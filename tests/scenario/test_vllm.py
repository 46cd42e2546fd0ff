"""vLLM itself, on a CPU, in the environment that `make vllm` builds: beside transformers, over many checkpoints, killed.

Skipped where that environment is not there. DIPSWEEP_VLLM_PYTHON names another one.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster.evals.interpreter import check_evaluator_python
from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError
from sweeps.journal.history import History
from sweeps.journal.writer import read_rows
from tests.support.programs import REPO, ray_programs

PYTHON = os.environ.get("DIPSWEEP_VLLM_PYTHON") or str(REPO / ".venv-vllm/bin/python")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.optional,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not Path(PYTHON).exists(), reason="needs vLLM in an environment of its own: make vllm"),
]


def start(what: str, folder: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [PYTHON, "-m", "tests.scenario.programs.vllm", what, str(folder)]
    with open(folder / "err.log", "wb") as err:
        return subprocess.Popen(
            command, cwd=REPO, env=env, text=True, stdout=subprocess.PIPE, stderr=err, start_new_session=True
        )


def answer_of(process: subprocess.Popen[str], folder: Path) -> Any:
    """Returns what the program found; vLLM writes to the same output."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("DONE "):
            return json.loads(line.removeprefix("DONE "))
    raise AssertionError((folder / "err.log").read_text()[-4000:])


def found(what: str, folder: Path) -> Any:
    with start(what, folder) as process:
        return answer_of(process, folder)


def test_ten_checkpoints_in_one_process_answer_as_in_transformers_within_steady_memory(tmp_path: Path):
    got = found("untied", tmp_path)
    assert got["items"] >= 140
    assert got["same"] == [got["items"]] * 10
    assert got["different"] == 10  # each checkpoint's own replies, not those of the one before
    assert got["engines"] == 1
    assert sum(got["mib"][-1]) < 1.05 * sum(got["mib"][0])


def test_tied_weights_are_swapped_too(tmp_path: Path):
    got = found("tied", tmp_path)
    assert got["items"] >= 140
    assert got["same"] == [got["items"]] * 2
    assert got["different"] == 2


def test_an_engine_that_is_killed_is_replaced(tmp_path: Path):
    got = found("killed", tmp_path)
    assert got["same"] == [got["items"]] * 3
    assert len(got["errors"]) == 2


def test_prompts_over_the_context_are_cut_off_and_the_others_answered(tmp_path: Path):
    assert found("context", tmp_path) == {"items": 3, "same": [3], "empty": True}


def test_killed_with_its_evaluator_nothing_of_the_engine_lives_on(tmp_path: Path):
    process = start("wait", tmp_path)
    handles = [os.pidfd_open(pid) for pid in answer_of(process, tmp_path)]
    assert handles
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    for handle in handles:
        assert select.select([handle], [], [], 20.0)[0], "a process of the engine outlived its evaluator"
        os.close(handle)


@pytest.mark.ray
def test_a_sweep_on_ray_evaluates_in_that_environment(tmp_path: Path):
    file, storage = tmp_path / "sweep.yaml", tmp_path / "sweeps"
    file.write_text(
        "name: vllm\nspace: {replay: {grid: [0.1]}}\ntrainer: {steps: 4, batch_tokens: 256, max_length: 128}\n"
        f"evaluation: {{items: 4, at: [4], python: {PYTHON}}}\n"
    )
    with ray_programs("cluster.cli.main") as (start_program, temp):
        process = start_program("run", file, "--storage", storage)
        out, err = process.communicate(timeout=900)
        logs = "".join(log.read_text() for log in temp.glob("ray/session_latest/logs/worker-*.out"))
    assert process.returncode == 0, out + err[-3000:]
    (home,) = [path for path in storage.glob("vllm-*") if path.is_dir()]
    rows = read_rows(home)
    assert {curve.state for curve in History(rows).trials()} == {"completed"}
    assert [row.step for row in rows if row.kind == "report" and row.suite] == [0, 4]
    assert (
        logs.count("Initializing a V1 LLM engine") == 2
    )  # the base, then the trained checkpoint: tied, so started anew


def test_an_interpreter_that_will_not_do_is_refused_before_anything_starts(tmp_path: Path):
    check_evaluator_python(PYTHON, EvalSpec("mini"), on_ray=True)
    with pytest.raises(InputError, match="in-process evaluations run in this process"):
        check_evaluator_python(PYTHON, EvalSpec("mini"), on_ray=False)
