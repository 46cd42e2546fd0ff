"""An evaluation that does not return is broken off, whatever it is doing; its trial goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from evaluators.evaluate import evaluate
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.trial import EvalSpec
from sweeps.controller.controller import SweepController
from sweeps.controller.evaluation.timeout import FIRST_S, SHORTEST_S, Allowance, time_limit
from sweeps.executors.local import InProcess
from sweeps.journal.writer import MemoryJournal
from sweeps.stopping import NeverStop
from tests.support.fakes import FakeTrainer, fake_evaluate

LATE = TimeoutError("over the limit")


def busy():
    while True:
        pass


def asleep():
    threading.Event().wait()


def stubborn():
    """Swallows what it is told, and ends as if nothing had been."""
    try:
        busy()
    except Exception:
        return


@pytest.mark.parametrize("hang", [busy, asleep, stubborn])
def test_what_does_not_return_is_broken_off(hang):
    before = signal.getsignal(signal.SIGURG)
    with pytest.raises(TimeoutError, match="over the limit"), time_limit(LATE, 0.05):
        hang()
    assert signal.getsignal(signal.SIGURG) is before
    assert not any(thread.name == "time limit" for thread in threading.enumerate())


STOPPED = """
import sys
from sweeps.controller.evaluation.timeout import time_limit

with time_limit(TimeoutError("over the limit"), 3.0):
    print("inside", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
def test_time_in_which_the_process_was_stopped_does_not_count():
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        process.send_signal(signal.SIGCONT)
        process.communicate("\n")
    assert process.returncode == 0


def test_what_returns_or_raises_in_time_does_so():
    with time_limit(LATE, 60.0):
        value = 3
    assert value == 3
    with pytest.raises(KeyError), time_limit(LATE, 60.0):
        {}["x"]


def test_outside_the_main_thread_there_is_no_limit_and_no_signal():
    said = []

    def work():
        with time_limit(LATE, 0.0):
            said.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == ["done"]


def test_the_limit_follows_from_evaluations_that_were_measured_in_full():
    allowance = Allowance()
    assert allowance.limit_s == FIRST_S
    allowance.took(0.1, SimpleNamespace(cached=True))
    assert allowance.limit_s == FIRST_S  # a look-up says nothing of the next one
    allowance.took(1.0, object())
    assert allowance.limit_s == SHORTEST_S
    allowance.took(100.0, SimpleNamespace(asked={"items": 1, "of": 8}))
    assert allowance.limit_s == 8000.0
    allowance.took(100.0, object())
    assert allowance.limit_s == 8000.0
    assert Allowance(5.0).limit_s == 5.0


def test_scores_that_were_looked_up_say_so(tmp_path):
    from evaluators.cache import ScoreCache
    from trainers.model.files.builtin import builtin_folder

    cache = ScoreCache(tmp_path)
    assert [evaluate(builtin_folder("tiny-xs"), EvalSpec(items=1), cache=cache).cached for _ in range(2)] == [
        False,
        True,
    ]


def test_an_evaluation_that_hangs_in_process_is_tried_again_and_given_up_and_the_trial_goes_on(tmp_path: Path):
    def hangs(job):
        return busy() if job.step == 4 else fake_evaluate(job)

    sweep = Sweep(
        name="hang", space={"replay": grid(0.1)}, trainer={"steps": 8}, evaluation={"timeout_s": 0.05, "at": [4]}
    )
    controller = SweepController(Plan(sweep), MemoryJournal(), NeverStop(sweep.goal))
    InProcess(controller, FakeTrainer(), hangs, tmp_path).run()
    failed = [row for row in controller.journal.rows() if row.kind == "eval" and row.status == "failed"]
    assert [row.given_up for row in failed] == [False, False, True]
    assert failed[0].reason == "TimeoutError: over the limit of 0.05 s (evaluation.timeout_s)"
    assert next(controller.history.trials()).state == "completed"
