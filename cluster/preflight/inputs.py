"""What a sweep is trained from, by content: digests of data files, weights, tokenizers and templates.

They are written down when a sweep first runs and compared whenever it goes on, before anything runs: trials that were
trained on other rows or from other weights must not be ranked with the first ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from evaluators.tasks import code_of
from sweeps.checkpoints.manifest import sha256
from sweeps.config.names import TEMPLATES
from sweeps.config.schema import Sweep
from sweeps.errors import InputError
from sweeps.plugins import TRAINERS
from sweeps.storage.base import Store, join
from trainers.data.chat.template import TEMPLATE_DATE
from trainers.data.chat.training_templates import named_template
from trainers.data.sources.download_cache import cache_folder, is_remote, listing
from trainers.model.files.folder import is_needed

log = logging.getLogger(__name__)
FILE: Final = "inputs.json"
"""Its place in a sweep's folder."""


def check_inputs(sweep: Sweep, home: Store) -> None:
    """Compares a sweep's inputs with those that it began with; of a sweep that begins, writes them down.

    Raises:
        InputError: some are others now; names them. No trial has been touched. Or what was written down is damaged.
    """
    before = _written_down(home)
    now = {"template date": TEMPLATE_DATE.isoformat(), **dict(input_digests(sweep))}
    if changed := sorted(name for name in now if name in before and before[name] != now[name]):
        raise InputError(
            "\n".join(
                f"{name} is not what this sweep began with (got {now[name]}; expected {before[name]})"
                for name in changed
            )
            + f"\n{home.name}: nothing was started; restore what was changed, or give the sweep another name to begin anew"
        )
    if before != (merged := {**before, **now}):
        home.write(FILE, (json.dumps(merged, indent=1) + "\n").encode())


def _written_down(home: Store) -> dict[str, str]:
    if not home.exists(FILE):
        return {}
    try:
        found = json.loads(home.read(FILE))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"{join(home.root, FILE)} is damaged: it said which data and weights the sweep began with; restore it from a copy, "
            "or remove it if they are still the same"
        )
    return found


def input_digests(sweep: Sweep) -> Iterator[tuple[str, str]]:
    """Yields name and digest of every input that is the user's own and can be found from here."""
    for name in map(str, sweep.axis_values("model", sweep.default_model)):
        model = sweep.model_source(name)
        for key, path in ((f"models.{name}", model.path), (f"models.{name}.chat_template", model.chat_template)):
            if path and path != "builtin" and (digest := _digest_of_template(path) or _digest(path)):
                yield f"{key} ({path})", digest
    for name in map(str, sweep.axis_values("data", sweep.default_tier)):
        path = sweep.tier_source(name).path
        if path != "builtin" and (digest := _digest(path)):
            yield f"tiers.{name} ({path})", digest
    if (plugin := TRAINERS.find(sweep.trainer.loop)) is not None:
        yield (
            f"trainer {plugin.name} ({plugin.entry.value})",
            f"{plugin.package}, code {code_of(plugin.entry.module)[:8]}",
        )


def _digest_of_template(name: str) -> str:
    """Returns 16 hex digits of a template that ships; "" where the name is none of those."""
    if name not in TEMPLATES:
        return ""
    return hashlib.sha256(named_template(name, " ").encode()).hexdigest()[:16]


def _digest(path: str) -> str:
    """Returns 16 hex digits that change with any byte of a file, or of a folder's files; empty where nothing is."""
    digest = hashlib.sha256()
    if is_remote(path):
        for name, remote in listing(path).items():
            digest.update(f"{name}\0{remote.size}\0{remote.version}\n".encode())
        return digest.hexdigest()[:16]
    place = Path(path).expanduser()
    if place.is_file():
        return _file_digest(place)[:16]
    if not place.is_dir():
        return ""
    for file in sorted(file for file in place.iterdir() if file.is_file() and is_needed(file.name)):
        digest.update(f"{file.name}\0{_file_digest(file)}\n".encode())
    return digest.hexdigest()[:16]


def _file_digest(file: Path) -> str:
    """Returns the SHA-256 of a file; one that is as it was (path, size, times, inode) is not read again."""
    state = file.stat()
    facts = f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\0{state.st_ino}"
    known = cache_folder() / "digests" / hashlib.sha256(facts.encode()).hexdigest()[:32]
    try:
        if len(text := known.read_text()) == 64:
            return text
    except (OSError, UnicodeDecodeError):
        pass
    found = sha256(file)
    aside = known.with_name(f".{known.name}.{os.getpid()}")
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(found)
        aside.replace(known)
    except OSError as e:
        log.debug("a digest was not cached: %s", e)
    return found
