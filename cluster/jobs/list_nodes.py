"""`dipsweep plan --address`: a small job that says what each node of a cluster has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.jobs.client import Jobs
from cluster.jobs.probe_job import run_probe
from cluster.jobs.submit import runtime_env
from sweeps.errors import InputError

MARK: Final = "dipsweep-nodes-found "
KIND: Final = "accelerator_type:"


@dataclass(frozen=True, slots=True, order=True)
class NodeSize:
    """What one node has, busy or not: GPUs and their kind as Ray names it (empty where it does not), CPUs, bytes of memory."""

    gpus: float
    cpus: float
    memory: float = 0.0
    kind: str = ""

    def __str__(self) -> str:
        gpus = f"{self.gpus:g} {self.kind or 'GPU'}, " if self.gpus else ""
        return f"{gpus}{self.cpus:g} CPU, {self.memory / 2**30:.0f} GiB"


def cluster_nodes(address: str, token_file: Path | None, python: str = "python") -> list[NodeSize]:
    """Returns the nodes of a running cluster.

    Raises:
        InputError: it cannot be talked to, or has no nodes. DipsweepError: the job that looks came to nothing.
    """
    jobs = Jobs.at(address, token_file)
    found = run_probe(jobs, "plan", python, ["cluster.jobs.list_nodes"], MARK, runtime_env(installed=False))
    nodes = nodes_of(found["nodes"])
    if not nodes:
        raise InputError(f"plan: --address: {address} has no node with CPUs or GPUs")
    return nodes


def nodes_of(resources: Iterable[Mapping[str, float]]) -> list[NodeSize]:
    """Returns nodes by what Ray says that each has; those that have neither CPUs nor GPUs run nothing."""
    found = []
    for has in resources:
        kind = next((name.removeprefix(KIND) for name in has if name.startswith(KIND)), "")
        node = NodeSize(has.get("GPU", 0.0), has.get("CPU", 0.0), has.get("memory", 0.0), kind)
        if node.gpus or node.cpus:
            found.append(node)
    return found


def nodes_text(nodes: Sequence[NodeSize]) -> str:
    """Returns the sizes of all nodes: `2 x (8 H100, 96 CPU, 1024 GiB)`; machines alike differ by some bytes of memory."""
    return ", ".join(f"{n} x ({size})" for size, n in Counter(map(str, sorted(nodes, reverse=True))).items())


def main() -> None:
    """Prints what each node of the cluster that this runs on has, as one line of JSON."""
    from cluster.connect.environment import prepare

    prepare()
    import ray

    ray.init(log_to_driver=False)
    nodes: list[dict[str, Any]] = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    print(MARK + json.dumps({"nodes": nodes}), flush=True)


if __name__ == "__main__":
    main()
