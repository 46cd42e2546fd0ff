"""Machines with an SSH daemon, for Ray's cluster launcher: `tests.support.machines.hosts`, each with its own home and accounts.

Nothing of this machine's users is read or written: every machine has another home of root, other accounts and another folder
for Ray in a mount namespace of its own, and sees no process but its own. So `ray stop`, which the launcher runs there, ends
nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.machines import hosts
from tests.support.machines.heads import clean_env
from tests.support.machines.hosts import Host

PROGRAMS = ("sshd", "ssh", "ssh-keygen", "rsync")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
SSHD = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv RAY_TMPDIR={folder}/ray OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONPATH={folder}/home/dipsweep
"""
MACHINE = """
mount --bind "$1/home-$2" "$1/home"; mount --bind "$1/ray-$2" "$1/ray"; mount -t tmpfs tmpfs /run; mkdir -m 755 /run/sshd
mount --bind "$1/passwd" /etc/passwd; mount --bind "$1/shadow" /etc/shadow
shift 2; exec "$@"
"""


def why_not() -> str:
    """Returns why such machines cannot be made here; empty when they can."""
    if missing := [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]:
        return f"needs {', '.join(missing)}; on Debian: apt-get install openssh-server rsync"
    if os.geteuid() != 0:
        return "needs root, for hosts of its own"
    return hosts.why_not()


@dataclass
class Site:
    """A user's laptop, and two machines that it can log in to; all see one folder."""

    laptop: Host
    head: Host
    worker: Host
    folder: Path

    @property
    def home(self) -> Path:
        """Where every machine has its home; what lies there differs."""
        return self.folder / "home"

    @property
    def env(self) -> dict[str, str]:
        """The environment of the user's shell on the laptop."""
        return {**clean_env(), "HOME": str(self.home), "PATH": f"{Path(sys.executable).parent}:{PATH}", "NO_PROXY": "*",
                "RAY_TMPDIR": str(self.folder / "ray"), "USER": "root"}  # fmt: skip

    def start(self, host: Host, name: str, command: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        """Starts a command as one of the three machines."""
        inside = ["bash", "-ec", MACHINE, "machine", str(self.folder), name, *command]
        return host.machine(inside, self.env, self.folder / log)

    def ask(self, *command: str, timeout: float = 600) -> tuple[int, str]:
        """Runs a command on the laptop; returns how it ended and all that it wrote."""
        log = f"{command[0].rpartition('/')[2]}-{time.monotonic_ns()}.log"
        code = self.start(self.laptop, "laptop", command, log).wait(timeout)
        return code, (self.folder / log).read_text(errors="replace")

    def told(self) -> str:
        """Returns the ends of all logs, those of Ray on the head among them."""
        logs = [*self.folder.glob("*.log"), *self.folder.glob("ray-head/session_latest/logs/monitor.*")]
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs if log.is_file())


@contextmanager
def ssh_site(folder: Path) -> Iterator[Site]:
    """Brings the machines up in a short folder (socket paths); all of it is gone afterwards."""
    with hosts.hosts(3) as (laptop, head, worker):
        site = Site(laptop, head, worker, folder)
        for name in (
            "home",
            "ray",
            *(f"{part}-{node}" for part in ("home", "ray") for node in ("laptop", "head", "worker")),
        ):
            (folder / name).mkdir(mode=0o755)
        for name in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "passwd").write_text(
            f"root:x:0:0:root:{site.home}:/bin/bash\nsshd:x:100:65534::/run/sshd:/bin/false\n"
        )
        (folder / "shadow").write_text("root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n")
        (folder / "sshd_config").write_text(SSHD.format(folder=folder))
        for host in (laptop, head, worker):  # Ray takes the address from which it would go out
            subprocess.run(["ip", "-n", host.name, "route", "add", "default", "dev", "eth0"], check=True)
        sshd = shutil.which("sshd", path=PATH)
        assert sshd
        for host, name in ((head, "head"), (worker, "worker")):
            site.start(host, name, [sshd, "-D", "-e", "-f", str(folder / "sshd_config")], f"sshd-{name}.log")
        yield site
