"""Runs a sweep in this very process, one trial at a time: no Ray, and the easiest place to debug.

The same controller decides as on a cluster; only the hands differ. Scores are taken as soon as a checkpoint is whole, so
with this executor whole sweeps are deterministic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from sweeps.config.eval_job import EvalJob
from sweeps.config.trial import Hooks, Saved, TrialSpec, attempt_folder
from sweeps.controller.controller import SweepController
from sweeps.controller.evaluation.failure import evaluation_failure
from sweeps.controller.evaluation.timeout import Allowance, time_limit
from sweeps.controller.launch import Launch
from sweeps.errors import Interrupted, JournalError, LimitError, TrialFailed, out_of_memory, text_of
from sweeps.executors.interrupt import Interrupt, stop_signals
from sweeps.executors.storage_backoff import StorageBackoff
from sweeps.failures import Failure, FailureKind, failure_of
from sweeps.reported import CheckedScores, checked_report, checked_saved, checked_scores
from sweeps.storage.base import storage_trouble

Progress = Callable[[str], None]
PAUSE_S = 0.2  # a paused sweep looks this often whether it may go on


class Train(Protocol):
    """A training function, such as `trainers.loop.train`."""

    def __call__(self, trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None: ...


class Scored(Protocol):
    """What an evaluation gives; see `evaluators.scores.Scores`."""

    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def se(self) -> Mapping[str, float]: ...
    @property
    def n(self) -> Mapping[str, int]: ...
    @property
    def suite(self) -> str: ...
    @property
    def cost(self) -> Mapping[str, float]: ...
    @property
    def outcomes(self) -> Mapping[str, str]: ...
    @property
    def parts(self) -> Mapping[str, Sequence[str]]: ...


Evaluate = Callable[[EvalJob], Scored]


def take_scores(controller: SweepController, job: EvalJob, scores: CheckedScores) -> None:
    """Hands what an evaluation gave to the controller; per-item outcomes go along where there are any."""
    controller.scored(
        job,
        scores.metrics,
        se=scores.se,
        n=scores.n,
        suite=scores.suite,
        cost=scores.cost,
        items=scores.items,
        parts=scores.parts if scores.items else None,
        asked=scores.asked,
        seconds=scores.seconds,
        cached=scores.cached,
    )


class _Hooks:
    """Passes the worker's reports straight to the controller, and scores checkpoints before training continues.

    The trainer's clocks run on meanwhile (`cpu_s` of the process, `gpu_s` of the wall), and an evaluation has a cost of its own:
    `scored` is taken off what the trainer says it spent.
    """

    def __init__(self, loop: InProcess, launch: Launch) -> None:
        self.loop, self.trial, self.attempt = loop, launch.spec.id, launch.attempt
        self.scored = {"cpu_s": 0.0, "gpu_s": 0.0}

    def report(
        self, step: int, metrics: Mapping[str, float], *, progress: Mapping[str, float], cost: Mapping[str, float]
    ) -> None:
        told = checked_report(step, metrics, progress, cost)
        own = {unit: max(0.0, seconds - self.scored.get(unit, 0.0)) for unit, seconds in told.cost.items()}
        self.loop.controller.report(self.trial, self.attempt, told.step, told.metrics, progress=told.progress, cost=own)
        self.loop.look_at_limits()

    def saved(self, checkpoint: Saved) -> None:
        self.loop.controller.saved(self.trial, self.attempt, checked_saved(checkpoint))
        cpu, wall = time.process_time(), time.perf_counter()
        self.loop.score_all()
        self.scored["cpu_s"] += time.process_time() - cpu
        self.scored["gpu_s"] += time.perf_counter() - wall

    def waiting(self, reason: str) -> None:
        self.loop.say(f"{self.trial} waits: {reason}")

    def stop_asked(self) -> bool:
        self.loop.steer()
        controller = self.loop.controller
        return self.loop.ending or controller.is_paused or not controller.is_current_attempt(self.trial, self.attempt)


class InProcess:
    """The in-process executor.

    Args:
        controller: decides. train: runs one attempt. evaluate: scores one checkpoint. storage: root of all sweeps.
        keep: called now and then, to delete what nobody needs. say: takes one line for a person.
        steer: called between steps; carries out what people ask for (`sweeps.controller.request_handler`).
    """

    def __init__(
        self,
        controller: SweepController,
        train: Train,
        evaluate: Evaluate,
        storage: str | Path,
        *,
        keep: Callable[[], None] = lambda: None,
        say: Progress = lambda line: None,
        steer: Callable[[], None] = lambda: None,
    ) -> None:
        self.controller, self.train, self.evaluate, self.storage = controller, train, evaluate, storage
        self.keep, self.say, self.steer = keep, say, steer
        self.interrupt = Interrupt()
        self.limit: str | None = None
        self.allowance = Allowance(controller.plan.sweep.evaluation.timeout_s)
        self.started = time.monotonic()
        self.storage_backoff = StorageBackoff(say)

    def run(self) -> None:
        """Runs the sweep to its end.

        Raises:
            Interrupted: Ctrl-C, SIGTERM or their like; the sweep can be resumed. LimitError: one of its limits is reached.
            StrategyError: the stop rule or the search cannot go on.
        """
        with stop_signals(self.say) as self.interrupt:
            try:
                self.steer()
                while not self.ending and not self.controller.finish_if_done():
                    self.score_all()
                    launch = None if self.ending else self.controller.next(workers=1, alone=True)
                    if launch is not None:
                        self._attempt(launch)
                    elif self.controller.is_paused:
                        time.sleep(PAUSE_S)
                    self.steer()
            except KeyboardInterrupt:  # the second press, maybe in the middle of a row: nothing more is written
                raise Interrupted("interrupted at once; resume continues from the last checkpoints") from None
        self.controller.raise_if_broken()
        if self.limit is not None:
            self.controller.interrupt("limits", self.limit)
            raise LimitError(
                f"{self.limit}; raise it in the sweep file and run that again: it goes on where it stopped"
            )
        if self.interrupt:
            self.controller.interrupt("user", self.interrupt.reason)
            raise Interrupted("interrupted; resume continues from the last checkpoints")
        if self.controller.stopping:
            self.controller.interrupt(self.controller.stopping, "asked to stop")
            raise Interrupted(f"stopped by {self.controller.stopping}; resume continues from the last checkpoints")

    @property
    def ending(self) -> bool:
        """True once the sweep is to save and end before its time."""
        return bool(self.interrupt or self.controller.stopping or self.limit or self.controller.broken)

    def look_at_limits(self) -> None:
        """Notes the limit that is used up: whatever runs saves, and the sweep ends."""
        if self.limit is None:
            self.limit = self.controller.over_limit(time.monotonic() - self.started)

    def _attempt(self, launch: Launch) -> None:
        spec, attempt = launch.spec, launch.attempt
        folder = attempt_folder(str(self.storage), spec.sweep, spec.id, attempt)
        try:
            self.train(spec, _Hooks(self, launch), folder=folder, resume=launch.resume)
        except TrialFailed as e:
            self.controller.failed(spec.id, attempt, failure_of(e))
        except (JournalError, LimitError):  # not the trial's fault
            raise
        except (Exception, SystemExit) as e:  # exit() in a user's own code ends its trial, not the sweep
            if (trouble := storage_trouble(e)) is not None:
                if not self.ending:
                    self.controller.suspended(spec.id, attempt, str(trouble))
                    self._wait_for_storage(str(trouble))
                return
            kind, reason = (FailureKind.OUT_OF_MEMORY, "oom") if out_of_memory(e) else (FailureKind.USER, "error")
            self.controller.failed(spec.id, attempt, Failure(kind, reason, f"{type(e).__name__}: {text_of(e)}"))
        else:
            if self.ending:
                return  # it was asked to save and stop: neither trained nor failed, it goes on after a resume
            self.controller.trained(spec.id, attempt)
            self.storage_backoff.worked()

    def _wait_for_storage(self, trouble: str) -> None:
        self.storage_backoff.failed(trouble)
        while not self.ending and self.storage_backoff.waiting:
            time.sleep(PAUSE_S)
            self.steer()

    def score_all(self) -> None:
        """Scores every checkpoint that waits for it."""
        while not self.ending and (job := self.controller.next_eval()) is not None:
            began, cpu = time.monotonic(), time.process_time()
            try:
                with time_limit(self.allowance.overdue, self.allowance.limit_s):
                    scores = checked_scores(self.evaluate(job))
            except (Exception, SystemExit) as e:
                failure = evaluation_failure(e)
                self.controller.eval_failed(job, failure, self._cost_since(began, cpu))
                if failure.kind is FailureKind.STORAGE:
                    self._wait_for_storage(failure.detail)
            else:
                self.allowance.took(time.monotonic() - began, scores)
                take_scores(self.controller, job, scores)
            self.look_at_limits()
        self.keep()

    def _cost_since(self, began: float, cpu: float) -> dict[str, float]:
        """Returns what an evaluation without scores cost: it held the GPU, where this sweep's training counts that."""
        cost = {"cpu_s": time.process_time() - cpu}
        return cost | {"gpu_s": time.monotonic() - began} if "gpu_s" in self.controller.spent() else cost
