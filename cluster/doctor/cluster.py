"""What a cluster can do, as lines of `dipsweep doctor`: its endpoint, its nodes one by one, its storage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from cluster.connect.address import is_loopback
from cluster.doctor.machine import Finding
from cluster.doctor.probe import EXTRAS, MARK, PACKAGES
from cluster.jobs.client import Jobs
from cluster.jobs.probe_job import run_probe
from cluster.jobs.secrets import refuse_secrets
from cluster.jobs.submit import runtime_env
from sweeps.errors import DipsweepError

SKEW_S: Final = 5.0
"""Clocks further apart than this confuse people who read logs; leases and fences compare none."""
FREE_GIB: Final = 10.0


def examine(address: str, token_file: Path | None, storage: str, python: str = "python") -> list[Finding]:
    """Returns what was found on a cluster: of its endpoint at once, of its nodes through a small job.

    Raises:
        InputError: the cluster cannot be talked to at all. SpecError: the storage's address holds a secret.
    """
    refuse_secrets("doctor", {"--storage": storage, "--python": python})  # Ray shows a job's entrypoint in clear
    jobs = Jobs.at(address, token_file)
    found = [*_endpoint(jobs)]
    started = time.monotonic()
    try:
        report = _look(jobs, storage, python)
    except DipsweepError as e:
        return [*found, Finding("probe job", "bad", str(e))]
    found.append(Finding("probe job", "ok", f"ran and was removed, {time.monotonic() - started:.0f} s"))
    return [*found, *findings_of(report)]


def _endpoint(jobs: Jobs) -> Iterator[Finding]:
    endpoint = jobs.endpoint
    yield Finding("cluster", "ok", f"{endpoint.url} answers, Ray {endpoint.ray}")
    if not endpoint.requires_token:
        yield Finding("token", "note", "none is asked for; every process of this machine can run code there")
    else:
        yield Finding("token", "ok", "asked for, and ours is accepted")
    if endpoint.url.startswith("http://") and not is_loopback(endpoint.url):
        yield Finding(
            "way there",
            "note",
            "http is not encrypted: the token can be read on the way; use a private network, TLS or a tunnel",
        )
    import ray

    if ray.__version__ != endpoint.ray:
        yield Finding("ray", "bad", f"{ray.__version__} here, {endpoint.ray} there; both must be the same")


def _look(jobs: Jobs, storage: str, python: str) -> Mapping[str, Any]:
    return run_probe(jobs, "doctor", python, ["cluster.doctor.probe", storage], MARK, runtime_env(installed=False))


def findings_of(report: Mapping[str, Any]) -> Iterator[Finding]:
    """Yields the lines for what the probe job brought back."""
    nodes: Mapping[str, Any] = report["nodes"]
    has = report["resources"]
    gpus = f", {has['GPU']:g} GPUs" if has.get("GPU") else ", no GPU"
    yield Finding("nodes", "ok", f"{len(nodes)}, with {has.get('CPU', 0):g} CPUs{gpus}")
    put = report["put"]
    yield Finding("storage: put", "bad" if put else "ok", put or "writes, reads back, creates an object only once")
    for name, node in nodes.items():
        if "fault" in node:
            yield Finding(f"node {name}", "bad", f"could not be looked at: {node['fault']}")
            continue
        yield from _node(f"node {name}", node)
    yield from _alike({name: node for name, node in nodes.items() if "fault" not in node})


def skew(node: Mapping[str, Any]) -> float:
    """Returns by how many seconds a node's clock is off at least: it should lie between question and answer."""
    asked, answered = node["asked"]
    return max(0.0, float(asked) - float(node["clock"]), float(node["clock"]) - float(answered))


def _node(name: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    missing = [p for p in PACKAGES if p not in EXTRAS and not node["packages"].get(p)]
    if missing:
        yield Finding(name, "bad", f"lacks {', '.join(missing)}; install dipsweep there (deploy/Containerfile)")
    if node.get("torch_fault"):
        yield Finding(name, "bad", f"torch cannot be used: {node['torch_fault']}")
    if node["storage"]:
        yield Finding(name, "bad", f"storage: {node['storage']}")
    if (apart := skew(node)) > SKEW_S:
        yield Finding(name, "note", f"its clock is {apart:.0f} s off; harmless to sweeps, confusing in logs")
    if node["disk_gib"] < FREE_GIB:
        yield Finding(name, "note", f"{node['disk_gib']:.0f} GiB of disk free; checkpoints pass through it")
    if not missing and not node["storage"]:
        gpus = "; ".join(f"{n} x {kind}" for kind, n in Counter(node["gpus"]).items()) or "no GPU"
        nccl = f", NCCL {node['nccl']}" if node["nccl"] else ""
        yield Finding(
            name, "ok", f"{gpus}{nccl}; {node['attention']}; {node['disk_gib']:.0f} GiB free; sees the storage"
        )


def _alike(nodes: Mapping[str, Any]) -> Iterator[Finding]:
    """Workers of one trial must run the same versions; so must the driver and its evaluators."""
    for what in ("python", *PACKAGES):
        versions = {n["python"] if what == "python" else n["packages"].get(what, "") for n in nodes.values()}
        if len(versions) > 1:
            yield Finding(
                what,
                "bad",
                f"{' and '.join(sorted(v or 'none' for v in versions))} on different nodes; make them the same",
            )
    if nodes:
        first = next(iter(nodes.values()))
        listed = ", ".join(f"{p} {first['packages'][p]}" for p in PACKAGES if first["packages"].get(p))
        yield Finding("versions", "ok", f"Python {first['python']}, {listed}")
