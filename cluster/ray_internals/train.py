"""Ray Train's workers inside the placement group that Tune made for the trial, without requests to the autoscaler.

Train V2 always reserves a group of its own, beside Tune's accounting: two trials then deadlock on a small cluster, and a
stop leaks the group for as long as the dashboard's State API is out of reach. Here Tune reserves driver and workers as
one group (atomically), Train only moves in, and a stop frees everything at once (measured: 0.1 to 0.3 s). ScalingConfig
has no way to hand a group in.
"""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2.api import data_parallel_trainer
from ray.util.placement_group import get_current_placement_group


class _TunePlacementGroup(DefaultPlacementGroupHandle):  # type: ignore[misc]
    def shutdown(self) -> None:
        """Tune made the group and removes it."""


class _WorkerGroup(WorkerGroup):  # type: ignore[misc]
    def _create_placement_group(self, scaling_config: Any, context: Any) -> Any:
        group = get_current_placement_group()
        return super()._create_placement_group(scaling_config, context) if group is None else _TunePlacementGroup(group)

    def _create_workers(
        self,
        num_workers: int,
        placement_group: Any,
        resources_per_worker: Any,
        placement_group_bundle_indices: list[int] | None = None,
        **rest: Any,
    ) -> Any:
        if placement_group_bundle_indices is None:  # the trial driver's own bundle comes first
            first = placement_group.bundle_count - num_workers
            placement_group_bundle_indices = list(range(first, first + num_workers))
        return super()._create_workers(
            num_workers,
            placement_group,
            resources_per_worker,
            placement_group_bundle_indices=placement_group_bundle_indices,
            **rest,
        )


class _Controller(TrainController):  # type: ignore[misc]
    worker_group_cls = _WorkerGroup


class GroupTorchTrainer(TorchTrainer):  # type: ignore[misc]
    """A TorchTrainer whose workers live in the current placement group; elsewhere an ordinary TorchTrainer."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        if get_current_placement_group() is None:
            return list(callbacks)
        # An actor of 100 MB each.
        unused = (PlacementGroupCleanerCallback, *(() if self.datasets else (DatasetsCallback,)))
        return [c for c in callbacks if not isinstance(c, unused)]

    def _initialize_and_run_controller(self, **kwargs: Any) -> Any:
        data_parallel_trainer.TrainController = _Controller  # a module global, read when fit() runs
        return super()._initialize_and_run_controller(**kwargs)


class _NoRequests(FixedScalingPolicy):  # type: ignore[misc]
    def after_controller_start(self, train_run_context: Any) -> None:
        """Would register the run."""

    def _maybe_send_resource_request(self) -> None:
        """Would say every 20 s that it is still there."""


def disable_train_autoscaler_requests() -> None:
    """Keeps the Train runs that this process starts from asking the autoscaler for nodes: the driver asks for the whole sweep.

    Train asks for each run that it starts, beside what `cluster.resources.autoscaler` asks for, and goes on for three
    minutes for a run whose process was ended, as a stop ends it. Each bundle would count twice, and a list that is too
    long brings no node at all. Its actor for that (100 MB) also comes up on the trial's own node, which is then never
    idle again.
    """
    data_parallel_trainer.create_scaling_policy = _NoRequests  # a module global, read when fit() runs
