"""What is one machine's own trouble says which machine of the cluster that is: others go on, and it is left alone for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import ray

from sweeps.errors import NodeTrouble
from sweeps.storage.base import storage_trouble


@contextlib.contextmanager
def naming_this_node() -> Iterator[None]:
    """Raises this machine's own trouble with its storage again with its id.

    Raises:
        NodeTrouble: there was such trouble.
    """
    try:
        yield
    except Exception as e:
        if isinstance(trouble := storage_trouble(e), NodeTrouble):
            raise trouble.on(ray.get_runtime_context().get_node_id()) from e
        raise
