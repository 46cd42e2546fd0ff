"""Scores kept by what decides them: the checkpoint's bytes, the suite's version, how replies were generated.

The base model is scored once, not once a trial; a resumed sweep scores nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evaluators.scores import Scores
from sweeps.config.trial import KeepReplies
from sweeps.errors import StorageError
from sweeps.journal.lines import sealed, unsealed
from sweeps.storage.base import Where
from sweeps.storage.factory import open_store

log = logging.getLogger(__name__)


class ScoreCache:
    """Scores in a folder or a bucket, one small JSON file each; any number of processes may share it.

    A file is whole or absent; one that cannot be read, or has changed since it was written, counts as absent.
    """

    def __init__(self, where: Where) -> None:
        self.store = open_store(where)

    def get(self, digest: str, suite: str, settings: Mapping[str, Any]) -> Scores | None:
        """Returns the scores of a checkpoint on a suite's version under these generation settings, if known."""
        try:
            line = self.store.read(_key(digest, suite, settings)).rstrip(b"\n")
            return Scores(**json.loads(unsealed(line)))
        except (StorageError, ValueError, TypeError, RecursionError):  # damaged: it is scored again
            return None

    def put(self, digest: str, suite: str, settings: Mapping[str, Any], scores: Scores) -> None:
        """Writes scores down; the last writer wins, and all writers write the same.

        A cache that cannot be written, such as one of another user, is said and costs nothing but scoring again: the scores are
        the sweep's by then.
        """
        text = json.dumps(asdict(scores), allow_nan=False, default=dict)
        self._write(_key(digest, suite, settings), sealed(text))

    def replies(self, digest: str, suite: str, settings: Mapping[str, Any], mode: KeepReplies) -> bytes | None:
        """Returns the replies behind cached scores, where they were kept in this mode."""
        try:
            return self.store.read(_key(digest, suite, settings, f".{mode}.jsonl.gz"))
        except StorageError:
            return None

    def put_replies(self, digest: str, suite: str, settings: Mapping[str, Any], mode: KeepReplies, data: bytes) -> None:
        """Keeps the replies behind scores."""
        self._write(_key(digest, suite, settings, f".{mode}.jsonl.gz"), data)

    def _write(self, key: str, data: bytes) -> None:
        try:
            self.store.write(key, data)
        except StorageError as e:
            log.warning("not cached: %s", e)


def _key(digest: str, suite: str, settings: Mapping[str, Any], ending: str = ".json") -> str:
    key = hashlib.sha256(json.dumps([digest, suite, dict(settings)], sort_keys=True).encode()).hexdigest()
    return f"{key[:2]}/{key}{ending}"
