"""Tune's view of the director: a search algorithm that hands out attempts, and a scheduler that hears how they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.experiment.config_parser import _create_trial_from_spec, _make_parser
from ray.tune.experiment.experiment import _convert_to_experiment_list
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import SearchAlgorithm

from sweeps.controller.controller import Launch

# Tune hands the driver's AWS keys to every trial in its runtime_env, in clear in Ray's logs. Nodes have their own.
class_cache.ENV_VARS_TO_PROPAGATE = {n for n in class_cache.ENV_VARS_TO_PROPAGATE if not n.startswith("AWS_")}
IDLE_S = 10.0  # so long Tune is kept waiting while nothing runs; then it may look after itself
IDLE_TURN_S = 0.05
_LOOPS: dict[str, Loop] = {}
_CONTROLLERS: dict[str, Any] = {}  # Tune's own controller of a loop, as far as it has shown itself


class Loop(Protocol):
    """The driver's run loop. Tune pickles its search and scheduler, so they hold its name and look it up here."""

    storage: str

    @property
    def total(self) -> int: ...
    @property
    def live(self) -> Mapping[str, Any]: ...
    def pump(self) -> None: ...
    def next(self) -> Launch | None: ...
    def over(self) -> bool: ...
    def attempt_ended(self, trial: str, attempt: int, error: str | None) -> None: ...


def register(name: str, loop: Loop) -> Callable[[], None]:
    """Makes a loop known to this process; returns the function that takes it out again."""
    _LOOPS[name] = loop

    def forget() -> None:
        _LOOPS.pop(name, None)
        _CONTROLLERS.pop(name, None)

    return forget


class AttemptSearch(SearchAlgorithm):  # type: ignore[misc]
    """Every "trial" of Tune is one attempt of ours, named `<trial>.<attempt>`.

    A SearchAlgorithm and not a Searcher: it names trials itself, and may hold one back until something could start.
    """

    def __init__(self, loop: str) -> None:
        self.loop = loop
        self._experiment: Any = None
        self._parser = _make_parser()
        self._count = 0

    @property
    def total_samples(self) -> int:
        return _LOOPS[self.loop].total

    def add_configurations(self, experiments: Any) -> None:
        self._experiment = _convert_to_experiment_list(experiments)[0]

    def next_trial(self) -> Trial | None:
        loop = _LOOPS[self.loop]
        loop.pump()
        launch = loop.next()
        until = time.monotonic() + IDLE_S
        while launch is None and not loop.live and not loop.over() and time.monotonic() < until:
            self._idle()
            loop.pump()
            launch = loop.next()
        if launch is None:
            if loop.over():
                self.set_finished()
            return None
        self._count += 1
        spec = dict(self._experiment.spec)
        spec["config"] = {"launch": launch, "storage": loop.storage}
        return _create_trial_from_spec(
            spec,
            self._parser,
            evaluated_params={},
            experiment_tag=str(self._count),
            trial_id=f"{launch.spec.id}.{launch.attempt}",
        )

    def _idle(self) -> None:
        """Waits a moment while nothing runs. Left to itself Tune sleeps a second between two calls of this object and hears of
        nothing for up to 600 s: the last attempt's process would not be let go, nor the group that others wait for."""
        heard = self.loop in _CONTROLLERS and _CONTROLLERS[self.loop]._actor_manager.next(timeout=IDLE_TURN_S)
        if not heard:
            time.sleep(IDLE_TURN_S)


class Carrier(TrialScheduler):  # type: ignore[misc]
    """Decides nothing: verdicts come from the director and reach an attempt by its stop flag; this hears the ends."""

    def __init__(self, loop: str) -> None:
        super().__init__()
        self.loop = loop

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing to do: the director knows its attempts."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._ended(trial, None, tune_controller)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        died = "the process that drives the trial died"
        self._ended(trial, f"{died}: {trial.get_error() or 'Ray does not say why'}", tune_controller)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._ended(trial, None, tune_controller)

    def choose_trial_to_run(self, tune_controller: Any, **kwargs: Any) -> Trial | None:
        return None  # the controller starts pending trials itself, in order

    def debug_string(self) -> str:
        return "dipsweep"

    def _ended(self, trial: Trial, error: str | None, tune_controller: Any) -> None:
        _CONTROLLERS[self.loop] = tune_controller
        launch: Launch = trial.config["launch"]
        _LOOPS[self.loop].attempt_ended(launch.spec.id, launch.attempt, error)
