"""An interpreter of the evaluators' own is looked at before anything starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cluster.evals.interpreter import check_evaluator_python
from cluster.jobs.submit import local_paths
from sweeps import Sweep, grid
from sweeps.errors import InputError


def stand_in(tmp_path: Path, prints: str, code: int = 0) -> str:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{prints}'\necho broken >&2\nexit {code}\n")
    python.chmod(0o755)
    return str(python)


def test_the_drivers_own_will_do():
    check_evaluator_python(sys.executable, on_ray=True)


@pytest.mark.parametrize(
    ("prints", "code", "says"),
    [
        ('["3.11.7", ["ray", "torch"], ""]', 0, "lacks ray, torch"),
        ('["3.9.1", [], "2.60.0"]', 0, r"has Python 3\.9\.1 with Ray 2\.60\.0; expected the driver's"),
        ("", 3, "fails: broken"),
        ("no json", 0, "cannot be run"),
    ],
)
def test_one_that_lacks_packages_or_does_not_match_the_driver_is_refused(
    tmp_path: Path, prints: str, code: int, says: str
):
    with pytest.raises(InputError, match=says):
        check_evaluator_python(stand_in(tmp_path, prints, code), on_ray=True)


def test_one_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot be run: .*No such file"):
        check_evaluator_python(str(tmp_path / "python"), on_ray=True)


def test_in_process_it_is_refused():
    with pytest.raises(InputError, match="in-process"):
        check_evaluator_python(sys.executable, on_ray=False)


def test_it_is_not_part_of_what_the_sweep_is_but_must_be_on_every_node():
    def sweep(**evaluation: str) -> Sweep:
        return Sweep(name="own", space={"replay": grid(0.1)}, trainer={"steps": 4}, evaluation=evaluation)

    own = sweep(python="/opt/eval/bin/python")
    assert own.id == sweep().id
    assert ("evaluation.python", "/opt/eval/bin/python") in list(local_paths(own))
