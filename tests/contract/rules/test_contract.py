"""What every stop rule owes its caller, whichever it is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sweeps.config.objective import Goal
from sweeps.errors import InputError
from sweeps.executors.simulated import Recording, simulate
from sweeps.journal.rows import split_finite
from sweeps.stopping.base import Action
from sweeps.stopping.registry import make_rule, parse_rule
from tests.support.rows import make_row

Y = "transfer/score"
RULES = ["none", "dip-aware", "dip-aware:protect=soft", "asha", "median", "hyperband", "patient:patience=4"]
GOAL = Goal(Y, top=2)


def recordings(count=10, reports=12, seed=0, budget=240):
    """A small mixed sweep: dips, collapses, risers, with noise and unequal cost."""
    rng = np.random.default_rng(seed)
    x = np.arange(1, reports + 1) / reports
    out = []
    for i in range(count):
        trough = rng.uniform(0.1, 0.3)
        fall = -rng.uniform(0, 0.3) * np.minimum(x / trough, 1)
        rise = rng.uniform(-0.1, 0.5) * np.maximum(x - trough, 0)
        y = 0.4 + fall + rise + 0.01 * rng.normal(size=reports)
        trial = f"t-{i}"
        rows = tuple(
            make_row("report", "", trial, step=budget * (j + 1) // reports, metrics={Y: float(v)}, se={Y: 0.01})
            for j, v in enumerate(y)
        )
        start = make_row("trial", "", trial, budget=budget, config={"model": "m"})
        out.append(Recording(trial, start, rows, (rng.uniform(0.5, 2.0),) * reports))
    return out


def base():
    return [make_row("report", "", "base-m", step=0, metrics={Y: 0.4}, se={Y: 0.005})]


@pytest.mark.parametrize("text", RULES)
class TestEveryRule:
    def test_it_ends_every_trial_and_its_verdicts_have_reasons(self, text):
        out = simulate(recordings(), parse_rule(text, GOAL), workers=3, shared=base())
        assert {r.ended for r in out.runs.values()} <= {"completed", "pruned"}
        assert 0.0 <= out.saved < 1.0
        assert all(v.reason for r in out.runs.values() for _, v in r.verdicts)

    def test_the_same_rows_give_the_same_verdicts(self, text):
        a, b = (simulate(recordings(), parse_rule(text, GOAL), workers=3, shared=base()) for _ in range(2))
        assert [r.to_json() for r in a.journal] == [r.to_json() for r in b.journal]

    def test_replaying_the_journal_up_to_a_verdict_gives_that_verdict(self, text):
        out = simulate(recordings(), parse_rule(text, GOAL), workers=3, shared=base())
        rule = parse_rule(text, GOAL)
        for row in out.journal:
            if row.kind == "verdict":
                again = rule.decide(row.trial)
                assert str(again.action) == row.action
                assert again.reason == row.reason
            rule.observe(row)

    def test_invalid_missing_and_odd_rows_are_survived(self, text):
        rule = parse_rule(text, GOAL)
        rows = [
            make_row("trial", "s", "a", budget=100, config={"model": "m"}),
            make_row("report", "s", "a", step=10, metrics={"train/loss": 2.0}),
            make_row("report", "s", "a", step=20, metrics=split_finite({Y: math.nan})[0], invalid={Y: "nan"}),
            make_row("report", "s", "a", step=40, metrics={Y: 0.5}),
            make_row("report", "s", "a", step=30, metrics={Y: 0.4}),
            make_row("report", "s", "a", step=30, metrics={Y: 0.4}),
            make_row("report", "s", "a", step=40, se={Y: 0.01}),
            make_row("report", "s", "unknown", step=10, metrics={Y: 0.2}),
            make_row("report", "s", "base-m", step=0, metrics={Y: 0.45}, se={Y: 0.0}),
            make_row("report", "s", "a", step=60, metrics={Y: 0.5}, se={Y: 0.0}),
        ]
        for row in rows:
            rule.observe(row)
            assert rule.decide("a").action is Action.CONTINUE
        assert rule.decide("nobody").action is Action.CONTINUE

    def test_nothing_paused_is_nothing_to_resume(self, text):
        assert parse_rule(text, GOAL).choose_trial_to_resume([]) is None

    def test_trials_that_are_all_alike_do_not_lose_everything(self, text):
        same = [
            Recording(
                f"t-{i}",
                make_row("trial", "", f"t-{i}", budget=100, config={"model": "m"}),
                tuple(
                    make_row("report", "", f"t-{i}", step=10 * (j + 1), metrics={Y: 0.5}, se={Y: 0.01})
                    for j in range(10)
                ),
                (1.0,) * 10,
            )
            for i in range(6)
        ]
        out = simulate(same, parse_rule(text, GOAL), workers=2)
        assert any(out.completed(t) for t in out.runs)


def test_a_rule_that_pauses_everything_still_lets_the_sweep_end():
    class PauseAll(type(parse_rule("none", GOAL))):
        def decide(self, trial):
            from sweeps.stopping.base import Verdict

            return Verdict(Action.PAUSE, "no")

    out = simulate(recordings(4), PauseAll(GOAL), workers=2)
    assert all(r.ended == "pruned" and r.paused and r.done == 1 for r in out.runs.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dip-awar", "did you mean 'dip-aware'"),
        ("dip-aware:pacience=2", "did you mean 'patience'"),
        ("dip-aware:protect", "should be key=value"),
        ("dip-aware:protect=hard", "strict or soft"),
        ("asha:reduction=1", "at least 1.5"),
        ("none:x=1", "it takes none"),
    ],
)
def test_a_rule_that_cannot_be_made_says_what_would_do(text, said):
    with pytest.raises(InputError, match=said):
        parse_rule(text, GOAL)


def test_settings_arrive_with_their_types():
    rule = make_rule("dip-aware", GOAL, protect="soft", patience=2)
    assert rule.protect == parse_rule("dip-aware:protect=soft,patience=2", GOAL).protect == "soft"
    assert parse_rule("dip-aware:pause=false", GOAL).pause is False


def test_optunas_patient_curve_is_pruned_on_its_way_up_by_patience_and_not_by_dip_awareness():
    """50, 44, 40, 41, 46, 55: PatientPruner(MedianPruner, patience=2) prunes at 41 and would at 46."""
    others = {f"o-{i}": [50 + i, 51, 52, 52, 53, 53, 53] for i in range(4)}
    gone = {}
    for text in ("patient:patience=2", "dip-aware", "dip-aware:protect=soft"):
        rule = parse_rule(text, Goal(Y, top=3))
        for trial, values in {**others, "dip": [50, 44, 40, 41, 46, 55, 57]}.items():
            rule.observe(make_row("trial", "s", trial, budget=140, config={"model": "m"}))
            for i, v in enumerate(values):
                rule.observe(make_row("report", "s", trial, step=10 * (i + 1), metrics={Y: float(v)}, se={Y: 1.0}))
                if trial == "dip" and rule.decide(trial).action is not Action.CONTINUE:
                    gone.setdefault(text, 10 * (i + 1))
    assert gone == {"patient:patience=2": 40}
