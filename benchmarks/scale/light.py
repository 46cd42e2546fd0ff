"""Attempts without Ray Train: what the run loop, Tune, Ray's groups and the journal cost on their own.

`drive_light` is a Tune function like `cluster.train.worker.drive_attempt`: the same group of bundles, the same control actor, the
same stop; but the training function runs in the trial's own process, and nothing imports torch.

`ThreadActors` goes one further, for a thousand trials on two cores: Tune's controller, our search, schedulers,
controller and journal are the real ones, and every report goes through the real control actor; what Tune takes for an actor is
a thread of the driver. So it says nothing of Ray's own cost of starting a process.
"""

from __future__ import annotations

import itertools
import queue
import threading
import traceback
from collections.abc import Callable
from typing import Any

from ray.air.execution._internal.tracked_actor import TrackedActor

from cluster.train.worker import Outcome, drive, run_attempts


def train_here(config: dict[str, Any], control: Any, train: Any, outcome: Outcome) -> None:
    """Runs the training function in this process, as rank 0 of one; then what it is assigned, where it may be reused."""

    def as_one(trial: Any, hooks: Any, *, rank: int, world: int, **rest: Any) -> None:
        train(trial, hooks, **rest)

    try:
        run_attempts(config, control, as_one)
        outcome.put(None)
    except BaseException as e:
        outcome.put(e)


def drive_light(config: dict[str, Any], control: Any = None, train: Any = None) -> None:
    """The Tune function of an attempt without Ray Train."""
    drive(config, control, train, train_here)


class ThreadActors:
    """Stands in for Tune's actor manager; `attempt(config)` is what a trial does, on a thread of its own."""

    attempt: Callable[[dict[str, Any]], None]

    def __init__(self, resource_manager: Any = None) -> None:
        self.events: queue.Queue[Callable[[], None]] = queue.Queue()
        self.ids = itertools.count()
        self.configs: dict[TrackedActor, dict[str, Any]] = {}
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple[None, Any]] = {}

    def next(self, timeout: float | None = None) -> bool:
        try:
            event = self.events.get(timeout=timeout)
        except queue.Empty:
            return False
        event()
        return True

    def add_actor(self, cls: Any, resource_request: Any, kwargs: Any, **callbacks: Any) -> TrackedActor:
        actor = TrackedActor(next(self.ids), **callbacks)
        self.configs[actor] = kwargs["config"]
        self._live_actors_to_ray_actors_resources[actor] = (None, resource_request)
        self.events.put(lambda: actor._on_start(actor))
        return actor

    def schedule_actor_task(
        self, tracked_actor: TrackedActor, method_name: str, args: Any = None, kwargs: Any = None,
        on_result: Any = None, on_error: Any = None, _return_future: bool = False,
    ) -> Any:  # fmt: skip
        if method_name == "train":
            threading.Thread(target=self._run, args=(tracked_actor, on_result), daemon=True).start()
        return None

    def _run(self, actor: TrackedActor, on_result: Any) -> None:
        try:
            type(self).attempt(self.configs[actor])
        except Exception:
            traceback.print_exc()
        self.events.put(lambda: on_result(actor, {"done": True, "training_iteration": 1}))

    def remove_actor(self, tracked_actor: TrackedActor, kill: bool = False, stop_future: Any = None) -> bool:
        self.configs.pop(tracked_actor, None)
        self._live_actors_to_ray_actors_resources.pop(tracked_actor, None)
        if tracked_actor._on_stop is not None:
            self.events.put(lambda: tracked_actor._on_stop(tracked_actor))
        return True

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None: ...

    def cleanup(self) -> None: ...

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        return tracked_actor in self.configs

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        return False

    def get_live_actors_resources(self) -> dict[str, float]:
        return {}

    @property
    def num_live_actors(self) -> int:
        return len(self.configs)

    num_total_actors = num_live_actors

    @property
    def num_pending_actors(self) -> int:
        return 0

    @property
    def num_actor_tasks(self) -> int:
        return len(self.configs)
