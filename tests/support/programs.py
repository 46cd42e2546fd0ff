"""Programs that a test starts as processes of their own, and that are gone when it ends, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sweeps.errors import DipsweepError
from tests.support.machines.heads import clean_env

REPO = Path(__file__).parents[2]
Process = subprocess.Popen[str]
Start = Callable[..., Process]


@contextmanager
def programs(module: str, env: Mapping[str, str] | None = None) -> Iterator[Start]:
    """Gives a function that starts `python -m MODULE ARGUMENTS`, and kills at the end what it started.

    Its processes take no Ctrl-C that is meant for the tests.
    """
    started: list[Process] = []

    def start(*arguments: object) -> Process:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)], cwd=REPO, text=True, start_new_session=True,
            env={**(os.environ if env is None else env), "PYTHONPATH": str(REPO)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def say(line: str) -> None:
    """Prints a line at once, for whoever reads along."""
    print(line, flush=True)


@contextmanager
def ends_like_a_command() -> Iterator[None]:
    """Around what such a program does: ends it as `dipsweep` ends, with one line that says why and that error's exit code."""
    try:
        yield
    except DipsweepError as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        raise SystemExit(e.exit_code) from None


@contextmanager
def ray_programs(module: str, **env: str) -> Iterator[tuple[Start, Path]]:
    """The same for programs that start a Ray: in a folder of its own, which is short (socket paths) and given too."""
    with (
        tempfile.TemporaryDirectory(prefix="ds", dir="/tmp", ignore_cleanup_errors=True) as temp,
        programs(module, {**clean_env(), "RAY_TMPDIR": temp, **env}) as start,
    ):
        yield start, Path(temp)
