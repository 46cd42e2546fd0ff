"""Requests to a cluster's autoscaler, and what it may add.

Public is `ray.autoscaler.sdk.request_resources`: one list for the whole cluster, which Ray's own coordinator actor sets
anew every 20 s from what it was told. So we are one more requester of that actor. How far the autoscaler may grow the
cluster is published nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def coordinator() -> Any:
    """Returns the actor that adds up all requests for nodes; if it is made now, then on this node.

    It has the methods `request_resources(requester_id, resources, expire_after_s)` and `cancel_request(requester_id)`.
    """
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        get_or_create_autoscaling_coordinator,
    )

    return get_or_create_autoscaling_coordinator()


def read_ray_cluster(namespace: str, name: str) -> dict[str, Any]:
    """Returns KubeRay's RayCluster object, by the service account of the pod in which this runs.

    Raises:
        OSError, ValueError: it may not be read, or not now.
    """
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    return dict(KubernetesHttpApiClient(namespace).get(f"rayclusters/{name}"))


def autoscaling_config(ray_cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a RayCluster in the format of the autoscaler's configuration."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    return dict(_derive_autoscaling_config_from_ray_cr(dict(ray_cluster)))


def request_nodes(requester: str, bundles: Sequence[Mapping[str, float]], expire_s: float) -> None:
    """Says which bundles should exist in all for a requester; an empty list withdraws the request."""
    actor = coordinator()
    if bundles:
        plain = [dict(bundle) for bundle in bundles]
        actor.request_resources.remote(requester_id=requester, resources=plain, expire_after_s=expire_s)
    else:
        actor.cancel_request.remote(requester)
