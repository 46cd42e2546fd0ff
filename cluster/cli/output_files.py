"""Files that a command is asked to write: whether they can be, said before the work that fills them."""

from __future__ import annotations

import os
from pathlib import Path

from sweeps.errors import InputError


def check_output(path: Path) -> None:
    """Checks that a file can be written, so that no work is done for one that cannot.

    Raises:
        InputError: its folder does not exist, it is a folder itself, or it may not be written.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path}: no folder {path.parent} to write it to")
    if path.is_dir():
        raise InputError(f"{path}: got a folder; expected a file, new or to be replaced")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"{path}: may not be written by this user")
