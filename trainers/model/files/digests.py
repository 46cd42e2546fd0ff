"""What a trial is made from, by content: digests of data files, weights, tokenizers and chat templates."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sweeps.checkpoints.manifest import sha256
from sweeps.config.names import TEMPLATES
from sweeps.config.trial import ModelSource, TierSource
from trainers.data.chat.training_templates import named_template
from trainers.data.sources.download_cache import cache_folder, is_remote, listing
from trainers.model.files.folder import is_needed

log = logging.getLogger(__name__)
_READ: Final[dict[str, str]] = {}
"""Digests of files that this process has read, by what `_file_digest` knows them again by."""


def model_digests(name: str, source: ModelSource, patience_s: float = 0.0) -> Iterator[tuple[str, str]]:
    """Yields what a model's own files are called and their digest; "" for what is not on this machine.

    Args:
        patience_s: for how long to wait for a bucket that does not answer.
    """
    path, template = source.path, source.chat_template
    if is_remote(path):
        yield f"models.{name} (what is fetched of {path})", _digest_of_remote(path, patience_s, is_needed)
    elif path != "builtin":
        yield f"models.{name} ({path})", _digest(path, patience_s)
    if template:
        yield (
            f"models.{name}.chat_template ({template})",
            _digest_of_template(template) or _digest(template, patience_s),
        )


def tier_digests(name: str, source: TierSource, patience_s: float = 0.0) -> Iterator[tuple[str, str]]:
    """Yields what a tier's own file is called and its digest, likewise."""
    if source.path != "builtin":
        yield f"tiers.{name} ({source.path})", _digest(source.path, patience_s)


def _digest_of_template(name: str) -> str:
    """Returns 16 hex digits of a template that ships; "" where the name is none of those."""
    if name not in TEMPLATES:
        return ""
    return hashlib.sha256(named_template(name, " ").encode()).hexdigest()[:16]


def _digest(path: str, patience_s: float) -> str:
    """Returns 16 hex digits that change with any byte of a file, or of a folder's files; empty where nothing is."""
    if is_remote(path):
        return _digest_of_remote(path, patience_s)
    digest, place = hashlib.sha256(), Path(path).expanduser()
    if place.is_file():
        return _file_digest(place)[:16]
    if not place.is_dir():
        return ""
    for file in sorted(file for file in place.iterdir() if file.is_file() and is_needed(file.name)):
        digest.update(f"{file.name}\0{_file_digest(file)}\n".encode())
    return digest.hexdigest()[:16]


def _digest_of_remote(path: str, patience_s: float, wanted: Callable[[str], bool] = lambda name: True) -> str:
    digest = hashlib.sha256()
    for name, remote in listing(path, patience_s).items():
        if wanted(name):
            digest.update(f"{name}\0{remote.size}\0{remote.version}\n".encode())
    return digest.hexdigest()[:16]


def _file_digest(file: Path) -> str:
    """Returns the SHA-256 of a file; one that is as it was (path, size, times, inode) is not read again."""
    if not os.access(file, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    state = file.stat()
    facts = f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\0{state.st_ino}"
    key = hashlib.sha256(facts.encode()).hexdigest()[:32]
    if key in _READ:
        return _READ[key]
    known = cache_folder() / "digests" / key
    try:
        if len(text := known.read_text()) == 64:
            return _READ.setdefault(key, text)
    except (OSError, UnicodeDecodeError):
        pass
    found = _READ[key] = sha256(file)
    aside = known.with_name(f".{known.name}.{os.getpid()}")
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(found)
        aside.replace(known)
    except OSError as e:
        log.debug("a digest was not cached: %s", e)
    return found
