"""What lies in deploy/, as far as it can be tried without machines, Kubernetes or SLURM (deploy/README.md says how far)."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema  # comes with Ray
import pytest
import yaml

from cluster.cli import main as cli
from sweeps.errors import DipsweepError, InputError, Interrupted, LimitError, StorageError

REPO = Path(__file__).parents[3]
DEPLOY = REPO / "deploy"
MANIFESTS = sorted((DEPLOY / "kuberay").glob("*.yaml"))


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return dict(manifest["spec"].get("rayClusterSpec", manifest["spec"]))


AS_RAY_UP = """
import sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
config = yaml.safe_load(sys.stdin)
validate_config(prepare_config(config))
try:
    validate_config(prepare_config({**config, "max_worker": 2}))
except Exception as e:
    print("refused:", type(e).__name__)
"""


def test_the_launchers_file_passes_what_ray_up_checks_first():
    text = (DEPLOY / "ray-cluster.yaml").read_text()
    out = subprocess.run([sys.executable, "-c", AS_RAY_UP], input=text, text=True, capture_output=True, check=False)
    assert out.returncode == 0, out.stderr[-2000:]
    assert out.stdout.startswith("refused")  # the check does see a typo


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (LimitError("over"), 0),
        (InputError("bad"), 0),
        (Interrupted("stopped"), 0),
        (StorageError("gone"), 1),
        (None, 0),
    ],
)
def test_a_rayjob_is_tried_again_only_when_a_new_cluster_could_help(
    error: DipsweepError | None, ends: int, tmp_path, monkeypatch
):
    """KubeRay hands the entrypoint to `ray job submit`, which quotes for another shell: so it is plain words."""
    words = shlex.split(yaml.safe_load((DEPLOY / "kuberay" / "job.yaml").read_text())["spec"]["entrypoint"])
    assert not re.search(r"[$;|&'\"<>]", " ".join(words))
    (tmp_path / "sweep.yaml").write_text("name: job\n")

    def run_with_output(*args: Any) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(cli, "run_with_output", run_with_output)
    monkeypatch.setattr(sys, "argv", [w.replace("/sweep/", f"{tmp_path}/") for w in words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == ends


def test_every_start_of_ray_asks_for_the_token():
    config = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    starts = [c for part in ("head", "worker") for c in config[f"{part}_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in c and "RAY_AUTH_TOKEN_PATH=" in c and "chmod 600" in c for c in starts)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_a_manifest_locks_its_cluster_and_holds_no_secret(path: Path):
    from cluster.jobs.secrets import refuse_secrets

    manifest = yaml.safe_load(path.read_text())
    cluster = cluster_of(manifest)
    assert cluster["authOptions"]["mode"] == "token"
    secret = cluster["authOptions"].pop("secretName")  # the name of a Secret, which is none itself
    assert secret == "ray-token"
    refuse_secrets("manifest", manifest)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_a_manifests_nodes_run_one_image_one_ray_and_not_as_root(path: Path):
    cluster = cluster_of(yaml.safe_load(path.read_text()))
    pods = [cluster["headGroupSpec"]["template"]["spec"], *(g["template"]["spec"] for g in cluster["workerGroupSpecs"])]
    assert {c["image"] for pod in pods for c in pod["containers"]} == {"REGISTRY/dipsweep:TAG"}
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in pods)
    pinned = re.search(r'"ray\[[^]]*\]>=([0-9.]+)', (REPO / "pyproject.toml").read_text())
    assert pinned is not None
    assert cluster["rayVersion"].startswith(pinned[1] + ".")
    for pod in pods:
        volumes = {v["name"] for v in pod.get("volumes", ())}
        assert {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", ())} == volumes
        for container in pod["containers"]:
            limits, requests = container["resources"]["limits"], container["resources"]["requests"]
            assert limits["memory"] == requests["memory"]  # Ray counts on what it was promised
            assert limits.get("nvidia.com/gpu") == requests.get("nvidia.com/gpu")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_a_manifest_holds_to_kuberays_own_schema(path: Path):
    manifest = yaml.safe_load(path.read_text())
    schema = jsonschema.Draft202012Validator(kuberay_schema(manifest["kind"]))
    schema.validate(manifest)
    cluster_of(manifest)["headGroupSpec"]["rayStartParam"] = {}
    with pytest.raises(jsonschema.ValidationError, match="rayStartParam"):  # the check does see a typo
        schema.validate(manifest)


def kuberay_schema(kind: str) -> Any:
    """Returns the schema of one kind from KubeRay 1.7.0's CRDs (v1, without their descriptions; NOTICE)."""
    return closed(
        json.loads(gzip.decompress((Path(__file__).parent / "data" / "kuberay-1.7.0.json.gz").read_bytes()))[kind]
    )


def closed(schema: Any) -> Any:
    """Returns a schema that refuses unknown fields, as the API server does."""
    if isinstance(schema, list):
        return [closed(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: closed(value) for name, value in schema.items()}
    if (
        out.get("type") == "object"
        and len(out.get("properties", ())) > 1
        and "x-kubernetes-preserve-unknown-fields" not in out
    ):
        out.setdefault("additionalProperties", False)
    return out


def test_the_image_is_made_as_the_machines_are():
    image, make = (DEPLOY / "Containerfile").read_text(), (REPO / "Makefile").read_text()
    torch = re.search(r"torch==[0-9.]+", make)
    assert torch is not None
    assert torch[0] in image
    assert torch[0] in (DEPLOY / "ray-cluster.yaml").read_text()
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", image, flags=re.M) for word in line.split()]
    assert {"sweeps", "trainers", "evaluators", "cluster", "constraints.txt"} <= set(copied)
    assert all((REPO / name).exists() for name in copied)
    assert "USER 1000" in image


def test_dipsweep_is_installed_from_what_the_user_brings_with_constraints_and_never_by_its_name():
    """The name is not ours on the public index: whoever takes it would run on every node, beside the token."""
    config = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    (install,) = [c for c in config["setup_commands"] if "[gym,serve,math,lora]" in c]
    brought = re.search(r"-c (\S+)/constraints\.txt (\S+)'\[gym,serve,math,lora\]'$", install)
    assert brought is not None
    assert brought[1] == brought[2]
    assert config["file_mounts"][brought[1]] == "CHECKOUT"  # to be replaced, as HEAD_ADDRESS is
    for path in (p for p in DEPLOY.rglob("*") if p.is_file()):
        assert not re.search(r"pip install[^\n]*[\s'\"]dipsweep\b", path.read_text()), path


# ---- SLURM, under stand-ins --------------------------------------------------------------------------------------------

STANDINS = {
    "srun": 'while [[ "$1" == -* ]]; do [ "$1" = -w ] && shift; shift; done; exec "$@"',
    "scontrol": 'if [ "$1" = requeue ]; then echo "scontrol $*" >> "$OUT"; else printf "node1\\nnode2\\n"; fi',
    "hostname": "echo 127.0.1.1 10.9.8.7",
    "ray": 'echo "ray $* [$RAY_AUTH_MODE $(stat -c %a "$RAY_AUTH_TOKEN_PATH")]" >> "$OUT"; '
    '[ "$1" = list ] && { echo "[$(grep "^ray start" "$OUT" | sed "s/.*/{}/" | paste -sd,)]"; exit; }; exec sleep 600',
    "dipsweep": 'if [ "$1" = token ]; then (umask 077; echo 0123456789abcdef0123 > "$2"); exit; fi; '
    'echo "dipsweep $*" >> "$OUT"; eval "$DRIVER"',
}


def slurm(tmp_path: Path, driver: str) -> subprocess.Popen[str]:
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, body in STANDINS.items():
        (bin / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (bin / name).chmod(0o755)
    (bin / "python3").symlink_to(sys.executable)
    env = {"PATH": f"{bin}:/usr/bin:/bin", "HOME": str(tmp_path), "OUT": str(tmp_path / "out"), "DRIVER": driver,
           "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "77"}  # fmt: skip
    return subprocess.Popen(["bash", str(DEPLOY / "slurm.sh"), "my sweep.yaml", "/shared/sweeps"], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip


def test_a_slurm_job_starts_each_node_with_a_token_of_its_own_and_ends_with_the_sweeps_code(tmp_path: Path):
    process = slurm(tmp_path, "exit 3")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    lines = (tmp_path / "out").read_text().splitlines()
    starts = [line for line in lines if line.startswith("ray start")]
    assert sum("--head" in line and "--node-ip-address=10.9.8.7" in line for line in starts) == 1
    assert sum("--address=10.9.8.7:6379" in line for line in starts) == 1
    assert all("[token 600]" in line for line in lines if line.startswith("ray"))
    assert [line for line in lines if line.startswith("dipsweep")] == [
        "dipsweep run my sweep.yaml --storage /shared/sweeps --address 10.9.8.7:6379"
    ]
    assert list(tmp_path.glob(".dipsweep-job-*")) == []  # the token is gone


@pytest.mark.parametrize(("name", "requeued"), [("SIGUSR1", True), ("SIGINT", False), ("SIGTERM", False)])
def test_slurms_warning_saves_and_requeues_and_a_persons_signal_saves_and_ends(
    tmp_path: Path, name: str, requeued: bool
):
    driver = (
        'trap \'echo saved >> "$OUT"; exit 130\' INT; echo ready >> "$OUT"; for _ in $(seq 900); do sleep 0.1; done'
    )
    process = slurm(tmp_path, driver)
    while not (tmp_path / "out").exists() or "ready" not in (tmp_path / "out").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, getattr(signal, name))  # to the batch shell alone
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    out = (tmp_path / "out").read_text()
    assert "saved" in out
    assert ("scontrol requeue 77" in out) == requeued
    assert list(tmp_path.glob(".dipsweep-job-*")) == []  # the token is gone before the job may start again


def test_a_sweep_that_ended_by_itself_is_not_requeued(tmp_path: Path):
    process = slurm(tmp_path, "trap '' INT; echo ready >> \"$OUT\"; sleep 2; exit 1")
    while not (tmp_path / "out").exists() or "ready" not in (tmp_path / "out").read_text():
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGUSR1)
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert "requeue" not in (tmp_path / "out").read_text()
