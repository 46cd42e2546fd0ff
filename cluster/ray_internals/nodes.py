"""What each node has, what of it is free, and which nodes are about to be taken away.

The public `ray.available_resources()` and `ray.cluster_resources()` add up all nodes, and nothing public says that a node
is draining; a group of workers needs to know it node by node.
"""

from __future__ import annotations

from typing import cast

from ray._private import state as _state


def available_resources_per_node() -> dict[str, dict[str, float]]:
    """Returns what is free on each node, by node id."""
    return cast(dict[str, dict[str, float]], _state.available_resources_per_node())


def total_resources_per_node() -> dict[str, dict[str, float]]:
    """Returns what each node has, busy or not, by node id."""
    return cast(dict[str, dict[str, float]], _state.total_resources_per_node())


def draining_nodes() -> frozenset[str]:
    """Returns the ids of the nodes that Ray was told will be taken away: drained, or a spot instance with notice."""
    return frozenset(_state.state.get_draining_nodes() or {})
