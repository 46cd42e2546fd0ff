"""A row in a segment: one line of JSON, whose last key is a checksum of the text before it.

    {"v":1,"seq":412,…,"crc":"1a2b3c4d"}

A file system, a copy or a hand can change a digit, and the line is still a row. Lines of earlier versions have no
checksum and are read as they are.
"""

from __future__ import annotations

import zlib
from typing import Final

from sweeps.errors import JournalError

_KEY: Final = b',"crc":"'
_END: Final = b'"}'
_LENGTH: Final = len(_KEY) + 8 + len(_END)


def sealed(line: str) -> bytes:
    """Returns a row's line of JSON, newline included, with its checksum as the last key."""
    body = line.rstrip("\n").encode()[:-1]  # without the closing brace
    return b"%b%b%08x%b\n" % (body, _KEY, zlib.crc32(body), _END)


def unsealed(line: bytes) -> bytes:
    """Returns a line as it was before it got its checksum; white space that a copy put behind it hides none.

    Raises:
        JournalError: it has changed since.
    """
    bare = line.rstrip()
    body, tail = bare[:-_LENGTH], bare[-_LENGTH:]
    if not (tail.startswith(_KEY) and tail.endswith(_END)):
        return line
    if b"%08x" % zlib.crc32(body) != tail[len(_KEY) : -len(_END)]:
        raise JournalError("its checksum does not fit: the line has changed since it was written")
    return body + b"}"
