"""`python -m cluster.ray_internals.gcs_probe HOST:PORT`: does the Ray there ask for a token? Prints `asks` or `open`.

A program of its own, since Ray reads once in a process whether it has a token; this one has none. `ray.init` would join.
"""

from __future__ import annotations

import sys


def main(address: str) -> None:
    """Asks without a token."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        GcsClient(address=address).internal_kv_keys(b"dipsweep", None)
    except AuthenticationError:
        print("asks")
    else:
        print("open")


if __name__ == "__main__":
    main(sys.argv[1])
