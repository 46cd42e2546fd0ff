"""The rows of a benchmark's own file: all of them, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.errors import InputError
from trainers.data.sources import row_files


def benchmark_rows(file: Path) -> dict[int, Mapping[str, Any]]:
    """Returns a file's rows by their number from 1 (of JSON lines the line).

    Raises:
        InputError: the file cannot be read, holds nothing, or a row is no JSON object; names the line.
    """
    found: dict[int, Mapping[str, Any]] = {}
    for row in row_files.rows(file):
        if row.value is None:
            raise InputError(f"{file}:{row.number}: {row.fault}")
        found[row.number] = row.value
    if not found:
        raise InputError(f"{file}: no rows")
    return found
