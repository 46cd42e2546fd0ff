"""A Ray head node of a test's own: own folder, own ports, own token, on loopback; ended by its processes' ids."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.connect.tokens import make_token, read_token

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """A head that runs: its Jobs API, the file with its token, Ray's own address, and where it exports metrics."""

    url: str
    token_file: Path
    address: str
    metrics: str
    session: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that talks to it."""
        return {**clean_env(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}


def clean_env() -> dict[str, str]:
    """This environment without what steers Ray or Tune.

    Ray's workers have the priority of other processes; Ray's own is 15 lower, and on a busy machine they would hardly ever run.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
    return {**env, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PYTHONUNBUFFERED": "1"}


def free_ports(number: int) -> list[int]:
    """Returns ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]


@contextmanager
def head_node(folder: Path, *, cpus: int = 2, mode: str = "token") -> Iterator[Head]:
    """Starts a head with a token in a short folder (socket paths) and ends it with all its processes.

    Args:
        mode: RAY_AUTH_MODE of the head; `disabled` lets everybody in.
    """
    token = make_token(folder / "token")
    gcs, board, metrics, agent, client = free_ports(5)  # the others Ray picks itself, at the moment it needs them
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--dashboard-port={board}",
               "--dashboard-host=127.0.0.1", f"--metrics-export-port={metrics}", f"--num-cpus={cpus}",
               f"--dashboard-agent-listen-port={agent}",
               f"--ray-client-server-port={client}", "--object-store-memory=100000000", "--disable-usage-stats",
               f"--temp-dir={folder / 'ray'}"]  # fmt: skip
    env = {**clean_env(), "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN_PATH": str(token), "HOME": str(folder)}
    with open(folder / "head.log", "wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    head = Head(f"http://127.0.0.1:{board}", token, f"127.0.0.1:{gcs}", f"http://127.0.0.1:{metrics}/metrics",
                folder / "ray" / "session_latest")  # fmt: skip
    try:
        _until_it_answers(head, process, folder / "head.log")
        yield head
    finally:
        end_all(process.pid)
        process.wait()


def _until_it_answers(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    """The Jobs API answers before the node itself has joined; a driver that comes in between is turned away."""
    token = {"Authorization": f"Bearer {read_token(head.token_file)}"}
    ask = urllib.request.Request(f"{head.url}/api/v0/nodes", headers=token)
    while True:
        assert process.poll() is None, log.read_text()[-3000:]
        with contextlib.suppress(OSError):
            if b"ALIVE" in urllib.request.urlopen(ask, timeout=10).read():
                return
        time.sleep(0.3)


def end_all(pid: int) -> None:
    """Kills a process and everything below it, by id."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=10)
