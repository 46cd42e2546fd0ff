"""Before anything starts on several machines: does each of them see the sweep's folder, or reach its bucket?"""

from __future__ import annotations

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.errors import InputError, StorageError, TrialFailed
from sweeps.storage_check import see

ANSWER_S = 120.0  # for a worker process to start on a busy node


def check_nodes(home: str, token: str) -> None:
    """Looks from every node of the cluster for the marker that the driver left in the sweep's folder.

    Raises:
        InputError: a node does not, or has no credentials for it; the message names the node.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    look = ray.remote(num_cpus=0, max_retries=0)(see)
    for node, ref in [(node, look.options(scheduling_strategy=_on(node)).remote(home, token)) for node in nodes]:
        try:
            ray.get(ref, timeout=ANSWER_S)
        except ray.exceptions.RayTaskError as e:
            if isinstance(e.cause, TrialFailed):
                raise InputError(f"storage: {e.cause.detail}") from None
            if isinstance(e.cause, StorageError):  # such as no credentials on that machine
                raise InputError(f"storage: on node {node['NodeManagerHostname']}: {e.cause}") from None
            raise


def _on(node: dict[str, object]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
