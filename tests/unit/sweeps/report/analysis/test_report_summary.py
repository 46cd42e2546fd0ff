"""Journal rows in, findings out."""

import json
import math
import random
from dataclasses import replace

import pytest

from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.controller.controller import SweepController
from sweeps.executors.local import InProcess
from sweeps.journal.codec import parse
from sweeps.journal.writer import MemoryJournal
from sweeps.report import render_html, summarize
from sweeps.report.analysis.conclusions.answer import progress
from sweeps.report.analysis.findings.settings import Kind
from sweeps.report.analysis.shape import Shape
from sweeps.report.html.page_tables import axis_tables
from sweeps.stopping.base import NeverStop
from tests.support.fakes import FakeTrainer, fake_evaluate
from tests.support.report_journals import (
    BASE,
    SWEEP,
    axes_of,
    crossed,
    definition,
    demo_stories,
    dip,
    journal,
    rise,
    scored,
    story,
)
from tests.support.rows import make_row


@pytest.fixture(scope="module")
def demo():
    return summarize(journal(demo_stories()))


def by_state(summary, state):
    return next(t for t in summary.trials if t.state == state)


def test_every_ending_is_told_with_its_reason(demo):
    assert [t.state for t in demo.trials] == [
        "completed", "completed", "completed", "pruned", "failed", "paused", "running",
    ]  # fmt: skip
    assert by_state(demo, "failed").reason == "diverged: train/loss was nan at step 40"
    assert by_state(demo, "pruned").reason == "cannot reach the top 3: P 0.004 at step 160"
    assert by_state(demo, "pruned").steps_run == 160
    assert by_state(demo, "paused").phase == "collapse"


def test_a_recovery_and_a_collapse_are_told_apart(demo):
    recovers, lost = demo.trials[0], demo.trials[1]
    assert recovers.readings["general/score"].shape is Shape.RECOVERED
    assert lost.readings["general/score"].shape is Shape.NOT_BACK
    assert demo.setting(lost.id).verdicts[0].kind is Kind.COLLAPSED
    told = (
        "1 recovered (fell, and is back at 90 % of the base), 1 not back yet and still rising, 1 collapsed, 4 undecided"
    )
    assert f"of 7 settings, {told}" in demo.headline


def test_curves_hold_every_score_with_its_error_and_items(demo):
    points = demo.trials[0].curves["general/score"]
    assert [p.step for p in points] == [5, 10, 20, 40, 80, 120, 160, 200, 300, 400]
    assert all(p.n == 200 and p.se for p in points)


def test_only_completed_trials_that_meet_the_constraints_are_ranked(demo):
    assert demo.best == (demo.trials[2].id, demo.trials[0].id)
    collapsed = demo.trials[1]
    assert collapsed.meets is False
    assert collapsed.rank is None
    assert collapsed.checks[0].rule == "base -0.6 or better"


def test_settings_not_told_apart_from_the_best_are_called_tied():
    same = [story(config={"learning_rate": lr}) for lr in (1e-3, 2e-3, 3e-3, 4e-3)]
    summary = summarize(journal(same))
    assert len(summary.tied) == 3
    assert summary.best[0] not in summary.tied


def test_minimising_turns_the_ranking_round():
    stories = [story(), story(replay=0.0)]
    spec = definition(axes_of(stories), objective={"metric": "train/loss", "goal": "minimize"}, constraints=[])
    rows = journal(stories, spec=spec)
    end = make_row("report", SWEEP, stories[1].id, attempt=1, step=401, metrics={"train/loss": 0.1})
    summary = summarize([*rows, end])
    assert summary.best[0] == stories[1].id
    assert summary.objective in summary.panels


def test_safety_cost_is_in_domain_up_and_refusal_down(demo):
    tiers = {g.level: g for g in demo.groups if g.axis == "data"}
    assert tiers["verified-long-cot"].safety_cost == 2
    assert tiers["answer-only"].safety_cost == 0
    assert any(
        s.startswith("Safety cost in 2 of 2 trials (in-domain rose and refusal fell, both beyond chance)")
        for s in tiers["verified-long-cot"].sentences
    )


def test_without_in_domain_scores_nothing_is_said_of_a_price_in_safety():
    curves = {"transfer/score": rise(0.02), "safety/refusal": dip(0.5, 0.1)}
    summary = summarize(journal([story(data, curves=curves) for data in ("verified-long-cot", "answer-only")]))
    assert summary.groups
    assert not [text for g in summary.groups for text in g.sentences if "Safety cost" in text]
    assert {level.safety for table in axis_tables(summary) for level in table.levels} == {"–"}


def test_groups_count_only_trials_that_ran_to_their_budget(demo):
    corrupted = next(g for g in demo.groups if g.level == "corrupted-cot")
    assert (corrupted.trials, corrupted.completed) == (2, 0)
    assert "nothing can be said" in corrupted.sentences[0]
    answer = next(g for g in demo.groups if g.level == "answer-only")
    assert "Not counted: 1 pruned." in answer.sentences


def test_a_single_seed_is_said_to_be_one(demo):
    assert any(n.startswith("Single seed") for n in demo.notes)
    assert all(g.seeds <= 1 for g in demo.groups)
    many = summarize(journal([story(seed=0), story(seed=1), story(replay=0.0, seed=0)]))
    assert max(g.seeds for g in many.groups) == 2
    assert not any(n.startswith("Single seed") for n in many.notes)


def test_contrasts_compare_trials_alike_in_everything_else():
    stories = [story(data, replay, steps=400) for data in ("verified-long-cot", "answer-only") for replay in (0.0, 0.1)]
    summary = summarize(journal(stories))
    replay = next(c for c in summary.contrasts if c.axis == "replay" and c.metric == "general/score")
    assert (replay.pairs, replay.higher, replay.lower) == (2, 2, 0)
    ends = {t.id: t.readings["general/score"].final.value for t in summary.trials}
    by_hand = [ends[stories[1].id] - ends[stories[0].id], ends[stories[3].id] - ends[stories[2].id]]
    assert replay.mean_change == pytest.approx(sum(by_hand) / 2)


def test_costs_are_counted_once_per_attempt_and_what_stopping_saved_is_told():
    rows = journal([story(), story(replay=0.0, until=0.4, end="pruned", reason="hopeless")])
    costs = summarize(rows).costs
    assert costs.training.cpu_s == pytest.approx(20.0 + 8.0)
    assert costs.scoring.cpu_s == pytest.approx(0.9 + 0.8 * (10 + 7))
    assert (costs.steps_planned, costs.steps_run, costs.steps_saved) == (800, 560, 240)
    assert costs.estimated_saved.cpu_s == pytest.approx(12.0)


def test_a_second_attempt_adds_its_own_cost():
    s = story(until=0.5, end="running")
    rows = journal([s])
    more = [
        make_row("attempt", SWEEP, s.id, attempt=2, step=200),
        make_row("report", SWEEP, s.id, attempt=2, step=400, metrics={"train/loss": 0.1}, cost={"cpu_s": 9.0}),
    ]
    trial = summarize(rows + more).trials[0]
    assert trial.training.cpu_s == pytest.approx(10.0 + 9.0)
    assert trial.attempts == 2


def test_failed_trials_save_nothing(demo):
    assert demo.costs.steps_lost == 360
    assert demo.costs.steps_saved == 240 + 280


def test_a_branch_continues_its_parents_curve_and_its_cost_is_its_own():
    trunk = story(until=0.5, end="completed")
    branch = story(config={"lr_scheduler_type": "wsd"}, parent=trunk.id, fork_step=160)
    summary = summarize(journal([trunk, branch]))
    child = summary.trial(branch.id)
    steps = [p.step for p in child.curves["general/score"]]
    assert steps == [5, 10, 20, 40, 80, 120, 160, 200, 300, 400]
    trunk_values = {p.step: p.value for p in summary.trial(trunk.id).curves["general/score"]}
    own = {p.step: p.value for p in child.curves["general/score"]}
    assert own[120] == trunk_values[120]
    assert own[200] != trunk_values[200], "after the fork the branch's own score counts"
    assert child.own_steps == 240
    assert child.training.cpu_s == pytest.approx(12.0)


def test_rows_may_come_twice_late_and_out_of_order():
    rows = journal(demo_stories())
    straight = summarize(rows)
    scores = [r for r in rows if r.kind == "report"]
    others = [r for r in rows if r.kind != "report"]
    random.Random(0).shuffle(scores)
    shuffled = summarize([*others, *scores, *scores[:40]])
    for a, b in zip(straight.trials, shuffled.trials, strict=True):
        assert a.curves == b.curves
        assert a.readings == b.readings


def test_partial_rows_make_one_point():
    s = story()
    rows = [
        *journal([s], base=False)[:2],
        scored(s.id, 10, {"transfer/score": 0.5}),
        scored(s.id, 10, {"general/score": 0.6}),
    ]
    curves = summarize(rows).trials[0].curves
    assert curves["transfer/score"][0].value == 0.5
    assert curves["general/score"][0].value == 0.6


def test_a_number_that_is_not_finite_is_reported_and_never_drawn():
    s = story()
    rows = [*journal([s]), scored(s.id, 350, {"transfer/score": math.nan, "general/score": 0.9})]
    summary = summarize(rows)
    trial = summary.trials[0]
    assert trial.invalid == ("transfer/score@350 = nan",)
    assert 350 not in [p.step for p in trial.curves["transfer/score"]]
    assert any("not finite" in n for n in summary.notes)


def test_without_a_base_row_curves_are_shown_and_dips_are_not_judged():
    summary = summarize(journal([story(), story(replay=0.0)], base=False))
    assert all(r.shape is Shape.TOO_FEW for t in summary.trials for r in t.readings.values())
    assert any("No score of the base model for tiny-s" in n for n in summary.notes)
    assert not summary.best, "the floor on refusal is relative to the base, so no trial is known to meet it"


def test_a_step_zero_inside_a_trial_stands_for_its_base():
    s = story()
    rows = journal([s], base=False)
    rows.insert(3, scored(s.id, 0, BASE))
    assert summarize(rows).trials[0].readings["general/score"].shape is Shape.RECOVERED


def test_two_suites_never_share_a_curve():
    s = story()
    rows = [*journal([s]), scored(s.id, 350, {"transfer/score": 0.11}, suite="gym@77777777")]
    summary = summarize(rows)
    assert summary.suite == "mini@3f2e91aa"
    assert 350 not in [p.step for p in summary.trials[0].curves["transfer/score"]]
    assert any("another suite" in n for n in summary.notes)


def test_scores_still_to_come_are_announced_and_failed_evaluations_kept():
    s = story(until=0.5, end="running")
    bad = make_row("eval", SWEEP, s.id, attempt=1, step=80, extra={"status": "failed", "reason": "out of memory"})
    trial = summarize([*journal([s]), bad]).trials[0]
    assert trial.evals_open == 1, "the last snapshot's score is late"
    assert trial.evals_failed == ("step 80: out of memory",)


def test_a_failed_try_that_will_be_repeated_is_still_waiting():
    s = story(until=0.5, end="running")
    extra = {"status": "failed", "reason": "out of memory", "try": 1, "given_up": False}
    trial = summarize([*journal([s]), make_row("eval", SWEEP, s.id, attempt=1, step=200, extra=extra)]).trials[0]
    assert (trial.evals_open, trial.evals_failed) == (1, ())


def test_a_snapshot_that_a_newer_attempt_makes_again_is_not_waited_for_twice():
    s = story(until=0.5, end="running")
    again = make_row("attempt", SWEEP, s.id, attempt=2, step=160)
    assert summarize([*journal([s]), again]).trials[0].evals_open == 0


def test_an_interrupted_sweep_says_so_and_tells_what_was_not_started():
    rows = journal([story()])
    rows[0] = replace(rows[0], trials=3)
    stop = make_row("control", SWEEP, extra={"who": "user", "action": "interrupt", "reason": "Ctrl-C"})
    summary = summarize([*rows, stop])
    assert "Interrupted 1 time, last for: Ctrl-C." in summary.notes
    assert progress(summary) == "2 not started"


def test_a_real_sweep_in_this_process_is_read_to_the_end(tmp_path):
    sweep = Sweep(
        name="whole",
        space={"replay": grid(0.0, 0.1), "learning_rate": grid(1e-3, 666.0, 667.0)},
        trainer={"steps": 64},
        constraints=[{"metric": "safety/refusal", "at_least": 0.1}],
    )
    log = MemoryJournal()
    controller = SweepController(Plan(sweep), log, NeverStop(sweep.goal))
    InProcess(controller, FakeTrainer(), fake_evaluate, tmp_path).run()
    summary = summarize(log.rows())
    states = {(t.config["replay"], t.config["learning_rate"]): t for t in summary.trials}
    assert states[0.1, 1e-3].readings["transfer/score"].shape is Shape.RECOVERED
    assert states[0.0, 1e-3].readings["transfer/score"].shape is Shape.NOT_BACK
    assert states[0.1, 666.0].reason == "error: RuntimeError: this learning rate is cursed"
    assert states[0.1, 667.0].reason == "diverged: loss nan at step 3"
    assert summary.best[0] == states[0.1, 1e-3].id
    # Two full runs, and two that diverged after step 2; scores take real milliseconds, which are taken off.
    assert summary.costs.training.cpu_s == pytest.approx(2 * 64 + 2 * 2, abs=1)
    assert all(t.evals_open == 0 for t in summary.trials)
    assert "</html>" in render_html(summary)


def test_a_training_that_failed_is_failed_before_its_last_score_is_in():
    s = story(until=0.5, end="running")
    end = make_row(
        "end", SWEEP, s.id, attempt=1, step=200, extra={"of": "training", "status": "failed", "reason": "oom"}
    )
    trial = summarize([*journal([s]), end]).trials[0]
    assert (trial.state, trial.reason) == ("failed", "oom")


def test_an_empty_journal_and_a_sweep_without_scores_are_plain_sentences():
    assert summarize([]).headline == "The journal holds no trials yet."
    only = journal([story()])[:3]
    assert summarize(only).headline == (
        "No trial is complete yet; 1 still open. Nothing was scored on the objective after step 0 yet."
    )


def test_without_a_sweep_row_the_axes_are_what_differs():
    summary = summarize(journal(demo_stories())[1:])
    assert {a.name for a in summary.axes} == {"data", "steps", "replay"}
    assert any("no sweep row" in n for n in summary.notes)


def test_a_setting_that_seems_not_to_move_is_undecided_until_the_items_can_tell():
    still = story()
    still.curves = {"transfer/score": lambda share: 0.0, "general/score": lambda share: 0.0}
    summary = summarize(journal([still], spec=definition({}, constraints=[])))
    assert summary.settings[0].verdicts[0].kind is Kind.INCONCLUSIVE, "200 items cannot tell 0.04 from none"
    assert "1 undecided" in summary.headline
    assert "no setting beat its base" in summary.headline


def test_the_json_is_strict_and_the_journal_survives_a_round_trip(demo):
    text = json.dumps(demo.to_json(), allow_nan=False)
    rows = [parse(json.loads(row.line())) for row in journal(demo_stories())]
    assert json.dumps(summarize(rows).to_json(), allow_nan=False) == text
    data = json.loads(text)
    assert data["format"] == 3
    reading = data["trials"][0]["readings"]["general/score"]
    assert reading["shape"] == "dip-and-recover"
    assert reading["depth_relative"] > 0.2
    assert reading["beyond_2se"] is True
    first = data["trials"][0]
    assert first["steps"][0] == 5
    for metric, curve in first["curves"].items():
        steps = [p.step for p in demo.trials[0].curves[metric]]
        assert curve.get("step", first["steps"]) == steps
        assert len(curve["value"]) == len(steps)


def test_two_hundred_trials_are_summarised():
    summary = summarize(journal(crossed(200)))
    assert len(summary.trials) == 200
    assert {g.axis for g in summary.groups} == {"data", "steps", "replay"}
    assert sum(t.state == "failed" for t in summary.trials) == 13
