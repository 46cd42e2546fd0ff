"""Steering a sweep while it runs: requests travel as small objects in its storage, the driver carries them out.

Anyone who can write to the storage can ask, from any machine; there is no port to reach and no driver to find. A request
is created once, never changed, and taken away after it was carried out; the journal keeps who asked for what, and when.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from sweeps.errors import InputError, NotFound, nearest
from sweeps.journal.rows import BASE_PREFIX, Row

if TYPE_CHECKING:
    from sweeps.config.plan import Plan
    from sweeps.storage.base import Store

Steer = Literal["stop", "pause", "resume", "extend", "clone", "add", "limits"]
ACTIONS: Final = get_args(Steer)
FOLDER: Final = "control"


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks of a running sweep.

    Attributes:
        action: `stop` (one trial, or the sweep: resumable), `pause` and `resume` (the sweep), `extend` (a trial, to
            `steps`), `clone` (a trial, with `set`, `warm` or not), `add` (`trials` more, or one with `set`),
            `limits` (`set` to new values).
        trial: the trial that it is about; empty means the sweep.
        args: `steps`, `set`, `warm`, `trials`, as the action takes them.
        who, when: the person's name for the journal, and their clock as text: neither decides anything.
        id: names the request; set by `post`.
    """

    action: Steer
    trial: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    who: str = ""
    when: str = ""
    id: str = ""


def post(store: Store, sweep: str, request: Request) -> str:
    """Leaves a request for the driver of a sweep; returns the request's id. Requests are taken in order of their ids."""
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    body = {**asdict(request), "id": name}
    store.create(f"{sweep}/{FOLDER}/{name}.json", json.dumps(body, allow_nan=False).encode())
    return name


def pending(store: Store, sweep: str) -> list[Request]:
    """Returns the requests that wait, oldest first. What is no request, or is gone already, is left out."""
    found = []
    for entry in store.list(f"{sweep}/{FOLDER}"):
        try:
            found.append(_parse(json.loads(store.read(entry.key))))
        except (ValueError, KeyError, TypeError, NotFound):
            continue
    return found


def done(store: Store, sweep: str, request: Request) -> None:
    """Takes a request away; call it after its row is in the journal."""
    store.delete(f"{sweep}/{FOLDER}/{request.id}.json")


class TrialCount:
    """How many trials a sweep is meant to have, by its journal: those of its plan, and those that people asked for.

    Args:
        plan: the sweep's, as it was defined or as its driver has it now: what was asked for is counted from the rows.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = replace(plan, more=0)
        self.seen: set[str] = set()
        self.added: set[str] = set()

    def take(self, row: Row) -> None:
        """Takes one row in."""
        if row.kind == "control" and row.extra.get("action") == "add":  # not one that was refused
            more = int(row.extra.get("args", {}).get("trials") or 0)
            self.plan = replace(self.plan, more=self.plan.more + more)
        if not row.trial or row.trial.startswith(BASE_PREFIX):
            return
        self.seen.add(row.trial)
        if row.kind == "trial" and "number" not in row.extra and row.trial not in self._known:
            self.added.add(row.trial)

    @property
    def total(self) -> int:
        """Trials that the sweep is meant to have; never fewer than there are."""
        return max(self.plan.total + len(self.added), len(self.seen))

    @cached_property
    def _known(self) -> frozenset[str]:
        """A grid's trials: one that somebody asks for before its turn stands for both."""
        return frozenset(t.id for t in self.plan.known_trials())


def _parse(data: Any) -> Request:
    action = str(data["action"])
    if action not in ACTIONS:
        raise InputError(f"control action {action!r} is unknown{nearest(action, ACTIONS)}")
    return Request(
        action=action,  # type: ignore[arg-type]
        trial=str(data.get("trial", "")), args=dict(data.get("args", {})), who=str(data.get("who", "")),
        when=str(data.get("when", "")), id=str(data["id"]),
    )  # fmt: skip
