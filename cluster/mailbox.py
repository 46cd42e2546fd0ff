"""The control actor: one small actor per sweep that carries the workers' messages to the driver, and stop requests back.

A stop request is the only way to end a silent attempt at once: Tune's own stop waits behind a trial actor that sits in a
step (measured on Ray 2.60: not freed in 30 s, against 0.4 s this way). Whoever waits for a request leaves one call that
returns when it comes; so a thousand attempts cost the actor nothing while nothing happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.config.trial import Saved
from sweeps.controller.launch import Launch
from sweeps.failures import Failure


class AttemptId(NamedTuple):
    """An attempt of a trial, by number."""

    trial: str
    number: int


GroupId = str
"""Name of the processes that one Tune trial has brought up: `<trial>.<number>` of the first attempt that they ran."""


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """A process of an attempt runs on this node; `trains` tells a training process from the attempt's driver."""

    attempt: AttemptId
    node: str
    trains: bool


@dataclass(frozen=True, slots=True)
class MetricsReported:
    """The trainer's own numbers after a step; see `sweeps.config.trial.Hooks.report`."""

    attempt: AttemptId
    step: int
    metrics: Mapping[str, float]
    progress: Mapping[str, float]
    cost: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint is whole."""

    attempt: AttemptId
    checkpoint: Saved


@dataclass(frozen=True, slots=True)
class AttemptWaits:
    """An attempt cannot go on for now; `reason` says what it needs, such as room on a disk."""

    attempt: AttemptId
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptExited:
    """The last message of an attempt: its training function returned.

    Its processes wait for `ControlActor.assign`. `reusable`: they are clean, and may run another attempt.
    """

    attempt: AttemptId
    reusable: bool = False


@dataclass(frozen=True, slots=True)
class GroupExited:
    """The last message of a group of processes: all of its training processes returned, or why they did not."""

    group: GroupId
    failure: Failure | None = None


Message = ProcessStarted | MetricsReported | CheckpointSaved | AttemptWaits | AttemptExited | GroupExited


@dataclass(slots=True)
class _StopRequest:
    """A request to one attempt to return, after a last checkpoint or without (`save`)."""

    made: asyncio.Event = field(default_factory=asyncio.Event)
    save: bool = True


@dataclass(slots=True)
class _Assignment:
    """What the processes of an attempt are to do after it: the next launch, or None to end."""

    made: asyncio.Event = field(default_factory=asyncio.Event)
    launch: Launch | None = None


class ControlActor:
    """Messages towards the driver, and stop requests towards the attempts."""

    def __init__(self, sweep: str = "") -> None:
        self.sweep = sweep
        self.messages: list[Message] = []
        self.requests: dict[AttemptId, _StopRequest] = {}
        self.group_stops: dict[GroupId, asyncio.Event] = {}
        self.assignments: dict[AttemptId, _Assignment] = {}
        self.stopping_all = False

    def __repr__(self) -> str:
        return f"dipsweep-control:{self.sweep}"  # what Ray's dashboard shows

    async def send(self, message: Message) -> None:
        """Leaves a message for the driver, in order of arrival."""
        self.messages.append(message)

    async def receive_all(self) -> list[Message]:
        """Takes all messages."""
        messages, self.messages = self.messages, []
        return messages

    async def stop(self, attempt: AttemptId, group: GroupId) -> None:
        """Asks an attempt to end now, whatever it does, and its processes with it."""
        self._of(attempt).made.set()
        self._stop_of(group).set()

    async def stop_gracefully(self, attempt: AttemptId, *, save: bool = True) -> None:
        """Asks an attempt to return between two steps, after a last checkpoint or without one."""
        request = self._of(attempt)
        request.save = save
        request.made.set()

    async def stop_all_gracefully(self) -> None:
        """Asks every attempt, also those still to come, to save and return (Ctrl-C)."""
        self.stopping_all = True
        for request in self.requests.values():
            request.made.set()

    async def wait_for_group_stop(self, group: GroupId) -> None:
        """Returns when the processes of a group are to end now."""
        await self._stop_of(group).wait()

    async def wait_for_stop(self, attempt: AttemptId) -> bool:
        """Returns when the attempt is to return: whether with a last checkpoint."""
        request = self._of(attempt)
        await request.made.wait()
        return request.save

    async def assign(self, after: AttemptId, launch: Launch | None) -> None:
        """Tells the processes that ran an attempt what to run next; None: to end."""
        assignment = self._assignment(after)
        assignment.launch = launch
        assignment.made.set()

    async def next_launch(self, after: AttemptId) -> Launch | None:
        """Returns what the processes that ran an attempt are to run next, as soon as it is assigned; None: to end."""
        assignment = self._assignment(after)
        await assignment.made.wait()
        return assignment.launch

    async def unregister(self, group: GroupId, attempts: Sequence[AttemptId]) -> None:
        """A group of processes is gone, and its attempts are over: returns every call that still waits for them."""
        self._stop_of(group).set()
        self.group_stops.pop(group)
        for attempt in attempts:
            self._of(attempt).made.set()
            self.requests.pop(attempt)
            self._assignment(attempt).made.set()
            self.assignments.pop(attempt)

    def _of(self, attempt: AttemptId) -> _StopRequest:
        request = self.requests.setdefault(attempt, _StopRequest())
        if self.stopping_all:
            request.made.set()
        return request

    def _stop_of(self, group: GroupId) -> asyncio.Event:
        return self.group_stops.setdefault(group, asyncio.Event())

    def _assignment(self, after: AttemptId) -> _Assignment:
        return self.assignments.setdefault(after, _Assignment())


def start_control_actor(sweep: str = "") -> Any:
    """Starts the actor; it reserves nothing and answers many callers at once (each waiter is a call that waits).

    It lies on the driver's own node: the loss of any other one must not take it along.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, max_concurrency=100_000, scheduling_strategy=here)(ControlActor).remote(sweep)
