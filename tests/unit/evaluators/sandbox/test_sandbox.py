import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evaluators.sandbox import run as sandbox
from evaluators.sandbox import seccomp
from evaluators.sandbox.run import Limits, SandboxBroken, SandboxMissing, run

pytestmark = pytest.mark.skipif(not seccomp.supported(), reason="the sandbox needs seccomp: Linux, x86-64 or arm64")

RAW = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
"""Straight to the C library: what Python's own modules refuse proves nothing about the kernel's filter."""


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 + 1 == 2",
        "import math, re, typing, collections, itertools, heapq, hashlib\nassert math.gcd(4, 6) == 2",
        "from datetime import datetime\nassert datetime.strptime('2020', '%Y').year == 2020",
        "print('x' * 10_000_000)",
        "text = 'é\\n'\nassert len(text) == 2",
        "import sys\nsys.setrecursionlimit(5000)\ndef f(n): return n and f(n - 1)\nassert f(3000) == 0",
    ],
)
def test_honest_programs_pass(program):
    assert run(program).passed


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        ("assert 1 + 1 == 3", "AssertionError"),
        ("def f(: pass", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "left early with exit code 0"),
        ("import numpy", "ModuleNotFoundError"),
        ("def f(n): return f(n + 1)\nf(0)", "RecursionError"),
    ],
)
def test_what_fails_or_leaves_early_does_not_pass(program, detail):
    outcome = run(program)
    assert outcome.status == "failed"
    assert detail in outcome.detail


def test_a_canary_file_cannot_be_read(tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("secret")
    canary.chmod(0o644)
    assert "PermissionError" in run(f"open({str(canary)!r}).read()").detail
    raw = f"path = {str(canary).encode()!r}\nfor call in (libc.open, lambda p, f: libc.openat(-100, p, f)):\n"
    assert run(RAW + raw + "    assert call(path, 0) == -1 and ctypes.get_errno() == 1").passed


FORBIDDEN = {
    "read": "open({canary!r}).read()",
    "write": "open({canary!r}, 'a').write('x')",
    "connect": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
    "fork": "import os\nif os.fork() == 0: os._exit(0)",
    "start": "import subprocess\nsubprocess.run(['/bin/true'], check=True)",
    "thread": "import threading\nthreading.Thread(target=print).start()",
    "signal": "import os\nos.kill({pid}, 0)",
    "list": "import os\nos.listdir('/')",
}


@pytest.mark.parametrize("act", FORBIDDEN)
def test_what_is_refused_inside_works_outside_so_that_it_is_the_sandbox_that_refuses(act, tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = FORBIDDEN[act].format(canary=str(canary), port=server.getsockname()[1], pid=os.getpid())
        outside = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", program], capture_output=True, text=True)
        assert outside.returncode == 0, outside.stderr
        assert not run(program).passed
    assert run("pass").passed


def test_no_file_can_be_written(tmp_path):
    target = tmp_path / "written"
    assert "PermissionError" in run(f"open({str(target)!r}, 'w').write('x')").detail
    assert not target.exists()


def test_no_socket_can_be_opened():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = run(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)")
        assert not outcome.passed
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
    assert run(RAW + "assert libc.socket(2, 1, 0) == -1 and ctypes.get_errno() == 1").passed


def test_no_process_and_no_thread_can_be_started():
    assert "PermissionError" in run("import os\nwhile True:\n    os.fork()").detail
    assert "start new thread" in run("import threading\nthreading.Thread(target=print).start()").detail
    assert run(RAW + "assert libc.fork() == -1 and libc.execv(b'/bin/true', None) == -1").passed


def test_nobody_else_can_be_killed():
    assert "PermissionError" in run(f"import os\nos.kill({os.getpid()}, {signal.SIGTERM.value})").detail


@pytest.mark.parametrize("program", ["while True: pass", "import time\ntime.sleep(60)", "10 ** 10 ** 9"])
def test_no_program_outlives_its_limit(program):
    assert run(program, Limits(seconds=0.5)).status == "timeout"


@pytest.mark.parametrize("program", ["while True: pass", "import os\nwhile True: os.fork()", "pass"])
def test_nothing_of_a_program_is_left_when_its_outcome_is_known(program, monkeypatch):
    started = []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self.pid)

    monkeypatch.setattr(sandbox.subprocess, "Popen", Noted)
    run(program, Limits(seconds=0.5))
    (leader,) = started
    sessions = [stat.rpartition(")")[2].split()[3] for stat in _stats()]
    assert str(os.getsid(0)) in sessions  # we see processes at all
    assert str(leader) not in sessions


def _stats():
    """/proc/PID/stat of every process; its sixth field is the session, which the sandboxed one leads."""
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield place.read_text()


def test_a_program_that_ignores_signals_dies_all_the_same():
    stubborn = "import signal\nfor s in (1, 2, 15, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: pass"
    assert run(stubborn, Limits(seconds=0.5)).status in ("timeout", "failed")


@pytest.mark.parametrize(
    "program",
    [
        "import unittest.mock, pathlib, urllib.parse\nfrom concurrent.futures import Future",
        "exec('import difflib')",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nA(1)",
        "import pickle, typing\nclass P(typing.NamedTuple):\n    x: int\nassert pickle.loads(pickle.dumps(P(1))) == P(1)",
        "if __name__ == '__main__':\n    input()",
    ],
)
def test_what_programs_usually_do_works(program):
    assert run(program).passed


def test_no_other_module_is_imported_before_the_doors_close():
    for name in ("test.__main__", "antigravity", "idlelib.idle", "unittest.__main__"):
        assert "ModuleNotFoundError" in run(f"import {name}").detail


def test_memory_is_bounded():
    assert "MemoryError" in run("x = bytearray(1 << 30)", Limits(memory_mb=256)).detail


def test_limits_cannot_be_raised():
    outcome = run(RAW + "assert libc.prlimit(0, 9, None, None) == -1 and libc.setrlimit(9, None) == -1")
    assert outcome.passed


def test_elsewhere_nothing_is_run(monkeypatch):
    monkeypatch.setattr(sandbox.seccomp, "supported", lambda: False)
    with pytest.raises(SandboxMissing, match="only on Linux"):
        run("pass")


BREAKS_DOWN = [sys.executable, "-I", "-S", "-c", "raise OSError(24, 'Too many open files')"]
KILLED = [sys.executable, "-I", "-S", "-c", "import os\nos.write(1, b'begun\\n')\nos.kill(os.getpid(), 9)"]


@pytest.mark.parametrize("command", [BREAKS_DOWN, KILLED, BlockingIOError(11, "Resource temporarily unavailable")])
def test_a_program_that_could_not_be_run_has_not_failed(command, monkeypatch):
    """A reply judged wrong because the machine had no memory or no file left would be a wrong number in silence."""
    popen, met = subprocess.Popen, [command] * 2

    def start(usual: list[str], **how: Any) -> Any:
        instead = met.pop() if met else usual
        if isinstance(instead, OSError):
            raise instead
        return popen(instead, **how)

    monkeypatch.setattr(sandbox, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(sandbox, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": start}))
    assert run("assert 1 + 1 == 2").passed
    assert not met
    met += [command] * 3
    with pytest.raises(
        SandboxBroken, match=r"not be run, 3 times: its process (did not come up|was killed|could not be)"
    ):
        run("assert 1 + 1 == 2")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_job_is_no_fault_of_the_program(number, monkeypatch):
    """An evaluation in the process of a driver that is asked to end goes on to its end, and its scores count."""
    popen, senders = subprocess.Popen, list[threading.Thread]()

    def send(pid: int) -> None:
        until(lambda: "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text())
        os.kill(pid, number)

    def start(*arguments: Any, **how: Any) -> Any:
        child = popen(*arguments, **how)
        senders.append(threading.Thread(target=send, args=(child.pid,)))
        senders[-1].start()
        return child

    monkeypatch.setattr(sandbox, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": start}))
    assert run("import time\ntime.sleep(1.5)").passed
    (sender,) = senders  # it was not run again
    sender.join()


def test_no_signal_ends_a_process_from_the_moment_that_its_program_is_looked_at(monkeypatch):
    begins, ignored = sandbox._begins, list[int]()

    def asked(child: Any, program: bytes) -> bool:
        begun = begins(child, program)
        (mask,) = re.findall(r"SigIgn:\t(\w+)", Path(f"/proc/{child.pid}/status").read_text())
        ignored.append(int(mask, 16))
        return begun

    monkeypatch.setattr(sandbox, "_begins", asked)
    assert run("import asyncio, unittest, xml").passed
    assert all(ignored[0] >> (number - 1) & 1 for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))


def test_a_slow_start_is_not_the_programs_time(monkeypatch):
    slow = "import runpy, sys, time\ntime.sleep(1.2)\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    popen = subprocess.Popen
    monkeypatch.setattr(
        sandbox.subprocess,
        "Popen",
        lambda command, **how: popen([*command[:4], "-c", slow, *command[4:]], **how),
    )
    assert run("assert 1 + 1 == 2", Limits(seconds=1.0)).passed


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos.kill(os.getpid(), 9)",
        "import signal\nsignal.raise_signal(9)",
        "(" * 100_000,
        "x = " + "-" * 200_000 + "1",
        "import ctypes\nctypes.string_at(0)",
        "import os\nos.abort()",
        "x = bytearray(1 << 40)",
        pytest.param("x = '\ud800'", id="half a surrogate pair, which no file can hold"),
    ],
)
def test_a_program_cannot_pass_its_own_fault_off_as_the_machines(program):
    assert run(program).status in ("failed", "killed")


def test_a_program_ends_with_the_evaluator_that_asked_for_it():
    """Killed, that has no time left to end it, and a program that waits would wait for ever."""
    program = "import time\ntime.sleep(600)"
    asks = f"from evaluators.sandbox.run import Limits, run\nrun({program!r}, Limits(seconds=600))"
    evaluator = subprocess.Popen([sys.executable, "-c", asks], cwd=Path(sandbox.__file__).parents[2])
    children = Path(f"/proc/{evaluator.pid}/task/{evaluator.pid}/children")
    try:
        child = until(lambda: children.read_text().split())[0]
        until(lambda: "Seccomp:\t2" in Path(f"/proc/{child}/status").read_text())  # its doors are closed: it runs
    finally:
        evaluator.kill()
        evaluator.wait()
    until(lambda: has_ended(child))


def has_ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(happens: Callable[[], Any]) -> Any:
    for _ in range(1000):
        if found := happens():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen within 20 s")
