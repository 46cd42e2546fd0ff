"""All decisions of one sweep, and the one writer of its journal.

The director knows no clock, no Ray and no torch. An executor (in-process, simulated, Ray) asks it what to start and what
to score, and tells it what happened; it writes each fact to the journal first and only then asks the stop rule. Stop,
park, crash and resume are one path: the attempt ends, the next one starts from the journal.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from sweeps.config.plan import Plan
from sweeps.config.shared_prefix import shared_steps
from sweeps.config.trial import Saved, TrialSpec
from sweeps.controller.eval_early_stopping import early_end
from sweeps.controller.eval_queue import EVAL_TRIES, EvalJob, ScoreQueue, Standing, is_suspect
from sweeps.controller.searcher import Result, Searcher, Suggestion, make_searcher
from sweeps.journal.history import History
from sweeps.journal.rows import VERSION, Row, base_trial, split_finite
from sweeps.journal.writer import Journal
from sweeps.stopping.base import Action, StopRule, Verdict
from sweeps.storage.base import inside, is_url, join

ASKED_FOR = -1  # the number of a trial that a person added: the search did not suggest it
DAMAGED = "bad-checkpoint"  # reason of an attempt that could not start from its checkpoint
LESS_MEMORY = (
    "lower batch_tokens or max_length, set pack_tokens or gradient_checkpointing, or give the model more workers"
)
PREEMPTIONS = 100  # machines taken away are nobody's fault; a trial that lost this many will not end by itself
Status = Literal["waiting", "running", "parked", "scoring", "ended"]


@dataclass(frozen=True, slots=True)
class Launch:
    """An attempt to be started now: from scratch, or from a checkpoint of an earlier attempt, on `workers` processes."""

    spec: TrialSpec
    attempt: int
    resume: Saved | None = None
    workers: int = 1


@dataclass(slots=True)
class _Entry:
    spec: TrialSpec
    number: int
    status: Status = "waiting"
    attempt: int = 0
    lost: int = 0
    preempted: int = 0
    saved: dict[int, Saved] = field(default_factory=dict)
    scored: set[int] = field(default_factory=set)
    given_up: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    committed: dict[int, int] = field(default_factory=dict)  # step -> the journal's number of its checkpoint
    phase: str = ""
    suspect: bool = False

    parent: str = ""  # whose checkpoint it begins from: its trunk, or what it extends or was cloned from
    fork: int = 0  # at the parent's last checkpoint up to this step; once it has begun, at this step
    begun: Saved | None = None  # what its latest attempt started from
    short_of_memory: int = 0
    parked_at: int = -1  # the step at which it was last parked

    @property
    def last(self) -> Saved | None:
        return self.newest()

    def newest(self, limit: int | None = None) -> Saved | None:
        """Its latest checkpoint, not beyond a step."""
        steps = [s for s in self.saved if s not in self.dropped and (limit is None or s <= limit)]
        return self.saved[max(steps)] if steps else None

    @property
    def trained(self) -> bool:
        """A checkpoint of its last step is there."""
        return self.spec.steps in self.saved

    @property
    def unscored(self) -> list[int]:
        done = self.scored | self.given_up | self.dropped
        return sorted(s for s in self.saved if s in self.spec.snapshots and s not in done)


class Director:
    """Runs one sweep's decisions over a journal; a journal with rows in it is a sweep that goes on.

    Args:
        plan: what is to run. journal: where facts go. rule: who prunes. searcher: who proposes trials.
        watch: hears every new row after it was written.
        home: the sweep's folder; checkpoints inside it are written down relative to it, so that a sweep can be moved.
    """

    def __init__(
        self, plan: Plan, journal: Journal, rule: StopRule, searcher: Searcher | None = None,
        watch: Callable[[Row], None] = lambda row: None, home: str | Path = "",
    ) -> None:  # fmt: skip
        self.watch, self.home = watch, str(home)
        self.plan, self.journal, self.rule = plan, journal, rule
        self.searcher = searcher or make_searcher(plan)
        self._trials: dict[str, _Entry] = {}
        self._waiting: deque[str] = deque()
        self._scores = ScoreQueue(self._standing)
        self._bases: set[str] = set()
        self._by_status: dict[Status, set[str]] = {}
        self._touched: set[str] = set()  # trials whose checkpoints may have become needless
        self._costs: dict[tuple[str, int], dict[str, float]] = {}
        self._spent: dict[str, float] = {}
        self._children: dict[str, list[str]] = {}
        self._requests: set[str] = set()
        self.paused = False
        self.ending = False  # this driver saves and ends
        self.stopping = ""  # who asked the whole sweep to stop; the executor then winds down as after Ctrl-C
        self._exhausted = False
        self._closed = False
        self._live = False  # while rows of an earlier driver are read, trials are restored, not asked for
        rows = journal.rows()
        for row in rows:
            self._take(row)
        self._live = True
        if not any(row.kind == "sweep" for row in rows):
            self._write(self._sweep_row())
        self._finish(rows)
        self._reopen()

    @property
    def history(self) -> History:
        """Everything known of every trial."""
        return self.rule.history

    # ---- what to start ------------------------------------------------------------------------------------------

    def waiting(self, limit: int = 1) -> list[TrialSpec]:
        """Returns the trials to be started next, at most `limit`: open ones first, then new ones, then a parked one.

        The search is asked for no more than that: what it proposes early it proposes without knowing later scores.
        """
        if self.paused:
            return []
        while True:
            self._refill(limit)
            head = list(islice(self._ready(), limit))
            trained = [t for t in head if self._is_trained(self._trials[t])]
            if not trained:
                return [self._trials[t].spec for t in head]
            for trial in trained:
                self._waiting.remove(trial)
                self._training_over(self._trials[trial])

    def launch(self, trial: str, workers: int | None = None) -> Launch:
        """Starts an attempt of a waiting trial, on `workers` processes (default: as many as its model asks for)."""
        self._waiting.remove(trial)
        return self._launch(self._trials[trial], workers or self._trials[trial].spec.model.workers)

    def next(self, fits: Callable[[TrialSpec], bool] = lambda spec: True) -> Launch | None:
        """Returns the attempt of the trial at the head of the line, if there is one and `fits` says yes."""
        head = self.waiting()
        return self.launch(head[0].id) if head and fits(head[0]) else None

    def _refill(self, limit: int) -> None:
        while not self._exhausted and len(list(islice(self._ready(), limit))) < limit:
            suggestion = self.searcher.ask()
            if suggestion is None:
                self._exhausted = True
            else:
                self._add(suggestion)
        if not self._waiting and (parked := self._in_status("parked")):
            woken = self.rule.wake(parked)
            if woken is not None:
                self._set(self._trials[woken], "waiting")
                self._waiting.append(woken)

    def _ready(self) -> Iterator[str]:
        return (t for t in self._waiting if not self._waits_for_parent(self._trials[t]))

    def _waits_for_parent(self, entry: _Entry) -> bool:
        """True while the trunk that a trial turns off from may still leave a later checkpoint for it."""
        if not entry.parent or entry.attempt:
            return False
        trunk = self._trials.get(entry.parent)
        if trunk is None:
            return not self._exhausted  # the search has yet to name it
        on_its_way = trunk.status in ("waiting", "running")
        return on_its_way and (trunk.last is None or trunk.last.step < entry.fork)

    def _is_trained(self, entry: _Entry) -> bool:
        """True when only scores are missing: by an earlier driver, or because its trunk has run all of its steps."""
        trunk = self._trials.get(entry.parent)
        whole = trunk.saved.get(entry.spec.steps) if trunk is not None and entry.fork == entry.spec.steps else None
        if not entry.trained and whole is not None and not entry.attempt:
            self._launch(entry, 0)
            self.saved(entry.spec.id, entry.attempt, whole)
        return entry.trained

    def _set(self, entry: _Entry, status: Status) -> None:
        """Changes a trial's status and its place in the index: nobody walks over all trials of a large sweep."""
        self._by_status.setdefault(entry.status, set()).discard(entry.spec.id)
        self._by_status.setdefault(status, set()).add(entry.spec.id)
        entry.status = status

    def _leave_line(self, trial: str) -> None:
        if trial in self._waiting:
            self._waiting.remove(trial)

    def _in_status(self, status: Status) -> list[str]:
        """Returns the trials of a status, in order of their numbers."""
        return sorted(self._by_status.get(status, ()), key=lambda t: self._trials[t].number)

    def _add(self, suggestion: Suggestion) -> None:
        branch = self.plan.trunk(suggestion.config)
        self.add(suggestion.config, parent=branch.parent if branch else "", fork=branch.step if branch else 0,
                 number=suggestion.number, search=dict(suggestion.state))  # fmt: skip

    def add(self, config: Mapping[str, Any], *, parent: str = "", fork: int = 0, **extra: Any) -> str:
        """Adds a trial and returns its id; a trial that exists already stands for both.

        Args:
            config: all resolved hyperparameters. extra: further keys of its row.
            parent: the trial that it begins from, at its last checkpoint not beyond step `fork`.
        """
        spec = self.plan.trial(config)
        if spec.id not in self._trials:
            branch = {"parent": parent, "fork_step": fork} if parent else {}
            self._write(Row("trial", self.plan.sweep_id, spec.id, budget=spec.steps, config=spec.config,
                            extra={**branch, **extra}))  # fmt: skip
        return spec.id

    def _launch(self, entry: _Entry, workers: int) -> Launch:
        resume, branch = entry.last, {}
        if resume is None and (trunk := self._trials.get(entry.parent)) is not None:
            resume = trunk.newest(entry.fork)
            branch = {"parent": entry.parent, "fork_step": resume.step if resume else 0}
        self._write(Row("attempt", self.plan.sweep_id, entry.spec.id, entry.attempt + 1, resume.step if resume else 0,
                        budget=entry.spec.steps, extra={"workers": workers, **branch}))  # fmt: skip
        entry.begun = resume
        if branch:
            for step in sorted(self.history.curves[entry.parent].points):
                self._inherit(entry, step)
        self._want_base(entry.spec)
        return Launch(entry.spec, entry.attempt, resume, workers)

    def _inherit(self, entry: _Entry, step: int) -> None:
        """Writes what its parent measured at a step that they share as the trial's own, at no cost: one curve a trial."""
        point = self.history.curves[entry.parent].points.get(step)
        if point is None or not point.suite or not 0 < step <= entry.fork or entry.status == "ended":
            return
        metrics = {k: v for k, v in point.metrics.items() if not k.startswith("perf/")}
        self._write(Row("report", self.plan.sweep_id, entry.spec.id, entry.attempt, step, entry.spec.steps, metrics,
                        point.se, point.n, point.invalid, point.suite, extra={"inherited": entry.parent}))  # fmt: skip

    # ---- what happened ------------------------------------------------------------------------------------------

    def wants(self, trial: str, attempt: int) -> bool:
        """False once an attempt is to end: its trial was stopped or parked, or a newer attempt has taken over."""
        entry = self._trials.get(trial)
        return entry is not None and entry.status == "running" and entry.attempt == attempt

    def report(
        self, trial: str, attempt: int, step: int, metrics: Mapping[str, float], *,
        progress: Mapping[str, float] | None = None, cost: Mapping[str, float] | None = None,
    ) -> Verdict | None:  # fmt: skip
        """Takes the trainer's own numbers; returns the verdict when the trial is not to go on."""
        if not self.wants(trial, attempt):
            return None
        good, bad = split_finite(metrics)
        return self._report(Row("report", self.plan.sweep_id, trial, attempt, step, self._trials[trial].spec.steps,
                                good, invalid=bad, progress=progress or {}, cost=cost or {}))  # fmt: skip

    def saved(self, trial: str, attempt: int, checkpoint: Saved) -> None:
        """Takes the news that a checkpoint is whole, and queues it for scoring."""
        entry = self._trials.get(trial)
        if entry is None or attempt != entry.attempt or entry.status not in ("running", "parked"):
            return
        self._write(Row("commit", self.plan.sweep_id, trial, attempt, checkpoint.step,
                        checkpoint=checkpoint.digest, extra={"path": self._inside(checkpoint.path)}))  # fmt: skip
        self._queue_scores(entry)

    def trained(self, trial: str, attempt: int, *, asked: bool = False) -> None:
        """The training function returned. Without a checkpoint at the budget that was not the end it was meant to be.

        Args:
            asked: it was asked to save and leave, for a pause that may be over by now.
        """
        if not self.wants(trial, attempt):
            return
        entry = self._trials[trial]
        if entry.last is None or entry.last.step < entry.spec.steps:
            if asked or self.paused:
                self.yielded(trial, attempt, "the sweep was paused")
                return
            at = entry.last.step if entry.last else 0
            self.failed(
                trial,
                attempt,
                "no-metrics",
                f"training ended without a checkpoint at its budget; the last was at step {at}",
            )
            return
        self._training_over(entry)

    def failed(
        self, trial: str, attempt: int, reason: str, detail: str = "", *, lost: bool = False, preempted: bool = False
    ) -> None:
        """The attempt broke. An error of the trial is its end; a lost machine is tried again within `limits.retries`.

        A machine that was taken away (`preempted`: a spot node gone, a node drained) does not count against them.
        """
        if not self.wants(trial, attempt):
            return
        entry = self._trials[trial]
        if reason == DAMAGED and self._strike(entry, detail):
            return
        if reason == "oom" and entry.short_of_memory:
            lost, detail = False, f"out of memory twice: {detail}; {LESS_MEMORY}"
        again = entry.preempted < PREEMPTIONS if preempted else lost and entry.lost < self.plan.sweep.limits.retries
        if not again:
            self._end(entry, "failed", reason, detail)
            return
        extra = {"who": "driver", "action": "retry", "reason": reason, "detail": detail}
        self._write(Row("control", self.plan.sweep_id, trial, attempt,
                        extra={**extra, "preempted": True} if preempted else extra))  # fmt: skip
        self._set(entry, "waiting")
        self._waiting.appendleft(trial)

    def _strike(self, entry: _Entry, detail: str) -> bool:
        """Strikes the checkpoint that an attempt could not start from; False when it started from none."""
        owners = [t for t, e in self._trials.items() if entry.begun and e.saved.get(entry.begun.step) == entry.begun]
        if entry.begun is None or not owners:
            return False
        for owner in owners:
            self._write(Row("commit", self.plan.sweep_id, owner, self._trials[owner].attempt, entry.begun.step,
                            extra={"path": self._inside(entry.begun.path), "damaged": True, "reason": detail}))  # fmt: skip
        self.yielded(entry.spec.id, entry.attempt, detail)
        return True

    def yielded(self, trial: str, attempt: int, reason: str) -> None:
        """An attempt gave its machines back before its end; the trial goes on later, and nothing counts against it."""
        if not self.wants(trial, attempt):
            return
        self._write(Row("control", self.plan.sweep_id, trial, attempt,
                        extra={"who": "driver", "action": "yield", "reason": reason}))  # fmt: skip
        self._set(self._trials[trial], "waiting")
        self._waiting.appendleft(trial)

    # ---- what people ask for (sweeps.controller.request_handler)
    # --------------------------------------------------------------------

    def stop(self, trial: str, who: str) -> None:
        """Ends a trial at a person's wish, whatever it does."""
        entry = self._trials[trial]
        if entry.status != "ended":
            self._end(entry, "pruned", f"stopped by {who}")

    def control(self, action: str, who: str, trial: str = "", **extra: Any) -> None:
        """Writes down what a person asked for; `pause` and `resume` take effect by this row."""
        self._write(Row("control", self.plan.sweep_id, trial, extra={"who": who, "action": action, **extra}))

    def knows(self, request: str) -> bool:
        """True when a request of that id stands in the journal already."""
        return request in self._requests

    def checkpoint(self, trial: str, limit: int | None = None) -> Saved | None:
        """Returns a trial's latest checkpoint, not beyond step `limit`."""
        return self._trials[trial].newest(limit)

    def spec(self, trial: str) -> TrialSpec | None:
        """Returns a trial as its worker sees it; None where there is no such trial."""
        entry = self._trials.get(trial)
        return entry.spec if entry is not None else None

    def interrupt(self, who: str, reason: str) -> None:
        """Notes that the sweep was interrupted; open attempts go on in the next driver."""
        self.ending = True
        self._write(Row("control", self.plan.sweep_id, extra={"who": who, "action": "interrupt", "reason": reason}))

    # ---- scores -------------------------------------------------------------------------------------------------

    def next_eval(self) -> EvalJob | None:
        """Returns the next checkpoint to score, or None."""
        return self._scores.next()

    def wants_score(self, job: EvalJob) -> bool:
        """False once nobody needs the scores of a job any more."""
        return self._scores.wants(job)

    def scored(
        self, job: EvalJob, metrics: Mapping[str, float], *, se: Mapping[str, float], n: Mapping[str, int],
        suite: str, cost: Mapping[str, float], extra: Mapping[str, Any] | None = None,
        asked: Mapping[str, Any] | None = None,
    ) -> Verdict | None:  # fmt: skip
        """Takes the scores of a checkpoint; returns the verdict when its trial is not to go on.

        Args:
            asked: of an evaluation that ended before all items were asked: how many, `of` how many, and why.
        """
        if not self._scores.forget(job) or not self.wants_score(job):
            return None
        if other := self._other_suite(job, suite):
            self._give_up(
                job, "failed", f"{other}; go on with the version that began the sweep, or rename the sweep", cost
            )
            return None
        good, bad = split_finite(metrics)
        verdict = self._report(Row("report", self.plan.sweep_id, job.trial, job.attempt, job.step, metrics=good, se=se, n=n,
                                   invalid=bad, suite=suite, extra=extra or {}))  # fmt: skip
        # After the scores: cut off between the two rows, a resumed sweep has them and does not score again.
        self._write(Row("eval", self.plan.sweep_id, job.trial, job.attempt, job.step, suite=suite, cost=cost,
                        extra={"status": "done", **({"asked": dict(asked)} if asked else {})}))  # fmt: skip
        self._drop_needless()
        if job.trial in self._trials:
            self._maybe_complete(self._trials[job.trial])
        return verdict

    def eval_failed(
        self, job: EvalJob, reason: str, cost: Mapping[str, float] | None = None, *, preempted: bool = False
    ) -> None:
        """An evaluation broke: tried again, then given up; never the end of the trial.

        A machine that was taken away (`preempted`) does not count as a try.
        """
        if job.tries >= EVAL_TRIES and not preempted:
            self._give_up(job, "failed", reason, cost)
            return
        self._write(Row("eval", self.plan.sweep_id, job.trial, job.attempt, job.step, cost=cost or {},
                        extra={"status": "failed", "reason": reason, "try": job.tries, "given_up": False}))  # fmt: skip
        self._scores.again(job, counted=not preempted)

    def _give_up(self, job: EvalJob, status: str, reason: str, cost: Mapping[str, float] | None = None) -> None:
        """Writes down that a checkpoint will have no scores: its evaluation `failed`, or it was `skipped`."""
        self._scores.forget(job)
        self._write(Row("eval", self.plan.sweep_id, job.trial, job.attempt, job.step, cost=cost or {},
                        extra={"status": status, "reason": reason, "try": job.tries, "given_up": True}))  # fmt: skip
        entry = self._trials.get(job.trial)
        if entry is not None:
            self._maybe_complete(entry)

    def _drop_needless(self) -> None:
        """Gives up spare checkpoints that were overtaken, when more wait than the evaluators will get to."""
        evaluation = self.plan.sweep.evaluation
        for job in self._scores.needless(evaluation.backlog * evaluation.workers):
            scored = max(self._trials[job.trial].scored)
            self._give_up(job, "skipped", f"{len(self._scores.waiting)} checkpoints wait, and step {scored} has scores")

    def _standing(self, job: EvalJob) -> Standing | None:
        entry = self._trials.get(job.trial)
        if entry is None:
            return None
        return Standing(entry.spec.snapshots, max(entry.scored, default=0), entry.suspect, entry.status == "ended")

    def _other_suite(self, job: EvalJob, suite: str) -> str | None:
        """Returns what is wrong when scores are of another suite than those that a curve and its base have already."""
        known = self.history.suite(job.trial)
        return f"these scores are of suite {suite}, the sweep's are of {known}" if known not in ("", suite) else None

    # ---- the sweep ----------------------------------------------------------------------------------------------

    def done(self) -> bool:
        """True when nothing is left to run or to score. Trials still parked then end as pruned."""
        if self._by_status.get("running") or self._scores or self.paused or self.waiting():
            return False
        if self._scores:  # a waiting trial turned out to be trained already: its scores are missing
            return False
        for trial in self._in_status("scoring"):
            self._maybe_complete(self._trials[trial])
        for trial in self._in_status("parked"):
            self._end(self._trials[trial], "pruned", "parked, and nothing changed in its favour before the sweep ended")
        if not self._closed:
            self._write(Row("end", self.plan.sweep_id, extra={"of": "sweep", "status": "done"}))
        return True

    def queues(self) -> dict[str, int]:
        """Returns how many trials wait for machines and how many checkpoints for evaluators, or are with them."""
        return {
            "trials": len(self._waiting),
            "evaluations": len(self._scores.waiting),
            "being scored": len(self._scores.running),
        }

    def spent(self) -> dict[str, float]:
        """Returns what the sweep has cost so far: `gpu_s` and `cpu_s` over all attempts."""
        return dict(self._spent)

    def _count(self, payer: tuple[str, int], cost: Mapping[str, float]) -> None:
        """Takes a cumulative cost of one payer (an attempt, an evaluation) into the sum over all."""
        known = self._costs.setdefault(payer, {})
        for unit, amount in cost.items():
            self._spent[unit] = self._spent.get(unit, 0.0) + amount - known.get(unit, 0.0)
            known[unit] = amount

    def over_limit(self, wall_s: float) -> str | None:
        """Returns a sentence when the sweep has used up one of its limits, else None."""
        limits = self.plan.sweep.limits
        if limits.wall_hours is not None and wall_s > limits.wall_hours * 3600:
            return f"limits.wall_hours: {wall_s / 3600:.2f} h have passed, {limits.wall_hours} are allowed"
        gpu_hours = self.spent().get("gpu_s", 0.0) / 3600
        if limits.gpu_hours is not None and gpu_hours > limits.gpu_hours:
            return f"limits.gpu_hours: {gpu_hours:.2f} GPU hours are spent, {limits.gpu_hours} are allowed"
        if limits.usd is not None and gpu_hours * (limits.usd_per_gpu_hour or 0) > limits.usd:
            return f"limits.usd: {gpu_hours * (limits.usd_per_gpu_hour or 0):.2f} are spent, {limits.usd} are allowed"
        return None

    def disposable(self, keep: int = 2) -> list[tuple[str, Saved]]:
        """Returns checkpoints that nobody needs: scored, neither among a trial's last `keep` nor its best.

        Looks only at trials with news since the last call.
        """
        out = []
        for trial in sorted(self._touched):
            entry = self._trials[trial]
            kept = set(sorted(entry.saved)[-keep:]) | self._best_step(trial) | self._forks_to_come(trial)
            lent = {c.path for child in self._children.get(trial, ()) for c in self._trials[child].saved.values()}
            for step, checkpoint in entry.saved.items():
                seen = step in entry.scored or step in entry.given_up or step not in entry.spec.snapshots
                needless = (seen or entry.status == "ended") and checkpoint.path not in lent and step > entry.fork
                if step not in kept and step not in entry.dropped and needless:
                    out.append((trial, checkpoint))
        self._touched = {trial for trial, _ in out}  # until `dropped` is heard of all of them
        return out

    def _forks_to_come(self, trial: str) -> set[int]:
        """Checkpoints that a branch will begin from: those of the plan, and the one that an extension would take."""
        entry = self._trials[trial]
        children = (self._trials[t] for t in self._children.get(trial, ()))
        begins = (c.fork for c in children if c.status != "ended" and not c.saved)  # until it has one of its own
        limits = [*begins, shared_steps(entry.spec.config)]
        return {saved.step for limit in limits if (saved := entry.newest(limit)) is not None}

    def dropped(self, trial: str, checkpoint: Saved) -> None:
        """Notes that a checkpoint's files are gone."""
        self._write(Row("commit", self.plan.sweep_id, trial, self._trials[trial].attempt, checkpoint.step,
                        extra={"path": self._inside(checkpoint.path), "dropped": True}))  # fmt: skip

    def _inside(self, path: str) -> str:
        return inside(path, self.home) or path if self.home else path

    def _best_step(self, trial: str) -> set[int]:
        curve, goal = self.history.curves.get(trial), self.plan.sweep.goal
        if curve is None or not curve.steps(goal.metric):
            return set()
        return {max(curve.steps(goal.metric), key=lambda s: goal.sign * curve.points[s].metrics[goal.metric])}

    # ---- inside -------------------------------------------------------------------------------------------------

    def _report(self, row: Row) -> Verdict | None:
        return self._judge(row) if self._write(row) else None

    def _judge(self, row: Row) -> Verdict | None:
        """Asks the rule about the trial of a report that was just written, and writes down what is new."""
        for child in self._children.get(row.trial, ()) if row.suite else ():
            if self._trials[child].attempt and row.step is not None:
                self._inherit(self._trials[child], row.step)
        entry = self._trials.get(row.trial)
        if entry is None:
            return None
        in_line = entry.status == "waiting" and entry.attempt > 0  # its attempt broke off; scores of it still count
        if entry.status != "running" and not in_line:
            return None
        if row.step is not None and row.step <= entry.parked_at:
            return None  # judged before: a trial woken without a later checkpoint would be parked there again and again
        verdict = self.rule.decide(row.trial)
        suspect = is_suspect(verdict.phase, verdict.evidence)
        if verdict.action is Action.CONTINUE and (verdict.phase, suspect) == (entry.phase, entry.suspect):
            return None
        self._write(Row("verdict", self.plan.sweep_id, row.trial, entry.attempt, row.step,
                        extra={"action": str(verdict.action), "phase": str(verdict.phase), "reason": verdict.reason,
                               "evidence": _finite(verdict.evidence), "seen": self.history.seq}))  # fmt: skip
        if verdict.action is Action.STOP:
            self._end(entry, "pruned", verdict.reason)
        return None if verdict.action is Action.CONTINUE else verdict

    def _training_over(self, entry: _Entry) -> None:
        self._write(Row("end", self.plan.sweep_id, entry.spec.id, entry.attempt, entry.spec.steps,
                        extra={"of": "training", "status": "completed"}))  # fmt: skip
        self._queue_scores(entry)
        self._maybe_complete(entry)

    def _maybe_complete(self, entry: _Entry) -> None:
        if entry.status != "scoring" or entry.unscored or self._scores.open(entry.spec.id):
            return
        metric = self.plan.sweep.goal.metric
        curve = self.history.curves[entry.spec.id]
        if entry.spec.steps in curve.points and metric in curve.points[entry.spec.steps].metrics:
            self._end(entry, "completed", "")
        else:
            self._end(entry, "failed", "no-metrics", f"trained to its budget, but '{metric}' was never measured there")

    def _end(self, entry: _Entry, status: str, reason: str, detail: str = "") -> None:
        step = self.history.curves[entry.spec.id].last_step
        extra = {"of": "scoring", "status": status, "reason": reason}
        self._write(Row("end", self.plan.sweep_id, entry.spec.id, entry.attempt, step,
                        extra={**extra, "detail": detail} if detail else extra))  # fmt: skip

    def _want_base(self, spec: TrialSpec) -> None:
        model = str(spec.config["model"])
        if model not in self._bases:
            self._bases.add(model)
            trial = base_trial(model)
            scored = self.history.base.get(trial)
            if scored is None or not scored.points:
                job = EvalJob(trial, 0, 0, spec.model.path, model, spec.evaluation)
                self._scores.add(job)

    def _queue_scores(self, entry: _Entry) -> None:
        spec, model = entry.spec, str(entry.spec.config["model"])
        for step in entry.unscored:
            self._scores.add(EvalJob(spec.id, entry.attempt, step, entry.saved[step].path, model, spec.evaluation,
                                     order=entry.committed[step],
                                     early=early_end(self.plan.sweep, spec, step)))  # fmt: skip
        self._drop_needless()

    def _finish(self, rows: Sequence[Row]) -> None:
        """After a restart: a driver that died between a report and its verdict, or a verdict and its end, left them to us."""
        last = next((r for r in reversed(rows) if r.kind != "lease" and not r.extra.get("inherited")), None)
        entry = self._trials.get(last.trial) if last is not None else None
        if last is None or entry is None or entry.status != "running":
            return
        if last.kind == "report":
            self._judge(last)
        elif last.kind == "verdict" and last.extra.get("action") == Action.STOP:
            self._end(entry, "pruned", str(last.extra.get("reason", "")))

    def _reopen(self) -> None:
        """After a restart: attempts that were open go on first, checkpoints without scores are queued again."""
        for trial, entry in self._trials.items():
            if entry.status in ("running", "waiting"):
                self._set(entry, "waiting")
                self._waiting.append(trial)
            if entry.status != "ended":
                self._queue_scores(entry)
            if entry.attempt:
                self._want_base(entry.spec)

    def _write(self, row: Row) -> bool:
        """Journal first, then everything that follows from the row; False when it says nothing new."""
        if row.kind == "report" and not self._says_something(row):
            return False
        row = self.journal.append(row)
        new = self._take(row)
        self.watch(row)
        return new

    def _says_something(self, row: Row) -> bool:
        home = self.history.base if row.trial.startswith("base-") else self.history.curves
        curve = home.get(row.trial)
        return curve is None or curve.news(row)

    def _take(self, row: Row) -> bool:
        """The one place where a row changes what the director knows, live and on restart alike."""
        new = self.rule.observe(row)
        if row.kind == "trial":
            self._take_trial(row)
        elif row.kind == "end" and not row.trial:
            self._closed = True
        elif row.kind == "control":
            self._take_control(row)
        elif row.kind == "eval":
            self._count((f"eval {row.trial}", row.seq), row.cost)  # base models' too, which belong to no trial
        entry = self._trials.get(row.trial)
        if entry is None:
            return new
        if row.kind != "report" or row.suite:
            self._touched.add(row.trial)
        if row.kind == "attempt":
            entry.attempt = row.attempt
            entry.fork = int(row.extra.get("fork_step", entry.fork))
            self._set(entry, "running")
            for step in [s for s in entry.saved if s > (row.step or 0)]:
                del entry.saved[step]
            for steps in (entry.scored, entry.given_up):  # what is trained anew is scored anew
                steps.intersection_update({s for s in steps if s <= (row.step or 0)})
        elif row.kind == "commit":
            self._take_commit(entry, row)
        elif row.kind == "report":
            self._count((row.trial, row.attempt), row.cost)
            if row.suite and row.step is not None:
                entry.scored.add(row.step)
        elif row.kind == "eval" and row.step is not None:
            if not self.history.curves[row.trial].accepts(row):
                pass  # of an attempt that was superseded: the step is trained and scored again
            elif row.extra.get("given_up"):
                entry.given_up.add(row.step)
            elif row.extra.get("status") == "done":
                entry.scored.add(row.step)
        elif row.kind == "control" and row.extra.get("action") == "retry":
            if row.extra.get("preempted"):
                entry.preempted += 1
            else:
                entry.lost += 1
                entry.short_of_memory += row.extra.get("reason") == "oom"
        elif row.kind == "verdict":
            entry.phase = str(row.extra.get("phase", ""))
            entry.suspect = is_suspect(entry.phase, row.extra.get("evidence", {}))
            if row.extra.get("action") == "PARK":
                entry.parked_at = row.step or 0
                self._leave_line(row.trial)
                self._set(entry, "parked")
        elif row.kind == "end":
            self._take_end(entry, row)
        return new

    def _take_trial(self, row: Row) -> None:
        number = int(row.extra.get("number", ASKED_FOR))
        parent, fork = str(row.extra.get("parent", "")), int(row.extra.get("fork_step", 0))
        self._trials[row.trial] = entry = _Entry(self.plan.trial(row.config), number, parent=parent, fork=fork)
        self._set(entry, "waiting")
        if parent:
            self._children.setdefault(parent, []).append(row.trial)
        if number == ASKED_FOR:
            self._closed = False  # a finished sweep goes on with a trial that was added
        if self._live:
            self._waiting.append(row.trial)
        elif number != ASKED_FOR:
            self.searcher.restore(Suggestion(number, row.config, row.extra.get("search", {})))

    def _take_control(self, row: Row) -> None:
        if not row.trial and row.extra.get("action") in ("pause", "resume"):
            self.paused = row.extra["action"] == "pause"
        if row.extra.get("action") == "add" and (more := row.extra.get("args", {}).get("trials")):
            self.plan = self.searcher.plan = replace(self.plan, more=self.plan.more + int(more))
            self._exhausted = self._closed = False
        self._requests.add(str(row.extra.get("request", "")))

    def _take_commit(self, entry: _Entry, row: Row) -> None:
        assert row.step is not None
        if row.extra.get("damaged"):
            entry.saved.pop(row.step, None)
        elif row.extra.get("dropped"):
            entry.dropped.add(row.step)
        else:
            entry.saved[row.step] = Saved(row.step, checkpoint_path(row, self.home), row.checkpoint)
            entry.committed[row.step] = row.seq
            entry.dropped.discard(row.step)

    def _take_end(self, entry: _Entry, row: Row) -> None:
        if row.extra.get("of") == "training":
            self._set(entry, "scoring")
            return
        self._leave_line(row.trial)
        self._set(entry, "ended")
        curve = self.history.curves[row.trial]
        metric = self.plan.sweep.goal.metric
        by_step = dict(zip(curve.steps(metric), curve.values(metric), strict=True))
        self.searcher.tell(entry.number, Result(row.extra["status"], by_step))

    def _sweep_row(self) -> Row:
        sweep = self.plan.sweep
        what = {"name": sweep.name, "spec": sweep.to_json(), "trials": self.plan.total}
        return Row("sweep", self.plan.sweep_id, extra={**what, "version": VERSION, "dipsweep": _version()})


def checkpoint_path(row: Row, home: str | Path) -> str:
    """Returns where the checkpoint of a commit row lies, for a sweep whose folder or address is `home` now."""
    path = str(row.extra["path"])
    return join(str(home), path) if str(home) and not path.startswith("/") and not is_url(path) else path


def _finite(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Evidence as it can be written: what is not finite was not measured, so it is absent."""
    return {k: v for k, v in evidence.items() if not (isinstance(v, float) and not math.isfinite(v))}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dipsweep")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
