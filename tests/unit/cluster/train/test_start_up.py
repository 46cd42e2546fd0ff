"""The clock of an attempt's start: parts that add up, told once."""

import time

from cluster.train.start_up import StartUp

TRAINED = {"train/loss": 1.0, "perf/start_up/data_s": 0.25, "perf/start_up/model_s": 0.5}


def test_the_parts_of_a_new_process_add_up_and_are_told_once_after_the_first_step():
    clock = StartUp(time.time() - 7.0)
    assert clock.metrics(TRAINED) == {}
    clock.first_step()
    found = clock.metrics(TRAINED)
    assert 7.0 <= found["perf/start_up/process_s"] <= found["perf/start_up_s"]
    parts = found["perf/start_up/process_s"] + found["perf/start_up/imports_s"]
    assert parts >= found["perf/start_up/process_s"]
    assert found["perf/start_up/cpu_s"] > 0
    assert found["perf/reused_processes"] == 0.0
    clock.first_step()
    assert clock.metrics(TRAINED) == {}


def test_a_process_that_goes_on_counts_from_the_end_of_its_last_attempt():
    clock = StartUp(time.time(), reused=True, cpu=time.process_time())
    clock.first_step()
    found = clock.metrics({})
    assert 0.0 <= found["perf/start_up/cpu_s"] < 1.0
    assert 0.0 <= found["perf/start_up_s"] < 5.0
    assert found["perf/reused_processes"] == 1.0
