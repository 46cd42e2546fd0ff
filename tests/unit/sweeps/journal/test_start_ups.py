"""What starts took, and what processes that outlive attempts saved: from reports alone, per model and workers."""

from __future__ import annotations

import pytest

from sweeps.journal.rows import AttemptRow, ReportRow, TrialRow
from sweeps.journal.start_ups import StartUpMeter, StartUps


def start(
    meter: StartUpMeter,
    trial: str,
    seconds: float,
    *,
    reused: bool,
    model: str = "m",
    workers: int = 1,
    attempt: int = 1,
):
    if attempt == 1:
        meter.apply(TrialRow("s", trial, config={"model": model}))
    meter.apply(AttemptRow("s", trial, attempt, 0, workers=workers))
    parts = {"perf/start_up_s": seconds, "perf/reused_processes": float(reused), "perf/start_up/process_s": seconds / 2}
    meter.apply(ReportRow("s", trial, attempt, 3, metrics={"train/loss": 1.0, **parts}))
    meter.apply(ReportRow("s", trial, attempt, 6, metrics={"train/loss": 1.0}))


def test_what_was_saved_is_measured_on_the_same_model_and_as_many_workers():
    meter = StartUpMeter()
    for trial, seconds, reused, workers in (
        ("a", 10.0, False, 1),
        ("b", 20.0, False, 1),
        ("c", 1.0, True, 1),
        ("d", 40.0, False, 2),
        ("e", 2.0, True, 2),
        ("f", 5.0, True, 4),  # nothing to compare with: counted, and saves nothing that is known
    ):
        start(meter, trial, seconds, reused=reused, workers=workers)
    found = meter.read()
    assert (found.attempts, found.reused) == (6, 3)
    assert found.seconds == 10 + 20 + 1 + 2 * 40 + 2 * 2 + 4 * 5
    assert found.saved == (15 - 1) + 2 * (40 - 2)
    assert (found.new, found.again) == (20.0, 2.0)
    assert found.parts == {"process": 10.0}
    assert str(found) == (
        "6 attempts took 135.0 s from launch to first step, 20.00 s each in new processes; 3 went on in the processes of "
        "another, 2.00 s each, which saved about 90 s"
    )


def test_later_attempts_of_a_trial_count_and_rows_that_come_twice_do_not():
    meter = StartUpMeter()
    start(meter, "a", 10.0, reused=False)
    start(meter, "a", 4.0, reused=True, attempt=2)
    start(meter, "a", 4.0, reused=True, attempt=2)
    assert meter.read().attempts == 2
    assert meter.read().saved == pytest.approx(6.0)


def test_journals_without_such_numbers_say_nothing():
    meter = StartUpMeter()
    meter.apply(ReportRow("s", "a", 1, 3, metrics={"train/loss": 1.0}))
    assert meter.read() == StartUps()
    assert str(meter.read()) == "not recorded"
