"""An interpreter of the evaluators' own is looked at before anything starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cluster.evals.interpreter import check_evaluator_python
from cluster.jobs.submit import local_paths
from sweeps import Sweep, grid
from sweeps.config.trial import EvalFile, EvalSpec
from sweeps.errors import InputError


def stand_in(tmp_path: Path, prints: str, code: int = 0) -> str:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{prints}'\necho broken >&2\nexit {code}\n")
    python.chmod(0o755)
    return str(python)


def test_the_drivers_own_will_do():
    check_evaluator_python(sys.executable, EvalSpec("mini"), on_ray=True)


@pytest.mark.parametrize(
    ("prints", "code", "says"),
    [
        ('["3.11.7", ["ray", "torch"], "", ""]', 0, "lacks ray, torch"),
        ('["3.9.1", [], "2.60.0", ""]', 0, r"has Python 3\.9\.1 with Ray 2\.60\.0; expected the driver's"),
        ("", 3, "fails: broken"),
        ("no json", 0, "cannot be run"),
    ],
)
def test_one_that_lacks_packages_or_does_not_match_the_driver_is_refused(
    tmp_path: Path, prints: str, code: int, says: str
):
    with pytest.raises(InputError, match=says):
        check_evaluator_python(stand_in(tmp_path, prints, code), EvalSpec("mini"), on_ray=True)


def test_one_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot be run: .*No such file"):
        check_evaluator_python(str(tmp_path / "python"), EvalSpec("mini"), on_ray=True)


def without(tmp_path: Path, package: str) -> str:
    """Returns this interpreter as it would be without a package."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}:$PYTHONPATH" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_what_a_suite_does_not_need_may_be_missing(tmp_path: Path):
    python, own = without(tmp_path, "reasoning_gym"), tmp_path / "own.jsonl"
    own.write_text('{"prompt": "2 + 2", "answer": "4"}\n')
    check_evaluator_python(python, EvalSpec("none", files=(EvalFile(str(own), role="math"),)), on_ray=True)
    check_evaluator_python(python, None, on_ray=True)  # an evaluation function of the caller's own
    for suite in ("mini", "gym"):
        with pytest.raises(InputError, match=rf"suite '{suite}' is judged by reasoning-gym, which is not installed"):
            check_evaluator_python(python, EvalSpec(suite), on_ray=True)


def test_what_a_scorer_of_own_items_needs_is_missed(tmp_path: Path):
    own = tmp_path / "own.jsonl"
    own.write_text('{"prompt": "2 + 2", "answer": "4"}\n')
    spec = EvalSpec("none", files=(EvalFile(str(own), role="math", scorer="math"),))
    with pytest.raises(InputError, match="pip install 'dipsweep\\[math\\]'"):
        check_evaluator_python(without(tmp_path, "math_verify"), spec, on_ray=True)


def test_a_model_that_its_transformers_does_not_know_is_missed():
    check_evaluator_python(sys.executable, None, on_ray=True, types=["qwen3"])
    with pytest.raises(InputError, match=r"transformers [\d.]+ there knows no models of type future_model"):
        check_evaluator_python(sys.executable, None, on_ray=True, types=["future_model", "qwen3"])


def test_in_process_it_is_refused():
    with pytest.raises(InputError, match="in-process"):
        check_evaluator_python(sys.executable, EvalSpec("mini"), on_ray=False)


def test_it_is_not_part_of_what_the_sweep_is_but_must_be_on_every_node():
    def sweep(**evaluation: str) -> Sweep:
        return Sweep(name="own", space={"replay": grid(0.1)}, trainer={"steps": 4}, evaluation=evaluation)

    own = sweep(python="/opt/eval/bin/python")
    assert own.id == sweep().id
    assert ("evaluation.python", "/opt/eval/bin/python") in list(local_paths(own))


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(InputError) as told:
        check_evaluator_python(sys.executable, EvalSpec("no-such-suite"), on_ray=True, types=["future_model"])
    assert "no-such-suite" in str(told.value)
    assert "knows no models of type future_model" in str(told.value)
