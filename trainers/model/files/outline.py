"""A remote model without its weights: its small files, and of each weight file the header and a sparse file of its size.

Whatever looks at a folder without loading it (`trainers.model.files.weights.check_weights`) looks at this one just the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Final

from trainers.data.sources.download_cache import Remote, cache_folder, fetched, listing, read_range
from trainers.model.files.folder import is_needed
from trainers.model.files.weights import header_length

WEIGHTS: Final = ".safetensors"


def model_outline(url: str) -> Path:
    """Returns a folder on this machine that outlines the model at an address; the same one while nothing changes there.

    Raises:
        InputError: it cannot be read.
    """
    shards = {name: remote for name, remote in listing(url).items() if name.endswith(WEIGHTS)}
    small = fetched(url, lambda name: is_needed(name) and not name.endswith(WEIGHTS))
    facts = json.dumps([small.name, {name: [f.size, f.version] for name, f in sorted(shards.items())}])
    home = cache_folder() / "outlines" / hashlib.sha256(facts.encode()).hexdigest()[:16]
    if home.is_dir():
        return home
    aside = home.with_name(f".{home.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(small, aside)
    for name, remote in shards.items():
        with open(aside / name, "wb") as out:
            out.write(_head(url, name, remote))
            out.truncate(remote.size)
    try:
        aside.rename(home)
    except OSError:  # another process was first
        shutil.rmtree(aside, ignore_errors=True)
    return home


def _head(url: str, name: str, remote: Remote) -> bytes:
    """Returns the header of a weight file with its length before it; of what is no such file, how it begins."""
    length = header_length(read_range(url, name, 0, min(8, remote.size)), remote.size)
    return read_range(url, name, 0, 8 + length if length else min(remote.size, 512))
