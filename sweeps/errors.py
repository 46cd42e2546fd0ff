"""Every error that dipsweep raises on purpose, as one small tree.

The command line turns them into exit codes: `InputError` 2, `LimitError` 3, `NoDriver` 4, `Interrupted` 130, all others
1. Each can
be pickled (Ray carries exceptions between processes): state lives in `args` only.
"""

from __future__ import annotations

import difflib
import errno
import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, Self


class DipsweepError(Exception):
    """Root of the tree."""

    exit_code = 1


class InputError(DipsweepError, ValueError):
    """What the user handed in cannot be used; nothing was started."""

    exit_code = 2


class Fault(NamedTuple):
    """One error in an input: its place, and one sentence on what was got and what is expected."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class SpecError(InputError):
    """All faults of a sweep definition at once."""

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self.args)

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)


class LimitError(DipsweepError):
    """The plan is over the sweep's own limits."""

    exit_code = 3


class StrategyError(DipsweepError):
    """A stop rule or a search raised an error, or gave an answer that is none: no trial's fault."""


class StorageError(DipsweepError):
    """The sweep's storage cannot be read or written."""


class NotFound(StorageError):
    """There is nothing under that key."""


class StorageDenied(StorageError):
    """The storage refuses access: wrong credentials, or too few permissions."""


class NoCredentials(StorageError):
    """No credentials were found in the environment, the profile files or the instance."""


class NoBucket(StorageError):
    """The bucket does not exist."""


class StorageUnavailable(StorageError):
    """The storage cannot be read or written just now; waiting may cure it, and nothing else is wrong."""


class StorageFull(StorageUnavailable):
    """No room is left on the disk, or in the user's quota."""


class NodeTrouble(StorageUnavailable):
    """One machine alone cannot reach the storage, or has no room: what fails there may run on others.

    `node` is its id on the cluster; "" where nobody has said.
    """

    def __init__(self, why: str, node: str = "") -> None:
        super().__init__(why, node)

    @property
    def node(self) -> str:
        return str(self.args[1])

    def on(self, node: str) -> Self:
        """Returns the same error of a node that is known."""
        return type(self)(str(self.args[0]), node)

    def __str__(self) -> str:
        return f"{self.args[0]} (Ray's node {self.node})" if self.node else str(self.args[0])


class NodeFull(NodeTrouble, StorageFull):
    """No room is left on a disk of one machine's own."""


class Unreachable(StorageUnavailable):
    """The storage does not answer, or answers that it cannot just now."""


class CredentialsExpired(StorageUnavailable):
    """The credentials are those of an earlier hour; whoever keeps them can renew them meanwhile."""


class InputsChanged(StorageUnavailable):
    """Data or weights are not those that the sweep began with; once they are restored, what waits goes on."""


class JournalError(StorageError):
    """A journal row cannot be read or written; nothing may follow it."""


class Fenced(JournalError):
    """Another driver has taken over this sweep's log; this one must not write or start anything more."""


class SweepBusy(InputError):
    """Another driver holds this sweep."""


class Interrupted(DipsweepError):
    """Ctrl-C, SIGTERM or their like: the sweep stopped in good order and can be resumed."""

    exit_code = 130


class NoDriver(DipsweepError):
    """The sweep has not ended and has no driver: it does not continue by itself."""

    exit_code = 4


class TrialFailed(DipsweepError):
    """A trial cannot go on; `reason` is a short slug (`diverged`, `no-metrics`, `bad-data`, `oom`, `error`)."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)

    @property
    def reason(self) -> str:
        return str(self.args[0])

    @property
    def detail(self) -> str:
        return str(self.args[1])

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class DamagedCheckpoint(TrialFailed, StorageError):
    """A checkpoint is missing, was never finished, or has changed since it was written; an earlier one may do.

    As the end of an attempt its reason is `bad-checkpoint`.
    """

    def __init__(self, *detail: str) -> None:
        super().__init__("bad-checkpoint", detail[-1])

    def __str__(self) -> str:
        return self.detail


def text_of(e: BaseException, longest: int = 2000) -> str:
    """Returns an error's own text, cut where it is endless, and whose code it comes from where `naming` knew it.

    It may be anybody's error, and raise when it is asked for its text.
    """
    try:
        text = str(e)
    except Exception:
        text = "(its text cannot be read)"
    text = text if len(text) <= longest else f"{text[:longest]}…"
    origin = next((n for n in getattr(e, "__notes__", ()) if isinstance(n, str) and n.startswith(_ORIGIN)), "")
    return f"{text} ({origin})" if origin else text


_ORIGIN: Final = "raised by "


@contextmanager
def naming(what: str, module: str = "") -> Iterator[None]:
    """Has an error that leaves the block say whose code it comes from, also on another machine: `text_of` tells it.

    Args:
        what: a person's code, such as `trainer 'mine'`. module: where it is defined.
    """
    try:
        yield
    except (Exception, SystemExit) as e:
        if not any(str(note).startswith(_ORIGIN) for note in getattr(e, "__notes__", ())):
            with suppress(TypeError):  # an error may keep its notes in a way of its own
                e.add_note(f"{_ORIGIN}{what}, {place_of(e, module)}")
        raise


def place_of(e: BaseException, module: str = "") -> str:
    """Returns where an error was raised, as `my_rule.py:12`: the last line of `module` that it passed, else the last of all."""
    frames = list(traceback.walk_tb(e.__traceback__))
    own = [found for found in frames if found[0].f_globals.get("__name__") == module]
    if not frames:
        return "at no line that is known"
    frame, line = (own or frames)[-1]
    return f"{os.path.basename(frame.f_code.co_filename)}:{line}"


def code_name(code: object) -> str:
    """Returns the name of a person's code: `my_rule.Floor` of a rule, of its class, or of a function."""
    named: Any = code if hasattr(code, "__qualname__") else type(code)
    return f"{getattr(named, '__module__', '?')}.{named.__qualname__}"


def out_of_memory(e: BaseException) -> bool:
    """True for what torch (on CUDA and on the CPU), NumPy, Python, Ray, the kernel and libraries in Rust raise when memory runs
    out; known by name."""
    if isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError":
        return True
    if isinstance(e, OSError) and e.errno is not None:
        return e.errno == errno.ENOMEM
    words = ["(os error 12)", "Os { code: 12,"]
    if isinstance(e, RuntimeError):
        words += ["can't allocate memory", "CUDA out of memory"]
    return any(word in text_of(e) for word in words)


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the closest known name, or an empty string."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
