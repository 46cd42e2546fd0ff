"""Users' notes and tags on a sweep, each a row in an object of its own, next to the log.

    notes/01764444444000000000-1a2b3c4d.jsonl     one row of kind `note`

The log has one writer, the driver. A note has to be taken while no driver runs, on any machine, and also years after the
end, so it is a log of one row by whoever wrote it: created once, never changed. Versions that know no notes do not look here.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from sweeps.errors import InputError, StorageError, StorageUnavailable
from sweeps.journal.codec import decode
from sweeps.journal.lines import sealed, unsealed
from sweeps.journal.rows import NoteRow
from sweeps.storage.base import Where
from sweeps.storage.factory import open_store

FOLDER: Final = "notes"
MOST_CHARACTERS: Final = 4000
TAG: Final = re.compile(r"\w[\w.:/+-]{0,39}")


def write_note(
    home: Where, *, who: str, trial: str = "", text: str = "", tags: Mapping[str, bool] | None = None
) -> NoteRow:
    """Writes a note on a sweep, or on one of its trials, and returns its row.

    Args:
        who: the person's name. trial: a trial's id, which the caller has checked; empty means the sweep.
        text: what to say. tags: True for one that is set, False for one that is taken away.

    Raises:
        InputError: nothing to write, a text that is too long, or what can be no tag.
    """
    text, tags = text.strip(), dict(tags or {})
    if not text and not tags:
        raise InputError("got an empty note; expected a text, such as 'the rate was too high'")
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"got a note of {len(text):,} characters; expected at most {MOST_CHARACTERS:,}")
    for tag in tags:
        if not TAG.fullmatch(tag):
            raise InputError(
                f"got tag {tag!r}; expected a word of at most 40 letters, digits, '_', '.', ':', '/', '+', '-'"
            )
    store = open_store(home)
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    row = NoteRow(store.name, trial, who=who, when=when, text=text, tags=tags)
    store.create(f"{FOLDER}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl", sealed(row.line()))
    return row


class NoteReader:
    """The notes of a sweep, read again and again; each call reads only those that are new."""

    def __init__(self, home: Where) -> None:
        self.store = open_store(home)
        self._known: dict[str, NoteRow] = {}

    def rows(self) -> list[NoteRow]:
        """Returns all notes, oldest first. A damaged one is replaced by a note that says so."""
        keys = [entry.key for entry in self.store.list(FOLDER) if entry.key.endswith(".jsonl")]
        for key in keys:
            if key not in self._known:
                self._known[key] = self._read(key)
        return [self._known[key] for key in keys]

    def _read(self, key: str) -> NoteRow:
        try:
            row = decode(unsealed(self.store.read(key).rstrip(b"\n")))
        except StorageUnavailable:
            raise
        except StorageError as e:
            return NoteRow(self.store.name, text=f"({key} cannot be read: {e})")
        if isinstance(row, NoteRow):
            return row
        return NoteRow(self.store.name, text=f"({key} cannot be read: got a row of kind {row.kind}; expected note)")


def read_notes(home: Where) -> list[NoteRow]:
    """Returns all notes of a sweep, oldest first."""
    return NoteReader(home).rows()


def tags_of(notes: Iterable[NoteRow], trial: str = "") -> tuple[str, ...]:
    """Returns the tags that a trial has, or the sweep itself, in the order in which they were set."""
    found: dict[str, None] = {}
    for note in notes:
        if note.trial != trial:
            continue
        for tag, is_set in note.tags.items():
            if is_set:
                found.setdefault(tag)
            else:
                found.pop(tag, None)
    return tuple(found)
