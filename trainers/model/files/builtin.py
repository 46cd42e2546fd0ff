"""The tiny base models that ship with dipsweep, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sweeps.errors import InputError, nearest

ASSETS: Final = Path(__file__).parents[2] / "assets"
BUILTIN: Final = ("tiny-xs", "tiny-s", "tiny-m", "tiny-r")


def builtin_folder(name: str) -> Path:
    """Returns the folder of a shipped base model: config, safetensors, tokenizer, and `training.json` on its making.

    Raises:
        InputError: no base of that name ships.
    """
    if name not in BUILTIN:
        raise InputError(
            f"model {name!r} does not ship with dipsweep{nearest(name, BUILTIN)}; "
            f"shipped: {', '.join(BUILTIN)}; any other model needs the path of its folder"
        )
    return ASSETS / name
