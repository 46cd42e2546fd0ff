"""Runs code that a model wrote, in a process of its own that can do nothing but compute.

What holds it: a system call filter (no files, sockets, processes, threads, signals to others), limits on memory and
CPU time, a wall clock kept by the parent, an empty environment. The usual modules are imported before the filter
closes, since nothing can be opened afterwards. It is a fence against what models write by accident or by habit, held by
the kernel. Two things it is not: a promise against kernel exploits, and a guard of the verdict itself, since a program
that goes looking through the interpreter's frames could find the word that means "passed".
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from evaluators.sandbox import seccomp
from evaluators.sandbox.child import BEGUN
from sweeps.errors import DipsweepError

OUTPUT: Final = 4096
"""Bytes of the child's own words that are read; the rest is thrown away with it."""
START_S: Final = 60.0
"""How long the process may take until it looks at the program; that is the machine's time, not the program's."""
PAUSES: Final = (0.0, 2.0, 10.0)
"""Seconds before each try to run a program: a machine short of memory may have some again."""
_ROOT: Final = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use."""

    seconds: float = 5.0
    """Wall-clock time, from when the process is up."""
    memory_mb: int = 512
    """Address space."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended; `detail` names the exception or the signal."""

    status: Literal["passed", "failed", "timeout", "killed"]
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.status == "passed"


class SandboxMissing(DipsweepError):
    """This machine cannot hold foreign code safely; nothing was run."""


class SandboxBroken(DipsweepError):
    """The sandbox did not come up, or something outside ended it: whether the program passes is not known."""


def run(program: str, limits: Limits | None = None) -> Outcome:
    """Runs a Python program to its end; it passes if it raises nothing and does not leave early.

    Raises:
        SandboxMissing: not Linux on x86-64 or arm64.
        SandboxBroken: a machine short of memory, processes or open files, several times in a row.
    """
    if not seccomp.supported():
        raise SandboxMissing("code from a model runs only on Linux, x86-64 or arm64: the sandbox needs seccomp")
    for pause in PAUSES:
        time.sleep(pause)
        outcome = _run_once(program, limits or Limits())
        if isinstance(outcome, Outcome):
            return outcome
    raise SandboxBroken(f"a program could not be run, {len(PAUSES)} times: {outcome}; is this machine out of memory?")


def _run_once(program: str, limits: Limits) -> Outcome | str:
    """Returns how a program ended, or why it was not the program that ended."""
    word = secrets.token_hex(16)  # said by the child once the program has run to its end, not merely exited
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(_ROOT / "child.py"), str(limits.memory_mb), f"{limits.seconds}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
    except OSError as e:  # no process, no memory, or no open file more
        return f"its process could not be started ({e.strerror or e})"
    try:
        if not _begins(child, f"{word}\n{program}".encode(errors="surrogatepass")):
            return "its process did not come up"
        child.wait(timeout=limits.seconds)
        assert child.stdout is not None
        said = child.stdout.read(OUTPUT).decode(errors="replace")
    except subprocess.TimeoutExpired:
        return Outcome("timeout", f"over {limits.seconds:g} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    return _outcome(said, word, child.returncode)


def _begins(child: subprocess.Popen[bytes], program: bytes) -> bool:
    """Hands the program over and waits until the child looks at it; the child's output is a few bytes, so no pipe can fill up."""
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError), child.stdin:
        child.stdin.write(program)
    said, until, heard = b"", time.monotonic() + START_S, select.poll()
    heard.register(child.stdout, select.POLLIN)
    while said != BEGUN:
        if not heard.poll(max(0.0, until - time.monotonic()) * 1000):
            return False
        if not (more := os.read(child.stdout.fileno(), len(BEGUN) - len(said))):
            return False
        said += more
    return True


def _outcome(said: str, word: str, code: int) -> Outcome | str:
    locked, _, rest = said.partition("\n")
    first, _, detail = rest.partition("\n")
    if first == word:
        return Outcome("passed")
    if code == -signal.SIGKILL:
        return "its process was killed from outside"
    if code < 0:
        return Outcome("killed", signal.Signals(-code).name)
    if locked != "locked":
        return f"its process ended with exit code {code} before the program began"
    return Outcome("failed", detail.strip() or f"left early with exit code {code}")
