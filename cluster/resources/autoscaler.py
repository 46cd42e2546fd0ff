"""Nodes that a cluster's autoscaler may add: what it could add, and what of it all sweeps together ask for.

An autoscaler sees what waits in Ray. Trials do not wait there (`cluster.resources.placement`), so it is told which
bundles should exist in all, those in use included. Two properties of Ray 2.60 shape how:

- There is one list of requests for the whole cluster, and an actor of Ray's own, made by the first run of Ray Train or
  Ray Data, sets it anew every 20 s from what it was told. So we tell that actor, as one more requester: it adds up, and
  forgets requesters that do not ask again. A request that nobody withdraws keeps paid nodes up.
- Its second autoscaler (v2) takes a list whole or not at all: one bundle more than the cluster may ever hold, and no
  node comes. So no more is asked for than the node groups at their largest can hold.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

from cluster.ray_internals.autoscaler import autoscaling_config, read_ray_cluster, request_nodes
from cluster.resources.backfill import Nodes, Resources, fit, less

REQUESTER, HEAD = "dipsweep", "head"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
Lot = tuple[Resources, int]  # so many bundles of a kind, wanted together or not at all


@dataclass(frozen=True, slots=True)
class Growth:
    """How large an autoscaler may make a cluster.

    Attributes:
        head: what the head node has; it is there in any case. groups: what a node of each group has, and how many of
            them there may be. most: how many added nodes there may be in all.
    """

    head: Resources
    groups: Mapping[str, tuple[Resources, int]]
    most: int

    def nodes(self, limit: int = 1000) -> Nodes:
        """Returns the cluster at its largest, up to `limit` nodes of a group; the head is the first."""
        most = min(self.most, limit)
        added = {f"{name} {i}": has for name, (has, count) in self.groups.items() for i in range(min(count, most))}
        return {HEAD: self.head, **added}

    def hold(self, lots: Iterable[Lot]) -> list[Resources]:
        """Returns the bundles of those lots, in order, that the cluster at its largest holds together."""
        lots = list(lots)
        return place(self.nodes(sum(count for _, count in lots)), lots, self.most)


def place(nodes: Nodes, lots: Iterable[Lot], most: float = math.inf) -> list[Resources]:
    """Returns the bundles of the lots that lie on these nodes together, on at most `most` besides the head: each lot whole
    or not at all. What reserves nothing needs no room."""
    out, used = list[Resources](), set[str]()
    for bundle, count in lots:
        placed = fit(nodes, bundle, count) if any(bundle.values()) else None
        if placed is not None and len((used | set(placed)) - {HEAD}) <= most:
            nodes, used = less(nodes, bundle, placed), used | set(placed)
            out += [bundle] * count
    return out


def share_out(parties: Sequence[tuple[Sequence[Lot], Sequence[Lot]]]) -> list[Lot]:
    """Returns all lots of all sweeps in the order in which room is made: what they hold, then by turns what waits."""
    holds = [lot for held, _ in parties for lot in held]
    longest = max((len(waits) for _, waits in parties), default=0)
    return holds + [waits[i] for i in range(longest) for _, waits in parties if i < len(waits)]


# ---- what runs on the head node --------------------------------------------------------------------------------------


def find_growth() -> Growth | None:
    """Returns what this cluster's autoscaler may add, None where there is none; call it on the head node.

    Ray does not publish it, so it is read where the autoscaler itself reads it: the file that `ray start` was given
    (`ray up`), or the RayCluster object, which the head's pod may read with KubeRay's own service account.

    Raises:
        OSError, ValueError: it is not ours to read, or not to be reached now.
    """
    config = _from_kubernetes() if "RAY_CLUSTER_NAME" in os.environ and NAMESPACE_FILE.exists() else _from_file()
    here = ray.get_runtime_context().get_node_id()
    head: Resources = next((node["Resources"] for node in ray.nodes() if node["NodeID"] == here), {})
    return growth_of(config, head) if config else None


def growth_of(config: Mapping[str, Any], head: Resources) -> Growth | None:
    """Returns what an autoscaler's configuration allows, in Ray's own format for it; None when it may add nothing."""
    groups = {
        name: ({k: float(v) for k, v in kind.get("resources", {}).items()}, int(kind.get("max_workers", 0)))
        for name, kind in config.get("available_node_types", {}).items()
        if name != config.get("head_node_type") and kind.get("max_workers", 0)
    }
    most = min(sum(count for _, count in groups.values()), config.get("max_workers", 2**31))
    return Growth(dict(head), groups, most) if most else None


def _from_file() -> dict[str, Any] | None:
    import psutil  # type: ignore[import-untyped]  # comes with Ray

    port = f":{ray.get_runtime_context().gcs_address.rpartition(':')[2]}"
    for process in psutil.process_iter(["cmdline"]):
        given = dict(word.partition("=")[::2] for word in process.info["cmdline"] or () if word.startswith("--"))
        if given.get("--gcs-address", "").endswith(port) and (path := given.get("--autoscaling-config")):
            return dict(yaml.safe_load(Path(path).expanduser().read_text()))
    return None


def _from_kubernetes() -> dict[str, Any] | None:
    os.environ.setdefault("KUBERAY_REQUEST_TIMEOUT_S", "5")  # Ray's own is 60, and who starts a trial waits for us
    return from_ray_cluster(read_ray_cluster(NAMESPACE_FILE.read_text().strip(), os.environ["RAY_CLUSTER_NAME"]))


def from_ray_cluster(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns KubeRay's RayCluster as the autoscaler reads it, None where `enableInTreeAutoscaling` is off."""
    return autoscaling_config(manifest) if manifest["spec"].get("enableInTreeAutoscaling") else None


def ask_autoscaler(bundles: Sequence[Resources], expire_s: float) -> None:
    """Says which bundles should exist in all for dipsweep; it is forgotten `expire_s` later, or 20 s after that.

    Call it on the head node: Ray's own actor that takes it comes up where it is called first, and keeps that node alive.
    """
    request_nodes(REQUESTER, bundles, expire_s)
