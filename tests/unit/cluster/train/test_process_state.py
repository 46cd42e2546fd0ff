"""A process between two attempts: everything that an attempt can change is what it was, and what lingers is noticed."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import logging
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cluster.train.process_settings import SETTINGS, Setting, current
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


def test_a_thread_at_work_is_a_reason_not_to_go_on_and_an_idle_pool_of_the_first_attempt_is_none():
    state, over = ProcessState.capture(), threading.Event()
    straggler = threading.Thread(target=over.wait, name="straggler", daemon=True)
    straggler.start()
    assert state.doubt() == "thread straggler still runs"
    over.set()
    straggler.join()
    with ThreadPoolExecutor(1, "library-pool") as pool:
        pool.submit(int).result()
        state = ProcessState.capture()
        assert state.doubt() == ""  # what libraries keep from their first use on
        with ThreadPoolExecutor(1, "own-pool") as another:
            another.submit(int).result()
            assert "thread own-pool_0 is still there" in state.doubt()
        assert state.doubt() == ""


UNDONE: dict[str, Callable[[], object]] = {
    "random numbers": lambda: (random.seed(1), np.random.seed(1), torch.manual_seed(1)),
    "grad mode": lambda: torch.set_grad_enabled(False),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "dtype of autocast": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "flushing of denormals": lambda: torch.set_flush_denormal(True),
    "old precision": lambda: torch.set_float32_matmul_precision("medium"),
    "new precision": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "precision of all backends": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "precision of oneDNN": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "filling": lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", False),
    "math attention": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "errors of NumPy": lambda: np.seterr(all="ignore"),
    "garbage collection": gc.disable,
    "threshold": lambda: gc.set_threshold(1_000_000),
    "output": lambda: setattr(sys, "stdout", io.StringIO()),
    "exceptions": lambda: setattr(sys, "excepthook", print),
    "sockets": lambda: socket.setdefaulttimeout(1.0),
    "start method": lambda: multiprocessing.set_start_method("spawn", force=True),
    "time zone": lambda: os.environ.update(TZ="Asia/Tokyo"),
    "log": lambda: logging.root.addHandler(logging.NullHandler()),
}


@pytest.mark.parametrize("name", UNDONE)
def test_what_an_attempt_changed_is_undone(name: str):
    state = ProcessState.capture()
    first = draw()
    UNDONE[name]()
    assert state.doubt() == ""
    state.restore()
    assert current() == state.settings
    assert draw() == first
    assert dict(os.environ) == state.environ


BACKENDS = torch.backends
SWITCHES: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "temporary files": (tempfile.gettempdir, lambda: setattr(tempfile, "tempdir", "/of/this/attempt")),
    "arguments": (lambda: list(sys.argv), lambda: sys.argv.append("--fast")),
    "an alarm": (lambda: signal.getitimer(signal.ITIMER_REAL), lambda: signal.alarm(3600)),
    "blocked signals": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}),
    ),
    "fast path": (BACKENDS.mha.get_fastpath_enabled, lambda: BACKENDS.mha.set_fastpath_enabled(False)),
    "sums in half precision": (
        lambda: BACKENDS.cuda.matmul.allow_fp16_accumulation,
        lambda: setattr(BACKENDS.cuda.matmul, "allow_fp16_accumulation", True),
    ),
    "reductions in half precision": (
        BACKENDS.cuda.fp16_bf16_reduction_math_sdp_allowed,
        lambda: BACKENDS.cuda.allow_fp16_bf16_reduction_math_sdp(True),
    ),
    "oneDNN": (lambda: BACKENDS.mkldnn.deterministic, lambda: setattr(BACKENDS.mkldnn, "deterministic", True)),
    "NNPACK": (torch._C._get_nnpack_enabled, lambda: BACKENDS.nnpack.set_flags(False)),
    "threads of gradients": (
        torch._C._is_multithreading_enabled,
        lambda: torch.autograd.set_multithreading_enabled(False),
    ),
    "recomputation": (
        lambda: torch.utils.checkpoint._enable_checkpoint_early_stop,
        lambda: setattr(torch.utils.checkpoint, "_enable_checkpoint_early_stop", False),
    ),
    "conversion": (
        torch.__future__.get_overwrite_module_params_on_conversion,
        lambda: torch.__future__.set_overwrite_module_params_on_conversion(True),
    ),
    "sharing": (
        torch.multiprocessing.get_sharing_strategy,
        lambda: torch.multiprocessing.set_sharing_strategy("file_system"),
    ),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_the_next_attempt_finds_a_switch_as_the_first_did(name: str):
    read, change = SWITCHES[name]
    state, before = ProcessState.capture(), read()
    change()
    assert read() != before
    assert state.doubt() == ""
    assert read() == before


FORGOTTEN: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "open autocast blocks": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "device": lambda: torch.device("meta"),
    "saved tensors' hooks": lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_a_block_that_an_attempt_did_not_leave_ends_the_process(name: str):
    state = ProcessState.capture()
    with FORGOTTEN[name]():
        assert name in state.doubt()
    assert state.doubt() == ""


def test_hooks_of_optimizers_a_process_group_a_port_and_a_function_at_the_end_are_reasons_not_to_go_on(tmp_path):
    state = ProcessState.capture()
    hook = register_optimizer_step_pre_hook(lambda *args: None)
    assert "hooks" in state.doubt()
    hook.remove()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    assert "process group" in state.doubt()
    torch.distributed.destroy_process_group()
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert state.doubt() == f"port {server.getsockname()[1]} is still listened on"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{os.getpid()}-own")
        server.listen()
        assert state.doubt() == f"socket @{os.getpid()}-own is still listened on"
    assert state.doubt() == ""  # what was registered by then is what libraries set up
    atexit.register(draw)
    assert "for the end of the process" in state.doubt()
    atexit.unregister(draw)
    handler = logging.NullHandler()
    logging.getLogger("some.library").addHandler(handler)
    assert "some.library" in state.doubt()
    logging.getLogger("some.library").removeHandler(handler)


def test_a_module_of_an_attempts_own_folder_is_not_the_next_ones(tmp_path: Path):
    """Each configuration may bring a `helper` of its own: the second would get the first's."""
    state = ProcessState.capture()
    (tmp_path / "own_helper.py").write_text("RATE = 1")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package/__init__.py").write_text("")
    for name in ("own_helper", "own_package"):
        sys.path.insert(0, str(tmp_path))
        importlib.import_module(name)
        assert state.doubt() == f"module {name} was imported from a folder that the attempt put on the path"
        assert str(tmp_path) not in sys.path
        del sys.modules[name]
        state.own.clear()
    assert state.doubt() == ""


def test_a_folder_that_an_installed_package_adds_for_itself_stays_and_ends_no_process(tmp_path: Path, monkeypatch):
    """setuptools does, which `torch.compile` imports: it adds it once a process."""
    site = tmp_path / "site-packages"
    (site / "library/_vendor").mkdir(parents=True)
    (site / "library/_vendor/own_vendored.py").write_text("")
    (site / "library/_vendor/own_later.py").write_text("")
    monkeypatch.syspath_prepend(site)
    state = ProcessState.capture()
    sys.path.append(str(site / "library/_vendor"))
    importlib.import_module("own_vendored")
    assert state.doubt() == ""
    state.restore()
    importlib.import_module("own_later")
    assert sys.path == [*state.import_path, str(site / "library/_vendor")]


def test_settings_of_compilation_that_an_attempt_changed_end_the_process():
    import torch._dynamo.config

    state = ProcessState.capture()
    with torch._dynamo.config.patch(recompile_limit=77):
        assert "compilers" in state.doubt()
    assert state.doubt() == ""


def test_files_that_attempts_leak_are_counted(tmp_path: Path):
    state = ProcessState.capture()
    (tmp_path / "read").write_text("")
    assert state.doubt() == ""
    with contextlib.ExitStack() as leaked:
        for _ in range(60):
            leaked.enter_context(open(tmp_path / "read"))
        assert state.doubt() == ""
        for _ in range(60):
            leaked.enter_context(open(tmp_path / "read"))
        assert "files more are open than after the first attempt" in state.doubt()
    assert state.doubt() == ""


@pytest.mark.parametrize("told", ["", "odd\nnot as Linux tells it\n", None])
def test_a_kernel_that_tells_nothing_of_sockets_is_no_failure(told: str | None, monkeypatch: pytest.MonkeyPatch):
    read = Path.read_text

    def reading(path: Path, *args: Any, **how: Any) -> str:
        if "/net/" not in str(path):
            return read(path, *args, **how)
        if told is None:
            raise PermissionError(13, "Permission denied")
        return told

    monkeypatch.setattr(Path, "read_text", reading)
    assert ProcessState.capture().doubt() == ""


def test_a_second_handler_like_that_of_the_first_attempt_would_write_each_line_twice():
    state, own = ProcessState.capture(), logging.getLogger("own.log")
    for doubt in ("", "handler 2 of log own.log, <NullHandler (NOTSET)>, is still there"):
        own.addHandler(logging.NullHandler())
        assert state.doubt() == doubt
    own.handlers.clear()


def test_a_thread_that_ends_while_it_is_looked_at_is_no_failure(monkeypatch):
    state = ProcessState.capture()
    glob = Path.glob

    def with_one_that_is_gone(path, pattern):
        yield from glob(path, pattern)
        if path == Path("/proc/self/task"):
            yield Path("/proc/self/task/0/children")

    monkeypatch.setattr(Path, "glob", with_one_that_is_gone)
    assert state.doubt() == ""


def test_a_setting_that_cannot_be_read_any_more_ends_the_process_and_not_the_next_attempt(monkeypatch):
    state = ProcessState.capture()

    def unreadable() -> None:
        raise RuntimeError("mixed up")

    monkeypatch.setitem(SETTINGS, "anomaly detection", Setting(unreadable))
    assert state.doubt() == "a setting cannot be put back: RuntimeError: mixed up"
