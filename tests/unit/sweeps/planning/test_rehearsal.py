"""Rehearsals: nothing is saved by a rule that stops nothing, and what a rule leaves out is counted where it would be spent."""

import pytest

from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.errors import StrategyError
from sweeps.journal.rows import ReportRow, TrialRow
from sweeps.planning.recorded import RecordedCurve, RecordedSweep, curves_for, shipped_curves
from sweeps.planning.rehearsal import Costs, cached_saving, expected_saving, selection
from sweeps.planning.work import planned_work
from sweeps.stopping.base import Action, NeverStop, StopRule, Verdict


class StopsAtOnce(StopRule):
    """Stops every trial at its first report."""

    def decide(self, trial):
        return Verdict(Action.STOP, "stopped")


SWEEPS = {
    "grid": {"data": grid("verified-long-cot", "answer-only"), "replay": grid(0.0, 0.2)},
    "budgets on one trunk": {"data": grid("verified-long-cot"), "steps": grid(100, 200, 400)},
}


def rehearsed(space, rule, costs=None, **trainer):
    sweep = Sweep(
        name="s",
        space=space,
        trainer={"steps": 400, "lr_scheduler_type": "wsd", "warmup_steps": 5, **trainer},
        evaluation={"at": {"every": 100}},
    )
    plan, costs = Plan(sweep), costs or Costs(step=1.0, evaluation=3.0, start_up=7.0)
    work = planned_work(plan)
    return expected_saving(
        plan,
        work,
        {w.trial: costs for w in work},
        lambda p: rule(p.sweep.goal),
        shipped_curves(),
        source="the shipped curves",
    )


@pytest.mark.parametrize("space", SWEEPS.values(), ids=SWEEPS)
def test_a_rule_that_stops_nothing_saves_nothing(space):
    found = rehearsed(space, NeverStop)
    assert (found.share, found.low, found.high) == pytest.approx((0.0, 0.0, 0.0))


def test_trials_stopped_at_the_first_of_four_reports_save_three_quarters():
    found = rehearsed(SWEEPS["grid"], StopsAtOnce, Costs(step=1.0, evaluation=0.0, start_up=0.0))
    assert found.share == pytest.approx(0.75)
    assert found.trials == 4


def test_a_rule_that_stumbles_ends_its_rehearsal_with_its_name():
    """A plan had gone on for ever."""

    class Stumbles(StopsAtOnce):
        def decide(self, trial):
            return {}["x"]

    with pytest.raises(StrategyError, match=r"^stop rule 'Stumbles' .*KeyError: 'x' \(test_rehearsal\.py:"):
        rehearsed(SWEEPS["grid"], Stumbles)


def test_evaluations_that_are_not_made_are_saved_too():
    found = rehearsed(SWEEPS["grid"], StopsAtOnce, Costs(step=0.0, evaluation=1.0, start_up=0.0))
    assert found.share == pytest.approx(0.75)


def test_a_selection_keeps_a_trunk_with_its_branches():
    space = {"replay": grid(*[i / 100 for i in range(40)]), "steps": grid(100, 200, 400)}
    sweep = Sweep(name="s", space=space, trainer={"lr_scheduler_type": "wsd", "warmup_steps": 5})
    work = planned_work(Plan(sweep))
    chosen = selection(work, most=24)
    assert len(chosen) == 24
    assert {w.parent for w in chosen if w.parent} <= {w.trial for w in chosen}
    replays = sorted({w.config["replay"] for w in chosen})
    assert replays[0] < 0.05
    assert replays[-1] > 0.3


def test_scores_between_two_checkpoints_lie_on_the_line_between_them():
    curve = RecordedCurve((0.1, 0.5, 1.0), ({"a": (0.2, 0.1)}, {"a": (0.6, 0.1)}, {"a": (0.8, 0.1)}))
    assert [curve.at(x)["a"][0] for x in (0.05, 0.1, 0.3, 0.75, 1.0)] == pytest.approx([0.2, 0.2, 0.4, 0.7, 0.8])


def past(trials, last=40):
    """The journal of a sweep of `trials` trials of 40 steps that ran to step `last`."""
    yield ReportRow("past-1", "base-tiny-s", step=0, metrics={"transfer/score": 0.5}, suite="mini")
    for i in range(trials):
        yield TrialRow("past-1", f"t-{i}", budget=40, config={"model": "tiny-s", "steps": 40})
        for step in range(10, last + 1, 10):
            yield ReportRow("past-1", f"t-{i}", attempt=1, step=step, metrics={"transfer/score": 0.4}, suite="mini")


def test_earlier_sweeps_of_the_same_metric_come_before_the_shipped_curves():
    goal = Sweep(name="s", space={"steps": grid(40)}, objective={"metric": "transfer/score"}).goal
    own, source = curves_for(goal, [list(past(8))])
    assert [len(s.curves) for s in own] == [8]
    assert "past-1" in source
    for short in (past(7), past(8, last=30)):  # too few, or none to its budget
        assert "recorded fine-tunes of tiny models" in curves_for(goal, [list(short)])[1]


def test_a_metric_that_was_never_recorded_is_stood_in_for_and_that_is_said():
    goal = Sweep(name="s", space={"steps": grid(40)}, objective={"metric": "math/aime"}).goal
    curves, source = curves_for(goal, [])
    assert all(s.measures(["math/aime"]) for s in curves)
    assert source.endswith("math/score for math/aime")
    assert isinstance(curves[0], RecordedSweep)


def test_a_rehearsal_is_not_made_twice(tmp_path):
    made = []

    def rehearse():
        made.append(rehearsed(SWEEPS["grid"], NeverStop))
        return made[-1]

    assert [cached_saving(key, rehearse, tmp_path) for key in ("a", "a", "b")] == [made[0], made[0], made[1]]
    (tmp_path / next(tmp_path.iterdir()).name).write_text("torn")
    cached_saving("a", rehearse, tmp_path)
    cached_saving("b", rehearse, tmp_path)
    assert len(made) == 3
