"""What runs on machines: the training worker, and the driver of one attempt around it."""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import ray
import ray.train

from cluster.connect.environment import cache_folder
from cluster.mailbox import attempt_key
from sweeps.config.trial import Saved, attempt_folder
from sweeps.controller.controller import Launch
from sweeps.errors import TrialFailed, out_of_memory

# What says that a machine is gone, not that the trial is wrong. Train's own errors are internal, so by name.
LOST = (ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError)
LOST_IN_TRAIN = {"WorkerHealthCheckTimeoutError", "WorkerGroupStartupTimeoutError", "PreemptionError"}
CRASHED = "worker process has died"  # Ray's words when the node lives and one of its processes does not
POLL_S = 0.2  # how long a stopped attempt may go unnoticed

Outcome = queue.Queue[BaseException | None]
Fit = Callable[[dict[str, Any], Any, Any, Outcome], None]


class RayHooks:
    """The training loop's way out: rank 0 speaks to the hub, every rank hears the same stop."""

    def __init__(self, hub: Any, trial: str, attempt: int, rank: int) -> None:
        self.hub, self.trial, self.attempt, self.rank = hub, trial, attempt, rank
        self.asked = hub.until_asked.remote(attempt_key(trial, attempt))

    def report(
        self, step: int, metrics: Mapping[str, float], *, progress: Mapping[str, float], cost: Mapping[str, float]
    ) -> None:
        self._say(kind="report", step=step, metrics=dict(metrics), progress=dict(progress), cost=dict(cost))

    def saved(self, checkpoint: Saved) -> None:
        self._say(kind="saved", step=checkpoint.step, path=checkpoint.path, digest=checkpoint.digest)

    def stop_asked(self) -> bool:
        """Looks whether the hub has raised the flag; never waits. A hub that is gone has not: that is an error."""
        if not ray.wait([self.asked], timeout=0)[0]:
            return False
        ray.get(self.asked)
        return True

    def _say(self, **message: Any) -> None:
        if self.rank == 0:
            ray.get(self.hub.put.remote({"trial": self.trial, "attempt": self.attempt, **message}))


def say_node(hub: Any, launch: Launch, *, trains: bool = False) -> None:
    """Every process of an attempt says on which node it runs, and whether it is one that trains: a trial whose node is taken
    away is moved, not failed."""
    node = ray.get_runtime_context().get_node_id()
    hub.put.remote({"trial": launch.spec.id, "attempt": launch.attempt, "kind": "runs", "node": node, "trains": trains})


def train_worker(config: dict[str, Any]) -> None:
    """One training process of an attempt, as Ray Train starts it."""
    import torch

    from cluster.guard import check_names

    check_names()
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    context = ray.train.get_context()
    launch: Launch = config["launch"]
    rank, world = context.get_world_rank(), context.get_world_size()
    hooks = RayHooks(config["hub"], launch.spec.id, launch.attempt, rank)
    say_node(config["hub"], launch, trains=True)
    folder = attempt_folder(config["storage"], launch.spec.sweep, launch.spec.id, launch.attempt)
    config["train"](launch.spec, hooks, folder=folder, resume=launch.resume, rank=rank, world=world)


def drive_attempt(config: dict[str, Any], hub: Any = None, train: Any = None) -> None:
    """The Tune function of one attempt: runs Ray Train beside itself, and ends its process when the hub says stop."""
    drive(config, hub, train, _fit)


def drive(config: dict[str, Any], hub: Any, train: Any, fit: Fit) -> None:
    """Runs `fit` beside itself until it is over or the hub says stop; tells the driver how it ended."""
    launch: Launch = config["launch"]
    stopped = hub.until_stopped.remote(attempt_key(launch.spec.id, launch.attempt))
    say_node(hub, launch)
    outcome: Outcome = queue.Queue()
    threading.Thread(target=fit, args=(config, hub, train, outcome), daemon=True, name="train-fit").start()
    while True:
        try:
            error = outcome.get(timeout=POLL_S)
        except queue.Empty:
            if ray.wait([stopped], timeout=0)[0]:
                # Returning would leave Tune waiting for this process while Train's thread is still in it (seen: group
                # not freed for ten minutes). Its death takes controller and workers along, and Tune frees the group.
                os._exit(0)
            continue
        message = {"kind": "ended", "trial": launch.spec.id, "attempt": launch.attempt}
        ray.get(hub.put.remote({**message, **(explain(error) if error else {"ok": True})}))
        return


def _fit(config: dict[str, Any], hub: Any, train: Any, outcome: Outcome) -> None:
    from cluster.resources.placement import bundle
    from cluster.train.group import GroupTorchTrainer

    launch: Launch = config["launch"]
    spec = launch.spec
    try:
        GroupTorchTrainer(
            train_worker,
            train_loop_config={**config, "hub": hub, "train": train},
            scaling_config=ray.train.ScalingConfig(
                num_workers=launch.workers,
                use_gpu=spec.model.gpus_per_worker > 0,
                resources_per_worker=bundle(spec.model),
            ),
            run_config=ray.train.RunConfig(
                name=f"{spec.id}-{launch.attempt}",
                storage_path=cache_folder(config["storage"], spec.sweep),
                # A broken attempt ends; the director starts the next one from the journal. One way to fail, not two.
                failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=3),
            ),
        ).fit()
        outcome.put(None)
    except BaseException as e:  # carried to the main thread, which tells the driver
        outcome.put(e)


def explain(error: BaseException) -> dict[str, Any]:
    """Returns what an attempt's failure means: the trial's own error (final) or a lost machine (worth another try)."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, TrialFailed):
            return {"ok": False, "reason": cause.reason, "detail": cause.detail, "lost": False}
    for cause in causes:
        if out_of_memory(cause):  # another one may have held the memory; the second time it is the trial's own end
            return {
                "ok": False,
                "reason": "oom",
                "detail": (str(cause) or "no memory left").splitlines()[0],
                "lost": True,
            }
        if isinstance(cause, LOST) or type(cause).__name__ in LOST_IN_TRAIN:
            detail = str(cause).splitlines()[0][:300]
            return {"ok": False, "reason": "lost", "detail": detail, "lost": True, "crashed": CRASHED in str(cause)}
    last = causes[-1]
    where = "".join(traceback.format_exception(last)).strip().splitlines()
    detail = f"{type(last).__name__}: {last}".strip()[:600]
    return {"ok": False, "reason": "error", "detail": detail, "lost": False, "traceback": where[-12:]}


def _causes(error: BaseException) -> Any:
    """Yields an error and everything it wraps: Train nests worker errors by rank, Ray wraps tasks' errors."""
    todo, seen = [error], set()
    while todo:
        e = todo.pop(0)
        if id(e) in seen:
            continue
        seen.add(id(e))
        yield e
        todo += [x for x in getattr(e, "worker_failures", {}).values() if isinstance(x, BaseException)]
        wrapped = [
            e.__cause__,
            *(getattr(e, name, None) for name in ("cause", "_base_exc", "controller_failure", "health_check_failure")),
        ]
        todo += [x for x in wrapped if isinstance(x, BaseException)]
