"""What a run prints while it goes on: lines over a progress bar on a terminal, dated lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

from sweeps.output import printable
from sweeps.planning.progress import Progress, progress_text

PROGRESS_INTERVAL_S: Final = 60.0
"""How often progress is printed where there is no terminal."""


class RunOutput(Protocol):
    """Prints lines and shows progress; a context manager, after which the terminal is as it was."""

    def say(self, line: str) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def run_output(stream: TextIO | None = None) -> RunOutput:
    """Returns the output of a run for standard output: a terminal, a file or pipe, closed, or None."""
    stream = stream or sys.stdout  # None in a process that was started without one
    with contextlib.suppress(ValueError):  # closed
        if stream is not None and stream.isatty():
            return TerminalOutput(stream)
    return LogOutput(stream)


def dated(line: str) -> str:
    """Returns a line with the local date and time before it."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}"


class LogOutput:
    """Dated lines; a line of progress every minute."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream, self._last_progress = stream, time.monotonic()

    def say(self, line: str) -> None:
        print(dated(line), file=self.stream, flush=True)

    def progress(self, progress: Progress) -> None:
        if time.monotonic() - self._last_progress >= PROGRESS_INTERVAL_S:
            self._last_progress = time.monotonic()
            self.say(progress_text(progress))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to put back."""


class TerminalOutput:
    """A bar that stays at the bottom, and lines above it with the time since the start."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        seconds = int(time.monotonic() - self._began)
        self._console.print(f"{seconds // 60:3d}:{seconds % 60:02d}  {line}", soft_wrap=True)

    def progress(self, progress: Progress) -> None:
        self._live.update(progress_bar(progress), refresh=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)


def progress_bar(progress: Progress) -> Any:
    """Returns a progress bar with the words beside it, for rich."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    row.add_row(
        ProgressBar(total=1.0, completed=progress.done or 0.0, width=24), Text(printable(progress_text(progress)))
    )
    return row
