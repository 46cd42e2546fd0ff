"""From a file to raw rows: JSONL, Parquet and Arrow, one row at a time, each either an object or a fault with its place.

Any bytes give rows or one clear error; nothing else is ever raised (`tests/unit/trainers/data/test_row_files.py` tries many).

    accepted       a UTF-8 byte-order mark, CRLF, empty lines, .gz .bz2 .xz .zst around JSONL
    a bad row      not UTF-8, not JSON, no object, nested too deeply, above MAX_ROW_BYTES
    an error       nothing there, UTF-16, a damaged archive, Parquet or Arrow that is none
"""

from __future__ import annotations

import json
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
        if kind in JSONL:
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
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as e:
        return RawRow(number, offset, None, f"not UTF-8: byte {line[e.start]:#04x} at {offset + e.start}", _start(line))
    except RecursionError:
        return RawRow(number, offset, None, "not JSON: nested too deeply", _start(line))
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
        for value in batch.to_pylist():
            number += 1
            yield RawRow(number, None, value)
