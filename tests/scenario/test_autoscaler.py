"""A cluster that begins without machines: Ray's own autoscalers, both of them, with nodes that are processes of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.connect.tokens import make_token
from tests.support.machines.heads import RAY, clean_env, end_all, free_ports
from tests.support.programs import REPO

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]
HEAD_ID = "f" * 51 + "00000"  # what Ray's provider of fake nodes calls the head
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


def config(gcs: int, v2: bool) -> dict[str, object]:
    """A head without anything, and 0 to 2 nodes of two CPUs; idle ones go after six seconds."""
    # As "external", since the wheel lacks the defaults of "fake_multinode", which the second autoscaler wants to read.
    provider = {"type": "external", "module": PROVIDER} if v2 else {"type": "fake_multinode"}
    return {
        "cluster_name": "grows", "max_workers": 2, "idle_timeout_minutes": 0.1, "upscaling_speed": 1.0,
        "provider": {**provider, "use_node_id_as_ip": True, "disable_node_updaters": True, "head_node_id": HEAD_ID,
                     "disable_launch_config_check": True, "launch_multiple": True, "gcs_address": f"127.0.0.1:{gcs}"},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "two-cpus": {"resources": {"CPU": 2, "object_store_memory": 80_000_000}, "node_config": {},
                         "min_workers": 0, "max_workers": 2},
        },
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands",
                                 "setup_commands", "head_setup_commands", "worker_setup_commands",
                                 "head_start_ray_commands", "worker_start_ray_commands")},
        "file_mounts_sync_continuously": False,
    }  # fmt: skip


@contextmanager
def growing_head(folder: Path, *, v2: bool) -> Iterator[dict[str, str]]:
    """Starts such a head with a token, and gives the environment of a driver; ends all processes by their ids."""
    token, (gcs, metrics, agent, client) = make_token(folder / "token"), free_ports(4)
    (folder / "scaling.json").write_text(json.dumps(config(gcs, v2)))
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}", "--num-cpus=0",
               "--include-dashboard=false", f"--metrics-export-port={metrics}", f"--dashboard-agent-listen-port={agent}",
               f"--ray-client-server-port={client}", "--object-store-memory=100000000", "--disable-usage-stats",
               f"--temp-dir={folder / 'ray'}", f"--autoscaling-config={folder / 'scaling.json'}"]  # fmt: skip
    ours = {**clean_env(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PYTHONPATH": str(REPO)}
    env = ours | {"HOME": str(folder), "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                  "RAY_worker_niceness": "0"}  # fmt: skip
    if v2:
        env |= {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": HEAD_ID}
    env["RAY_OVERRIDE_NODE_ID_FOR_TESTING"] = HEAD_ID
    with open(folder / "head.log", "wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        while "--block" not in (folder / "head.log").read_text():  # said once the head is up
            assert process.poll() is None, (folder / "head.log").read_text()[-3000:]
            time.sleep(0.3)
        yield ours | {"RAY_ADDRESS": f"127.0.0.1:{gcs}"}
    finally:
        end_all(process.pid)
        process.wait()


@pytest.mark.parametrize(("v2", "inside"), [(False, "train"), (True, "light")], ids=["v1-ray-train", "v2-without"])
def test_machines_come_for_a_sweep_and_go_when_it_ends_or_its_driver_is_killed(tmp_path: Path, v2: bool, inside: str):
    with (
        tempfile.TemporaryDirectory(prefix="ds", dir="/tmp", ignore_cleanup_errors=True) as temp,
        growing_head(Path(temp), v2=v2) as env,
    ):
        command = [sys.executable, "-m", "tests.scenario.programs.autoscaler", str(tmp_path), inside]
        done = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, start_new_session=True)
        assert done.returncode == 0, done.stderr[-3000:]
        saw = json.loads(done.stdout.splitlines()[-1])
    assert saw["v2"] == v2
    assert saw["code"] == 0, saw
    told = [line for line in saw["said"] if "waits for machines" in line]
    assert told == [
        "waits for machines: the autoscaler was asked for room for 4 workers and evaluators, 0 of them have it"
    ]
    assert saw["said"][-1] == f"states {['completed'] * 4}"
    assert (saw["most_nodes"], saw["most_bundles"]) == (3, 4)  # one more than it can hold, and v2 adds none
    assert (saw["nodes"], saw["bundles"]) == (
        1,
        0,
    )  # also of the killed one: in time, or the watch would have ended before
