"""The driver's run loop on Ray: Tune places attempts, Train runs them, the controller decides, the journal remembers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.connect.environment import cache_folder, prepare
from sweeps.config.trial import TrialSpec
from sweeps.controller.controller import SweepController
from sweeps.controller.launch import Launch
from sweeps.errors import DipsweepError, Interrupted, LimitError
from sweeps.executors.interrupt import Interrupt, stop_signals
from sweeps.executors.local import Evaluate, Progress, Train, take_scores
from sweeps.executors.storage_backoff import NodeBackoff, StorageBackoff
from sweeps.failures import Failure, FailureKind
from sweeps.journal.vocabulary import DRIVER

prepare()

import ray  # noqa: E402 - Ray reads its settings when it is imported
from ray import tune  # noqa: E402

from cluster.driver.failures import LostAttempts  # noqa: E402
from cluster.driver.resource_requests import ResourceRequests  # noqa: E402
from cluster.evals.pool import Broken, Pool  # noqa: E402
from cluster.mailbox import (  # noqa: E402
    AttemptExited,
    AttemptId,
    AttemptWaits,
    CheckpointSaved,
    GroupExited,
    GroupId,
    Message,
    MetricsReported,
    ProcessStarted,
    start_control_actor,
)
from cluster.resources.bundles import Attempt, StopRequest, evaluator_bundle  # noqa: E402
from cluster.resources.fair_share import FairShareClient  # noqa: E402
from cluster.resources.fit_check import check_fits  # noqa: E402
from cluster.resources.placement import PlacementScheduler  # noqa: E402
from cluster.train.worker import attempt_of, drive_attempt, group_of, is_reusable, lost_process  # noqa: E402
from cluster.tune.adapter import (  # noqa: E402
    AttemptSearch,
    NoOpScheduler,
    PollCallback,
    SilentProgress,
    named_trainable,
    placement_group,
    register,
)

WIND_DOWN_S = 30.0  # after Ctrl-C: how long workers may take to write their checkpoints
GROWTH_S = 30.0  # how long a sweep that does not fit waits to hear what the autoscaler may add
MAX_ATTEMPTS = 50  # that one group of processes runs
SHORT_STEP_S = 0.5  # an attempt with longer steps is ended at once when its trial is stopped
DISCARD_S = 1.0  # how long one with shorter steps may take to return between two of them
TRIAL_FIRST_S = 60.0  # how long evaluators that reserve nothing leave the first trial alone with its cores


def _same_model(a: TrialSpec, b: TrialSpec) -> bool:
    return bool(a.config["model"] == b.config["model"] and a.model == b.model)


class RayLoop:
    """One sweep on Ray. Everything here runs in the driver's main thread, inside Tune's own loop.

    Args:
        controller: decides. train, evaluate: carried to the workers. storage: a folder that all nodes see.
        say: takes one line of progress. keep: deletes what is not needed any more.
        steer: carries out what people ask for (`sweeps.controller.request_handler`).
        drive: the Tune function of one attempt; tests and benchmarks have lighter ones than `drive_attempt`.
        shared: other sweeps may run on this cluster: ask `cluster.resources.fair_share` before each start.
    """

    def __init__(
        self,
        controller: SweepController,
        train: Train,
        evaluate: Evaluate,
        storage: str | Path,
        *,
        say: Progress = lambda line: None,
        keep: Callable[[], None] = lambda: None,
        steer: Callable[[], None] = lambda: None,
        drive: Callable[..., None] = drive_attempt,
        shared: bool = False,
    ) -> None:
        self.controller, self.train, self.evaluate, self.storage = controller, train, evaluate, str(storage)
        self.say, self.keep, self.steer, self.drive, self.shared = say, keep, steer, drive, shared
        self.nodes = NodeBackoff(say)
        self.placement = PlacementScheduler(controller.plan, avoided=self.nodes.avoided)
        self.lost = LostAttempts(self.placement.any_gone, self._fail)
        self.reuse = is_reusable(train)
        self.live: dict[AttemptId, Attempt] = {}
        self.groups: dict[GroupId, list[AttemptId]] = {}  # every attempt that each group of processes has run
        self._leaving: GroupId = ""  # whose processes are gone, while its last messages are handled
        self.interrupt, self.storage_backoff = Interrupt(), StorageBackoff(say)
        self.limit: str | None = None
        self.started = time.monotonic()
        self.deadline = float("inf")  # by then every attempt must have saved and returned

    def run(self) -> None:
        """Runs the sweep to its end.

        Raises:
            Interrupted: Ctrl-C, SIGTERM or their like; the sweep can be resumed. LimitError: one of its limits is reached.
            InputError: the cluster can never hold one of its trials. StrategyError: the stop rule or the search cannot go on.
        """
        plan = self.controller.plan
        client = FairShareClient(plan.sweep_id, plan.sweep.limits.weight) if self.shared else None
        self.requests = ResourceRequests(self.controller, self.placement, self.say, client)
        check_fits(plan.sweep, lambda: client.growth(GROWTH_S) if client is not None else None)
        self.control = start_control_actor(plan.sweep_id)
        self.messages_call = self.control.receive_all.remote()
        e = plan.sweep.evaluation
        self.pool = Pool(
            self.evaluate,
            e.workers,
            gpus=e.gpus_per_worker,
            cpus=e.cpus_per_worker,
            timeout_s=e.timeout_s,
            python=e.python,
            nodes=self.nodes,
            room=self.placement.free,
        )
        name = f"{plan.sweep_id}-{time.time_ns()}"
        unregister = register(name, self)
        try:
            with stop_signals(self.say) as self.interrupt:
                self._tuner(name).fit()
        except KeyboardInterrupt:  # the second press, maybe in the middle of a row: nothing more is written
            raise Interrupted("interrupted at once; resume continues from the last checkpoints") from None
        finally:
            unregister()
            self.requests.unregister()
        self.controller.raise_if_broken()
        if self.limit:
            raise LimitError(
                f"{self.limit}; raise it in the sweep file and run that again: it goes on where it stopped"
            )
        if self.interrupt:
            raise Interrupted("interrupted; resume continues from the last checkpoints")
        if self.controller.stopping:
            raise Interrupted(f"stopped by {self.controller.stopping}; resume continues from the last checkpoints")
        if not self.controller.finish_if_done():
            raise DipsweepError("Ray Tune ended before the sweep did; resume continues from the last checkpoints")

    def _tuner(self, name: str) -> Any:
        trainable = named_trainable(tune.with_parameters(self.drive, control=self.control, train=self.train))
        return tune.Tuner(
            tune.with_resources(
                trainable, lambda config: placement_group(config["launch"], config["reuse"], config["avoid"])
            ),
            tune_config=tune.TuneConfig(
                search_alg=AttemptSearch(name),
                scheduler=NoOpScheduler(name),
                num_samples=-1,
                reuse_actors=False,  # Tune would keep them when nothing waits for them; see `_reassign`
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=cache_folder(self.storage, self.controller.plan.sweep_id),
                verbose=0,
                callbacks=[PollCallback(name), SilentProgress()],
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )

    @property
    def total(self) -> int:
        """Trials of the sweep, as far as is known."""
        return self.controller.plan.total

    @property
    def busy(self) -> bool:
        """True while Tune has a trial: processes that run an attempt, or that are on their way up or down."""
        return bool(self.groups)

    # ---- what Tune's loop calls -----------------------------------------------------------------------------------

    def poll(self, *, wait: bool = False) -> None:
        """Processes all events: messages of workers, scores that are ready; then requests stops and starts evaluations.

        Args:
            wait: for the messages that the control actor has received up to now; otherwise the loop never waits for it.
        """
        messages, results = self._receive(wait), list(self.pool.finished())
        waiting_processes: list[Attempt] = []
        with self.controller.journal.batch():  # one write for all events; what follows from them comes after
            for message in messages:
                waiting_processes += self._handle(message)
            for job, result in results:
                if isinstance(result, Broken):
                    self.controller.eval_failed(job, result.failure, result.cost)
                    if result.failure.kind is FailureKind.STORAGE and not result.failure.node:
                        self.storage_backoff.failed(result.failure.detail)
                else:
                    take_scores(self.controller, job, result)
        for ended in waiting_processes:
            self._reassign(ended)
        self._open_pool()
        while (
            self.pool.free and not self.storage_backoff.waiting and (waiting := self.controller.next_eval()) is not None
        ):
            self.pool.submit(waiting)
        self.steer()
        self.lost.judge()
        evaluators_up = 0 if self.pool.to_open else self.controller.plan.sweep.evaluation.workers
        self.requests.renew(self.live.values(), evaluators_up, ending=self._ending)
        self._request_stops()
        self._check_for_end()
        if messages or results:
            self.keep()

    def next_launch(self) -> Launch | None:
        """Returns the next attempt that fits what is free now."""
        if self._ending or self.storage_backoff.waiting:
            return None
        choice = self.placement.choose(self.controller.next_trials, self.live.values())
        self.requests.say_blocked()
        if choice is None or not self.requests.may_start(choice, self.live.values()):
            return None
        launch = self.controller.launch(choice.trial, choice.workers)
        self.placement.started(choice, launch.spec.model)
        key, group = attempt_of(launch), group_of(launch)
        self.live[key] = Attempt(launch, group, choice.placed, time.monotonic())
        self.groups[group] = [key]
        return launch

    def is_over(self) -> bool:
        """True when Tune may end: nothing is left, or the sweep is ending and no attempt is live any more."""
        if self.groups or self.lost:
            return False
        return True if self._ending else self.controller.finish_if_done()

    def on_group_gone(self, launch: Launch, error: str | None) -> None:
        """Tune says that the processes brought up for a launch are gone; their last messages may still be on their way."""
        group = group_of(launch)
        if group not in self.groups:
            return
        self._leaving = group
        self.poll(wait=True)
        attempts = self.groups.pop(group)
        self.control.unregister.remote(group, attempts)
        self.requests.attempt_ended()
        attempt = self.live.pop(attempts[-1], None)
        if attempt is None:  # it had ended before, and no other was assigned
            return
        self.placement.ended(attempt)
        self.placement.given_back(attempt)
        if not attempt.reported_exit and not self._ending:
            self._lost(attempt, lost_process(error or ""))

    # ---- messages -------------------------------------------------------------------------------------------------

    def _receive(self, wait: bool) -> list[Message]:
        """Returns the messages that have come. One call is always on its way, and only one: so they stay in order."""
        messages: list[Message] = []
        for _ in range(2 if wait else 1):  # the call on its way may be older than what is waited for
            if wait or ray.wait([self.messages_call], timeout=0)[0]:
                messages += ray.get(self.messages_call)
                self.messages_call = self.control.receive_all.remote()
        return messages

    def _handle(self, message: Message) -> list[Attempt]:
        """Tells the controller; returns the attempts that have ended and whose processes wait for what to do next."""
        if isinstance(message, GroupExited):
            self._handle_group(message)
            return []
        trial, number = message.attempt
        live = self.live.get(message.attempt)
        match message:
            case MetricsReported(step=step):
                if live is not None:
                    live.step = max(live.step, step)
                self.controller.report(
                    trial, number, step, message.metrics, progress=message.progress, cost=message.cost
                )
            case CheckpointSaved(checkpoint=checkpoint):
                if live is not None:
                    live.step = max(live.step, checkpoint.step)
                self.controller.saved(trial, number, checkpoint)
            case AttemptWaits():
                self.controller.waits(trial, number, message.reason)
            case ProcessStarted():
                if live is not None:
                    live.nodes.add(message.node)
                    live.trains |= message.trains
            case AttemptExited():
                if live is not None:
                    live.reusable = message.reusable
                    self._exited(live, None)
                    return [live]
        return []

    def _handle_group(self, message: GroupExited) -> None:
        attempts = self.groups.get(message.group)
        live = self.live.get(attempts[-1]) if attempts else None
        if live is not None and not live.reported_exit:
            self._exited(live, message.failure)

    def _exited(self, attempt: Attempt, failure: Failure | None) -> None:
        attempt.reported_exit = True
        if self._ending:
            return  # an attempt that was asked to save and return is neither trained nor failed: it is resumed later
        if failure is None and attempt.preempted and attempt.step < attempt.launch.spec.steps:
            failure = Failure(
                FailureKind.NODE_PREEMPTED, "preempted", "its node is being taken away; it saved and left"
            )
        if failure is None:
            self.storage_backoff.worked()
            self.nodes.worked(attempt.nodes)
            asked = attempt.stop_request is not StopRequest.NONE
            self.controller.trained(attempt.launch.spec.id, attempt.launch.attempt, asked=asked)
        elif failure.kind is FailureKind.STORAGE:
            self.controller.suspended(attempt.launch.spec.id, attempt.launch.attempt, failure.detail)
            if failure.node:
                self.nodes.failed(failure.node, failure.detail)
            else:
                self.storage_backoff.failed(failure.detail)
        elif failure.retryable:
            self._lost(attempt, failure)
        else:
            self._fail(attempt, failure)

    def _reassign(self, ended: Attempt) -> None:
        """Gives the processes of an attempt that has ended to the next one in the queue, or lets them end.

        They go to whichever trial would start if they gave their place back now, and only if it has the same shape. So
        no trial waits for the sake of reuse, nothing is held that nothing waits for, and a larger trial at the head of
        the queue gets the room.
        """
        key = attempt_of(ended.launch)
        del self.live[key]
        self.placement.ended(ended)
        launch = self._next_for(ended)
        self.control.assign.remote(key, launch)
        if launch is None:
            self.placement.given_back(ended)
            return
        attempt = Attempt(launch, ended.group, ended.placed, time.monotonic(), nodes=set(ended.nodes), trains=True)
        self.live[attempt_of(launch)] = attempt
        self.groups[ended.group].append(attempt_of(launch))

    def _next_for(self, ended: Attempt) -> Launch | None:
        """Returns the launch for the processes of an attempt that has ended, None when they are to end."""
        dying = not ended.reusable or ended.stop_request is StopRequest.IMMEDIATE or ended.group == self._leaving
        draining = ended.preempted or bool(self.placement.draining_nodes() & ended.nodes)
        held_back = self._ending or self.storage_backoff.waiting
        if held_back or dying or draining or len(self.groups[ended.group]) >= MAX_ATTEMPTS:
            return None
        choice = self.placement.choose(self.controller.next_trials, self.live.values(), ended)
        if choice is None:
            return None
        spec = self.controller.spec(choice.trial)
        assert spec is not None  # it was chosen from the queue
        if not _same_model(spec, ended.launch.spec) or choice.workers != ended.launch.workers:
            return None
        if not self.requests.may_start(choice, self.live.values()):
            return None
        return self.controller.launch(self._nearest(spec, ended).id, choice.workers)

    def _nearest(self, chosen: TrialSpec, ended: Attempt) -> TrialSpec:
        """Returns what the processes of an attempt can begin with the least: a branch of what they trained themselves.

        It takes the turn of the trial that was chosen, which has the same shape and gets the next free place. Where sizes
        differ that must be the first in the queue: one that fills a gap was chosen for how long it takes.
        """
        trained = {trial for trial, _ in self.groups[ended.group]}
        branch = next((b for b in self.controller.branches_of(trained) if _same_model(b, chosen)), None)
        first = self.placement.look_ahead_if_blocked == 1 or self.controller.next_trials()[:1] == [chosen]
        return branch if branch is not None and first else chosen

    # ---- failures -------------------------------------------------------------------------------------------------

    def _lost(self, attempt: Attempt, failure: Failure) -> None:
        if self._is_current(attempt):
            self.lost.add(attempt, failure)

    def _fail(self, attempt: Attempt, failure: Failure) -> None:
        self.controller.failed(attempt.launch.spec.id, attempt.launch.attempt, failure)

    def _is_current(self, attempt: Attempt) -> bool:
        return self.controller.is_current_attempt(attempt.launch.spec.id, attempt.launch.attempt)

    # ---- stops and ends -------------------------------------------------------------------------------------------

    def _request_stops(self) -> None:
        late, draining = time.monotonic() > self.deadline, self.placement.draining_nodes()
        for key, attempt in self.live.items():
            if late or not (self._is_current(attempt) or attempt.reported_exit):
                self._end_attempt(key, attempt)
            preempted = bool(draining & attempt.nodes)
            if (preempted or self.controller.is_paused) and attempt.stop_request is StopRequest.NONE:
                attempt.stop_request, attempt.preempted = StopRequest.GRACEFUL, preempted
                self.control.stop_gracefully.remote(key)

    def _end_attempt(self, key: AttemptId, attempt: Attempt) -> None:
        """Ends an attempt now; one that looks between short steps is asked first, so that its process stays for the next."""
        now = time.monotonic()
        quick = attempt.done > 0 and (now - attempt.since) / attempt.done <= SHORT_STEP_S
        if attempt.stop_request is StopRequest.NONE and self.reuse and quick and attempt.launch.workers == 1:
            attempt.stop_request, attempt.stop_at = StopRequest.DISCARD, now + DISCARD_S
            self.control.stop_gracefully.remote(key, save=False)
        elif attempt.stop_request is not StopRequest.IMMEDIATE and now >= attempt.stop_at:
            attempt.stop_request = StopRequest.IMMEDIATE
            self.control.stop.remote(key, attempt.group)

    def _check_for_end(self) -> None:
        if self.interrupt and self.deadline == float("inf"):
            self._wind_down("user", self.interrupt.reason)
        if self.controller.broken is not None and self.deadline == float("inf"):
            self._wind_down(DRIVER, str(self.controller.broken))
        if self.controller.stopping and self.deadline == float("inf"):
            self._wind_down(self.controller.stopping, "asked to stop")
        if self.limit is None and (over := self.controller.over_limit(time.monotonic() - self.started)):
            self.limit = over
            self._wind_down("limits", over)

    @property
    def _ending(self) -> bool:
        broken = self.controller.broken is not None
        return bool(self.interrupt or self.controller.stopping) or broken or self.limit is not None

    def _wind_down(self, who: str, reason: str) -> None:
        self.controller.interrupt(who, reason)
        self.deadline = time.monotonic() + WIND_DOWN_S
        self.control.stop_all_gracefully.remote()

    # ---- evaluators -----------------------------------------------------------------------------------------------

    def _open_pool(self) -> None:
        """Brings the evaluators up: at once when they reserve something, else when a trial's processes train.

        Evaluators that share the trainers' cores made the first step of the first trial a quarter later when they came
        up beside it (two cores, measured). They also come up when no trial will start, or after TRIAL_FIRST_S.
        """
        if not self.pool.to_open:
            return
        reserve = any(evaluator_bundle(self.controller.plan.sweep.evaluation).values())
        begun = any(attempt.trains or attempt.step for attempt in self.live.values())
        waited = time.monotonic() - self.started > TRIAL_FIRST_S
        if reserve or begun or waited or not (self.live or self.controller.next_trials()):
            self.pool.open()
