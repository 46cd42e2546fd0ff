"""Before anything starts on several machines: does each of them see the sweep's folder, or reach its bucket?"""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.ray_internals.nodes import draining_nodes
from sweeps.errors import DipsweepError, InputError, StorageError
from sweeps.storage.probe import verify_marker

ANSWER_S = 120.0  # for a worker process to start on a busy node


def check_nodes(home: str, token: str) -> None:
    """Looks from every node of the cluster for the marker that the driver left in the sweep's folder.

    A node that is removed during the check is skipped: nothing will run there.

    Raises:
        InputError: a node does not see it, or has no credentials for it; the message names the node.
        DipsweepError: a node does not answer.
    """
    nodes = _schedulable_nodes()
    if len(nodes) < 2:
        return
    # Once more: a worker that died may be the first word of its node's death.
    look = ray.remote(num_cpus=0, max_retries=1)(verify_marker)
    for node, ref in [(node, look.options(scheduling_strategy=_on(node)).remote(home, token)) for node in nodes]:
        _check_answer(str(node["NodeID"]), str(node["NodeManagerHostname"]), ref)


def _check_answer(node: str, host: str, ref: Any) -> None:
    try:
        ray.get(ref, timeout=ANSWER_S)
    except ray.exceptions.RayTaskError as e:
        if isinstance(e.cause, StorageError):  # not mounted there, or no credentials
            raise InputError(f"storage: on node {host}: {e.cause}") from None
        raise
    except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
        return
    except ray.exceptions.RayError as e:
        if node not in {other["NodeID"] for other in _schedulable_nodes()}:
            return
        late = isinstance(e, ray.exceptions.GetTimeoutError)
        what = f"did not answer within {ANSWER_S:.0f} s" if late else f"cannot run the check ({_first_line(e)})"
        raise DipsweepError(
            f"node {host} {what}, so it is unknown whether it sees the storage; check it with dipsweep doctor --address, "
            "or remove it (ray drain-node), and run this again"
        ) from None


def _schedulable_nodes() -> list[dict[str, Any]]:
    """Returns the live nodes that are not draining: a worker that is to start on a draining node waits for ever."""
    leaving = draining_nodes()
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]


def _first_line(e: Exception) -> str:
    return next(iter(str(e).strip().splitlines()), type(e).__name__)


def _on(node: dict[str, object]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
