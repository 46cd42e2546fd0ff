"""The identity of a model folder: a digest of all that can change its replies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sweeps.checkpoints.manifest import MANIFEST, STATE, sha256

_DECIDE: Final = ("*.safetensors", "*.json", "*.jinja", "*.model", "vocab*", "merges*")
"""Files of a model folder that can change its replies, weights by whatever name the index calls them."""
_IGNORED: Final = frozenset({"training.json", MANIFEST, "trainer.json", STATE})


def folder_digest(folder: Path, known: Mapping[str, str] | None = None) -> str:
    """Returns the sha256 of a model folder's weights, configuration and tokenizer: the same at any path.

    Args:
        known: digests of files that were just read, by name; they are not read again.
    """
    known = known or {}
    total = hashlib.sha256()
    names = {path.name for pattern in _DECIDE for path in folder.glob(pattern)} - _IGNORED
    for name in sorted(names):
        total.update(f"{name}\0{known.get(name) or sha256(folder / name)}\n".encode())
    return total.hexdigest()
