"""Tune's parts for a search that names its trials itself and hands them out when machines are free.

A `Searcher` can do neither; a `SearchAlgorithm` can, with the functions by which Tune's own ones make trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.experiment.config_parser import _create_trial_from_spec, _make_parser
from ray.tune.experiment.experiment import _convert_to_experiment_list


def keep_aws_keys_off_trials() -> None:
    """Takes AWS keys off the list of variables that Tune copies into each trial's runtime_env, where Ray's logs show them.

    Nodes have credentials of their own.
    """
    names = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in names if not name.startswith("AWS_")}


class TrialMaker:
    """Makes Tune's trial objects for the one experiment of a Tuner."""

    def __init__(self, experiments: Any) -> None:
        self._spec = dict(_convert_to_experiment_list(experiments)[0].spec)
        self._parser = _make_parser()
        self._count = 0

    def make(self, trial_id: str, config: Mapping[str, Any]) -> Trial:
        """Returns a new trial with this id."""
        self._count += 1
        spec = {**self._spec, "config": dict(config)}
        return _create_trial_from_spec(
            spec, self._parser, evaluated_params={}, experiment_tag=str(self._count), trial_id=trial_id
        )


def process_one_event(controller: Any, timeout_s: float) -> bool:
    """Lets Tune's controller take in one event of its actors; False when none came in that time."""
    return bool(controller._actor_manager.next(timeout=timeout_s))
