"""The driver's run loop on Ray: Tune places attempts, Train runs them, the director decides, the journal remembers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.connect.address import check_ray
from cluster.connect.environment import JOB_CONFIG, SETTINGS, cache_folder, prepare
from sweeps.config.trial import Saved
from sweeps.controller.controller import Director, Launch
from sweeps.controller.gang_scheduler import Choice, Group
from sweeps.errors import DipsweepError, InputError, Interrupted, LimitError
from sweeps.executors.interrupt import Interrupt, ctrl_c
from sweeps.executors.local import Evaluate, Progress, Train, take_scores

prepare()

import ray  # noqa: E402 - Ray reads its settings when it is imported
from ray import tune  # noqa: E402
from ray.tune.progress_reporter import TrialProgressCallback  # noqa: E402
from ray.tune.trainable import wrap_function  # noqa: E402

from cluster.connect.ray_logging import hush, wants_ray_logs  # noqa: E402
from cluster.evals.pool import Broken, Pool  # noqa: E402
from cluster.mailbox import attempt_key, start_hub  # noqa: E402
from cluster.resources.autoscaler import Growth, place  # noqa: E402
from cluster.resources.fair_share import NAMESPACE, Asks, Share  # noqa: E402
from cluster.resources.placement import (  # noqa: E402
    Attempt,
    Gate,
    beside_evaluators,
    bundle,
    check_fits,
    evaluator_bundle,
    held,
    most_workers,
    size,
    times,
)
from cluster.train.worker import CRASHED, drive_attempt  # noqa: E402
from cluster.tune.adapter import AttemptSearch, Carrier, register  # noqa: E402

WIND_DOWN_S = 30.0  # after Ctrl-C: how long workers may take to write their checkpoints
GROWTH_S = 30.0  # so long a sweep that does not fit waits to hear what the autoscaler may add
TRIAL_FIRST_S = 60.0  # so long evaluators that reserve nothing leave the first trial alone with its cores
NODE_NEWS_S = 30.0  # a lost process is heard of before its lost node: so long may the verdict on an attempt wait


@contextmanager
def local_ray(
    cpus: int | None = None, *, gpus: int | None = None, dashboard: bool = False, address: str | None = None
) -> Iterator[None]:
    """A Ray to run on: the cluster at `address` (or RAY_ADDRESS), else one of our own on this machine.

    A Ray of our own has a token that only its processes know (`cluster.connect.environment`), and is gone when the block ends.

    Raises:
        InputError: there is no Ray at the address, it asks for no token or does not take ours.
    """
    if ray.is_initialized():
        yield
        return
    where: dict[str, Any] = {"address": address or os.environ.get("RAY_ADDRESS")}
    if not where["address"]:
        where = {"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": dashboard, "address": "local"}
    hush()
    with _door(where["address"]):
        ray.init(
            **where,
            namespace=NAMESPACE,
            log_to_driver=wants_ray_logs(),
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {k: os.environ[k] for k in SETTINGS}},
        )
    hush()  # once more: init sets the level of Ray's logger
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _door(address: str) -> Iterator[None]:
    """Around joining a Ray: looks at a running one first, and says in one sentence why it does not let this driver in."""
    if address not in ("auto", "local") and JOB_CONFIG not in os.environ:
        check_ray(address)
    try:
        yield
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as e:
        if address == "local":
            raise
        why = str(e).strip().splitlines()[0]
        raise InputError(
            f"--address: Ray at '{address}' does not let this driver in: {why}; RAY_AUTH_TOKEN_PATH names the file with its token"
        ) from e


class RayLoop:
    """One sweep on Ray. Everything here runs in the driver's main thread, inside Tune's own loop.

    Args:
        director: decides. train, evaluate: carried to the workers. storage: a folder that all nodes see.
        evaluators: size of the evaluator pool. eval_gpus: GPUs of each evaluator. say: takes one line of progress.
        keep: deletes what nobody needs. steer: carries out what people ask for (`sweeps.controller.request_handler`).
        drive: the Tune function of one attempt; tests and benchmarks have lighter ones than `drive_attempt`.
        shared: other sweeps may run on this cluster: ask `cluster.resources.fair_share` before each start.
    """

    def __init__(
        self, director: Director, train: Train, evaluate: Evaluate, storage: str | Path, *,
        evaluators: int = 1, eval_gpus: float = 0.0, say: Progress = lambda line: None,
        keep: Callable[[], None] = lambda: None, steer: Callable[[], None] = lambda: None,
        drive: Callable[..., None] = drive_attempt, shared: bool = False,
    ) -> None:  # fmt: skip
        self.drive, self.gate, self.shared = drive, Gate(director.plan), shared
        self.share: Share | None = None
        self.told_of_machines, self.told_held_up = False, set[Group]()
        self.director, self.train, self.evaluate, self.storage = director, train, evaluate, str(storage)
        self.say, self.keep, self.steer = say, keep, steer
        self.evaluators, self.eval_gpus = evaluators, eval_gpus
        self.live: dict[str, Attempt] = {}
        self.lost: list[tuple[float, Attempt, str, str]] = []  # when it is judged, who, reason, detail
        self.interrupt = Interrupt()
        self.limit: str | None = None
        self.started = time.monotonic()
        self.deadline = float("inf")

    def run(self) -> None:
        """Runs the sweep to its end.

        Raises:
            Interrupted: Ctrl-C; the sweep can be resumed. LimitError: one of its limits is reached.
            InputError: the cluster can never hold one of its trials.
        """
        sweep = self.director.plan.sweep
        if self.shared:
            self.share = Share(self.director.plan.sweep_id, sweep.limits.weight)
        check_fits(sweep, lambda: self.share.growth(GROWTH_S) if self.share is not None else None)
        self.hub = start_hub(self.director.plan.sweep_id)
        self.news = self.hub.drain.remote()
        block = sweep.evaluation
        self.pool = Pool(self.evaluate, self.evaluators, self.eval_gpus, block.cpus_per_worker, block.timeout_s)
        name = f"{self.director.plan.sweep_id}-{time.time_ns()}"
        forget = register(name, self)
        try:
            with ctrl_c(self.say) as self.interrupt:
                self._tuner(name).fit()
        except KeyboardInterrupt:  # the second press, maybe in the middle of a row: nothing more is written
            raise Interrupted("interrupted at once; resume continues from the last checkpoints") from None
        finally:
            forget()
            if self.share is not None:
                self.share.leave()
        if self.limit:
            raise LimitError(
                f"{self.limit}; raise it in the sweep file and run that again: it goes on where it stopped"
            )
        if self.interrupt:
            raise Interrupted("interrupted; resume continues from the last checkpoints")
        if self.director.stopping:
            raise Interrupted(f"stopped by {self.director.stopping}; resume continues from the last checkpoints")
        if not self.director.done():
            raise DipsweepError("Ray Tune ended before the sweep did; resume continues from the last checkpoints")

    def _tuner(self, name: str) -> Any:
        function = _readable(tune.with_parameters(self.drive, hub=self.hub, train=self.train))
        return tune.Tuner(
            tune.with_resources(function, lambda config: placement(config["launch"])),
            tune_config=tune.TuneConfig(
                search_alg=AttemptSearch(name), scheduler=Carrier(name), num_samples=-1,
                reuse_actors=False,  # a reused actor keeps its group, and a stopped attempt's Train thread with it
            ),
            run_config=tune.RunConfig(
                name="tune", storage_path=cache_folder(self.storage, self.director.plan.sweep_id), verbose=0,
                callbacks=[_Pump(name), _Quiet()], failure_config=tune.FailureConfig(max_failures=0),
            ),
        )  # fmt: skip

    @property
    def total(self) -> int:
        """Trials of the sweep, as far as is known."""
        return self.director.plan.total

    # ---- what Tune's loop calls -----------------------------------------------------------------------------------

    def pump(self, *, wait: bool = False) -> None:
        """Takes in the news: what workers said, scores that are ready; then raises stop flags and starts evaluations.

        Args:
            wait: also for what the hub has received up to now; else nobody waits for a hub that is busy or coming up.
        """
        messages, results = self._mail(wait), list(self.pool.finished())
        with self.director.journal.batch():  # one write for all news; what follows from it comes after
            for message in messages:
                self._take(message)
            for job, result in results:
                if isinstance(result, Broken):
                    self.director.eval_failed(job, result.reason, result.cost, preempted=result.preempted)
                else:
                    take_scores(self.director, job, result)
        self._open_pool()
        while self.pool.free and (waiting := self.director.next_eval()) is not None:
            self.pool.submit(waiting)
        self.steer()
        self._judge_the_lost()
        if self.share is not None:
            self.share.weight, self.gate.strangers = self.director.plan.sweep.limits.weight, self.share.strangers
            self.share.renew(held(self.live.values()), self._head_wants, self._reserved(), self._asks)
        self._raise_flags()
        self._look_at_ends()
        if messages or results:
            self.keep()

    def next(self) -> Launch | None:
        """Returns the next attempt that fits what is free now."""
        if self._ending:
            return None
        choice = self.gate.choose(self.director.waiting, self.live.values())
        self._tell_who_is_held_up()
        if choice is None or not self._our_turn(choice):
            return None
        launch = self.director.launch(choice.trial, choice.workers)
        self.gate.placed(choice, launch.spec.model)
        key = attempt_key(launch.spec.id, launch.attempt)
        self.live[key] = Attempt(launch, choice.placed, time.monotonic())
        return launch

    def over(self) -> bool:
        """True when Tune may end: nothing is left, or the sweep is ending and no attempt is live any more."""
        if self.live or self.lost:
            return False
        return True if self._ending else self.director.done()

    def attempt_ended(self, trial: str, attempt: int, error: str | None) -> None:
        """Tune says that an attempt is gone; its own last words may still lie in the hub."""
        key = attempt_key(trial, attempt)
        if key not in self.live:
            return
        self.pump(wait=True)
        gone = self.live.pop(key)
        self.gate.left(gone)
        if self.share is not None:
            self.share.hurry()
        self.hub.forget.remote(key)
        if not gone.said and not self._ending:
            crashed = CRASHED in (error or "")
            self._lost(gone, "lost", (error or "the attempt vanished")[:300], 0.0 if crashed else NODE_NEWS_S)

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _mail(self, wait: bool) -> list[Any]:
        """Returns what the hub has brought. One call is always on its way, and only one: so messages stay in order."""
        mail: list[Any] = []
        for _ in range(2 if wait else 1):  # the call on its way may be older than what is waited for
            if wait or ray.wait([self.news], timeout=0)[0]:
                mail += ray.get(self.news)
                self.news = self.hub.drain.remote()
        return mail

    def _take(self, message: Any) -> None:
        trial, attempt, kind = message["trial"], message["attempt"], message["kind"]
        known = self.live.get(attempt_key(trial, attempt))
        if known is not None and kind in ("report", "saved"):
            known.step = max(known.step, message["step"])
        if kind == "report":
            self.director.report(trial, attempt, message["step"], message["metrics"],
                                 progress=message["progress"], cost=message["cost"])  # fmt: skip
        elif kind == "saved":
            self.director.saved(trial, attempt, Saved(message["step"], message["path"], message["digest"]))
        elif kind == "runs" and known is not None:
            known.nodes.add(message["node"])
            known.trains |= message["trains"]
        elif kind == "ended" and known is not None:
            known.said = True
            self._ended(known, message)

    def _ended(self, attempt: Attempt, message: Any) -> None:
        spec, number = attempt.launch.spec, attempt.launch.attempt
        if self._ending:
            return  # an attempt that was asked to wind down is neither trained nor failed: it goes on after a resume
        if message.get("ok"):
            if attempt.drained and attempt.step < spec.steps:
                self._preempted(attempt, "its node is being taken away; it saved and left")
            else:
                self.director.trained(spec.id, number, asked=bool(attempt.asked))
        elif message["lost"]:
            self._lost(attempt, message["reason"], message["detail"], 0.0 if message.get("crashed") else NODE_NEWS_S)
        else:
            self.director.failed(spec.id, number, message["reason"], message["detail"])

    def _open_pool(self) -> None:
        """Evaluators that reserve something come first. Those that share the trainers' cores come up once processes of a trial
        train, or when none could: to come up beside them made its first step a quarter later (two cores, measured)."""
        if not self.pool.to_open:
            return
        reserve = any(evaluator_bundle(self.director.plan.sweep.evaluation).values())
        begun = any(attempt.trains or attempt.step for attempt in self.live.values())
        waited = time.monotonic() - self.started > TRIAL_FIRST_S
        if reserve or begun or waited or not (self.live or self.director.waiting()):
            self.pool.open()

    def _our_turn(self, choice: Choice) -> bool:
        """Asks the arbiter where other sweeps are on the cluster too."""
        if self.share is None:
            return True
        spec = self.director.spec(choice.trial)
        assert spec is not None
        return self.share.may_start(held(self.live.values()), times(bundle(spec.model), choice.workers))

    def _tell_who_is_held_up(self) -> None:
        """Says once of each size that others on the cluster leave it no room: it would look like a sweep that hangs."""
        for group in [g for g in self.gate.admission.shut_out if g not in self.told_held_up and self.gate.held_up(g)]:
            self.told_held_up.add(group)
            self.say(f"trials of {group.fewest} x ({size(group.bundle)}) wait until others on this cluster give machines back; "
                     "what fits goes first")  # fmt: skip

    def _head_wants(self) -> dict[str, float]:
        head = None if self._ending else self.gate.first(self.director.waiting)
        return times(head.bundle, head.fewest) if head else {}

    def _reserved(self) -> dict[str, float]:
        """Returns what the evaluators that are up hold."""
        up = 0 if self.pool.to_open else self.evaluators
        return times(evaluator_bundle(self.director.plan.sweep.evaluation), up)

    def _asks(self, growth: Growth) -> Asks:
        """What should exist for this sweep where an autoscaler can make it so; tells once that machines are waited for."""
        pool = (evaluator_bundle(self.director.plan.sweep.evaluation), self.evaluators)
        holds = [pool, *((bundle(a.launch.spec.model), a.launch.workers) for a in self.live.values())]
        line = [] if self._ending else self.director.waiting(self.gate.ahead)
        room = beside_evaluators(growth.nodes(), self.director.plan.sweep.evaluation)
        most = {name: most_workers(room, model) for name, model in {s.config["model"]: s.model for s in line}.items()}
        waits = [(bundle(spec.model), most[spec.config["model"]]) for spec in line]
        if waits and not self.told_of_machines:
            asked, there = len(growth.hold(holds + waits)), len(place(self.gate.nodes, holds + waits))
            if asked > there:
                self.told_of_machines = True
                self.say(f"waits for machines: the autoscaler was asked for room for {asked} workers and evaluators, "
                         f"{there} of them have it")  # fmt: skip
        return holds, waits

    def _lost(self, attempt: Attempt, reason: str, detail: str, wait: float) -> None:
        if self.director.wants(attempt.launch.spec.id, attempt.launch.attempt):
            self.lost.append((time.monotonic() + wait, attempt, reason, detail))

    def _judge_the_lost(self) -> None:
        """A machine that was taken away is nobody's fault; a process that died on a machine that lives may be."""
        for lost in list(self.lost):
            until, attempt, reason, detail = lost
            nodes = attempt.nodes | set(attempt.placed)  # not each of its processes may have said where it runs
            if reason == "lost" and self.gate.gone(nodes):
                self._preempted(attempt, detail)
            elif reason != "lost" or time.monotonic() >= until:
                self.director.failed(attempt.launch.spec.id, attempt.launch.attempt, reason, detail, lost=True)
            else:
                continue
            self.lost.remove(lost)

    def _preempted(self, attempt: Attempt, detail: str) -> None:
        launch = attempt.launch
        self.director.failed(launch.spec.id, launch.attempt, "preempted", detail, lost=True, preempted=True)

    def _raise_flags(self) -> None:
        late, going = time.monotonic() > self.deadline, self.gate.going()
        for key, attempt in self.live.items():
            launch = attempt.launch
            unwanted = not self.director.wants(launch.spec.id, launch.attempt) and not attempt.said
            if (unwanted or late) and attempt.asked != "stop":
                attempt.asked = "stop"
                self.hub.stop.remote(key)
            drained = bool(going & attempt.nodes)
            if (drained or self.director.paused) and not attempt.asked:
                attempt.asked, attempt.drained = "leave", drained
                self.hub.wind_down.remote(key)

    def _look_at_ends(self) -> None:
        if self.interrupt and self.deadline == float("inf"):
            self._wind_down("user", "Ctrl-C")
        if self.director.stopping and self.deadline == float("inf"):
            self._wind_down(self.director.stopping, "asked to stop")
        if self.limit is None and (over := self.director.over_limit(time.monotonic() - self.started)):
            self.limit = over
            self._wind_down("limits", over)

    @property
    def _ending(self) -> bool:
        return bool(self.interrupt or self.director.stopping) or self.limit is not None

    def _wind_down(self, who: str, reason: str) -> None:
        self.director.interrupt(who, reason)
        self.deadline = time.monotonic() + WIND_DOWN_S
        self.hub.stop_all.remote()


class _Pump(tune.Callback):  # type: ignore[misc]
    """Runs the loop's pump once in every turn of Tune's own loop (at least ten times a second)."""

    def __init__(self, loop: str) -> None:
        self.loop = loop

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        from cluster.tune.adapter import _LOOPS

        _LOOPS[self.loop].pump()


class _Quiet(TrialProgressCallback):  # type: ignore[misc]
    """Stands in the place of Tune's own printer, which Tune would add: the sweep tells its story itself."""

    def on_trial_result(self, *args: Any, **kwargs: Any) -> None: ...

    def on_trial_error(self, *args: Any, **kwargs: Any) -> None: ...

    def on_trial_complete(self, *args: Any, **kwargs: Any) -> None: ...


def _readable(function: Any) -> Any:
    """Returns a Tune function as a class whose actors Ray's dashboard shows by their attempts; Tune calls all of them alike."""

    class Attempt(wrap_function(function)):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            from cluster.train.no_autoscaler_requests import leave_scaling_to_the_driver  # 0.1 s, and not the driver's

            leave_scaling_to_the_driver()
            super().setup(config)

        def __repr__(self) -> str:
            return f"dipsweep-attempt:{self.trial_id}"

    return Attempt


def placement(launch: Launch) -> tune.PlacementGroupFactory:
    """Returns the group of one attempt: an empty bundle for its driver, then one bundle per worker.

    The driver reserves nothing: even 0.01 CPU would make two 2-worker trials on 4 CPUs run one after the other.
    """
    return tune.PlacementGroupFactory([{}] + [bundle(launch.spec.model)] * launch.workers, strategy="PACK")
