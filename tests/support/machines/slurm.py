"""A SLURM of two nodes on one machine: slurmctld, two slurmd and munged, in network namespaces (`tests.support.machines.hosts`).

Nothing outside its folder is read or written: own configuration, own key, own spool; the nodes reach each other and nothing else.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.machines import hosts
from tests.support.machines.heads import clean_env
from tests.support.machines.hosts import Host
from tests.support.programs import REPO

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "munged")
CONF = """
ClusterName=test
SlurmctldHost=node1({head})
SlurmctldParameters=preempt_send_user_signal
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=30
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
SwitchType=switch/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
MinJobAge=3600
InactiveLimit=0
ReturnToService=2
GresTypes=gpu
NodeName=node1 NodeAddr={head} CPUs={cpus} RealMemory=1000 Gres=gpu:8 State=UNKNOWN
NodeName=node2 NodeAddr={other} CPUs={cpus} RealMemory=1000 Gres=gpu:8 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60 MaxTime=INFINITE State=UP OverSubscribe=NO
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP OverSubscribe=NO
"""
# A node sees the others by name, and keeps Ray's files apart from theirs: nodes are machines, and these two share one disk.
NODE = 'hostname "$1"; mount --bind "$2/hosts" /etc/hosts; mount --bind "$2/ray-$1" "$2/ray"; shift 2; exec "$@"'


def why_not() -> str:
    """Returns why SLURM cannot be brought up here; empty when it can."""
    if missing := [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]:
        return f"needs {', '.join(missing)}; on Debian: apt-get install slurmctld slurmd slurm-client munge"
    if os.geteuid() != 0:
        return "needs root, for hosts of its own"
    return hosts.why_not()


def _path() -> str:
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"


@dataclass
class Slurm:
    """A SLURM that runs: its two nodes, the folder that both see, and what a user can do there."""

    head: Host
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment of a user's shell on the first node."""
        return {**clean_env(), "HOME": str(self.folder), "PATH": _path(), "SLURM_CONF": str(self.folder / "slurm.conf"),
                "PYTHONPATH": str(REPO), "RAY_TMPDIR": str(self.folder / "ray"), "NO_PROXY": "*"}  # fmt: skip

    def ask(self, *words: str) -> str:
        """Runs a command as a user on the first node, and returns what it prints."""
        out = self.head.run(words, self.env, cwd=self.folder)
        assert out.returncode == 0, f"{words}: {out.stderr}"
        return out.stdout

    def submit(self, *words: str) -> str:
        """Submits a batch script; returns the job's number."""
        return re.findall(r"\d+", self.ask("sbatch", *words))[0]

    def job(self, number: str) -> dict[str, str]:
        """Returns what SLURM says of a job: JobState, Restarts, ExitCode, …"""
        return dict(re.findall(r"(\w+)=(\S*)", self.ask("scontrol", "--oneliner", "show", "job", number)))

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits for something; says what SLURM and the jobs have written where it does not come."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}\n{self.told()}"
            time.sleep(1)

    def until_state(self, number: str, state: str, seconds: float) -> dict[str, str]:
        """Waits until a job is in a state, and returns what SLURM says of it."""
        self.until(lambda: self.job(number)["JobState"] == state, seconds, f"job {number} to be {state}")
        return self.job(number)

    def told(self) -> str:
        """Returns the ends of all logs."""
        logs = [*self.folder.glob("*.log"), *self.folder.glob("slurm-*.out")]
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-2500:]}" for log in logs)


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Brings up a SLURM in a short folder (socket paths); all of it is gone afterwards."""
    with hosts.hosts(2) as (one, two):
        conf = CONF.format(folder=folder, head=one.address, other=two.address, cpus=os.cpu_count())
        (folder / "slurm.conf").write_text(conf.lstrip())
        (folder / "gres.conf").write_text(
            f"Name=gpu File={folder}/gpu[0-7]\n"
        )  # files in the place of devices: none is opened
        for i in range(8):
            (folder / f"gpu{i}").touch()
        (folder / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\n"
        )  # none is used; looked for, slurmd 22.05 does not start
        names = "127.0.0.1 localhost\n" + "".join(f"{h.address} {n}\n" for h, n in ((one, "node1"), (two, "node2")))
        (folder / "hosts").write_text(names)
        for name in ("state", "spool-node1", "spool-node2", "ray", "ray-node1", "ray-node2"):
            (folder / name).mkdir(mode=0o755)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        made = Slurm(one, folder)

        def boot(host: Host, node: str, *command: str) -> None:
            inside = ["unshare", "--uts", "bash", "-c", NODE, "node", node, str(folder), *command]
            host.machine(inside, made.env, folder / f"{command[0]}-{node}.out.log")

        with _munged(folder, made.env):
            boot(one, "node1", "slurmctld", "-D", "-f", str(folder / "slurm.conf"))
            for host, node in ((one, "node1"), (two, "node2")):
                boot(host, node, "slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf"))
            made.until(lambda: _idle(made) == 2, 60, "two idle nodes")
            yield made


def _idle(made: Slurm) -> int:
    out = made.head.run(["sinfo", "--noheader", "--Node", "--partition=low", "-o", "%N %t"], made.env, cwd=made.folder)
    return sum(line.split()[1] == "idle" for line in out.stdout.splitlines())


@contextmanager
def _munged(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """The one authentication daemon of both nodes: they share its socket."""
    command = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket",
               f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
               f"--seed-file={folder}/munge.seed"]  # fmt: skip
    with open(folder / "munged.out.log", "wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()
