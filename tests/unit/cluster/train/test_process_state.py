"""A process between two attempts: everything that an attempt can change is what it was, and what lingers is noticed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from cluster.train.process_state import ProcessState


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leaves this test process as it was found."""
    state = ProcessState.capture()
    yield
    state.restore()


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_every_attempt_draws_the_same_random_numbers():
    state = ProcessState.capture()
    first = draw()
    torch.manual_seed(7)
    assert draw() != first
    state.restore()
    assert draw() == first


def test_settings_environment_and_folder_are_put_back(tmp_path):
    os.environ["STAYS"] = "1"
    state, folder = ProcessState.capture(), os.getcwd()
    os.environ["LEFT"] = "1"
    del os.environ["STAYS"]
    os.chdir(tmp_path)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1 + torch.get_num_threads())
    torch.set_grad_enabled(False)
    torch.autograd.set_detect_anomaly(True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    state.restore()
    assert ("LEFT" in os.environ, os.environ["STAYS"], os.getcwd()) == (False, "1", folder)
    again = ProcessState.capture()
    assert again.settings == state.settings
    assert torch.get_default_dtype() is torch.float32


def test_what_an_attempt_cannot_put_back_is_a_reason_not_to_go_on(tmp_path):
    state = ProcessState.capture()
    assert state.doubt() == ""
    with open(tmp_path / "log", "w"):
        assert state.doubt() == f"{tmp_path}/log is still open"
    assert state.doubt() == ""
    with open(tmp_path / "log"):
        assert state.doubt() == ""  # reading changes nothing
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert state.doubt() == f"process {child.pid} still runs"
    child.communicate()
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *args: None)
    assert "hooks" in state.doubt()
    hook.remove()
    before = signal.signal(signal.SIGUSR2, lambda *args: None)
    assert "SIGUSR2" in state.doubt()
    signal.signal(signal.SIGUSR2, before)
    assert state.doubt() == ""


def test_a_thread_more_than_after_the_first_attempt_is_a_reason_not_to_go_on():
    state, over = ProcessState.capture(), threading.Event()
    pool = threading.Thread(target=over.wait, name="library-pool", daemon=True)
    pool.start()
    assert state.doubt() == ""  # what the first attempt's libraries keep
    straggler = threading.Thread(target=over.wait, name="straggler", daemon=True)
    straggler.start()
    assert "straggler" in state.doubt()
    over.set()
    straggler.join()
    pool.join()
    assert state.doubt() == ""
