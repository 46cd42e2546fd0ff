"""`dipsweep doctor --address`: a small job checks every node of a cluster and reports what it found.

The looking is done by one task on each node, in the environment that trials will have. Each node also reads what the driver
has just written to the storage: a folder that only one node sees looks fine from there, and fails a sweep hours later.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from sweeps.errors import NotFound

MARK: Final = "dipsweep-doctor-found "
PACKAGES: Final = ("ray", "torch", "transformers", "optuna", "s3fs", "reasoning-gym")
EXTRAS: Final = ("reasoning-gym",)  # suites mini and gym alone need it
NODE_S: Final = 90.0  # importing torch on a cold, busy node took 20


def look(storage: str, key: str, written: str) -> dict[str, Any]:
    """Returns what one node has, and whether it sees what was written to the storage."""
    return {
        "python": sys.version.split()[0], "packages": {name: _version(name) for name in PACKAGES}, "clock": time.time(),
        "disk_gib": shutil.disk_usage(os.environ.get("RAY_TMPDIR", "/tmp")).free / 2**30, "cpus": os.cpu_count(),
        "storage": _try(lambda: _storage(storage, key, written)), **_torch(),
    }  # fmt: skip


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _torch() -> dict[str, Any]:
    try:
        import torch

        from trainers.model.attention import choose_kernel

        cuda = torch.cuda.is_available()
        choice = choose_kernel(torch.device("cuda" if cuda else "cpu"), torch.bfloat16)
        gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if cuda else []
        nccl = ".".join(map(str, torch.cuda.nccl.version())) if cuda else ""  # type: ignore[no-untyped-call]
    except Exception as e:
        return {"gpus": [], "nccl": "", "attention": "", "torch_fault": f"{type(e).__name__}: {e}"}
    named = [f"{g.name}, {g.total_memory / 2**30:.0f} GiB" for g in gpus]
    return {"gpus": named, "nccl": nccl, "attention": f"{choice.name}: {choice.reason}"}


def _storage(storage: str, key: str, written: str) -> str:
    """Returns what is wrong with the storage seen from here; empty when all is well."""
    from sweeps.storage.factory import open_store

    store = open_store(storage)
    try:
        found = store.read(key).decode()
    except NotFound:
        return "does not see what another node wrote: a folder that only one node has is no storage"
    return "" if found == written else "reads something else than was written"


def _check(storage: str, key: str, written: str) -> str:
    """Returns what is wrong with the storage seen from the driver; leaves something for the nodes to read."""
    from sweeps.storage.factory import open_store
    from sweeps.storage.probe import storage_fault

    if wrong := storage_fault(storage):
        return wrong
    open_store(storage).write(key, written.encode())
    return ""


def _try(act: Any) -> str:
    try:
        return str(act())
    except Exception as e:
        return f"{type(e).__name__}: {e}"


def main(argv: list[str] | None = None) -> None:
    """Looks at every node and prints what was found as one line of JSON."""
    (storage,) = sys.argv[1:] if argv is None else argv
    from cluster.connect.environment import prepare

    prepare()
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(log_to_driver=False)
    key, text = f".doctor/{secrets.token_hex(8)}", secrets.token_hex(16)
    put = _try(lambda: _check(storage, key, text))
    started = time.time()
    nodes = [n for n in ray.nodes() if n["Alive"]]
    asked = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[node["NodeManagerAddress"] + " " + node["NodeID"][:6]] = (
            ray.remote(num_cpus=0, max_retries=0)(look).options(scheduling_strategy=here).remote(storage, key, text)
        )
    found: dict[str, Any] = {
        name: {**_result(ray, ref), "asked": [started, time.time()]} for name, ref in asked.items()
    }
    _try(lambda: _remove(storage, key))
    out = {"put": put, "nodes": found, "resources": _plain(ray.cluster_resources())}
    print(MARK + json.dumps(out), flush=True)


def _result(ray: Any, ref: Any) -> dict[str, Any]:
    try:
        return dict(ray.get(ref, timeout=NODE_S))
    except Exception as e:
        return {"fault": f"{type(e).__name__}: {str(e).strip().splitlines()[-1][:200]}"}


def _remove(storage: str, key: str) -> None:
    from sweeps.storage.factory import open_store

    open_store(storage).delete(key)


def _plain(resources: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in resources.items() if name in ("CPU", "GPU", "memory")}


if __name__ == "__main__":
    main()
