"""Requests to a running sweep: small objects in its storage, which the driver carries out.

Anyone who can write to the storage can ask, from any machine; there is no port to reach and no driver to find. A request
is created once, never changed, and taken away after it was carried out; the journal keeps who asked for what, and when.
"""

from __future__ import annotations

import json
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from sweeps.errors import InputError, NotFound, StorageError, StorageUnavailable, nearest
from sweeps.journal.state import SweepState
from sweeps.journal.vocabulary import SOMEBODY, ControlAction

if TYPE_CHECKING:
    from sweeps.config.plan import Plan
    from sweeps.storage.base import Store

ACTIONS: Final = tuple(
    ControlAction(name) for name in ("stop", "pause", "resume", "extend", "clone", "add", "limits", "retry")
)
"""What people may ask for."""
FOLDER: Final = "control"
DEPTH: Final = 6
"""Levels of a request's arguments, at most."""
LENGTH: Final = 1000
"""Characters of a text in a request, and entries of a list, at most."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """A user's request to a running sweep.

    Attributes:
        action: `stop` (one trial, or the sweep: resumable), `pause` and `resume` (the sweep), `extend` (a trial, to
            `steps`), `clone` (a trial, with `set`, `warm` or not), `add` (`trials` more, or one with `set`),
            `limits` (`set` to new values), `retry` (a failed trial, or all of them).
        trial: the trial that it is about; empty means the sweep.
        args: `steps`, `set`, `warm`, `trials`, as the action takes them.
        who, when: the person's name for the journal, and their clock as text: neither decides anything.
        id: names the request; set by `post`.
    """

    action: ControlAction
    trial: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    who: str = SOMEBODY
    when: str = ""
    id: str = ""


def post(store: Store, sweep: str, request: Request) -> str:
    """Writes a request for a sweep's driver and returns its id. Requests are carried out in order of their ids.

    Raises:
        InputError: no driver would take it.
    """
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    body, key = {**asdict(request), "id": name}, f"{sweep}/{FOLDER}/{name}.json"
    _parse(key, body)
    store.create(key, json.dumps(body, allow_nan=False).encode())
    return name


def pending(store: Store, sweep: str, unreadable: Callable[[str, StorageError], None] | None = None) -> list[Request]:
    """Returns the requests that wait, oldest first. What is no request, may not be read, or is gone already, is left out.

    Args:
        unreadable: is told what may not be read, such as the file of a user who keeps their files to themselves.
    """
    found = []
    for entry in store.list(f"{sweep}/{FOLDER}"):
        try:
            found.append(_parse(entry.key, json.loads(store.read(entry.key))))
        except StorageUnavailable:
            raise
        except NotFound:
            continue
        except StorageError as e:
            if unreadable is not None:
                unreadable(entry.key, e)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
            log.debug("%s/%s is no request: %s", store, entry.key, e)
    return found


def discard(store: Store, sweep: str, request: Request) -> None:
    """Takes a request away; call it after its row is in the journal."""
    store.delete(f"{sweep}/{FOLDER}/{request.id}.json")


class TrialCount:
    """How many trials a sweep is meant to have: those of its plan, and those that people asked for.

    Args:
        plan: the sweep's, as it was defined; what was asked for since then is counted from the state.
        state: what its journal says.
    """

    def __init__(self, plan: Plan, state: SweepState) -> None:
        self.plan, self.state = replace(plan, more=0), state
        self._grown = self.plan  # with what was asked for; a plan keeps what it unfolds

    @property
    def total(self) -> int:
        """Trials that the sweep is meant to have; never fewer than there are."""
        if self._grown.more != self.state.added:
            self._grown = replace(self.plan, more=self.state.added)
        added = sum(t.row.number is None and t.id not in self._known for t in self.state.trials.values())
        return max(self._grown.total + added, len(self.state.history.curves))

    @cached_property
    def _known(self) -> frozenset[str]:
        """A grid's trials: one that somebody asks for before its turn stands for both."""
        return frozenset(t.id for t in self.plan.known_trials())


def _parse(key: str, data: Any) -> Request:
    """Returns the request in a file; its name is its id, whatever it says itself.

    Raises:
        InputError, or what Python raises for data of another form: it is none.
    """
    action = str(data["action"])
    if action not in ACTIONS:
        raise InputError(f"control action {action!r} is unknown{nearest(action, ACTIONS)}")
    args = data.get("args") or {}
    if not isinstance(args, dict) or not isinstance(args.get("set", {}), dict) or not _is_plain(args, DEPTH):
        raise InputError(f"got args {str(args)[:100]}; expected settings by name, of finite numbers and text")
    trial, who, when = (str(data.get(name) or "")[:LENGTH] for name in ("trial", "who", "when"))
    who = who.strip() or SOMEBODY  # a trial that a person added is known by having a name there
    return Request(ControlAction(action), trial, args, who, when, key.rpartition("/")[2].removesuffix(".json"))


def _is_plain(value: Any, depth: int) -> bool:
    """True for what a row can hold, and a reader of the log can read: finite numbers, and not nested for ever."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return depth > 0 and len(value) <= LENGTH and all(_is_plain(part, depth - 1) for part in parts)
    return not isinstance(value, str) or len(value) <= LENGTH
