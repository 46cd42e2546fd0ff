"""`search.promote`: which runs go on, which wait, and when shorter budgets begin."""

from __future__ import annotations

import math
import random

import pytest

from cluster.run_sweep import stop_rule
from sweeps import Sweep, grid, loguniform
from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.controller.controller import SweepController
from sweeps.controller.request_handler import carry_out
from sweeps.controller.requests import Request
from sweeps.controller.searcher import OptunaSearch, Suggestion
from sweeps.errors import SpecError
from sweeps.journal.rows import AttemptRow, EndRow, Row, TrialRow, VerdictRow
from sweeps.journal.state import is_base
from sweeps.journal.vocabulary import Action, EndOf, TrialStatus
from sweeps.journal.writer import MemoryJournal
from sweeps.planning.recorded import Scores
from sweeps.planning.simulated_sweep import SimulatedSweep

METRIC = "transfer/score"
LONG = {"lr_scheduler_type": "wsd", "warmup_steps": 5, "steps": 200}


def sweep(**more) -> Sweep:
    fields = {
        "name": "promoted",
        "space": {"steps": grid(100, 200), "learning_rate": loguniform(1e-4, 1e-2)},
        "search": {"algorithm": "optuna-tpe", "trials": 40, "promote": True},
        "stopping": {"rule": "dip-aware", "top": 2},
        "trainer": {"lr_scheduler_type": "wsd", "warmup_steps": 5},
    }
    return Sweep(**fields | more)


class World(SimulatedSweep):
    """The best rate is 1e-3; every run falls by 0.1 at a tenth of its way and comes back."""

    def __init__(self, definition: Sweep, journal: MemoryJournal, controller: SweepController | None = None) -> None:
        made = controller or SweepController(Plan(definition), journal, stop_rule(definition), home="memory://")
        super().__init__(made, 3)
        self.draw = random.Random(len(journal.rows()))

    def scores(self, job: EvalJob) -> tuple[float, Scores]:
        if is_base(job.trial):
            return 0.0, {METRIC: (0.5, 0.01)}
        rate = float(self.controller.specs[job.trial].config["learning_rate"])
        gain = 0.3 - 0.3 * abs(math.log10(rate / 1e-3))
        way = job.step / 200
        score = 0.5 + gain * way - 0.1 * math.exp(-(((way - 0.1) / 0.08) ** 2)) + self.draw.gauss(0, 0.01)
        return 0.0, {METRIC: (score, 0.01)}

    def run(self, most: float = math.inf) -> list[Row]:
        while self.spent < most and self.advance():
            pass
        return list(self.controller.journal.rows())


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return World(sweep(), MemoryJournal()).run()


def test_runs_wait_while_a_new_configuration_has_better_odds_and_everything_ends(rows):
    held = [r for r in rows if isinstance(r, VerdictRow) and r.reason.startswith("held: P(top 2)")]
    assert held
    assert all(r.action is Action.PAUSE and not r.evidence["protected"] for r in held)
    assert all(r.evidence["p_top"] < r.evidence["newcomer"] for r in held)
    trials = {r.trial for r in rows if isinstance(r, TrialRow)}
    ended = [r.trial for r in rows if isinstance(r, EndRow) and r.of is EndOf.SCORING]
    assert len(trials) == 40
    assert sorted(ended) == sorted(trials)
    again = {r.trial for r in rows if isinstance(r, AttemptRow) and r.attempt > 1}
    assert again & {r.trial for r in held}  # some of them were the best that was left


def test_shorter_budgets_begin_when_all_is_named_and_not_where_the_trunk_was_given_up(rows):
    parents = {r.trial: r.parent for r in rows if isinstance(r, TrialRow)}
    named = max(i for i, r in enumerate(rows) if isinstance(r, TrialRow))
    begun = [i for i, r in enumerate(rows) if isinstance(r, AttemptRow) and parents[r.trial]]
    assert begun
    assert min(begun) > named
    status = {r.trial: r.status for r in rows if isinstance(r, EndRow) and r.of is EndOf.SCORING}
    pruned = [r for r in rows if isinstance(r, EndRow) and (r.reason or "").startswith("ended with its trunk")]
    assert pruned
    assert all(status[parents[r.trial]] == "pruned" for r in pruned)


def test_the_rule_decides_the_same_from_the_rows_alone(rows):
    rule = stop_rule(sweep())
    for row in rows:
        if isinstance(row, VerdictRow):
            again = rule.decide(row.trial)
            assert (again.action, again.reason) == (row.action, row.reason)
        rule.observe(row)


def test_a_sweep_that_is_broken_off_goes_on_from_its_rows():
    journal = MemoryJournal()
    World(sweep(), journal).run(most=1500)
    rows = World(sweep(), journal).run()
    trials = [r.trial for r in rows if isinstance(r, TrialRow)]
    assert len(trials) == len(set(trials)) == 40
    ended = [r.trial for r in rows if isinstance(r, EndRow) and r.of is EndOf.SCORING]
    assert sorted(ended) == sorted(trials)


def test_what_is_promoted_ends_as_well_as_what_the_rule_alone_runs():
    """The same search without promotion: the best trial that each ends with is the same up to noise, for fewer steps at first."""

    def best(definition: Sweep) -> tuple[float, float]:
        world = World(definition, MemoryJournal())
        world.run()
        state = world.controller.state
        ends = [t.curve.values(METRIC)[-1] for t in state.with_status(TrialStatus.COMPLETED) if not t.parent]
        return max(ends), world.spent

    promoted, alone = best(sweep()), best(sweep(search={"algorithm": "optuna-tpe", "trials": 40}))
    assert promoted[0] > alone[0] - 0.03
    assert promoted[1] <= alone[1]


def test_promotion_needs_odds_and_changes_no_sweep_that_does_without():
    with pytest.raises(SpecError, match=r"search.promote: got true with stopping.rule none; expected dip-aware"):
        sweep(stopping={"rule": "none"})
    plain = {"algorithm": "optuna-tpe", "trials": 40}
    assert sweep(search=plain).id == sweep(search={**plain, "promote": False}).id != sweep().id
    assert "promote" not in sweep(search=plain).to_json(identity=True)["search"]


def test_an_extension_that_a_user_asks_for_begins_at_once_though_its_trunk_waits():
    world = World(sweep(), MemoryJournal())
    controller, new = world.controller, ""
    while world.advance():
        waiting = [t.id for t in controller.state.with_status(TrialStatus.PAUSED) if not t.parent]
        if waiting and not new:
            carry_out(controller, Request("extend", trial=waiting[0], args={"steps": 400}, who="ada"))
            new = next(t.id for t in controller.state.trials.values() if t.row.by)
    rows = controller.journal.rows()
    asked, begun = (
        next(r.seq for r in rows if isinstance(r, kind) and r.trial == new) for kind in (TrialRow, AttemptRow)
    )
    assert not any(isinstance(r, TrialRow) and not r.by and asked < r.seq < begun for r in rows)
    assert controller.state.trials[new].attempt


class _Fewer(OptunaSearch):
    """A search that has no more after ten configurations, whatever the plan says: its space is used up."""

    def ask(self) -> Suggestion | None:
        return super().ask() if len(self.given[0]) < 10 else None


def test_no_run_waits_for_configurations_that_the_search_does_not_have():
    plan = Plan(sweep(space={"learning_rate": loguniform(1e-4, 1e-2)}, trainer=LONG))
    journal, rule = MemoryJournal(), stop_rule(plan.sweep)
    world = World(plan.sweep, journal, SweepController(plan, journal, rule, _Fewer(plan), home="memory://"))
    rows = world.run()
    last = max(i for i, r in enumerate(rows) if isinstance(r, TrialRow))
    resumed = [r.trial for r in rows[last:] if isinstance(r, AttemptRow) and r.attempt > 1]
    held = [r.trial for r in rows if isinstance(r, VerdictRow) and r.reason.startswith("held")]
    assert len({r.trial for r in rows if isinstance(r, TrialRow)}) == 10
    assert set(resumed) & set(held)
    first = next(i for i, r in enumerate(rows) if i > last and isinstance(r, AttemptRow) and r.attempt > 1)
    assert not [r for r in rows[first:] if isinstance(r, VerdictRow) and r.reason.startswith("held")]
    assert rule.newcomer() == 0.0


def test_runs_are_held_and_promoted_also_where_new_trials_are_named_long_before_they_begin():
    """The driver on Ray asks a search that learns nothing for many trials ahead, for the autoscaler."""
    definition = sweep(
        space={"learning_rate": loguniform(1e-4, 1e-2)},
        search={"algorithm": "random", "trials": 40, "promote": True},
        trainer=LONG,
    )
    world = World(definition, MemoryJournal())
    world.controller.next_trials(40)
    rows = world.run()
    assert max(i for i, r in enumerate(rows) if isinstance(r, TrialRow)) <= 40
    first = [r for r in rows if isinstance(r, AttemptRow) and r.attempt == 1]
    held = [r for r in rows if isinstance(r, VerdictRow) and r.reason.startswith("held")]
    assert len([r for r in held if r.seq < first[-1].seq]) >= 5
    promoted = [r for r in rows if isinstance(r, AttemptRow) and r.attempt > 1 and r.seq < first[-1].seq]
    assert promoted


def test_shorter_budgets_come_last_also_where_all_is_named_at_the_start():
    world = World(sweep(search={"algorithm": "random", "trials": 24, "promote": True}), MemoryJournal())
    world.controller.next_trials(64)
    rows = world.run()
    parents = {r.trial: r.parent for r in rows if isinstance(r, TrialRow)}
    begun = [bool(parents[r.trial]) for r in rows if isinstance(r, AttemptRow) and r.attempt == 1]
    assert sum(begun) >= 2
    assert begun == sorted(begun)
