"""Tokenised pools on disk, so that the trials of a sweep tokenise each tier once.

A file's name is the fingerprint of everything it follows from: conversations, tokenizer, chat template, length limit
and policy. Files appear whole (written aside, then renamed), so trials may share the folder without a lock: two that
miss at once write the same bytes twice. A cache that cannot be written, or read, or has changed on the disk is only slow,
never wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sweeps.config.blocks import LongRows
from trainers.data.chat.rows import Rows
from trainers.data.chat.template import TEMPLATE_DATE
from trainers.data.chat.tokenization import Refused, Tokenised, tokenise
from trainers.data.sources.download_cache import cache_folder
from trainers.data.types import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
KEPT_FILES: Final = 64
FORMAT: Final = "rows-6"
"""Part of every fingerprint; to be raised when rendering or tokenising changes."""
CHECKSUM: Final = "sha256"
"""Name of the array that holds the digest of all others."""


def tokenised(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], limit: int, long_rows: LongRows
) -> Tokenised:
    """Does what `chat.tokenise` does, or finds it done. Arguments and errors are the same."""
    if not conversations:
        return tokenise(tokenizer, (), limit, long_rows)
    file = cache_folder() / "rows" / f"{_fingerprint(tokenizer, conversations, limit, long_rows)}.safetensors"
    if (found := _read(file)) is not None:
        return found
    made = tokenise(tokenizer, conversations, limit, long_rows)
    try:
        _write(file, made)
    except (OSError, SafetensorError) as e:
        log.warning("tokenised rows were not cached: %s", e)
    return made


def _fingerprint(tokenizer: Any, conversations: Sequence[Conversation], limit: int, long_rows: LongRows) -> str:
    import transformers

    digest = hashlib.sha256()
    template = [tokenizer.chat_template, TEMPLATE_DATE.isoformat(), transformers.__version__]
    settings = [FORMAT, limit, long_rows, tokenizer.eos_token_id, tokenizer.bos_token, template]
    digest.update(json.dumps(settings).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    for conversation in conversations:
        digest.update(json.dumps(conversation).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:32]


def _read(file: Path) -> Tokenised | None:
    try:
        arrays = load_file(file)
        if arrays.pop(CHECKSUM).tobytes() != _checksum(arrays):
            raise ValueError("its checksum does not fit: it has changed since it was written")
        with contextlib.suppress(OSError):  # the oldest files go first; one in use is young
            os.utime(file)
        rows = Rows(arrays["ids"], arrays["learn"], arrays["starts"])
        cut, dropped = arrays["counts"].tolist()
        refused = tuple(Refused(*pair) for pair in json.loads(arrays["refused"].tobytes()))
        found = Tokenised(rows, cut, dropped, refused, arrays["lengths"], arrays["origins"], arrays["kept"])
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as e:
        log.warning("cached rows %s cannot be read and are made again: %s", file, e)
        return None
    return found


def _checksum(arrays: Mapping[str, np.ndarray]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.digest()


def _write(file: Path, made: Tokenised) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    waiting = file.with_name(f".{file.name}.{os.getpid()}")
    counts = np.array([made.cut, made.dropped], dtype=np.int64)
    arrays = {"ids": made.rows.flat_ids, "learn": made.rows.flat_learn, "starts": made.rows.starts, "counts": counts,
              "lengths": made.lengths, "origins": made.origins, "kept": made.kept,
              "refused": np.frombuffer(json.dumps(made.refused).encode(), dtype=np.uint8)}  # fmt: skip
    try:
        save_file({**arrays, CHECKSUM: np.frombuffer(_checksum(arrays), dtype=np.uint8)}, waiting)
        os.replace(waiting, file)
    finally:
        waiting.unlink(missing_ok=True)
    by_age = sorted(file.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)
    for old in by_age[:-KEPT_FILES]:
        old.unlink(missing_ok=True)
