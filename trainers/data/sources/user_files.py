"""A user's own conversations: JSONL, Parquet or Arrow, checked row by row before anything trains on them.

A row that cannot be used is bad, whatever the reason. Bad rows are counted and written to a quarantine file with number,
byte offset and reason; if they are more than the tier's `max_bad_rows`, nothing trains.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sweeps.config.trial import TierSource
from sweeps.errors import InputError, nearest
from trainers.data.sources.download_cache import cache_folder, fetched, is_remote, listing
from trainers.data.sources.messages import COLUMNS, ends_in_thought, other_thought_tags, parse_row, short
from trainers.data.sources.row_files import rows
from trainers.data.types import Conversation, TierData

log = logging.getLogger(__name__)
_SHOWN_FAULTS: Final = 20
CHECKED_BYTES: Final = 256 * 2**20
"""What `dipsweep validate` reads of a file in a few seconds."""
_MANY_FAULTS: Final = 10_000
"""After so many, and more than are allowed so far, nobody reads on."""


class BadRow(NamedTuple):
    """A row that cannot be used: its number from 1, its byte offset (None in Parquet and Arrow), why, how it begins."""

    number: int
    offset: int | None
    reason: str
    start: str

    def at(self, path: str) -> str:
        """Returns `ours.jsonl:12: reason (byte 4711)`."""
        return f"{path}:{self.number}: {self.reason}" + ("" if self.offset is None else f" (byte {self.offset})")


def read(source: TierSource) -> TierData:
    """Reads a tier: one conversation a row, as `trainers.data.sources.messages` understands rows.

    `source.columns` says what columns are called in the file; `replay`, optional, is true for rows that belong to the
    replay pool instead.

    Raises:
        InputError: the file cannot be opened, holds nothing to train on, or more rows are bad than the tier allows; names
            the first of them and the file where all are.
    """
    unknown = sorted(set(source.columns) - set(COLUMNS))
    if unknown:
        known = ", ".join(COLUMNS)
        raise InputError(f"columns: {unknown[0]!r} is unknown{nearest(unknown[0], COLUMNS)}; known: {known}")
    if twice := [name for name, count in Counter(source.columns.values()).items() if count > 1]:
        raise InputError(f"columns: {twice[0]!r} stands for two of them; expected another column of the file for each")
    pools: dict[bool, list[tuple[int, Conversation]]] = {False: [], True: []}
    bad: list[BadRow] = []
    forms, unused, tags = Counter[str](), Counter[str](), Counter[str]()
    unanswered = 0
    for row in rows(fetched(source.path)):
        try:
            if row.value is None:
                raise ValueError(row.fault)
            parsed = parse_row(row.value, source.columns)
        except RecursionError:
            bad.append(BadRow(row.number, row.offset, "nested too deeply", row.start))
        except ValueError as fault:
            bad.append(BadRow(row.number, row.offset, str(fault), row.start or short(row.value, 200)))
            if len(bad) >= _MANY_FAULTS and len(bad) > source.max_bad_rows * row.number:
                break
        else:
            pools[parsed.replay].append((row.number, parsed.conversation))
            forms[parsed.form] += 1
            unused.update(parsed.unused)
            tags.update(other_thought_tags(parsed.conversation))
            unanswered += ends_in_thought(parsed.conversation)
    primary, replay = pools[False], pools[True]
    _judge(source, bad, len(primary) + len(replay))
    if not primary:
        raise InputError(f"{source.path}: no conversation to train on; expected one JSON object a line")
    notes = list(_understood(forms, unused, tags, len(primary) + len(replay), bool(replay)))
    if unanswered:
        notes.append(
            f"{unanswered} of {len(primary) + len(replay)} rows have a reply that is a thought without an answer, as where it "
            "was cut off; they teach to end there"
        )
    return TierData(
        [c for _, c in primary],
        [c for _, c in replay],
        len(bad),
        source,
        [n for n, _ in primary],
        [n for n, _ in replay],
        tuple(notes),
    )


def _understood(
    forms: Counter[str], unused: Counter[str], tags: Counter[str], total: int, replay: bool
) -> Iterator[str]:
    """Yields how the rows were read, and what of them was not used."""
    kinds = "; ".join(form if count == total else f"{form} ({count})" for form, count in forms.most_common())
    yield f"{total} rows read as {kinds}" + (", some of them replay" if replay else "")
    if unused:
        keys = ", ".join(f"{key} ({count} of {total})" for key, count in unused.most_common(12))
        yield f"not used, since nothing here is trained by it: {keys}"
    for tag, count in tags.most_common():
        yield (
            f"{count} of {total} rows hold {tag}, which is learnt as it stands; only <think> … </think> and "
            "reasoning_content count as a thought"
        )


def check_data(source: TierSource) -> TierData | None:
    """Says before anything starts whether a tier's file can be used, and returns what it holds where it was read.

    A file on this machine of up to CHECKED_BYTES is read as a whole; of others only the existence is known now.

    Raises:
        InputError: as `read`.
    """
    if is_remote(source.path):
        listing(source.path)
        return None
    path = Path(source.path).expanduser()
    if not path.is_file():
        raise InputError(f"no file {path}; give a JSONL, Parquet or Arrow file of conversations")
    return read(source) if path.stat().st_size <= CHECKED_BYTES else None


def _judge(source: TierSource, bad: list[BadRow], good: int) -> None:
    """Writes bad rows to the quarantine; raises when they are more than the tier allows."""
    if not bad:
        return
    place, total = _quarantine(source.path, bad), len(bad) + good
    share = len(bad) / total
    summary = f"{source.path}: {len(bad)} of {total} rows are bad ({share:.2%}); all of them: {place}"
    if share <= source.max_bad_rows:
        log.warning("%s", summary)
        return
    lines = [row.at(source.path) for row in bad[:_SHOWN_FAULTS]]
    if len(bad) > _SHOWN_FAULTS:
        kinds = Counter(row.reason.split(":")[0].split(";")[0] for row in bad).most_common(3)
        lines.append(
            f"and {len(bad) - _SHOWN_FAULTS} more faulty rows; most often: {'; '.join(f'{k} ({n})' for k, n in kinds)}"
        )
    raise InputError("\n".join([*lines, f"{summary}; allowed by max_bad_rows: {source.max_bad_rows:.2%}"]))


def _quarantine(path: str, bad: Iterable[BadRow]) -> str:
    """Writes one JSON object a bad row and returns where; the file of the same data is always the same file."""
    name = f"{Path(path).stem}-{hashlib.sha256(path.encode()).hexdigest()[:8]}.jsonl"
    file = cache_folder() / "bad_rows" / name
    aside = file.with_name(f".{name}.{os.getpid()}")
    keys = ("row", "offset", "reason", "start")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in bad), encoding="utf-8")
        aside.replace(file)
    except OSError as e:  # what is wrong with the data matters more
        return f"not written down ({e})"
    return str(file)
