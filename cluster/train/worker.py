"""What runs on machines: training processes, which outlive their attempts, and the Tune function around them."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray
import ray.train

from cluster.connect.environment import cache_folder
from cluster.mailbox import (
    AttemptExited,
    AttemptId,
    AttemptWaits,
    CheckpointSaved,
    GroupExited,
    GroupId,
    Message,
    MetricsReported,
    ProcessStarted,
)
from cluster.train.start_up import StartUp
from cluster.train.this_node import naming_this_node
from sweeps.config.trial import Saved, attempt_folder
from sweeps.controller.launch import Launch
from sweeps.errors import TrialFailed, out_of_memory, text_of
from sweeps.failures import Failure, FailureKind, failure_of, storage_failure
from sweeps.garbage_collection import collection_paused
from sweeps.reported import checked_report, checked_saved
from sweeps.storage.base import storage_trouble

# What says that a process or its machine is gone, not that the trial is wrong. Train's own errors are internal, so by name.
LOST = (ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError)
LOST_IN_TRAIN = {"WorkerHealthCheckTimeoutError", "WorkerGroupStartupTimeoutError", "PreemptionError"}
CRASHED = "worker process has died"  # Ray's words when one process died and its node lives
OUT_OF_MEMORY = "running low on memory"  # and when its memory monitor ended it
POLL_S = 0.2  # how long a stop request may go unnoticed
REUSE_VARIABLE = "DIPSWEEP_REUSE_WORKERS"  # 0: every attempt brings up processes of its own

log = logging.getLogger(__name__)
Outcome = queue.Queue[BaseException | None]
Fit = Callable[[dict[str, Any], Any, Any, Outcome], None]


class AttemptDiscarded(Exception):
    """Ends an attempt between two steps without a last checkpoint: its trial was pruned, and its process may go on."""


class RayHooks:
    """The training loop's way out: rank 0 sends messages to the driver, and every rank sees the same stop request.

    Args:
        control: the control actor. attempt: whose messages these are. rank: among the attempt's training processes.
        start_up: the clock of its start, which its first report tells.
    """

    background_saves = True

    def __init__(self, control: Any, attempt: AttemptId, rank: int, start_up: StartUp) -> None:
        self.control, self.attempt, self.rank, self.start_up = control, attempt, rank, start_up
        self.stop_request = control.wait_for_stop.remote(attempt)

    def report(
        self, step: int, metrics: Mapping[str, float], *, progress: Mapping[str, float], cost: Mapping[str, float]
    ) -> None:
        told = checked_report(step, metrics, progress, cost)
        all_metrics = {**told.metrics, **self.start_up.metrics(told.metrics)}
        self._send(MetricsReported(self.attempt, told.step, all_metrics, told.progress, told.cost))

    def saved(self, checkpoint: Saved) -> None:
        self._send(CheckpointSaved(self.attempt, checked_saved(checkpoint)))

    def waiting(self, reason: str) -> None:
        self._send(AttemptWaits(self.attempt, str(reason)))

    def stop_asked(self) -> bool:
        """Looks whether a stop was requested; never waits. The first call ends the start-up: the first step comes next.

        Raises:
            AttemptDiscarded: it was, and nothing more is to be saved.
            RayActorError: the control actor is gone, so the driver is too.
        """
        self.start_up.first_step()
        if not ray.wait([self.stop_request], timeout=0)[0]:
            return False
        if not ray.get(self.stop_request):
            raise AttemptDiscarded(f"{self.attempt.trial} was stopped")
        return True

    def _send(self, message: Message) -> None:
        if self.rank == 0:
            ray.get(self.control.send.remote(message))


def attempt_of(launch: Launch) -> AttemptId:
    """Returns the name of the attempt that a launch starts."""
    return AttemptId(launch.spec.id, launch.attempt)


def group_of(launch: Launch) -> GroupId:
    """Returns the name of the processes that are brought up for a launch; it is also that of their Tune trial."""
    return f"{launch.spec.id}.{launch.attempt}"


def report_node(control: Any, attempt: AttemptId, *, trains: bool = False) -> None:
    """Says on which node this process runs: a trial whose node is taken away is moved, not failed."""
    control.send.remote(ProcessStarted(attempt, ray.get_runtime_context().get_node_id(), trains))


def is_reusable(train: Any) -> bool:
    """True when a training function says with `reuse = True` that its process may run another attempt after it.

    Asked by the driver, whose environment decides.
    """
    return bool(getattr(train, "reuse", False)) and os.environ.get(REUSE_VARIABLE, "1") != "0"


def runs_in_driver(launch: Launch, reuse: bool) -> bool:
    """True for a launch whose only training process is that of its Tune trial."""
    return reuse and launch.workers == 1


def train_worker(config: dict[str, Any]) -> None:
    """One training process of a group of several, as Ray Train starts it."""
    with collection_paused():
        import torch

    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    context = ray.train.get_context()
    run_attempts(config, config["control"], config["train"], context.get_world_rank(), context.get_world_size())


def run_attempts(config: Mapping[str, Any], control: Any, train: Any, rank: int = 0, world: int = 1) -> None:
    """Runs the attempt that this process was brought up for, then those that the driver assigns to it.

    Between two attempts everything is as in a new process (`process_state`) but for what makes the next one faster:
    imports, the CUDA context, the process group, compiled kernels. Every exception ends the process, and so does doubt.

    Args:
        config: `launch`, `storage`, `launched` (when, by the driver's clock) and `reuse` (further attempts may come).
        train: the training function. rank, world: this process among its group.
    """
    launch: Launch | None = config["launch"]
    start_up = StartUp(float(config["launched"]))
    if config["reuse"]:  # it imports torch, which a trainer of the user's own may do without
        with collection_paused():
            from cluster.train.process_state import ProcessState

        before = ProcessState.capture()
    while launch is not None:
        attempt, spec = attempt_of(launch), launch.spec
        report_node(control, attempt, trains=True)
        hooks = RayHooks(control, attempt, rank, start_up)
        folder = attempt_folder(config["storage"], spec.sweep, spec.id, launch.attempt)
        with contextlib.suppress(AttemptDiscarded), naming_this_node():
            # Context variables that it sets end with it.
            contextvars.copy_context().run(
                train, spec, hooks, folder=folder, resume=launch.resume, rank=rank, world=world
            )
        if not config["reuse"]:
            return
        if reason := _joint(before.doubt(), world):
            log.warning("the process ends after this attempt: %s", reason)
        if rank == 0:
            ray.get(control.send.remote(AttemptExited(attempt, reusable=not reason)))
        start_up = StartUp(time.time(), reused=True, cpu=time.process_time())
        launch = ray.get(control.next_launch.remote(attempt))
        before.restore()


def _joint(reason: str, world: int) -> str:
    """Returns the doubts of all processes of a group about a further attempt; all of them are done with this one then."""
    if world == 1:
        return reason
    import torch

    reasons: list[str] = [""] * world
    torch.distributed.all_gather_object(reasons, reason)
    return "; ".join(f"process {rank}: {each}" for rank, each in enumerate(reasons) if each)


def drive_attempt(config: dict[str, Any], control: Any = None, train: Any = None) -> None:
    """The Tune function of one group of processes: trains in a thread, and ends its process when a stop is requested.

    One reusable training process needs nothing of what Ray Train adds to a group: no rendezvous, no health checks across
    processes, none of its two actors of about 100 MB each. It runs here; its death is the death of the Tune trial.
    """
    launch: Launch = config["launch"]
    drive(config, control, train, _train_here if runs_in_driver(launch, config["reuse"]) else _fit)


def drive(config: dict[str, Any], control: Any, train: Any, fit: Fit) -> None:
    """Runs `fit` in a thread until it ends or a stop is requested; reports to the driver how it ended."""
    group = group_of(config["launch"])
    stopped = control.wait_for_group_stop.remote(group)
    report_node(control, attempt_of(config["launch"]))
    outcome: Outcome = queue.Queue()
    threading.Thread(target=fit, args=(config, control, train, outcome), daemon=True, name="train-fit").start()
    while True:
        try:
            error = outcome.get(timeout=POLL_S)
        except queue.Empty:
            if ray.wait([stopped], timeout=0)[0]:
                # Returning would leave Tune waiting for this process while Train's thread is still in it (seen: group
                # not freed for ten minutes). Its death takes controller and workers along, and Tune frees the group.
                os._exit(0)
            continue
        ray.get(control.send.remote(GroupExited(group, explain(error) if error else None)))
        return


def _train_here(config: dict[str, Any], control: Any, train: Any, outcome: Outcome) -> None:
    try:
        run_attempts(config, control, train)
        outcome.put(None)
    except BaseException as e:  # carried to the main thread, which tells the driver
        outcome.put(e)


def _fit(config: dict[str, Any], control: Any, train: Any, outcome: Outcome) -> None:
    try:
        with collection_paused():
            from cluster.ray_internals.train import GroupTorchTrainer, disable_train_autoscaler_requests
        from cluster.resources.bundles import bundle

        launch: Launch = config["launch"]
        spec = launch.spec
        disable_train_autoscaler_requests()
        GroupTorchTrainer(
            train_worker,
            train_loop_config={**config, "control": control, "train": train},
            scaling_config=ray.train.ScalingConfig(
                num_workers=launch.workers,
                use_gpu=spec.model.gpus_per_worker > 0,
                resources_per_worker=bundle(spec.model),
            ),
            run_config=ray.train.RunConfig(
                name=group_of(launch),
                storage_path=cache_folder(config["storage"], spec.sweep),
                # A broken attempt ends; the controller starts the next one from the journal. One way to fail, not two.
                failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=3),
            ),
        ).fit()
        outcome.put(None)
    except BaseException as e:  # carried to the main thread, which tells the driver
        outcome.put(e)


def explain(error: BaseException) -> Failure:
    """Returns what an attempt's error means: the trial's own (final), or a process or machine lost (worth another try)."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, TrialFailed):
            return failure_of(cause)
    for cause in causes:
        if (trouble := storage_trouble(cause)) is not None:
            return storage_failure(trouble)
        if out_of_memory(cause):
            return Failure(FailureKind.OUT_OF_MEMORY, "oom", (text_of(cause) or "no memory left").splitlines()[0])
        if isinstance(cause, LOST) or type(cause).__name__ in LOST_IN_TRAIN:
            return lost_process(text_of(cause))
    last = causes[-1]
    return Failure(FailureKind.USER, "error", f"{type(last).__name__}: {text_of(last)}".strip()[:600])


def lost_process(words: str) -> Failure:
    """Returns the failure that Ray's words on a process that is gone describe."""
    if OUT_OF_MEMORY in words:
        return Failure(FailureKind.OUT_OF_MEMORY, "oom", words.splitlines()[0][:300])
    kind = FailureKind.WORKER_CRASHED if CRASHED in words else FailureKind.WORKER_LOST
    return Failure(kind, "lost", (words.splitlines() or ["the attempt vanished"])[0][:300])


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and everything it wraps: Train nests worker errors by rank, Ray wraps the errors of tasks."""
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
