"""What a sweep's journal says, and the one way to write to it: each row with all that follows from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sweeps.config.plan import Plan
from sweeps.config.trial import Saved, TrialSpec
from sweeps.controller.earlier_trials import best_score
from sweeps.controller.evaluation.jobs import Evaluations
from sweeps.controller.launch_queue import LaunchQueue
from sweeps.controller.searcher import OptunaSearch, Result, Searcher, Suggestion, make_searcher
from sweeps.controller.strategies import RULE, SEARCH, Strategies, history_of
from sweeps.errors import InputError
from sweeps.journal.rows import (
    VERSION,
    ControlRow,
    EndRow,
    ReportRow,
    Row,
    SweepRow,
    TrialRow,
)
from sweeps.journal.state import Checkpoint, SweepState, TrialState, address_of
from sweeps.journal.vocabulary import (
    SOMEBODY,
    ControlAction,
    EndOf,
    EndStatus,
)
from sweeps.journal.writer import Journal
from sweeps.stopping.base import StopRule
from sweeps.storage.base import inside

T = TypeVar("T")


class SweepRecord:
    """The journal of one sweep, with what is known from it: state, queue, search, and what is to be scored.

    Args:
        plan, journal, rule, searcher, home, subscribers, state, predict, experience, points: as of
            `sweeps.controller.controller.SweepController`.

    Attributes:
        specs: the sweep's trials by id, as their workers see them. stopping: who asked the whole sweep to stop.
        touched: trials whose checkpoints may have been superseded.
    """

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        rule: StopRule,
        searcher: Searcher | None,
        *,
        home: str | Path,
        subscribers: Sequence[Callable[[Row], None]],
        state: SweepState | None,
        predict: Callable[[], Mapping[str, Any]],
        experience: Callable[[], Mapping[str, Any]],
        points: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.plan, self.journal, self.rule, self.home = plan, journal, rule, str(home)
        self.searcher = make_searcher(plan) if searcher is None else searcher
        self.strategies = Strategies(lambda: self.state.history.seq)
        self.state = state or SweepState(history=history_of(rule))
        self.state.fold = lambda row: self.strategies.observe(rule, self.state.history, row)
        self.specs: dict[str, TrialSpec] = {}
        self.evaluations = Evaluations(plan, self.state, self.specs, lambda path: address_of(path, self.home))
        self.queue = LaunchQueue(self.state, self.specs, trunks_first=plan.sweep.search.promote)
        self.stopping = ""
        self.touched: set[str] = set()
        self._subscribers, self._predict, self._experience, self._points = (
            list(subscribers),
            predict,
            experience,
            points,
        )

    @property
    def sweep_id(self) -> str:
        return self.plan.sweep_id

    def restore(self, rows: Sequence[Row], applied: Callable[[Row], None] = lambda row: None) -> None:
        """Applies the rows that the journal holds; an empty journal gets the sweep's own row first.

        Args:
            applied: called after each of them.
        """
        for row in rows:
            self._apply(row, live=False)
            applied(row)
        if self.state.history.sweep is None:
            self.write(self._sweep_row())
        self.queue.restore()

    def subscribe(self, subscriber: Callable[[Row], None]) -> Callable[[], None]:
        """Calls `subscriber` with every new row from now on; returns what ends that."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def write(self, row: Row) -> bool:
        """Journal first, then everything that follows from the row; False when it says nothing new."""
        if isinstance(row, ReportRow) and not self.state.history.curve(row.trial).is_news(row):
            return False
        row = self.journal.append(row)
        fresh = self._apply(row, live=True)
        for subscriber in list(self._subscribers):
            subscriber(row)
        return fresh

    def _apply(self, row: Row, *, live: bool) -> bool:
        """Applies a row to the state, and takes into the queue and the search what follows from it.

        Args:
            live: this driver wrote it; else it stands in the journal of a sweep that goes on, and the queue is made after.
        """
        fresh = self.state.apply(row)
        if row.trial in self.state.trials and not (isinstance(row, ReportRow) and not row.suite):
            self.touched.add(row.trial)
        match row:
            case SweepRow() if row.points:
                self._begin_search(row.points)
            case TrialRow():
                self.specs[row.trial] = self.plan.trial(row.config)
                if not live and row.number is not None:
                    given = Suggestion(row.number, row.config, row.search or {})
                    self.ask_search(lambda: self.searcher.restore(given), None)
            case ControlRow(refused=False):
                self._apply_control(row, live=live)
            case EndRow(of=EndOf.SCORING) if row.trial in self.state.trials:
                self._tell_search(self.state.trials[row.trial], row.status)
        if live:
            self.queue.apply(row)
        return fresh

    def _apply_control(self, row: ControlRow, *, live: bool) -> None:
        args = row.args or {}
        if row.action is ControlAction.ADD and args.get("trials"):
            self.plan = replace(self.plan, more=self.plan.more + int(args["trials"]))
            self.ask_search(lambda: setattr(self.searcher, "plan", self.plan), None)
            self.queue.exhausted = False
        elif row.action is ControlAction.STOP and not row.trial and live:
            self.stopping = row.who or SOMEBODY
        elif row.action is ControlAction.RETRY and row.trial and live:
            self.evaluations.request(row.trial)  # somebody may have it tried again because its scores failed

    def _tell_search(self, trial: TrialState, status: EndStatus) -> None:
        if trial.row.number is not None:
            metric = self.plan.sweep.goal.metric
            by_step = dict(zip(trial.curve.steps(metric), trial.curve.values(metric), strict=True))
            result = Result(status, by_step, self._best(trial))
            number = trial.row.number
            self.ask_search(lambda: self.searcher.tell(number, result), None)

    def _best(self, trial: TrialState) -> float | None:
        """What a trial's best checkpoint is worth, less what it owes to having been chosen; None where its end counts."""
        goal = self.plan.sweep.goal
        return best_score(self.state.history, trial.id, goal) if goal.at == "best" else None

    def _begin_search(self, points: Mapping[str, Any]) -> None:
        """Tells the search what earlier sweeps found, as the sweep's first row holds it."""
        if not isinstance(self.searcher, OptunaSearch):
            raise InputError(
                f"search.points_from: got a search of your own, {type(self.searcher).__name__}; expected none, "
                "since only the sweep's own search takes the trials of others"
            )
        self.searcher.begin(points)

    def ask_rule(self, question: Callable[[], T], otherwise: T) -> T:
        """Returns what the stop rule answers; `otherwise` where that is no answer (`strategies.broken` says why)."""
        return self.strategies.ask(RULE, self.rule, question, otherwise)

    def ask_search(self, question: Callable[[], T], otherwise: T) -> T:
        """Returns what the search answers; `otherwise` likewise."""
        return self.strategies.ask(SEARCH, self.searcher, question, otherwise)

    def inside(self, path: str) -> str:
        """Returns a path as rows hold it: relative to the sweep's folder where it lies in there."""
        return inside(path, self.home) or path if self.home else path

    def saved(self, checkpoint: Checkpoint) -> Saved:
        """Returns a checkpoint as training and evaluation take it, with its address."""
        return Saved(checkpoint.step, address_of(checkpoint.path, self.home), checkpoint.digest)

    def _sweep_row(self) -> SweepRow:
        sweep = self.plan.sweep
        return SweepRow(
            self.plan.sweep_id,
            name=sweep.name,
            spec=sweep.to_json(),
            trials=self.plan.total,
            version=VERSION,
            dipsweep=_version(),
            predicted=self._predict(),
            experience=self._experience(),
            points=self._points(),
            rule=self.ask_rule(self._kept_defaults, {}),
        )

    def _kept_defaults(self) -> dict[str, Any]:
        """Returns the rule's defaults, as far as a row can hold them.

        Raises:
            TypeError, ValueError: it cannot.
        """
        kept = dict(self.rule.kept_defaults)
        json.dumps(kept, allow_nan=False)
        return kept


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dipsweep")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
