"""A user's own conversations: JSONL or Parquet, checked line by line before anything trains on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sweeps.errors import InputError, nearest
from sweeps.trial import TierSource
from trainers.data import Conversation, TierData

COLUMNS: Final = ("messages", "prompt", "response", "replay")
_ROLES: Final = ("system", "user", "assistant")
_SHOWN_FAULTS: Final = 20


def read(source: TierSource) -> TierData:
    """Reads a tier: one conversation a row.

    Columns (`source.columns` says what they are called in the file): `messages`, a list of `{"role", "content"}`, or
    `prompt` and `response`, two texts; `replay`, optional, true for rows that belong to the replay pool instead.

    Raises:
        InputError: the file cannot be opened, holds nothing to train on, or rows are faulty; names each faulty row.
    """
    unknown = sorted(set(source.columns) - set(COLUMNS))
    if unknown:
        known = ", ".join(COLUMNS)
        raise InputError(f"columns: {unknown[0]!r} is unknown{nearest(unknown[0], COLUMNS)}; known: {known}")
    primary: list[Conversation] = []
    replay: list[Conversation] = []
    faults: list[str] = []
    for line, row in _rows(source.path):
        try:
            pool = replay if row.get(source.columns.get("replay", "replay")) else primary
            pool.append(conversation(row, source.columns))
        except ValueError as fault:
            faults.append(f"{source.path}:{line}: {fault}")
    if faults:
        more = len(faults) - _SHOWN_FAULTS
        raise InputError("\n".join(faults[:_SHOWN_FAULTS]) + (f"\nand {more} more faulty rows" if more > 0 else ""))
    if not primary:
        raise InputError(f"{source.path}: no conversation to train on; expected one JSON object a line")
    return TierData(primary, replay)


def conversation(row: Mapping[str, Any], columns: Mapping[str, str]) -> Conversation:
    """Builds one conversation from a row.

    Raises:
        ValueError: says what the row holds and what would do.
    """
    named = {name: columns.get(name, name) for name in COLUMNS}
    if named["messages"] in row:
        return _checked(row[named["messages"]])
    if named["prompt"] in row and named["response"] in row:
        pair = (("user", row[named["prompt"]]), ("assistant", row[named["response"]]))
        return _checked([{"role": role, "content": content} for role, content in pair])
    raise ValueError(
        f"neither {named['messages']!r} nor {named['prompt']!r} and {named['response']!r} among its columns "
        f"({', '.join(map(str, row)) or 'none'}); name yours under `columns`"
    )


def _checked(messages: Any) -> Conversation:
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"messages must be a list with at least one message, not {_short(messages)}")
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ValueError(f"message {place} must be an object with role and content, not {_short(message)}")
        if message.get("role") not in _ROLES:
            raise ValueError(f"message {place}: role {message.get('role')!r} is unknown; known: {', '.join(_ROLES)}")
        if not isinstance(message.get("content"), str):
            raise ValueError(f"message {place}: content must be text, not {_short(message.get('content'))}")
    if not any(message["role"] == "assistant" and message["content"] for message in messages):
        raise ValueError("no assistant message with content: nothing to learn from this row")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields (line or row number from 1, row)."""
    import fsspec

    try:
        with fsspec.open(path, "rb", compression="infer") as file:
            yield from _parquet(file) if path.endswith(".parquet") else _jsonl(path, file)
    except OSError as error:
        raise InputError(f"data tier file {path!r} cannot be read: {error}") from error


def _jsonl(path: str, file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path}:{line}: not JSON: {error}; expected one object a line") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}:{line}: expected a JSON object, not {_short(row)}")
        yield line, row


def _parquet(file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    from pyarrow import parquet

    yield from enumerate(parquet.read_table(file).to_pylist(), start=1)
