"""From a file to raw rows: JSON lines, a JSON array, Parquet and Arrow; each row an object, or a fault with its place.

Any bytes give rows or one clear error; nothing else is ever raised
(`tests/unit/trainers/data/sources/test_row_files.py` tries many).

    accepted       a UTF-8 byte-order mark, CRLF, empty lines, .gz .bz2 .xz .zst around JSONL
    a bad row      not UTF-8, not JSON, no object, nested too deeply, above MAX_ROW_BYTES
    an error       nothing there, UTF-16, a damaged archive, Parquet or Arrow that is none
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from sweeps.errors import InputError

MAX_ROW_BYTES: Final = 8 * 2**20
"""About two million tokens: no row that anybody trains on is longer, and a file without line breaks must not fill memory."""
JSONL: Final = (".jsonl", ".ndjson", ".json")
COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")
BOM: Final = b"\xef\xbb\xbf"
UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


class RawRow(NamedTuple):
    """One row of a file.

    Attributes:
        number: from 1; of a JSONL file its line.
        offset: of its first byte (in the unpacked file), None where rows are stored by column.
        value: the object, None for a bad row. fault: what is wrong with a bad row, else empty.
        start: how a bad row begins, for a person to look at.
    """

    number: int
    offset: int | None
    value: Mapping[str, Any] | None
    fault: str = ""
    start: str = ""


def rows(path: str | Path) -> Iterator[RawRow]:
    """Yields the rows of a local file.

    Raises:
        InputError: the file cannot be read as what its name says it is.
    """
    file = Path(path)
    suffixes = [s for s in file.suffixes[-2:] if s not in COMPRESSED]
    kind = suffixes[-1].lower() if suffixes else ""
    try:
        if kind == ".json" and _first_sign(file) == b"[":
            yield from _array(file)
        elif kind in JSONL:
            yield from _jsonl(file)
        elif kind == ".parquet":
            yield from _parquet(file)
        elif kind in (".arrow", ".feather"):
            yield from _arrow(file)
        else:
            raise InputError(
                f"{path}: cannot tell its format; known endings: {', '.join((*JSONL, '.parquet', '.arrow'))}"
            )
    except InputError:
        raise
    except (OSError, EOFError) as e:
        raise InputError(f"data file {path} cannot be read: {e or type(e).__name__}") from e
    except Exception as e:  # zlib, lzma, pyarrow: each decoder has errors of its own
        raise InputError(f"data file {path} is damaged or not what its name says: {type(e).__name__}: {e}") from e


def objects(path: str | Path) -> Iterator[Mapping[str, Any]]:
    """Yields the objects of a file in which every row must be one; `rows` is for files that may hold bad ones.

    Raises:
        InputError: the file cannot be read, or a row is no object; names the row.
    """
    for row in rows(path):
        if row.value is None:
            raise InputError(f"{path}:{row.number}: {row.fault}")
        yield row.value


def _first_sign(path: Path) -> bytes:
    """Returns the first byte of a file that is no white space."""
    import fsspec

    with fsspec.open(str(path), "rb", compression="infer") as file:
        start: bytes = file.read(4096)
        return start.removeprefix(BOM).lstrip()[:1]


class DoubledKey(ValueError):
    """One object has a key twice: which of the values is meant cannot be known."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DoubledKey(f"key {twice!r} stands twice in one object; expected each key once")
    return made


STRICT: Final = json.JSONDecoder(object_pairs_hook=_object)


def _array(path: Path) -> Iterator[RawRow]:
    """The elements of one JSON array; the file is held in memory as a whole."""
    import fsspec

    with fsspec.open(str(path), "rb", compression="infer") as file:
        try:
            text = file.read().decode("utf-8-sig")
        except UnicodeDecodeError as e:
            raise InputError(f"{path} is not UTF-8: byte {e.object[e.start]:#04x} at {e.start}") from e
    space = re.compile(r"\s*")
    at, number, closed = _behind(space, text, text.index("[") + 1), 0, False
    while not closed:
        if text[at : at + 1] == "]" and number == 0:
            break
        number += 1
        try:
            value, end = STRICT.raw_decode(text, at)
        except DoubledKey as e:
            end = json.JSONDecoder().raw_decode(text, at)[1]
            yield RawRow(number, None, None, str(e), text[at : at + 200])
        except (ValueError, RecursionError) as e:
            reason = "nested too deeply" if isinstance(e, RecursionError) else str(e)
            raise InputError(f"{path}: element {number} of its array is not JSON: {reason}") from e
        else:
            if isinstance(value, dict):
                yield RawRow(number, None, value)
            else:
                yield RawRow(number, None, None, f"expected a JSON object, not {_kind(value)}", text[at : at + 200])
        at = _behind(space, text, end)
        closed = text[at : at + 1] == "]"
        if not closed and text[at : at + 1] != ",":
            raise InputError(f"{path}: got {text[at : at + 20]!r} after element {number} of its array; expected , or ]")
        at = _behind(space, text, at + 1)


def _behind(space: re.Pattern[str], text: str, at: int) -> int:
    found = space.match(text, at)
    return found.end() if found else at


def _jsonl(path: Path) -> Iterator[RawRow]:
    import fsspec

    with fsspec.open(str(path), "rb", compression="infer") as file:
        number, offset = 0, 0
        while line := file.readline(MAX_ROW_BYTES + 1):
            number, start, whole = number + 1, offset, len(line)
            offset += whole
            if number == 1 and line.startswith(UTF16):
                raise InputError(f"{path} is UTF-16; JSONL is UTF-8: convert it first")
            if whole > MAX_ROW_BYTES:
                offset += _skip_line(file, line)
                size = f"longer than {MAX_ROW_BYTES:,} bytes"
                yield RawRow(number, start, None, f"{size}; a row is one conversation", _start(line))
            elif line.strip(b" \t\r\n" + (BOM if number == 1 else b"")):
                yield _parsed(number, start, line.removeprefix(BOM) if number == 1 else line)


def _skip_line(file: Any, line: bytes) -> int:
    """Reads to the end of a line that is too long to be kept; returns the bytes skipped."""
    skipped = 0
    while not line.endswith(b"\n") and (line := file.readline(MAX_ROW_BYTES)):
        skipped += len(line)
    return skipped


def _parsed(number: int, offset: int, line: bytes) -> RawRow:
    try:
        value = STRICT.decode(line.decode("utf-8"))
    except UnicodeDecodeError as e:
        return RawRow(number, offset, None, f"not UTF-8: byte {line[e.start]:#04x} at {offset + e.start}", _start(line))
    except RecursionError:
        return RawRow(number, offset, None, "not JSON: nested too deeply", _start(line))
    except DoubledKey as e:
        return RawRow(number, offset, None, str(e), _start(line))
    except ValueError as e:
        return RawRow(number, offset, None, f"not JSON: {e}; expected one object a line", _start(line))
    if not isinstance(value, dict):
        return RawRow(number, offset, None, f"expected a JSON object, not {_kind(value)}", _start(line))
    return RawRow(number, offset, value)


def _kind(value: Any) -> str:
    words = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return words.get(type(value), "null")


def _start(line: bytes) -> str:
    return line[:200].decode("utf-8", "backslashreplace").rstrip("\r\n")


def _parquet(path: Path) -> Iterator[RawRow]:
    parquet = _pyarrow("parquet", path)
    with open(path, "rb") as file:
        yield from _batches(parquet.ParquetFile(file).iter_batches(batch_size=256))


def _arrow(path: Path) -> Iterator[RawRow]:
    ipc = _pyarrow("ipc", path)
    with open(path, "rb") as file:
        whole_file = file.read(6) == b"ARROW1"  # else a stream, as Hugging Face datasets writes them
        file.seek(0)
        if whole_file:
            reader = ipc.open_file(file)
            yield from _batches(reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            yield from _batches(ipc.open_stream(file))


def _pyarrow(module: str, path: Path) -> Any:
    from importlib import import_module

    try:
        return import_module(f"pyarrow.{module}")
    except ImportError:
        raise InputError(f"{path} needs pyarrow, which is not installed; pip install pyarrow, or give JSONL") from None


def _batches(batches: Any) -> Iterator[RawRow]:
    number = 0
    for batch in batches:
        names = batch.schema.names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"column {twice!r} stands twice in it; expected each column once")
        for value in batch.to_pylist():
            number += 1
            yield RawRow(number, None, _without_none(value))


def _without_none(value: Any) -> Any:
    """Leaves out keys of no value: Arrow gives every struct the keys of all. In JSON a null is one that somebody wrote."""
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value
