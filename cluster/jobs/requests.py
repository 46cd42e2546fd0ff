"""The command line's side of steering: a request is checked, left in the sweep's storage, and its answer is waited for."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from cluster.locate import definition
from sweeps.config.blocks import LimitsBlock, checked_block
from sweeps.config.checks.whole_sweep import checked_settings
from sweeps.config.schema import Sweep
from sweeps.config.sweep_file.yaml import value_of
from sweeps.controller import requests as control
from sweeps.errors import InputError, nearest
from sweeps.journal.history import History
from sweeps.journal.lease import driving_user
from sweeps.journal.rows import ControlRow
from sweeps.journal.vocabulary import ControlAction
from sweeps.journal.writer import LogReader
from sweeps.storage.base import Store
from sweeps.storage.factory import open_store

ANSWER_S: Final = 8.0  # a driver looks every 2 s, and one that scores or saves may be busy for a moment
NO_DRIVER_MESSAGE: Final = (  # the same --storage or --address, because without one `resume` looks in ./runs
    "no driver has taken it yet; it waits in the storage until one runs: dipsweep resume {sweep}, with the --storage or "
    "--address given here"
)


def send_request_and_wait(
    home: Store, action: ControlAction, trial: str = "", *, wait_s: float = ANSWER_S, **args: Any
) -> str | None:
    """Asks the driver of a sweep to do something; returns its answer as one sentence, or None when no driver answers in time.

    The request then waits in the storage (`NO_DRIVER_MESSAGE`).

    Raises:
        InputError: the trial or a setting does not exist, or a value will not do: here, or by the driver's word.
    """
    reader = LogReader(home)
    check_trial(home, trial, History(reader.rows()))
    _check_settings(definition(home), action, args)
    sweep, answer = home.name, _wait_for_reply(reader, post_request(home, action, trial, **args), wait_s)
    if answer is None:
        return None
    if answer.refused:
        raise InputError(f"{sweep}: {answer.reason}")
    return answer.reason or "done"


def post_request(home: Store, action: ControlAction, trial: str = "", **args: Any) -> str:
    """Writes a request into a sweep's storage, with its user and time; returns its id."""
    request = control.Request(action, trial, args, who=asker(), when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    root, _, sweep = home.root.rpartition("/")
    return control.post(open_store(root), sweep, request)


def _wait_for_reply(reader: LogReader, request: str, wait_s: float) -> ControlRow | None:
    """Returns the row in which a driver says what became of a request, or None when none does in time."""
    until = time.monotonic() + wait_s
    while True:
        for row in reversed(reader.rows()):
            if isinstance(row, ControlRow) and row.request == request:
                return row
        if time.monotonic() >= until:
            return None
        time.sleep(0.3)


def asker() -> str:
    """Returns who asks, as the journal has it: `user@machine`; the machine alone where the system knows no user's name."""
    return "@".join(filter(None, (driving_user(), socket.gethostname())))


def check_trial(home: Store, trial: str, history: History | None = None) -> None:
    """Checks that a sweep has a trial of that id; an empty one is the sweep itself. `history`: of its journal, if it was read.

    Raises:
        InputError: it has none.
    """
    if not trial:
        return
    history = history or History(LogReader(home).rows())
    if trial not in history.curves:
        some = list(history.curves)
        have = f"; there are {', '.join(some[:8])}{' …' if len(some) > 8 else ''}" if some else "; none has started"
        raise InputError(f"no trial '{trial}' in {home.name}{have}{nearest(trial, some)}")


def _check_settings(sweep: Sweep, action: ControlAction, args: Mapping[str, Any]) -> None:
    """Refuses settings and values that the schema refuses, before they are sent."""
    settings = args.get("set")
    if action == ControlAction.LIMITS:
        # the price may stand in the sweep already
        checked_block(LimitsBlock, {"usd_per_gpu_hour": 1.0, **(settings or {})})
    elif settings is not None:
        checked_settings(sweep, settings)


def settings_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Returns `learning_rate=1e-4` and the like as settings; values are read as in a sweep file.

    Raises:
        InputError: one is not of the form name=value, or a name comes twice.
    """
    out: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name or not text:
            raise InputError(f"--set: got '{pair}'; expected name=value, such as learning_rate=1e-4")
        if name in out:
            raise InputError(f"--set: '{name}' is given twice")
        out[name] = value_of(text)
    return out
