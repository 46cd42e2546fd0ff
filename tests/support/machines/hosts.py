"""Hosts on one machine: network namespaces on a switch of their own, each node of Ray with its own processes and memory.

Needs root and iproute2. Everything has a name that no other run has, lives in a network that nothing else can reach, and is
ended by its processes' ids.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


def why_not() -> str:
    """Returns why hosts cannot be made here; empty when they can."""
    if shutil.which("ip") is None:
        return "needs iproute2"
    name = f"ds{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"needs the right to make network namespaces: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return ""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class Host:
    """One host: the name of its namespace, its address, and the processes that were started on it."""

    name: str
    address: str
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(
        self, command: Sequence[str], env: Mapping[str, str], *, cwd: Path, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on this host to its end."""
        inside = ["ip", "netns", "exec", self.name, *command]
        return subprocess.run(
            inside, env=dict(env), cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout
        )

    def machine(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Starts a command as this host's whole machine: own process ids, own /dev/shm; all gone when its first process is."""
        boot = 'mount -t tmpfs -o size=300m tmpfs /dev/shm; exec "$@"'
        inside = ["ip", "netns", "exec", self.name, "unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc",
                  "bash", "-c", boot, "machine", *command]  # fmt: skip
        with open(log, "ab") as out:
            process = subprocess.Popen(inside, env=dict(env), stdout=out, stderr=out, start_new_session=True)
        self.started.append(process)
        return process

    def shut_down(self) -> None:
        """Asks the first process of each of its machines to end, as a shutdown or a spot notice does."""
        for process in self.started:
            os.kill(_below(process.pid)[0], signal.SIGTERM)

    def cut(self) -> None:
        """Pulls the network cable; processes and disk go on."""
        _ip("-n", self.name, "link", "set", "eth0", "down")

    def heal(self) -> None:
        """Plugs the network cable in again."""
        _ip("-n", self.name, "link", "set", "eth0", "up")

    def crash(self) -> None:
        """Takes the power away."""
        for process in self.started:
            for pid in _below(process.pid):
                _kill(pid)
            process.kill()
            process.wait()
        self.started.clear()

    def pids(self) -> list[int]:
        """Returns the processes that run on this host."""
        out = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False).stdout
        return [int(pid) for pid in out.split()]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # with the first process of a machine all others go
        os.kill(pid, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    """Returns a process's children: the child of `unshare` is the first process of its machine."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


CLEAN_UP = """
while kill -0 "$1" 2>/dev/null; do sleep 1; done
shift
for name in "$@"; do for pid in $(ip netns pids "$name" 2>/dev/null); do kill -9 "$pid"; done; done
for name in "$@"; do ip netns del "$name" 2>/dev/null; done
"""


@contextmanager
def hosts(number: int) -> Iterator[list[Host]]:
    """Makes hosts that reach each other at 10.213.77.1, .2, … and nothing else; takes them away whatever happens."""
    tag = secrets.token_hex(2)
    switch, made = f"ds{tag}s", [Host(f"ds{tag}{chr(97 + i)}", f"10.213.77.{i + 1}") for i in range(number)]
    # A test that runs into its time limit, or is killed, ends without `finally`: then this cleans up.
    watch = ["bash", "-c", CLEAN_UP, "clean-up", str(os.getpid()), *(h.name for h in made), switch]
    heir = subprocess.Popen(watch, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        for i, host in enumerate(made):
            _ip("netns", "add", host.name)
            _ip("-n", switch, "link", "add", f"p{i}", "type", "veth", "peer", "name", "eth0", "netns", host.name)
            _ip("-n", switch, "link", "set", f"p{i}", "master", "br0", "up")
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.name, "link", "set", "eth0", "up")
            _ip("-n", host.name, "link", "set", "lo", "up")
        yield made
    finally:
        for host in made:
            host.crash()
            for _ in range(50):
                if not (left := host.pids()):
                    break
                for pid in left:
                    _kill(pid)
                time.sleep(0.1)
        for name in (*(h.name for h in made), switch):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        heir.kill()
        heir.wait()
