"""Tune's view of a sweep: a search algorithm that hands out attempts, and a scheduler that forwards how they end.

Tune pickles its search, scheduler and callbacks, so they hold the name of the run loop and look it up in this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import SearchAlgorithm
from ray.tune.trainable import wrap_function

from cluster.ray_internals.tune import TrialMaker, keep_aws_keys_off_trials, process_one_event
from cluster.resources.bundles import bundle, selector_avoiding
from cluster.train.worker import group_of, runs_in_driver
from sweeps.controller.launch import Launch
from sweeps.executors.interrupt import Interrupt
from sweeps.executors.storage_backoff import NodeBackoff

keep_aws_keys_off_trials()
IDLE_S = 10.0  # how long Tune is kept waiting while nothing runs; then it may look after itself
IDLE_TURN_S = 0.05
_LOOPS: dict[str, Loop] = {}
_TUNE_CONTROLLERS: dict[str, Any] = {}  # of a loop, once it has shown itself


class Loop(Protocol):
    """What Tune's parts call: the driver's run loop."""

    storage: str
    reuse: bool
    interrupt: Interrupt
    nodes: NodeBackoff

    @property
    def total(self) -> int: ...
    @property
    def busy(self) -> bool: ...
    def poll(self) -> None: ...
    def next_launch(self) -> Launch | None: ...
    def is_over(self) -> bool: ...
    def on_group_gone(self, launch: Launch, error: str | None) -> None: ...


def register(name: str, loop: Loop) -> Callable[[], None]:
    """Makes a loop known to this process; returns the function that takes it out again."""
    _LOOPS[name] = loop

    def unregister() -> None:
        _LOOPS.pop(name, None)
        _TUNE_CONTROLLERS.pop(name, None)

    return unregister


def loop_for(name: str) -> Loop:
    """Returns the loop that was registered under this name."""
    return _LOOPS[name]


class AttemptSearch(SearchAlgorithm):  # type: ignore[misc]
    """Every "trial" of Tune is a group of processes, named `<trial>.<attempt>` by the first attempt that they run.

    A SearchAlgorithm and not a Searcher: it names trials itself, and may hold one back until something could start.
    """

    def __init__(self, loop: str) -> None:
        self.loop = loop
        self._maker: TrialMaker | None = None

    @property
    def total_samples(self) -> int:
        return loop_for(self.loop).total

    def add_configurations(self, experiments: Any) -> None:
        self._maker = TrialMaker(experiments)

    def next_trial(self) -> Trial | None:
        loop = loop_for(self.loop)
        loop.poll()
        launch = loop.next_launch()
        until = time.monotonic() + IDLE_S
        while launch is None and not loop.busy and not loop.is_over() and time.monotonic() < until:
            self._idle()
            loop.poll()
            launch = loop.next_launch()
        if launch is None:
            if loop.is_over():
                self.set_finished()
            return None
        assert self._maker is not None  # Tune adds its one experiment first
        config = {"launch": launch, "launched": time.time(), "storage": loop.storage, "reuse": loop.reuse}
        config["avoid"] = sorted(loop.nodes.avoided())
        return self._maker.make(group_of(launch), config)

    def _idle(self) -> None:
        """Waits a moment while nothing runs.

        Left to itself Tune sleeps a second between two calls of this object and takes in no event for up to 600 s: the
        last attempt's process would not be let go, nor the group that others wait for.
        """
        controller = _TUNE_CONTROLLERS.get(self.loop)
        if controller is None or not process_one_event(controller, IDLE_TURN_S):
            time.sleep(IDLE_TURN_S)


class NoOpScheduler(TrialScheduler):  # type: ignore[misc]
    """Decides nothing, forwards ends: verdicts come from the stop rule and reach an attempt as a stop request."""

    def __init__(self, loop: str) -> None:
        super().__init__()
        self.loop = loop

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing to do: the run loop knows its attempts."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._forward_end(trial, None, tune_controller)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        words = trial.get_error() or "Ray does not say why"
        self._forward_end(trial, f"the process that drives the trial died: {words}", tune_controller)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._forward_end(trial, None, tune_controller)

    def choose_trial_to_run(self, tune_controller: Any, **kwargs: Any) -> Trial | None:
        return None  # the controller starts pending trials itself, in order

    def debug_string(self) -> str:
        return "dipsweep"

    def _forward_end(self, trial: Trial, error: str | None, tune_controller: Any) -> None:
        _TUNE_CONTROLLERS[self.loop] = tune_controller
        loop_for(self.loop).on_group_gone(trial.config["launch"], error)


class PollCallback(tune.Callback):  # type: ignore[misc]
    """Lets the run loop process its events once in every turn of Tune's own loop (at least ten times a second)."""

    def __init__(self, loop: str) -> None:
        self.loop = loop

    def setup(self, *args: Any, **info: Any) -> None:
        loop_for(self.loop).interrupt.listen()  # Tune has just taken SIGUSR1, and would end without saving

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        loop_for(self.loop).poll()


class SilentProgress(TrialProgressCallback):  # type: ignore[misc]
    """Takes the place of Tune's own printer, which Tune would add: a sweep prints its own lines."""

    def on_trial_result(self, *args: Any, **kwargs: Any) -> None: ...

    def on_trial_error(self, *args: Any, **kwargs: Any) -> None: ...

    def on_trial_complete(self, *args: Any, **kwargs: Any) -> None: ...


def named_trainable(function: Any) -> Any:
    """Returns a Tune function as a class whose actors Ray's dashboard shows by their attempts, not all alike."""

    class Attempt(wrap_function(function)):  # type: ignore[misc]
        def __repr__(self) -> str:
            return f"dipsweep-attempt:{self.trial_id}"

    return Attempt


def placement_group(launch: Launch, reuse: bool, avoid: Sequence[str] = ()) -> tune.PlacementGroupFactory:
    """Returns the placement group of a launch: an empty bundle for its driver, then one bundle per worker.

    The driver reserves nothing: even 0.01 CPU would make two 2-worker trials on 4 CPUs run one after the other. A single
    worker that is the driver itself has one bundle.

    Args:
        avoid: ids of nodes on which none of it may lie.
    """
    where = {"bundle_label_selector": [selector_avoiding(avoid)] * launch.workers} if avoid else {}
    if runs_in_driver(launch, reuse):
        return tune.PlacementGroupFactory([bundle(launch.spec.model)], **where)
    return tune.PlacementGroupFactory([{}] + [bundle(launch.spec.model)] * launch.workers, strategy="PACK", **where)
