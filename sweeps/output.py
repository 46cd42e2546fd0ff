"""Output to a terminal, a log or a page: it may have no reader, and it holds printable text only.

A driver runs for days. That its terminal is closed, the program behind its pipe has ended, or the disk under its log is
full, is no reason to end a sweep: output that nobody takes is dropped (the journal has all of it). And names, reasons and
exceptions come from anywhere: what would steer a terminal, or is no text at all, is shown as an escape.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, TextIO

from sweeps.errors import code_name, place_of, text_of

_log = logging.getLogger("dipsweep")
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, marks that turn the direction of text, and halves of surrogate pairs, which is how
Python holds bytes that are no UTF-8."""
READER_GONE: Final = frozenset({errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ESHUTDOWN, errno.ECONNRESET})
r"""Errors of a write after which no other will ever be taken."""


def printable(text: object) -> str:
    r"""Returns text in which every character that is not for reading is escaped, such as `\x1b` or `\udcff`."""
    return _UNPRINTABLE.sub(_escape, str(text))


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def droppable(say: Callable[[str], object]) -> Callable[[str], None]:
    """Returns a function that prints lines as printable text, and drops those that cannot be written.

    What prints may be anybody's function: the first other error of it is logged, and never raised.
    """
    told = False

    def said(line: str) -> None:
        nonlocal told
        try:
            say(printable(line))
        except (OSError, ValueError):  # ValueError: the stream is closed
            pass
        except Exception as e:
            if not told:
                _log.warning(
                    "%s raised %s: %s (%s); lines that it does not take are dropped",
                    code_name(say), type(e).__name__, text_of(e), place_of(e, getattr(say, "__module__", "")),
                )  # fmt: skip
            told = True

    return said


class LossyStream:
    """A text stream around another one: what cannot be written is dropped, and no write ever raises an OSError."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as e:
            if e.errno in READER_GONE:
                silence(self._stream)
        except ValueError:  # closed
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_standard_streams() -> None:
    """Gives this process the standard streams that it was started without (`>&-`); call it before anything is opened.

    Else the next files to be opened get their numbers, a sweep's log among them, and whatever a library writes to standard error
    lands in there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - as long as the process


def silence(stream: TextIO) -> None:
    """Sends the rest of a stream nowhere, also what it still holds and what libraries write past Python."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def keep_running_without_output() -> None:
    """Makes this process's standard output and error droppable; what a command that drives a sweep does first."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, LossyStream):
            setattr(sys, name, LossyStream(stream))


def escape_what_cannot_be_encoded() -> None:
    """Makes standard output and error show a character that their encoding lacks as an escape instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="backslashreplace")
