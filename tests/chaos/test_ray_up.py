"""`ray up deploy/ray-cluster.yaml` over SSH, as the documentation says: up, a sweep submitted and looked at, down."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from sweeps.journal.history import History
from sweeps.journal.writer import is_sweep, read_rows
from tests.support.machines.hosts import Host
from tests.support.machines.ssh_site import Site, ssh_site, why_not
from tests.support.programs import REPO

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.optional, pytest.mark.timeout(1800)]
BIN = Path(sys.executable).parent
SWEEP = """
name: launched
space: {replay: {grid: [0.0, 0.2]}}
trainer: {steps: 100, learning_rate: 3.0e-3, batch_tokens: 256, max_length: 128}
evaluation: {items: 2, at: {every: 50}}
"""


@pytest.fixture
def site() -> Iterator[Site]:
    if reason := why_not():
        pytest.skip(reason)
    with (
        TemporaryDirectory(prefix="dsu", dir="/tmp", ignore_cleanup_errors=True) as folder,
        ssh_site(Path(folder)) as made,
    ):
        yield made


def cluster_file(site: Site) -> Path:
    """Writes the file that ships with its capitals filled in, for machines where nothing has to be installed."""
    text = (REPO / "deploy/ray-cluster.yaml").read_text()
    filled_in = {
        "HEAD_ADDRESS": site.head.address,
        "[WORKER_1_ADDRESS, WORKER_2_ADDRESS]": f"[{site.worker.address}]",
        "USER": "root",
        "~/.ssh/id_ed25519": str(site.folder / "key"),
        "CHECKOUT": str(site.folder / "checkout"),
        "_workers: 2": "_workers: 1",
    }
    for shipped, value in filled_in.items():
        assert shipped in text
        text = text.replace(shipped, value)
    config = yaml.safe_load(text)
    config["setup_commands"] = [command for command in config["setup_commands"] if "pip install" not in command]
    assert len(config["setup_commands"]) == 2
    file = site.folder / "ray-cluster.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


def prepare(site: Site) -> None:
    """Sends what a clone holds, and gives each machine the environment that set-up would have made."""
    for part in ("sweeps", "trainers", "evaluators", "cluster", "pyproject.toml", "README.md"):
        source, target = REPO / part, site.folder / "checkout" / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for node in ("head", "worker"):
        (site.folder / f"home-{node}" / "dipsweep-env").symlink_to(BIN.parent)


def until(site: Site, condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits for something; says what all machines have written where it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}\n{site.told()}"
        time.sleep(1)


def ray_processes(host: Host) -> list[str]:
    """Returns the command lines of Ray's own processes on a machine."""
    found = []
    for pid in host.pids():
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "/raylet/raylet" in line or "gcs_server" in line:
                found.append(line)
    return found


def test_up_a_sweep_submitted_and_down(site: Site):
    prepare(site)
    file, dipsweep, ray = cluster_file(site), str(BIN / "dipsweep"), str(BIN / "ray")

    def ask(*command: str) -> str:
        code, out = site.ask(*command)
        assert code == 0, f"{command}:\n{out}\n{site.told()}"
        return out

    ask(dipsweep, "token")
    ask("env", "RAY_UP_enable_autoscaler_v2=0", ray, "up", "--yes", "--no-config-cache", str(file))
    until(site, lambda: bool(ray_processes(site.worker)), 180, "the worker's raylet")
    assert (site.folder / "home-worker/.dipsweep/token").stat().st_mode & 0o777 == 0o600

    site.start(site.laptop, "laptop", [ray, "dashboard", "--no-config-cache", str(file)], "tunnel.log")
    at, storage = ["--address", "http://localhost:8265"], site.folder / "sweeps"
    storage.mkdir()
    sweep_file = site.folder / "sweep.yaml"
    sweep_file.write_text(SWEEP)
    until(site, lambda: site.ask(dipsweep, "doctor", *at, "--storage", str(storage))[0] == 0, 120, "the tunnel")
    ask(dipsweep, "submit", str(sweep_file), *at, "--storage", str(storage))

    def homes() -> list[Path]:
        return [home for home in storage.glob("*") if is_sweep(home)]

    until(site, lambda: bool(homes()), 300, "the sweep's first row")
    (home,) = homes()
    until(
        site,
        lambda: {c.state for c in History(read_rows(home)).trials()} == {"completed"},
        600,
        "both trials to be completed",
    )
    assert home.name in ask(dipsweep, "list", *at)
    assert "2 of 2 trials" in ask(dipsweep, "status", home.name, *at)

    ask(ray, "down", "--yes", str(file))
    until(site, lambda: not ray_processes(site.head), 60, "the head's processes to end")
    until(site, lambda: not ray_processes(site.worker), 180, "the worker's processes to end")
