"""Replay: recorded rows in, what a rule would have done out."""

from __future__ import annotations

import json

import pytest

from benchmarks.stopping.worlds import METRIC, generate
from sweeps.config.objective import Constraint, Goal
from sweeps.errors import InputError
from sweeps.journal.history import History
from sweeps.journal.rows import Row
from sweeps.report.replay import (
    compare,
    comparison_page,
    finals,
    histories_of,
    lost_winners,
    read_rows,
    recorded,
    recorded_goal,
    replay,
    table,
    winners,
)
from tests.support.rows import make_row

Y = "transfer/score"


def rows_of(sweep="s", trials=4, reports=10, budget=100, cost=None, metric=Y):
    out = []
    for i in range(trials):
        for j in range(1, reports + 1):
            spent = {"cpu_s": cost * j * (i + 1)} if cost else {}
            value = 0.4 + 0.01 * i * j
            out.append(
                make_row(
                    "report",
                    sweep,
                    f"t-{i}",
                    step=budget * j // reports,
                    budget=budget,
                    metrics={metric: value},
                    cost=spent,
                )
            )
    return out


def generated_rows(seed, world="published", trials=12):
    made = generate(world, seed, trials=trials)
    rows = [make_row(**{**_fields(r), "sweep": f"{world}-{seed}"}) for r in made.shared]
    for r in made.recordings:
        rows += [make_row(**{**_fields(x), "sweep": f"{world}-{seed}", "config": r.start.config}) for x in r.reports]
    return rows


def _fields(row):
    return {n: getattr(row, n) for n in ("kind", "trial", "step", "budget", "metrics", "se")}


def test_the_result_has_the_documented_shape_and_is_json():
    result = replay(generated_rows(1), "dip-aware:protect=soft", workers=4)
    assert set(result) == {"rule", "sweeps", "summary"}
    (sweep,) = result["sweeps"].values()
    for trial in sweep["trials"].values():
        assert set(trial) >= {"stopped_at", "paused", "phase", "reason"}
        assert trial["stopped_at"] is None or trial["stopped_at"] < 640
    assert 0 <= sweep["compute_saved"] < 1
    json.dumps(result, allow_nan=False)


def test_rule_none_stops_nothing_and_saves_nothing():
    result = replay(rows_of(), "none")
    assert all(t["stopped_at"] is None for t in result["sweeps"]["s"]["trials"].values())
    assert result["summary"]["compute_saved"] == 0
    assert result["summary"]["lost_winners"] == 0


def test_sweeps_are_told_apart_and_each_gets_a_fresh_rule():
    both = replay([*rows_of("a"), *rows_of("b")], "asha")
    assert both["sweeps"]["a"] == both["sweeps"]["b"]
    assert both["summary"]["sweeps"] == 2


def test_step_0_inside_a_trial_is_its_base_and_no_report():
    base = make_row("report", "s", "t-0", step=0, metrics={Y: 0.4})
    recordings, shared = recorded(History([base, *rows_of()]), Y)
    assert not shared
    assert recordings[0].base[0].step == 0
    assert len(recordings[0].reports) == 10


def test_cost_comes_from_the_cumulative_cost_and_else_is_one_a_step():
    plain, _ = recorded(History(rows_of()), Y)
    costed, _ = recorded(History(rows_of(cost=2.0)), Y)
    assert plain[0].seconds == (10.0,) * 10
    assert costed[2].seconds == pytest.approx((6.0,) * 10)


def test_cost_that_starts_anew_with_an_attempt_is_not_taken_as_negative():
    rows = [
        make_row("report", "s", "t", 1, step=10, budget=40, metrics={Y: 0.1}, cost={"cpu_s": 5.0}),
        make_row("report", "s", "t", 1, step=20, budget=40, metrics={Y: 0.1}, cost={"cpu_s": 10.0}),
        make_row("attempt", "s", "t", 2, step=20),
        make_row("report", "s", "t", 2, step=30, budget=40, metrics={Y: 0.1}, cost={"cpu_s": 6.0}),
        make_row("report", "s", "t", 2, step=40, budget=40, metrics={Y: 0.1}, cost={"cpu_s": 11.0}),
    ]
    (recording,), _ = recorded(History(rows), Y)
    assert recording.seconds == (5.0, 5.0, 6.0, 5.0)


def test_a_run_that_was_recorded_only_in_part_is_no_winner():
    rows = [r for r in rows_of() if not (r.trial == "t-3" and r.step > 50)]
    history = History(rows)
    assert set(finals(history, Goal(Y))) == {"t-0", "t-1", "t-2"}


def test_a_run_that_ended_with_a_score_that_is_not_finite_is_no_winner():
    rows = rows_of()
    for step in (90, 100):
        rows.append(make_row("report", "s", "gone", step=step, budget=100, invalid={Y: "nan"}))
    rows.append(make_row("report", "s", "gone", step=80, budget=100, metrics={Y: 0.99}))
    assert replay(rows, "none", top=1)["sweeps"]["s"]["winners"] == ["t-3"]


@pytest.mark.parametrize(("begun", "branch"), [([], [1, 2, 3]), (["long"], None), (["long", "short"], [1, 2, 3])])
def test_scores_of_a_trunk_are_its_branch_s_unless_the_rows_say_that_it_never_began(begun, branch):
    """A recording of reports alone does not say which runs began."""
    rows = [make_row("attempt", "s", trial, attempt=1, step=0) for trial in begun]
    for trial, steps, inherited in (("long", range(1, 7), ""), ("short", range(1, 4), "long")):
        keys = {"budget": max(steps), **({"inherited": inherited} if inherited else {})}
        rows += [make_row("report", "s", trial, attempt=1, step=s, metrics={Y: 0.1 * s}, **keys) for s in steps]
    found = {r.trial: [x.step for x in r.reports] for r in recorded(histories_of(rows)["s"], Y)[0]}
    assert found == {"long": [1, 2, 3, 4, 5, 6], **({"short": branch} if branch else {})}


def test_lost_winners_are_those_of_the_final_top_that_did_not_run_to_the_end():
    crossing = rows_of(trials=3)
    for j in range(1, 11):
        value = 0.30 if j < 8 else 0.9
        crossing.append(make_row("report", "s", "late", step=10 * j, budget=100, metrics={Y: value}))
    result = replay(crossing, "asha:reduction=2", workers=4, top=1)
    assert result["sweeps"]["s"]["winners"] == ["late"]
    assert result["sweeps"]["s"]["lost_winners"] == ["late"]
    assert result["summary"]["lost_share"] == 1.0


def test_a_cost_that_one_trial_lacks_is_used_for_none():
    costed = rows_of(cost=2.0)
    bare = [make_row("report", "s", "bare", step=10 * j, budget=100, metrics={Y: 0.1}) for j in range(1, 11)]
    recordings, _ = recorded(History([*costed, *bare]), Y)
    assert {r.seconds for r in recordings} == {(10.0,) * 10}


@pytest.mark.parametrize(
    ("constraint", "won"),
    [
        (Constraint(Y, at_most=0.65), "t-2"),
        (Constraint(Y, at_least=0.69), "t-3"),
        (Constraint(Y, relative_to_base=0.25), "t-3"),
        (Constraint(Y, at_least=0.9), None),
        (Constraint("math/score", at_least=0.0), None),
    ],
)
def test_a_winner_meets_the_constraints_at_its_end(constraint, won):
    base = [make_row("report", "s", f"t-{i}", step=0, metrics={Y: 0.4}) for i in range(4)]
    result = replay([*base, *rows_of()], "none", metric=Y, top=1, constraints=[constraint])
    assert result["sweeps"]["s"]["winners"] == ([won] if won else [])


def test_in_several_orders_of_start_a_late_riser_is_lost_where_others_came_before_it():
    crossing = rows_of(trials=3)
    for j in range(1, 11):
        crossing.append(make_row("report", "s", "late", step=10 * j, budget=100, metrics={Y: 0.3 if j < 8 else 0.9}))
    result = replay(crossing, "asha:reduction=2,grace=10", workers=1, top=1, orders=12)
    loss = result["sweeps"]["s"]["lost_in"]["late"]
    assert 0 < loss["orders"] < 12
    assert loss["final"] == 0.9
    assert all(step < 80 for step in loss["steps"])
    assert result["summary"]["lost_winners"] == loss["orders"]
    assert result["summary"]["winners"] == 12
    (summary,) = compare(crossing, ["asha:reduction=2,grace=10"], workers=1, top=1, orders=12)
    assert f"would have ended late at step {loss['steps'][0]}" in table([summary])
    assert f"in {loss['orders']} of 12 orders of start; at its own end it scored 0.90" in table([summary])
    assert "would have ended none" not in table([summary])
    none, asha = compare(crossing, ["none", "asha:reduction=2,grace=10"], workers=1, top=1, orders=12)
    assert "\nnone would have ended none of the best 1 in any of 12 orders of start\n" in table([none, asha])
    assert f"winners lost: of the best 1 by {Y}, counted once for each order of start" in table([none, asha])
    assert "before their last step themselves" not in table([none, asha])
    (half,) = compare([row for row in crossing if row.trial != "late" or row.step != 100], ["none"], top=1)
    assert f"1 of the {half['trials']} recorded runs were ended before their last step themselves" in table([half])
    assert "none of them counts as a winner, whichever rule ends it" in table([half])


def test_of_fewer_whole_runs_than_places_no_more_are_called_the_best():
    two = [row for row in rows_of(trials=3) if row.trial != "t-2" or (row.step or 0) < 100]
    (said,) = compare(two, ["none"], top=3)
    assert said["places"] == 2
    assert "none would have ended none of the best 2\n" in table([said])
    (said,) = compare([row for row in two if (row.step or 0) < 100], ["none"], top=3)
    assert said["winners"] == 0
    assert "would have ended none" not in table([said])
    assert "\nwinners lost: none of these runs came to its last step" in table([said])


def test_where_bests_count_a_replay_speaks_of_best_checkpoints():
    early = rows_of(trials=3)
    for j in range(1, 11):
        early.append(make_row("report", "s", "early", step=10 * j, budget=100, metrics={Y: 0.9 if j == 2 else 0.0}))
    rules = ["asha:reduction=2,grace=30", "asha:reduction=2,grace=10"]
    at_best = compare(early, rules, workers=1, top=1, at="best")
    assert at_best[0]["lost_winners"] == 0
    told = table(at_best)
    assert "would have lost none of the best 1" in told
    assert "would have ended none" not in told
    assert "those that the rule would not have run to their best checkpoint" in told
    late = [
        *early,
        *(make_row("report", "s", "late", step=10 * j, budget=100, metrics={Y: 0.1 * j}) for j in range(1, 11)),
    ]
    (lost,) = compare(late, ["asha:reduction=2,grace=10"], workers=1, top=1, at="best")
    assert lost["lost_winners"] == 1
    assert "; at its best checkpoint it scored 1.00" in table([lost])


def shared_trunk() -> list[Row]:
    """A run of 100 steps that is best at step 20, two branches that turned off at 30, and a run that is best at its end."""
    rows = [make_row("report", "s", "base-m", step=0, metrics={Y: 0.4}, suite="m")]
    for name, budget in (("long", 100), ("short", 40), ("middle", 60), ("other", 100)):
        branch = name in ("short", "middle")
        extra = {"parent": "long", "fork_step": 30} if branch else {}
        rows.append(make_row("trial", "s", name, budget=budget, config={"model": "m", "steps": budget}, extra=extra))
        rows.append(make_row("attempt", "s", name, 1, 30 if branch else 0))
        for step in range(10, budget + 1, 10):
            score = 0.005 * step if name == "other" else 0.9 if step == 20 else 0.2
            more = {"inherited": "long"} if branch and step <= 30 else {}
            rows.append(make_row("report", "s", name, 1, step, metrics={Y: score}, suite="m", **more))
    return rows


def test_a_checkpoint_that_several_runs_share_is_one_winner():
    (whole,) = replay(shared_trunk(), "none", metric=Y, top=2, at="best")["sweeps"].values()
    assert whole["winners"] == ["long", "other"]
    assert whole["lost_winners"] == []
    assert replay(shared_trunk(), "none", metric=Y, top=2)["sweeps"]["s"]["winners"] == [
        "other",
        "long",
        "short",
        "middle",
    ]


@pytest.mark.parametrize("rule", ["none", "asha:grace=10,reduction=2", "dip-aware"])
def test_a_branch_is_replayed_from_its_first_step_under_every_rule_and_the_table_says_so(rule):
    (told,) = compare(shared_trunk(), [rule], metric=Y, top=1)
    assert told["branches"] == 2
    assert "2 of the 4 recorded runs are branches of others" in table([told])
    assert replay(shared_trunk(), rule, metric=Y, top=1)["sweeps"]["s"]["compute"] == 100 + 40 + 60 + 100
    (plain,) = compare(rows_of(), [rule], top=1)
    assert "branches" not in table([plain])


def test_what_a_recorded_sweep_looked_for_is_read_off_its_definition():
    spec = {
        "objective": {"metric": Y, "goal": "minimize"},
        "stopping": {"top": 2},
        "constraints": [{"metric": "math/score", "at_least": 0.5, "at_most": None}],
    }
    sweep = make_row("sweep", "s", name="s", spec=spec)
    assert recorded_goal([sweep, *rows_of()]) == Goal(Y, False, 2, (Constraint("math/score", at_least=0.5),))
    other = make_row("sweep", "b", name="b", spec={**spec, "stopping": {"top": 1}})
    assert recorded_goal([sweep, other]) is None
    assert recorded_goal(rows_of()) is None


def test_minimising_takes_the_smallest_as_winners():
    result = replay(rows_of(), "none", goal="minimize", top=1)
    assert result["sweeps"]["s"]["winners"] == ["t-0"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"goal": "up"}, "maximize or minimize"),
        ({"workers": 0}, "at least 1"),
        ({"orders": 0}, "at least 1"),
        ({"metric": "transfer/other"}, "transfer/score"),
        ({"rule": "ahsa"}, "did you mean 'asha'"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_what_would_do(how, said):
    with pytest.raises(InputError, match=said):
        replay(rows_of(), **{"rule": "none", **how})


def test_two_metrics_need_a_choice():
    with pytest.raises(InputError, match="name one"):
        replay([*rows_of(), *rows_of(metric="math/score")], "none")


def test_a_broken_line_is_named_with_its_place(tmp_path):
    path = tmp_path / "curves.jsonl"
    path.write_text(rows_of()[0].line() + "{oops\n")
    with pytest.raises(InputError, match=r"curves\.jsonl:2"):
        read_rows(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(tmp_path / "nothing.jsonl")


def test_rows_written_and_read_back_replay_the_same(tmp_path):
    rows = generated_rows(2)
    path = tmp_path / "curves.jsonl"
    path.write_text("".join(r.line() for r in rows))
    assert replay(read_rows(path), "median", metric=METRIC) == replay(rows, "median", metric=METRIC)


def test_a_comparison_is_a_table_and_a_page():
    summaries = compare(generated_rows(3), ["none", "asha", "median"], workers=4)
    assert [s["rule"] for s in summaries] == ["none", "asha", "median"]
    assert any(s["pareto"] for s in summaries)
    assert "compute saved" in table(summaries)
    page = comparison_page(summaries)
    assert "<html" in page
    assert "asha" in page
    assert "protection cost" in page


def test_what_protection_cost_is_told_where_a_dip_was_held_that_the_odds_would_have_ended():
    """Three that rise, one that falls and stays down: strict waits out its patience, soft and none have nothing to pay."""
    rows = [make_row("report", "s", "base-", step=0, metrics={Y: 0.4}, se={Y: 0.005})]
    for trial, fall in (("a", 0.0), ("b", 0.0), ("c", 0.0), ("down", 0.3)):
        for j in range(1, 21):
            value = 0.4 + 0.01 * j - fall * min(j / 4, 1.0) - 0.01 * j * (fall > 0)
            rows.append(make_row("report", "s", trial, step=10 * j, budget=200, metrics={Y: value}, se={Y: 0.01}))
    cost = {rule: replay(rows, rule, top=1) for rule in ("dip-aware", "dip-aware:protect=soft", "none")}
    shares = {rule: result["summary"]["protection_cost"] for rule, result in cost.items()}
    assert shares["dip-aware"] > 0.0
    assert shares["dip-aware:protect=soft"] == shares["none"] == 0.0
    assert cost["dip-aware"]["sweeps"]["s"]["protection_cost"] == shares["dip-aware"]


@pytest.mark.parametrize(
    ("completed", "lost"),
    [
        ("abcde", []),
        ("abe", []),  # c ties with b and e for the last two places: any two of the three will do
        ("ace", []),
        ("ae", ["c"]),
        ("bce", ["a"]),
        ("d", ["a", "c", "e"]),
    ],
)
def test_winners_that_tie_for_the_last_places_stand_in_for_each_other(completed, lost):
    ends = {"a": 1.0, "b": 0.9, "c": 0.9, "d": 0.1, "e": 0.9}
    assert winners(ends, 3) == ["a", "b", "c", "e"]
    assert lost_winners(ends, 3, set(completed)) == lost


def test_a_sweep_of_saturated_scores_loses_nothing_to_the_order_of_its_starts():
    rows = [
        make_row("report", "s", f"t-{i}", step=10 * (j + 1), budget=60, metrics={Y: 1.0})
        for i in range(6)
        for j in range(6)
    ]
    sweep = replay(rows, "asha:grace=10,reduction=2", top=2)["sweeps"]["s"]
    assert sweep["places"] == 2
    assert sweep["lost_winners"] == []
