"""The control actor: one small actor per sweep that carries the workers' messages to the driver, and stop requests back.

A stop request is the only way to end a silent attempt at once: Tune's own stop waits behind a trial actor that sits in a
step (measured on Ray 2.60: not freed in 30 s, against 0.4 s this way). Whoever waits for a request leaves one call that
returns when it comes; so a thousand attempts cost the actor nothing while nothing happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.config.trial import Saved
from sweeps.failures import Failure


class AttemptId(NamedTuple):
    """An attempt of a trial, by number."""

    trial: str
    number: int


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
class AttemptExited:
    """The last message of an attempt: its training function returned, or why it did not."""

    attempt: AttemptId
    failure: Failure | None = None


Message = ProcessStarted | MetricsReported | CheckpointSaved | AttemptExited


@dataclass(slots=True)
class _Requests:
    """What one attempt is asked to do: to end at once, or to save and return."""

    immediate: asyncio.Event = field(default_factory=asyncio.Event)
    graceful: asyncio.Event = field(default_factory=asyncio.Event)


class ControlActor:
    """Messages towards the driver, and stop requests towards the attempts."""

    def __init__(self, sweep: str = "") -> None:
        self.sweep = sweep
        self.messages: list[Message] = []
        self.requests: dict[AttemptId, _Requests] = {}
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

    async def stop(self, attempt: AttemptId) -> None:
        """Asks an attempt to end now, whatever it does."""
        self._of(attempt).immediate.set()
        self._of(attempt).graceful.set()

    async def stop_gracefully(self, attempt: AttemptId) -> None:
        """Asks an attempt to save and return."""
        self._of(attempt).graceful.set()

    async def stop_all_gracefully(self) -> None:
        """Asks every attempt, also those still to come, to save and return (Ctrl-C)."""
        self.stopping_all = True
        for requests in self.requests.values():
            requests.graceful.set()

    async def wait_for_stop(self, attempt: AttemptId) -> None:
        """Returns when the attempt is to end now."""
        await self._of(attempt).immediate.wait()

    async def wait_for_any_stop(self, attempt: AttemptId) -> None:
        """Returns when the attempt is to save and return, or to end now."""
        await self._of(attempt).graceful.wait()

    async def unregister(self, attempt: AttemptId) -> None:
        """The attempt is over: returns every call that still waits for a request to it."""
        await self.stop(attempt)
        self.requests.pop(attempt, None)

    def _of(self, attempt: AttemptId) -> _Requests:
        requests = self.requests.setdefault(attempt, _Requests())
        if self.stopping_all:
            requests.graceful.set()
        return requests


def start_control_actor(sweep: str = "") -> Any:
    """Starts the actor; it reserves nothing and answers many callers at once (each waiter is a call that waits).

    It lies on the driver's own node: the loss of any other one must not take it along.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, max_concurrency=100_000, scheduling_strategy=here)(ControlActor).remote(sweep)
