"""Progress of a running sweep: the share that is done by cost, the time that is left as a range, what runs and what waits.

Rows carry no clock. So the pace of a sweep is the device seconds that its rows account for, over the time since its driver
took it, or since its first attempt where somebody has looked on from there. What is left is counted in device seconds at
the pace of its own trials and evaluations so far, and of what the plan predicted where there are none yet. A row comes
when its work is over, so between two rows work goes on that no row accounts for yet: the pace ends with the last row.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from statistics import fmean, median, stdev
from typing import Any, Final

from sweeps.config.plan import Plan
from sweeps.controller.branches import given_up_trunk, has_begun
from sweeps.controller.requests import TrialCount
from sweeps.errors import code_name, place_of, text_of
from sweeps.journal.lease import SINCE
from sweeps.journal.rows import AttemptRow, EndRow, EvalRow, LeaseRow, ReportRow, Row, SweepRow
from sweeps.journal.state import SweepState, TrialState, device_seconds, is_base
from sweeps.journal.vocabulary import ENDED, EndOf, TrialStatus
from sweeps.planning.clock import timeline
from sweeps.planning.estimate import Range, evaluator_devices, trial_costs
from sweeps.planning.rehearsal import Costs
from sweeps.planning.speeds import Key, Speed, key_of, model_of, speeds_from_json
from sweeps.planning.work import TrialWork, planned_work, step_tokens, work_of

MOST_SIMULATED: Final = 1000
"""Trials to come that are put on a simulated clock one by one; more than that fill their machines to the end."""
EVERY_S: Final = 1.0
TIMES_ITS_COST: Final = 20
"""Where a sweep stands is worked out again after so many seconds, and after so many times what working it out took."""
MACHINES: Final = "for machines"
LEAST_SPENT: Final = 0.01
"""No time left is said before this share is done."""
MOST_POINTS: Final = 256
OUTLIER: Final = 3.0
Z_80: Final = 1.28
"""Standard errors to either side that 80 % lie within."""
USUAL_SAVING: Final = 0.25
USUAL_TRIALS: Final = 3
"""Share of the steps that a stop rule leaves out before this sweep's own trials tell (rehearsals: 0.1 to 0.4), and
how many trials that counts as much as."""
ERROR_MEASURED: Final = 0.2
ERROR_EARLY: Final = 0.2
ERROR_UNMEASURED: Final = 0.5
ERROR_UNSTEADY: Final = 1.0
"""Half width of the range of the time left, as shares of it: always; of a sweep that has just begun; where nothing of what is
ahead was measured yet; where the pace changed by a factor of e."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a sweep.

    Attributes:
        done: share of its device seconds that is spent, 0 to 1; None where nothing tells what a step costs.
        left: seconds until its end with their 80 % range; None while it is too early to say.
        spent: seconds by unit. limits: by name, what is used of it and what is allowed.
        states: trials by state, and `not started` ones. running: trials. waiting: trials, each with why it waits.
    """

    done: float | None
    left: Range | None
    spent: Mapping[str, float]
    limits: Mapping[str, tuple[float, float]]
    states: Mapping[str, int]
    running: tuple[str, ...]
    waiting: tuple[tuple[str, str], ...]
    total: int

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Progress:
        """Returns what `to_json` wrote."""
        return cls(**{**data, "left": Range(**data["left"]) if data["left"] else None})


@dataclass(slots=True)
class _Pace:
    """Device seconds and what was done in them."""

    seconds: float = 0.0
    count: float = 0.0

    def add(self, seconds: float, count: float = 1.0) -> None:
        self.seconds += seconds
        self.count += count

    @property
    def mean(self) -> float | None:
        return self.seconds / self.count if self.count else None


@dataclass(slots=True)
class _Evaluations:
    """Device seconds of the last evaluations of a model's checkpoints, and of its base, which loads suite and model first."""

    trained: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_POINTS))
    base: list[float] = field(default_factory=list)

    def add(self, seconds: float, *, base: bool) -> None:
        (self.base if base else self.trained).append(seconds)

    @property
    def mean(self) -> float:
        """The mean, where each counts as `OUTLIER` times the median at most: the first of a process loads what it needs."""
        return fmean(self._usual())

    @property
    def relative_error(self) -> float:
        """Standard error of the mean as a share of it; 1 where at most one was seen."""
        usual = self._usual()
        return stdev(usual) / fmean(usual) / math.sqrt(len(usual)) if len(self.trained) > 1 and any(usual) else 1.0

    def _usual(self) -> list[float]:
        known = self.trained or self.base
        most = OUTLIER * median(known)
        return [min(seconds, most) for seconds in known]


@dataclass(slots=True)
class _Attempt:
    """An attempt's step and cumulative cost at its last report."""

    key: tuple[Key, int]
    last: tuple[int, float] | None = None


@dataclass(slots=True)
class _Since:
    """From when on the pace is measured, on the reader's clock, and the device seconds spent by then; most trials at once.

    `seen` are later such points, of somebody who looks on, by which a pace that changes is told.
    """

    at: float | None = None
    spent: float = 0.0
    begun: bool = False
    slots: int = 1
    seen: list[tuple[float, float]] = field(default_factory=list)

    def note(self, now: float, spent: float) -> None:
        """Takes a point; of many every other one is kept."""
        if spent > (self.seen[-1][1] if self.seen else self.spent):
            self.seen.append((now, spent))
            if len(self.seen) > MOST_POINTS:
                del self.seen[::2]

    def waited(self, now: float) -> float:
        """Returns the seconds since the last point; 0 once they are more than between any two, or where none were seen.

        So long the work that goes on counts as going on at the pace so far; after that it counts as slow.
        """
        times = [at for at, _ in self.seen]
        gaps = [later - at for at, later in pairwise(times)]
        since = now - times[-1] if gaps else 0.0
        return since if gaps and 0 < since <= max(gaps) else 0.0

    def pace(self, now: float, spent: float) -> tuple[float, float] | None:
        """Returns device seconds per second, over the last half of the time where that was seen, and how unsteady it is.

        The second number is the logarithm by which its first half and its last two quarters differ, 0 where they were not seen.
        """
        if self.at is None or now <= self.at or spent <= self.spent:
            return None
        points = self.seen if len(self.seen) > 1 else [(self.at, self.spent)]  # what is before the first is start-up
        now -= self.waited(now)
        half, quarter = (
            max((p for p in points if p[0] <= now - share * (now - points[0][0])), default=points[0])
            for share in (0.5, 0.25)
        )
        parts = [_rate(*part) for part in ((points[0], half), (half, quarter), (quarter, (now, spent)))]
        seen = [rate for rate in parts if rate > 0]
        unsteady = math.log(max(seen) / min(seen)) if seen else 0.0
        rate = _rate(half, (now, spent)) or _rate(points[0], (now, spent))
        return (rate, unsteady) if rate > 0 else None


def _rate(begin: tuple[float, float], end: tuple[float, float]) -> float:
    return (end[1] - begin[1]) / (end[0] - begin[0]) if end[0] > begin[0] else 0.0


@dataclass(slots=True)
class _Seen:
    steps: dict[tuple[Key, int], _Pace] = field(default_factory=lambda: defaultdict(_Pace))
    evaluations: dict[str, _Evaluations] = field(default_factory=lambda: defaultdict(_Evaluations))


class ProgressMeter:
    """Follows a sweep's rows.

    Args:
        plan: the sweep's. state: what its rows say; each row is applied to it before it is given to `apply`.
    """

    def __init__(self, plan: Plan, state: SweepState) -> None:
        self.plan, self.state = plan, state
        self.total = TrialCount(plan, state)
        self.predicted: Mapping[Key, Speed] = {}
        self.evaluator = evaluator_devices(plan)
        self.seen = _Seen()
        self.since = _Since()
        self._attempts: dict[tuple[str, int], _Attempt] = {}
        self._work: dict[str, tuple[TrialWork, tuple[int, ...]]] = {}

    def apply(self, row: Row, now: float | None = None) -> None:
        """Takes in a row; `now` (`time.time()`) of one that was written just now, None of one that is read later."""
        match row:
            case SweepRow() if row.predicted:
                self.predicted = _speeds(row)
                self.evaluator = evaluator_devices(self.plan, in_process=bool(row.predicted.get("in_process")))
            case LeaseRow():
                self.since = _Since(_clock(row.since), self._spent())
            case AttemptRow():
                self._begin(row, now)
            case ReportRow() if row.cost and not is_base(row.trial):
                self._trained(row)
            case EvalRow() if row.tells_duration and (model := self._model(row.trial)):
                self.seen.evaluations[model].add(device_seconds(row.cost), base=is_base(row.trial))
        if now is not None:
            self.since.note(now, self._spent())
        self.since.slots = max(self.since.slots, len(self.state.history.by_state[TrialStatus.RUNNING]))

    def _begin(self, row: AttemptRow, now: float | None) -> None:
        if now is not None and not self.since.begun:
            self.since = _Since(now, self._spent())
        self.since.begun = True
        config = self.state.trials[row.trial].row.config
        key = key_of(config, row.workers or 1), step_tokens(config)
        self._attempts[row.trial, row.attempt] = _Attempt(key)

    def _trained(self, row: ReportRow) -> None:
        one = self._attempts.get((row.trial, row.attempt))
        if one is None or row.step is None:
            return
        now = row.step, device_seconds(row.cost)
        if one.last is None:
            one.last = now
        elif now[0] > one.last[0]:
            self.seen.steps[one.key].add(now[1] - one.last[1], now[0] - one.last[0])
            one.last = now

    def _model(self, trial: str) -> str:
        known = self.state.trials.get(trial)
        return model_of(trial, known.row.config if known is not None else None)

    def _spent(self) -> float:
        return self.state.costs.trained_s + self.state.costs.scored_s

    # ---- readings ---------------------------------------------------------------------------------------------------

    def progress(self, now: float | None = None) -> Progress:
        """Returns the sweep's progress at `now` (`time.time()`, the default)."""
        state, trials, total = self.state, self.state.trials.values(), self.total.total
        ahead = [] if state.done else self._ahead(total)
        spent, left = self._spent(), sum(seconds for _, seconds in ahead)
        states = Counter(str(state.trial_status(t.id)) for t in trials)
        states["not started"] = max(0, total - len(state.trials))
        return Progress(
            done=1.0 if state.done else spent / (spent + left) if spent and left else None,
            left=None if state.done else self._left(ahead, spent, time.time() if now is None else now),
            spent=state.costs.total(),
            limits=self._limits(),
            states={name: count for name, count in states.items() if count},
            running=tuple(t.id for t in state.with_status(TrialStatus.RUNNING)),
            waiting=tuple((t.id, self._why(t)) for t in state.with_status(TrialStatus.WAITING)),
            total=total,
        )

    def _why(self, trial: TrialState) -> str:
        parent = self.state.trials.get(trial.parent)
        if trial.curve.detail or trial.curve.reason:
            return trial.curve.detail or trial.curve.reason
        if (trunk := self._given_up_trunk(trial)) is not None:
            return f"for its trunk {trunk.id}, which is {trunk.status}"
        last = parent.last() if parent is not None else None
        begun = last is not None and last.step >= trial.fork_step
        on_its_way = parent is not None and parent.status in (TrialStatus.WAITING, TrialStatus.RUNNING)
        if parent is not None and on_its_way and not has_begun(trial) and not begun:
            return f"for {parent.id} to reach step {trial.fork_step}"
        return MACHINES

    def _given_up_trunk(self, trial: TrialState) -> TrialState | None:
        """Returns the trunk without which a branch does not begin under `search.promote`, where it is paused or pruned."""
        return given_up_trunk(self.state, trial) if self.plan.sweep.search.promote else None

    def _limits(self) -> dict[str, tuple[float, float]]:
        limits = self.plan.sweep.limits
        hours = self.state.costs.total().get("gpu_s", 0.0) / 3600
        usd = hours * (limits.usd_per_gpu_hour or 0.0)
        known = (("gpu_hours", hours, limits.gpu_hours), ("usd", usd, limits.usd))
        return {name: (used, limit) for name, used, limit in known if limit is not None}

    def _ahead(self, total: int) -> list[tuple[TrialWork, float]]:
        """Returns what is left of each of `total` trials, the running ones first, in device seconds."""
        trials = [t for t in self.state.trials.values() if not t.ended]
        trials.sort(key=lambda t: (t.curve.state is not TrialStatus.RUNNING, t.order))
        begin = (t for t in trials if t.status is not TrialStatus.PAUSED and self._given_up_trunk(t) is None)
        items = [(*self._work_of(t), t) for t in begin]
        to_come = self._to_come(total)
        costs = self._costs([item for item, _, _ in items] + to_come)
        return [
            *((item, _rest(item, scored_at, trial, costs[item.trial])) for item, scored_at, trial in items),
            *((w, costs[w.trial].whole(w)) for w in to_come),
        ]

    def _paused(self) -> list[tuple[TrialWork, float]]:
        """Returns what is left of each paused trial and of the branches that wait for one, in device seconds: the stop rule may
        take it up again."""
        paused = self.state.with_status(TrialStatus.PAUSED)
        branches = (t for t in self.state.with_status(TrialStatus.WAITING) if self._given_up_trunk(t) in paused)
        items = [(*self._work_of(t), t) for t in [*paused, *branches]]
        costs = self._costs([item for item, _, _ in items])
        return [(item, _rest(item, scored_at, trial, costs[item.trial])) for item, scored_at, trial in items]

    def _work_of(self, trial: TrialState) -> tuple[TrialWork, tuple[int, ...]]:
        """Returns a trial's work and the steps at which it is scored."""
        if trial.id not in self._work:
            spec = self.plan.trial(trial.row.config)
            self._work[trial.id] = replace(work_of(self.plan, spec), parent=trial.parent), spec.snapshots
        (work, scored_at), fork = self._work[trial.id], self._begins_at(trial)
        return work if work.fork == fork else replace(work, fork=fork), scored_at

    def _begins_at(self, trial: TrialState) -> int:
        """Returns the step from which a trial runs on its own: before its fork where its parent has left off short of that."""
        parent = self.state.trials.get(trial.parent)
        if parent is None or has_begun(trial) or parent.status in (TrialStatus.WAITING, TrialStatus.RUNNING):
            return trial.fork_step
        last = parent.last(trial.fork_step)
        return last.step if last is not None else 0

    @cached_property
    def _planned(self) -> list[TrialWork]:
        return planned_work(self.plan)

    def _to_come(self, total: int) -> list[TrialWork]:
        """Trials that the search has yet to name: of a grid the very ones, else as many random draws."""
        known, count = self.state.trials, total - len(self.state.trials)
        fresh = [w for w in self._planned if w.trial not in known]
        return fresh[len(fresh) - count :] if 0 < count <= len(fresh) else fresh if count > 0 else []

    def _costs(self, work: Sequence[TrialWork]) -> dict[str, Costs]:
        """Costs of trials: as measured in this sweep; what was not measured yet, as predicted, scaled by what was."""
        try:
            guess = trial_costs(work, self.predicted, self.evaluator) if self.predicted else {}
        except KeyError:  # a trial that somebody added, with a model that the plan did not have
            guess = {}
        steps, evaluations = self.seen.steps, self.seen.evaluations
        keys = {w.trial: (key_of(w.config, w.workers), step_tokens(w.config)) for w in work}
        off_step = _ratio(
            (steps[keys[w.trial]].mean, guess[w.trial].step) for w in work if keys[w.trial] in steps and guess
        )
        off_score = _ratio(
            (e.mean, guess[w.trial].evaluation)
            for w in work
            if guess and (e := evaluations.get(w.model)) is not None and e.trained
        )
        any_step = _mean(steps.values())
        any_score = fmean(e.mean for e in evaluations.values()) if evaluations else None
        found = {}
        for w in work:
            one, key = guess.get(w.trial), keys[w.trial]
            step = steps[key].mean if key in steps else one.step * off_step if one else any_step
            predicted = one.evaluation * off_score if one else any_score
            seen = evaluations.get(w.model)
            score = predicted if seen is None else seen.mean
            if seen is not None and not seen.trained and one:  # all that is known is the base's, which also loads
                score = min(seen.mean, one.evaluation)
            found[w.trial] = Costs(step or 0.0, score or 0.0, 0.0)  # processes go on from trial to trial
        return found

    # ---- time -------------------------------------------------------------------------------------------------------

    def _left(self, ahead: Sequence[tuple[TrialWork, float]], spent: float, now: float) -> Range | None:
        """Returns the seconds that are left: what is ahead at the pace so far, on as many machines as were busy at once.

        Its 80 % range grows with what has not been measured yet, and its end is that of a sweep that takes up every paused trial:
        `benchmarks.plan.time_left` holds it against real sweeps.
        """
        left = sum(seconds for _, seconds in ahead)
        paid = spent - self.since.spent
        pace = self.since.pace(now, spent)
        if pace is None or paid <= LEAST_SPENT * (spent + left) or self.state.paused_by or self.state.interrupted:
            return None
        slots = self.since.slots
        whole, most = (_makespan(work, slots) * slots / pace[0] for work in (ahead, [*ahead, *self._paused()]))
        stopped = self._stopped()
        new = sum(seconds for item, seconds in ahead if not self._is_measured(item)) / left if left else 0.0
        early = left / (spent + left) if left else 0.0
        scoring = self.state.costs.scored_s / spent
        few = (
            scoring * fmean(e.relative_error for e in self.seen.evaluations.values()) if self.seen.evaluations else 0.0
        )
        error = ERROR_MEASURED + ERROR_EARLY * early + ERROR_UNMEASURED * new + ERROR_UNSTEADY * min(pace[1], 1.0)
        error += Z_80 * few
        waited = self.since.waited(now)
        expected = whole * (1 - stopped)
        low, high = expected * (1 - stopped) / (1 + error), most * (1 + error)
        return Range(*(max(0.0, seconds - waited) for seconds in (expected, low, high)))

    def _is_measured(self, item: TrialWork) -> bool:
        known = (key_of(item.config, item.workers), step_tokens(item.config)) in self.seen.steps
        evaluations = self.seen.evaluations.get(item.model)
        return known and evaluations is not None and bool(evaluations.trained)

    def _stopped(self) -> float:
        """Share of steps that the stop rule leaves out: of the trials that ended or wait, and of a few more as rules usually do.
        What is ahead may fare alike."""
        if self.plan.sweep.stopping.rule == "none":
            return 0.0
        trials = [t for t in self.state.trials.values() if t.curve.budget]
        left_out, planned = 0.0, 0.0
        for trial in trials:
            if trial.ended or trial.curve.state is TrialStatus.PAUSED:
                budget = trial.curve.budget or 0
                left_out, planned = left_out + budget - min(trial.curve.last_step, budget), planned + budget
        usual = USUAL_TRIALS * fmean(t.curve.budget or 0 for t in trials) if trials else 1.0
        return (left_out + USUAL_SAVING * usual) / (planned + usual)


def _rest(item: TrialWork, scored_at: Sequence[int], trial: TrialState, cost: Costs) -> float:
    """Returns the device seconds that are left of a trial that is scored at these steps."""
    reached = max(trial.curve.last_step, item.fork)
    open_ = sum(s > item.fork and s not in trial.scored and s not in trial.given_up for s in scored_at)
    begin = cost.start_up if not trial.attempt else 0.0
    return cost.step * max(0, item.budget - reached) + cost.evaluation * open_ + begin


def _makespan(ahead: Sequence[tuple[TrialWork, float]], slots: int) -> float:
    """Returns when the last of all trials ends, in device seconds of one machine, where each takes one of `slots`."""
    total, longest = sum(seconds for _, seconds in ahead), max((seconds for _, seconds in ahead), default=0.0)
    if slots == 1 or len(ahead) > MOST_SIMULATED:
        return max(total / slots, longest)
    work = [replace(item, trial=f"{i}", parent="", workers=1, cpus=1.0, gpus=0.0) for i, (item, _) in enumerate(ahead)]
    seconds = {f"{i}": seconds for i, (_, seconds) in enumerate(ahead)}
    return max((span.end for span in timeline(work, seconds, [float(slots)], gpus=False)), default=0.0)


def _mean(paces: Iterable[_Pace]) -> float | None:
    known = list(paces)
    count = sum(pace.count for pace in known)
    return sum(pace.seconds for pace in known) / count if count else None


def _ratio(pairs: Iterable[tuple[float | None, float]]) -> float:
    """Returns by how much what was measured is off what was predicted, 1 where nothing was."""
    found = [(measured, guess) for measured, guess in pairs if measured is not None and guess]
    return sum(m for m, _ in found) / sum(g for _, g in found) if found else 1.0


def _speeds(row: SweepRow) -> dict[Key, Speed]:
    try:
        return speeds_from_json(row.predicted["speeds"])
    except (KeyError, TypeError, ValueError):  # of another version
        return {}


def _clock(since: str) -> float | None:
    """Returns when a driver took the sweep, as `time.time()`; None where its row does not say it to the second."""
    try:
        return datetime.strptime(since, SINCE).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def progress_subscriber(
    plan: Plan, rows: Sequence[Row], state: SweepState, tell: Callable[[Progress], None], say: Callable[[str], None]
) -> Callable[[Row], None]:
    """Returns a subscriber to a sweep's rows that passes its progress on when that is due.

    Args:
        rows: those that there are already. state: what they say; new rows are applied before they come here.
        tell: takes where the sweep stands. say: takes a line, should that not work: no sweep ends for want of a progress bar.
    """
    meter, due = ProgressMeter(plan, state), 0.0
    for row in rows:
        meter.apply(row)

    def take(row: Row) -> None:
        nonlocal due
        try:
            follow(row)
        except Exception as e:  # `tell` is anybody's
            due = math.inf
            place = place_of(e, getattr(tell, "__module__", ""))
            say(
                f"progress is unknown from here on: {code_name(tell)} raised {type(e).__name__}: {text_of(e)} ({place})"
            )

    def follow(row: Row) -> None:
        nonlocal due
        if due == math.inf:
            return
        meter.apply(row, time.time())
        began = time.monotonic()
        if began < due and not (isinstance(row, EndRow) and row.of is not EndOf.TRAINING):
            return
        tell(meter.progress())
        due = time.monotonic() + max(EVERY_S, TIMES_ITS_COST * (time.monotonic() - began))

    return take


def progress_text(progress: Progress) -> str:
    """Returns a sweep's progress in one line."""
    parts = []
    if progress.done is not None:
        parts.append(f"{progress.done if progress.done == 1 else min(progress.done, 0.99):.0%} done")
    if progress.left is not None:
        low, high = duration(progress.left.low), duration(progress.left.high)
        parts.append(f"{duration(progress.left.value)} left ({low} to {high})")
    ended = sum(progress.states.get(str(s), 0) for s in ENDED)
    rest = ", ".join(f"{n} {name}" for name, n in progress.states.items() if name not in map(str, ENDED))
    parts.append(f"{ended} of {progress.total} trials ended" + (f", {rest}" if rest else ""))
    parts += [f"{used:.3g} of {limit:g} {_UNITS[name]}" for name, (used, limit) in progress.limits.items()]
    return "; ".join(parts)


_UNITS: Final = {"gpu_hours": "GPU hours", "usd": "USD"}


def duration(seconds: float) -> str:
    """Returns `40 s`, `12 min` or `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
