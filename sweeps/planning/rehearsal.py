"""A sweep rehearsed before it runs: its own controller, search and stop rule, with recorded curves in place of training.

What a stop rule saves depends on scores that do not exist yet. So each configuration is assigned a curve that was recorded
elsewhere, the sweep runs on a simulated clock, and what the rule leaves out is counted; several rehearsals give a range.
Curves are assigned at random: which settings are good is not known yet, and a search learns nothing from a rehearsal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.config.trial import trial_id
from sweeps.controller.controller import SweepController
from sweeps.controller.searcher import Result, Suggestion
from sweeps.errors import StorageError
from sweeps.journal.state import is_base
from sweeps.journal.writer import MemoryJournal
from sweeps.planning.recorded import RecordedCurve, RecordedSweep, Scores, noisy
from sweeps.planning.simulated_sweep import SimulatedSweep
from sweeps.planning.work import TrialWork
from sweeps.stopping.base import StopRule
from sweeps.storage.local import LocalStore, user_cache

MOST_TRIALS: Final = 24
"""Trials that are rehearsed; of a larger sweep an even selection, each with the budgets that share its trunk."""
REHEARSALS: Final = (4, 12)
"""At least and at most so many, each with curves assigned anew."""
REPORTS: Final = 400
"""So many scored checkpoints in all rehearsals together are enough: seconds on one core."""


@dataclass(frozen=True, slots=True)
class Saving:
    """Share of a sweep's device seconds that its stop rule is likely to leave out.

    Attributes:
        share, low, high: the median rehearsal, and the range without the outer tenths. rehearsals: how many there were.
        trials: of each rehearsal. source: where the curves are from, in words.
    """

    share: float
    low: float
    high: float
    rehearsals: int
    trials: int
    source: str


@dataclass(frozen=True, slots=True)
class Costs:
    """Device seconds of one trial: each step, each evaluation, and to start."""

    step: float
    evaluation: float
    start_up: float

    def whole(self, item: TrialWork) -> float:
        """Returns the device seconds of a trial that runs to its budget."""
        return self.step * item.steps + self.evaluation * item.evaluations + self.start_up


def expected_saving(
    plan: Plan,
    work: Sequence[TrialWork],
    costs: Mapping[str, Costs],
    make_rule: Callable[[Plan], StopRule],
    curves: Sequence[RecordedSweep],
    *,
    source: str,
    slots: int = 8,
) -> Saving:
    """Rehearses a sweep several times on recorded curves.

    Args:
        plan, work: the sweep, and its trials in the order in which they are suggested. costs: by trial.
        make_rule: a fresh stop rule for a plan. curves, source: of `sweeps.planning.recorded.curves_for`.
        slots: trials that run at once.

    Raises:
        StrategyError: the stop rule raised an error, or gave an answer that is none.
    """
    chosen = selection(work)
    fewest, most = REHEARSALS
    rehearsals = min(max(REPORTS // max(1, sum(w.evaluations for w in chosen)), fewest), most)
    shares = sorted(
        _Rehearsal(plan, chosen, costs, make_rule, recorded=curves[seed % len(curves)], seed=seed, slots=slots).saved()
        for seed in range(rehearsals)
    )
    outer = len(shares) // 10
    return Saving(statistics.median(shares), shares[outer], shares[-1 - outer], rehearsals, len(chosen), source)


def cached_saving(key: str, rehearse: Callable[[], Saving], folder: Path | None = None) -> Saving:
    """Returns what an earlier rehearsal of the same sweep by the same code found, or rehearses it and keeps that.

    Args:
        key: all that decides the outcome. folder: where outcomes are kept; default is the user's cache folder.
    """
    folder = folder or user_cache() / "rehearsals"
    place = folder / f"{hashlib.sha256(f'{_code()}{key}'.encode()).hexdigest()[:32]}.json"
    try:
        return Saving(**json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        found = rehearse()
    with contextlib.suppress(StorageError):  # a folder that cannot be written costs the next plan some seconds
        LocalStore(folder).write(place.name, json.dumps(asdict(found)).encode())
    return found


def _code() -> str:
    """Tells apart versions of the code that decides: every file of `sweeps` with its size and its time."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return repr([(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files])


def selection(work: Sequence[TrialWork], most: int = MOST_TRIALS) -> list[TrialWork]:
    """Returns an even selection of at most about `most` trials; a trunk stays with its branches."""
    families: dict[str, list[TrialWork]] = {}
    for item in work:
        families.setdefault(item.parent or item.trial, []).append(item)
    if len(work) <= most:
        return list(work)
    wanted = max(1, most * len(families) // len(work))
    every = list(families.values())
    kept = {item.trial for i in range(wanted) for item in every[i * len(every) // wanted]}
    return [item for item in work if item.trial in kept]


class _FixedOrderSearch:
    """Suggests chosen configurations in order, and learns nothing."""

    def __init__(self, plan: Plan, work: Sequence[TrialWork]) -> None:
        self.plan, self.left = plan, list(reversed(work))
        self.count = 0

    def ask(self) -> Suggestion | None:
        if not self.left:
            return None
        self.count += 1
        return Suggestion(self.count - 1, self.left.pop().config)

    def restore(self, suggestion: Suggestion) -> None:
        raise NotImplementedError("a rehearsal is never resumed")

    def tell(self, number: int, result: Result) -> None:
        """Nothing is learnt."""


class _Rehearsal(SimulatedSweep):
    """One rehearsal: scores are those of the assigned curves, and time is what the plan expects."""

    def __init__(
        self,
        plan: Plan,
        work: Sequence[TrialWork],
        costs: Mapping[str, Costs],
        make_rule: Callable[[Plan], StopRule],
        *,
        recorded: RecordedSweep,
        seed: int,
        slots: int,
    ) -> None:
        searcher = _FixedOrderSearch(plan, work)
        super().__init__(SweepController(plan, MemoryJournal(), make_rule(plan), searcher, home="memory://"), slots)
        self.work, self.costs, self.recorded = work, costs, recorded
        self.random = random.Random(seed)
        self.curves = self.random.sample(recorded.curves, len(recorded.curves))
        self.assigned: dict[str, tuple[RecordedCurve, bool]] = {}

    def saved(self) -> float:
        """Runs the sweep to its end; returns the share of its device seconds that was not spent."""
        while self.advance():
            pass
        everything = sum(self.costs[item.trial].whole(item) for item in self.work)
        return max(0.0, 1.0 - self.spent / everything) if everything else 0.0

    def start_up(self, trial: str) -> float:
        return self.costs[trial].start_up

    def step(self, trial: str) -> float:
        return self.costs[trial].step

    def scores(self, job: EvalJob) -> tuple[float, Scores]:
        if is_base(job.trial):
            return 0.0, self.recorded.base
        spec = self.controller.specs[job.trial]
        curve, again = self._curve(spec.config)
        scores = curve.at(job.step / spec.steps)
        return self.costs[job.trial].evaluation, noisy(scores, self.random) if again else scores

    def _curve(self, config: Mapping[str, Any]) -> tuple[RecordedCurve, bool]:
        """Returns a configuration's curve, and whether another configuration has it too; its budgets share it."""
        key = trial_id({**config, "steps": 0})
        if key not in self.assigned:
            again, place = divmod(len(self.assigned), len(self.curves))
            self.assigned[key] = self.curves[place], bool(again)
        return self.assigned[key]
