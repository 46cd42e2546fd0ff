"""What a journal says of a sweep: `SweepState.apply` is the only place where a row changes what is known.

The controller, `status`, `watch`, the metrics, `export`, `gc` and the report all read this; none folds rows for itself. So a
sweep that is driven and one that is read from its storage look the same. Nothing here decides: that is the controller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sweeps.failures import FailureKind
from sweeps.journal.history import Curve, History
from sweeps.journal.rows import (
    BASE_PREFIX,
    AttemptRow,
    CommitRow,
    ControlRow,
    EndRow,
    EvalRow,
    LeaseRow,
    ReportRow,
    Row,
    TierRow,
    TrialRow,
    VerdictRow,
)
from sweeps.journal.start_ups import StartUpMeter
from sweeps.journal.vocabulary import (
    ENDED,
    SOMEBODY,
    Action,
    ControlAction,
    EndOf,
    EvalStatus,
    SweepStatus,
    TrialStatus,
)
from sweeps.storage.base import is_url, join
from sweeps.text_enum import TextEnum


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is whole: its step, path as the journal has it, digest, and the number of its row."""

    step: int
    path: str
    digest: str = ""
    seq: int = -1


class FileStatus(TextEnum):
    """What the journal says of a checkpoint's files."""

    KEPT = "kept"
    DELETED = "deleted"
    DAMAGED = "damaged"


@dataclass(slots=True)
class TrialState:
    """One trial, by its rows.

    Attributes:
        row: the row that made it. curve: its points, and how it stands. order: how many trials were made before it.
        attempt: the one that runs, or ran last. started_from: the checkpoint that it went on from.
        checkpoints: by step, those that an attempt can go on from. deleted: steps whose files are gone; they were whole.
        scored: steps with scores. given_up: steps that will have none.
        gpus_each: what each worker of that attempt holds of GPUs (`AttemptRow.gpus_each`).
        lost, preempted, out_of_memory: how often an attempt broke off for that reason, since it was last asked to start.
        paused_at: the step at which it was last paused, -1 for never. verdict: the stop rule's last one.
        asked_for: a user added it, or had it tried again.
    """

    row: TrialRow
    curve: Curve
    order: int = 0
    fork_step: int = 0
    attempt: int = 0
    gpus_each: float = 1.0
    started_from: Checkpoint | None = None
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    scored: set[int] = field(default_factory=set)
    given_up: set[int] = field(default_factory=set)
    lost: int = 0
    preempted: int = 0
    out_of_memory: int = 0
    paused_at: int = -1
    verdict: VerdictRow | None = None
    asked_for: bool = False

    @property
    def id(self) -> str:
        return self.row.trial

    @property
    def parent(self) -> str:
        """The trial that it begins from, at the last checkpoint not beyond `fork_step`; "" for none."""
        return self.row.parent

    @property
    def status(self) -> TrialStatus:
        return self.curve.state

    @property
    def ended(self) -> bool:
        return self.curve.state in ENDED

    def last(self, limit: int | None = None) -> Checkpoint | None:
        """Returns its latest checkpoint that is kept, not beyond step `limit`."""
        steps = [s for s in self.checkpoints if s not in self.deleted and (limit is None or s <= limit)]
        return self.checkpoints[max(steps)] if steps else None

    def kept(self) -> dict[int, Checkpoint]:
        """Returns the checkpoints whose files are there, by step."""
        return {step: c for step, c in self.checkpoints.items() if step not in self.deleted}


class Costs:
    """What was spent, over all attempts and drivers: lost work and evaluations included, nothing twice.

    Trainers report what an attempt has cost so far, evaluators what one evaluation cost; a base model is only scored.

    Attributes:
        training, scoring: seconds by unit (`gpu_s`: of GPUs as they were reserved; `cpu_s`), of the whole sweep.
        trained_s, scored_s: the same in `device_seconds`: of each attempt and evaluation those of the device that it held, so
            that of a sweep that uses both kinds of device both count.
    """

    def __init__(self) -> None:
        self.training: dict[str, float] = {}
        self.scoring: dict[str, float] = {}
        self.trained_s = self.scored_s = 0.0
        self._attempts: dict[str, dict[int, dict[str, float]]] = {}
        self._scoring: dict[str, dict[str, float]] = {}

    def apply(self, row: Row) -> None:
        """Takes one row in."""
        if not isinstance(row, ReportRow | EvalRow | EndRow) or not row.cost:
            return
        if isinstance(row, EvalRow) or is_base(row.trial):
            _add(self.scoring, row.cost)
            self.scored_s += device_seconds(row.cost)
            _add(self._scoring.setdefault(row.trial, {}), row.cost)
            return
        known = self._attempts.setdefault(row.trial, {}).setdefault(row.attempt, {})
        more = {unit: max(0.0, amount - known.get(unit, 0.0)) for unit, amount in row.cost.items()}
        before = device_seconds(known)
        _add(known, more)
        _add(self.training, more)
        self.trained_s += device_seconds(known) - before

    def total(self) -> dict[str, float]:
        """Returns what the sweep has cost so far, in seconds by unit."""
        total = dict(self.training)
        _add(total, self.scoring)
        return total

    def training_of(self, trial: str) -> dict[str, float]:
        """Returns what all attempts of a trial have cost, in seconds by unit."""
        total: dict[str, float] = {}
        for cost in self._attempts.get(trial, {}).values():
            _add(total, cost)
        return total

    def training_by_attempt(self, trial: str) -> dict[int, dict[str, float]]:
        """Returns what each attempt of a trial has cost, in seconds by unit; attempts without costs are left out."""
        return {attempt: dict(cost) for attempt, cost in self._attempts.get(trial, {}).items()}

    def scoring_of(self, trial: str) -> dict[str, float]:
        """Returns what all evaluations of a trial, or of a base model, have cost, in seconds by unit."""
        return dict(self._scoring.get(trial, {}))


def _add(total: dict[str, float], more: Mapping[str, float]) -> None:
    for unit, amount in more.items():
        total[unit] = total.get(unit, 0.0) + amount


class SweepState:
    """The fold of a journal.

    Args:
        rows: applied at once.
        history: where curves are kept; a stop rule's, which reads the same curves.

    Attributes:
        fold: takes a row into the history, and says whether that was news; a driver has its stop rule do it.
        trials: by id, in the order in which they were made.
        files: what became of each checkpoint's files, by path.
        tiers: what each tier is for each model, the latest card of each.
        requests: ids of the requests that were carried out or refused.
        paused_by, stopping_by: who paused the sweep; who asked it to save and end. "" for nobody.
        interrupted: the last driver saved and ended early, and none has taken over; `interrupts` is why, each time.
        done: nothing was left to do when the last row was written.
    """

    def __init__(
        self,
        rows: Iterable[Row] = (),
        *,
        history: History | None = None,
    ) -> None:
        self.history = History() if history is None else history
        self.fold: Callable[[Row], bool] = self.history.fold
        self.trials: dict[str, TrialState] = {}
        self.children: dict[str, list[str]] = {}
        self.files: dict[str, FileStatus] = {}
        self.costs, self.start_ups = Costs(), StartUpMeter()
        self.tiers: dict[tuple[str, str, int, str, bool], TierRow] = {}
        self.requests: set[str] = set()
        self.paused_by = self.stopping_by = ""
        self.interrupted, self.interrupts = False, list[str]()
        self.done = False
        self.added = 0
        for row in rows:
            self.apply(row)

    def apply(self, row: Row) -> bool:
        """Takes one row in, in journal order; False when it says nothing new, or an attempt was superseded that says it."""
        if isinstance(row, TrialRow):
            self._apply_trial(row)
        fresh = self.fold(row)
        trial = self.trials.get(row.trial)
        if trial is None or trial.curve.accepts(row) or isinstance(row, EvalRow):
            self.start_ups.apply(row)
            self.costs.apply(row)  # not what an attempt says that another has taken over from
        match row:
            case ControlRow():
                self._apply_control(row, trial)
            case LeaseRow():
                self.interrupted, self.stopping_by = False, ""
            case TierRow():
                self.tiers[row.key] = row
            case EndRow(of=EndOf.SWEEP) | EndRow(trial=""):
                self.done = True
            case AttemptRow():
                self.interrupted = False  # the next driver has begun
        if trial is not None:
            self._apply_to_trial(row, trial)
        return fresh

    # ---- readings ---------------------------------------------------------------------------------------------------

    @property
    def status(self) -> SweepStatus:
        """The sweep's status."""
        if self.done:
            return SweepStatus.DONE
        if self.interrupted:
            return SweepStatus.STOPPED
        if self.stopping_by:
            return SweepStatus.STOPPING
        if self.paused_by:
            return SweepStatus.PAUSING if self.history.by_state[TrialStatus.RUNNING] else SweepStatus.PAUSED
        return SweepStatus.RUNNING

    def trial_status(self, trial: str, *, lost: bool = False) -> TrialStatus:
        """A trial's status; one whose driver has saved and ended waits for the next driver.

        Args:
            lost: the lease says that nobody drives the sweep, which its rows may not know.
        """
        status, gone = self.history.curves[trial].state, self.interrupted or lost
        return TrialStatus.WAITING if status is TrialStatus.RUNNING and gone else status

    def with_status(self, *statuses: TrialStatus) -> list[TrialState]:
        """Returns the trials of some statuses, in the order in which they were made."""
        found = [t for status in statuses for t in self.history.by_state[status] if t in self.trials]
        return sorted((self.trials[t] for t in found), key=lambda t: t.order)

    def line(self, trial: str) -> Iterator[TrialState]:
        """Yields a trial, its parent, and so on."""
        seen = set[str]()
        while trial in self.trials and trial not in seen:
            seen.add(trial)
            yield self.trials[trial]
            trial = self.trials[trial].parent

    # ---- one method for each kind of row ------------------------------------------------------------------------------

    def _apply_trial(self, row: TrialRow) -> None:
        curve, order = self.history.curve(row.trial), len(self.trials)
        self.trials[row.trial] = TrialState(row, curve, order, row.fork_step or 0, asked_for=bool(row.by))
        if row.parent:
            self.children.setdefault(row.parent, []).append(row.trial)
        if row.number is None:
            self.done = False  # a finished sweep goes on with a trial that was added

    def _apply_control(self, row: ControlRow, trial: TrialState | None) -> None:
        if row.request:
            self.requests.add(row.request)
        if row.refused:
            return
        match row.action:
            case ControlAction.PAUSE if trial is None:
                self.paused_by = row.who or SOMEBODY
            case ControlAction.RESUME if trial is None:
                self.paused_by = ""
            case ControlAction.STOP if trial is None:
                self.stopping_by = row.who or SOMEBODY
            case ControlAction.INTERRUPT:
                self.interrupted, self.stopping_by = True, ""
                self.interrupts.append(row.reason)
            case ControlAction.ADD if more := (row.args or {}).get("trials"):
                self.added += int(more)
                self.done = False
            case ControlAction.RETRY if trial is not None:
                self._apply_retry(row, trial)

    def _apply_retry(self, row: ControlRow, trial: TrialState) -> None:
        if row.is_asked:  # somebody wants it tried again: it has all its tries once more
            trial.asked_for = True
            trial.lost = trial.preempted = trial.out_of_memory = 0
            trial.given_up.clear()
            self.done = False
        elif (kind := _failure_of(row)) is FailureKind.NODE_PREEMPTED:
            trial.preempted += 1
        else:
            trial.lost += 1
            trial.out_of_memory += kind is FailureKind.OUT_OF_MEMORY

    def _apply_to_trial(self, row: Row, trial: TrialState) -> None:
        match row:
            case AttemptRow():
                self._apply_attempt(row, trial)
            case CommitRow():
                self._apply_commit(row, trial)
            case ReportRow() if row.suite and row.step is not None:
                trial.scored.add(row.step)
            case EvalRow() if row.step is not None and trial.curve.accepts(row):
                if row.given_up:
                    trial.given_up.add(row.step)
                elif row.status is EvalStatus.DONE:
                    trial.scored.add(row.step)
            case VerdictRow():
                trial.verdict = row
                if row.action is Action.PAUSE:
                    trial.paused_at = row.step or 0

    def _apply_attempt(self, row: AttemptRow, trial: TrialState) -> None:
        start, parent = row.step or 0, self.trials.get(row.parent)
        known = trial.checkpoints if parent is None else parent.checkpoints
        trial.started_from = known.get(start)
        trial.attempt, trial.gpus_each = row.attempt, row.gpus_each
        trial.fork_step = trial.fork_step if row.fork_step is None else row.fork_step
        for step in [s for s in trial.checkpoints if s > start]:
            del trial.checkpoints[step]
        for steps in (trial.scored, trial.given_up):  # what is trained anew is scored anew
            steps.intersection_update({s for s in steps if s <= start})

    def _apply_commit(self, row: CommitRow, trial: TrialState) -> None:
        assert row.step is not None
        if row.damaged:
            trial.checkpoints.pop(row.step, None)
            self.files[row.path] = FileStatus.DAMAGED
        elif row.dropped:
            trial.deleted.add(row.step)
            self.files[row.path] = FileStatus.DELETED
        else:
            trial.checkpoints[row.step] = Checkpoint(row.step, row.path, row.checkpoint, row.seq)
            trial.deleted.discard(row.step)
            self.files[row.path] = FileStatus.KEPT


def _failure_of(row: ControlRow) -> FailureKind:
    """Returns why an attempt is tried again; rows of early journals say it by a flag and a word."""
    if row.failure is not None:
        return row.failure
    if row.preempted:
        return FailureKind.NODE_PREEMPTED
    return FailureKind.OUT_OF_MEMORY if row.reason == "oom" else FailureKind.WORKER_LOST


def reserved(cost: Mapping[str, float], gpus: float) -> dict[str, float]:
    """Returns what processes measured as what it cost: seconds of wall clock on GPUs (`gpu_s`) times the GPUs that each of them
    reserved, a share of one or several; without them where none was, since whoever did reserve that device pays for it."""
    return {
        unit: seconds * gpus if unit == "gpu_s" else seconds
        for unit, seconds in cost.items()
        if unit != "gpu_s" or gpus
    }


def device_seconds(cost: Mapping[str, float]) -> float:
    """Returns a cost in seconds of devices: of GPUs where any were held, whose processes use a CPU beside them, else of CPUs."""
    return cost["gpu_s"] if "gpu_s" in cost else sum(cost.values())


def is_base(trial: str) -> bool:
    """True for the id that rows of a base model's scores carry."""
    return trial.startswith(BASE_PREFIX)


def address_of(path: str, home: str) -> str:
    """Returns where the files of a checkpoint lie, by its path in the journal, for a sweep whose folder is `home` now."""
    return join(home, path) if home and not path.startswith("/") and not is_url(path) else path
