"""The evaluator pool on a real local Ray: evaluators that raise, hang and are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sweeps.journal.history import History
from sweeps.journal.writer import read_rows, sweeps_in
from tests.scenario.programs.evaluators import HANGS, RAISES, WAITS
from tests.support.fakes import dip_curve

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
REPO = Path(__file__).parents[2]


def test_evaluators_that_raise_hang_or_are_killed_cost_no_score_and_no_training(tmp_path: Path):
    with tempfile.TemporaryDirectory(prefix="ds", dir="/tmp", ignore_cleanup_errors=True) as temp:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
        program = [sys.executable, "-m", "tests.scenario.programs.evaluators", str(tmp_path)]
        process = subprocess.Popen(
            program, cwd=REPO, env=env | {"PYTHONPATH": str(REPO), "RAY_TMPDIR": temp},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            killed_at = _kill_evaluator_once_training_is_over(process, tmp_path)
            _, err = process.communicate()
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, err[-3000:]

    rows = read_rows(next(iter(sweeps_in(tmp_path))))
    curve = next(History(rows).trials())
    assert curve.state == "completed"
    steps = curve.steps("transfer/score")
    assert steps == [1, 2, 3, 4, 6, 8, 11, 16]
    assert curve.values("transfer/score") == [dip_curve(s, 16, depth=0.5, end=0.95) for s in steps]
    failed = {r.step: r.to_json() for r in rows if r.kind == "eval" and r.status == "failed"}
    assert set(failed) == {RAISES, HANGS, WAITS}
    assert "judge is out" in failed[RAISES]["reason"]
    assert "over the limit of 20 s" in failed[HANGS]["reason"]
    assert "ActorDied" in failed[WAITS]["reason"]
    scored = [r.step for r in rows if r.kind == "report" and r.suite and r.trial == curve.trial]
    assert sorted(scored) == steps  # each of them once
    assert scored != steps  # and not in their order
    over = next(r.seq for r in rows if r.kind == "end" and r.of == "training")
    assert over < killed_at <= next(r.seq for r in rows if r.kind == "report" and r.suite and r.step == WAITS)


def _kill_evaluator_once_training_is_over(process: subprocess.Popen[str], root: Path) -> int:
    """Kills the evaluator that holds a checkpoint when the trial has trained to its end; returns how long the journal was."""
    while True:
        assert process.poll() is None, process.communicate()[1][-3000:]
        folders = list(sweeps_in(root))
        rows = read_rows(folders[0]) if folders else []
        if (root / "pid").exists() and any(r.kind == "end" for r in rows):
            os.kill(int((root / "pid").read_text()), signal.SIGKILL)
            return len(rows)
        time.sleep(0.05)
