"""What a trial is made from, by content: digests of data files, weights, tokenizers and chat templates."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from sweeps.config.names import TEMPLATES
from sweeps.config.trial import ModelSource, TierSource
from trainers.data.chat.training_templates import named_template
from trainers.data.sources.download_cache import file_digest, is_remote, listing
from trainers.model.files.folder import is_needed


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
        return file_digest(place)[:16]
    if not place.is_dir():
        return ""
    for file in sorted(file for file in place.iterdir() if file.is_file() and is_needed(file.name)):
        digest.update(f"{file.name}\0{file_digest(file)}\n".encode())
    return digest.hexdigest()[:16]


def _digest_of_remote(path: str, patience_s: float, wanted: Callable[[str], bool] = lambda name: True) -> str:
    digest = hashlib.sha256()
    for name, remote in listing(path, patience_s).items():
        if wanted(name):
            digest.update(f"{name}\0{remote.size}\0{remote.version}\n".encode())
    return digest.hexdigest()[:16]
