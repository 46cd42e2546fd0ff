"""What the report says is what the data carry: seeds, sampled axes, survivors, selection, one error level."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace

import pytest

from sweeps.journal.rows import base_trial
from sweeps.report import render_html, summarize
from sweeps.report.analysis.conclusions.answer import console_lines
from sweeps.report.analysis.findings.settings import Kind
from tests.support.report_journals import BASE, SWEEP, definition, demo_stories, dip, journal, scored, story
from tests.support.rows import make_row

FLAT = {"transfer/score": lambda share: 0.0, "math/in_domain": lambda share: 0.4}


def lengths(trial, values, *, base=0.97, se=0.01, metric="transfer/score", end="completed", spec=None):
    """A sweep of one trial with the given scores at steps 40, 80, …, every one with the same error."""
    rows = [
        make_row("sweep", SWEEP, extra={"name": "s", "spec": spec or definition({}, constraints=[]), "trials": 1}),
        make_row("report", SWEEP, base_trial("tiny-s"), 0, 0, metrics={metric: base}, se={metric: se},
                 n={metric: 400}, suite="m@1"),
        make_row("trial", SWEEP, trial.id, config=trial.config, budget=trial.budget),
        make_row("attempt", SWEEP, trial.id, attempt=1, step=0),
    ]  # fmt: skip
    for i, value in enumerate(values, start=1):
        score = {"metrics": {metric: value}, "se": {metric: se}, "n": {metric: 400}, "suite": "m@1"}
        rows.append(make_row("report", SWEEP, trial.id, 1, i * trial.budget // len(values), **score))
    if end:
        rows.append(make_row("end", SWEEP, trial.id, 1, trial.budget, extra={"of": "scoring", "status": end}))
    return rows


def sampled(count=12, slope=0.1, seed=0):
    """Trials that differ in a sampled learning rate and replay; the score rises by `slope` per factor of ten of lr."""
    draw = random.Random(seed)
    stories = []
    for _ in range(count):
        lr, replay = 10 ** draw.uniform(-5, -3), round(draw.uniform(0, 0.2), 3)
        gain = slope * (math.log10(lr) + 4) - 0.2
        curves = {"transfer/score": lambda share, g=gain: g}
        stories.append(story(replay=replay, config={"learning_rate": lr}, curves=curves))
    spec = definition({}, constraints=[])
    spec["space"] = {"learning_rate": {"loguniform": [1e-5, 1e-3]}, "replay": {"uniform": [0.0, 0.2]}}
    return journal(stories, spec=spec)


# A1


def test_without_a_base_it_is_not_known_whether_a_constraint_on_the_change_from_it_is_met():
    rows = [row for row in journal(demo_stories()[:2]) if not row.trial.startswith("base-")]
    said = summarize(rows).answer[0].sentence
    assert said == (
        "No best is named: of 2 completed settings none is known to meet all constraints; without a score of it, or of the base "
        "model, nobody knows of safety/refusal base -0.6 or better."
    )


def test_with_a_sampled_axis_nothing_is_called_a_matched_pair():
    rows = journal(
        [
            story(data, config={"learning_rate": lr})
            for data, lr in (("verified-long-cot", 1e-3), ("answer-only", 1e-5), ("answer-only", 2e-4))
        ]
    )
    assert summarize(rows).contrasts == ()


def test_every_reference_is_in_one_pair_only():
    again = story("answer-only", config={"note": "again"})
    summary = summarize(journal([story(), story("answer-only"), again]))
    assert {c.pairs for c in summary.contrasts if c.axis == "data"} == {1}


def test_seeds_are_counted_not_trials_of_a_cell():
    summary = summarize(
        journal([story(config={"learning_rate": lr}) for lr in (1e-3, 2e-3, 3e-3)] + [story("answer-only")])
    )
    assert max(g.seeds for g in summary.groups) == 1
    assert any(note.startswith("Single seed") for note in summary.notes)


def test_a_sampled_axis_has_an_effect_with_its_error():
    summary = summarize(sampled())
    lr = next(e for e in summary.effects if e.axis == "learning_rate" and e.metric == "transfer/score")
    assert lr.difference.real
    assert lr.difference.low < 0.1 < lr.difference.high
    assert lr.sentence.startswith("learning_rate x 10: transfer/score +0.")
    replay = next(e for e in summary.effects if e.axis == "replay" and e.metric == "transfer/score")
    assert not replay.difference.real
    assert "not told from no effect" in replay.sentence


# A2


def test_a_run_that_still_climbs_is_under_optimised_with_the_steps_it_needs():
    summary = summarize(lengths(story(steps=200), [0.64, 0.72, 0.76, 0.81, 0.84]))
    (verdict,) = summary.settings[0].verdicts
    assert verdict.kind is Kind.UNDER_OPTIMISED
    assert "not back in its 200 steps" in verdict.sentence
    assert "still rising 0.100 per 100 steps" in verdict.sentence.replace("0.10 per", "0.100 per")
    at, low, high = verdict.evidence["reaches"]
    assert low < at < high
    assert at == pytest.approx(333, abs=20)
    assert "never" not in render_html(summary).partition("<script")[0].lower()
    assert "at that rate it is back at the base by about step" in render_html(summary)


def test_budgets_of_one_configuration_are_settings_of_their_own_and_none_is_said_never_to_recover():
    summary = summarize(journal([story(steps=s) for s in (100, 200, 400)]))
    assert len(summary.settings) == 3
    assert "never" not in " ".join(console_lines(summary))


# A3, A4


def test_the_answer_is_about_the_objective_and_says_what_back_means():
    summary = summarize(journal([story(), story(replay=0.0)]))
    counts = next(f for f in summary.answer if f.about == "settings")
    assert counts.sentence.startswith("On transfer/score ")
    assert "of 2 settings, " in counts.sentence
    recovers = summarize(journal([story("answer-only")]))
    assert "recovered (fell, and is back at 90 % of the base)" in recovers.headline


def test_the_first_screen_answers_each_question_in_at_most_six_sentences_of_findings():
    summary = summarize(journal([story(), story("answer-only"), story(replay=0.0)]))
    about = [f.about for f in summary.answer]
    assert about == ["best", "settings", "long-enough", "safety", "ties", "cost"]
    said = {f.about: f.sentence for f in summary.answer}
    assert "0.98 before, 0.9" in said["safety"]
    first_table = render_html(summary).partition("</table>")[0].replace("<wbr>", "")
    assert "length/mean" in first_table, "lengths stand in the first screen's table"
    assert "CPU" in said["cost"]
    assert "rising" in said["long-enough"]
    for finding in summary.answer:
        assert finding.numbers, f"no numbers beside: {finding.sentence}"
        assert not re.search(r"[.?!] [A-Z]", finding.sentence), f"more than one sentence: {finding.sentence}"


def test_refusal_that_fell_everywhere_is_said_of_every_setting():
    summary = summarize(journal([story(), story(replay=0.0)]))
    assert "it fell in 2 of 2 whole settings" in next(f.sentence for f in summary.answer if f.about == "safety")


# A5


def test_the_page_opens_on_the_best_trial():
    summary = summarize(journal([story(), story("answer-only"), story(replay=0.0)]))
    from sweeps.report.html.chart_data import chart_data

    assert chart_data(summary)["featured"] == summary.best[0]


# A6


def test_one_level_decides_everywhere():
    summary = summarize(journal([story(), story("answer-only"), story(replay=0.0)]))
    for t in summary.trials:
        m = summary.setting(t.id).metrics
        for name, reading in t.readings.items():
            if name in summary.panels and reading.held is not None:
                assert reading.held is not m[name].change.turned(reading.sign).fell, (t.label, name)


def test_many_comparisons_ask_for_more_than_one():
    one = summarize(lengths(story(), [0.97, 0.97, 0.97, 0.935]))
    assert one.settings[0].metrics["transfer/score"].change.p < 0.05
    flat = [story(config={"learning_rate": i / 1000}, curves=FLAT) for i in range(1, 31)]
    many = summarize(journal(flat, spec=definition({}, constraints=[])))
    assert many.threshold < 0.02
    assert many.comparisons > 100


def test_the_power_of_a_comparison_decides_nothing():
    """A difference smaller than the one found four times in five can be real: power is no threshold."""
    summary = summarize(lengths(story(), [0.97, 0.97, 0.97, 0.938], se=0.0095))
    change = summary.settings[0].metrics["transfer/score"].change
    from sweeps.report.analysis.inference import Level

    assert abs(change.value) < Level([0.01]).detectable(change.se)
    assert change.p < 0.05


def test_the_best_of_many_alike_is_not_believed_at_its_face_value():
    flat = [
        story(config={"learning_rate": i / 1000}, curves={"transfer/score": lambda share: -0.3}) for i in range(1, 21)
    ]
    summary = summarize(journal(flat, spec=definition({}, constraints=[])))
    best = summary.ranked()[0].metrics["transfer/score"]
    assert summary.corrected.value < best.value
    assert summary.corrected.low < 0.67 < summary.corrected.high
    assert len(summary.tied) == 19


# A7


def test_settings_rank_by_their_mean_and_the_luckiest_seed_is_only_an_example():
    def seeds(replay, gains):
        return [
            story(replay=replay, seed=i, curves={"transfer/score": lambda share, g=g: g}) for i, g in enumerate(gains)
        ]

    rows = journal(
        [*seeds(0.0, (-0.5, -0.1, -0.5)), *seeds(0.1, (-0.2, -0.21, -0.22))], spec=definition({}, constraints=[])
    )
    summary = summarize(rows)
    first, second = summary.ranked()
    assert (first.config["replay"], second.config["replay"]) == (0.1, 0.0)
    assert len(first.trials) == 3
    assert first.metrics["transfer/score"].seeds_se is not None
    assert "over 3 seeds" in summary.headline
    assert summary.trial(summary.best[0]).config["replay"] == 0.1


def test_training_luck_seen_between_seeds_widens_every_range():
    def sweep(gains):
        stories = [story(seed=i, curves={"transfer/score": lambda share, g=g: g}) for i, g in enumerate(gains)]
        summary = summarize(journal(stories, spec=definition({}, constraints=[])))
        return summary.settings[0].metrics["transfer/score"].change

    steady, lucky = sweep((-0.3, -0.3, -0.3)), sweep((-0.05, -0.3, -0.55))
    assert lucky.se > 2 * steady.se
    assert steady.real
    assert not lucky.real


def test_a_setting_whose_items_say_more_than_those_of_the_others_keeps_a_range_of_this_world():
    """Few seeds of a setting with large errors over items say little of one with small ones, but not nothing."""
    noisy = [story(seed=i, curves={"safety/refusal": lambda share, g=g: g}) for i, g in enumerate((-0.2, -0.5, -0.75))]
    sure = story(replay=0.0, curves={"safety/refusal": lambda share: 0.0})
    summary = summarize(journal([*noisy, sure], spec=definition({}, constraints=[])))
    change = summary.setting(sure.id).metrics["safety/refusal"].change
    assert change.df >= 2
    assert change.high - change.low < 4


# A8


def test_what_survivors_alone_show_is_bounded_by_the_stopped():
    gone = story(
        config={"learning_rate": 1e-2},
        curves={"transfer/score": lambda share: -0.56},
        until=0.3,
        end="pruned",
        reason="no hope",
    )
    kept = story(curves={"transfer/score": lambda share: 0.0})
    other = story("answer-only", curves={"transfer/score": lambda share: -0.1})
    summary = summarize(journal([kept, gone, other]))
    group = next(g for g in summary.groups if g.level == "verified-long-cot")
    metric = next(m for m in group.metrics if m.metric == "transfer/score")
    assert (group.completed, metric.stopped) == (1, 1)
    assert metric.as_stopped == pytest.approx((metric.mean_change - 0.56) / 2, abs=0.03)
    assert metric.as_stopped < metric.as_top <= metric.mean_change
    assert any("if they had stayed where they stood" in s for s in group.sentences)


# A9


def test_why_a_trial_was_paused_stays_readable_after_it_is_pruned():
    s = story(until=0.3, end="paused", reason="P(top 3) 0.32 is below the price of 0.40")
    late = make_row(
        "end",
        SWEEP,
        s.id,
        1,
        120,
        extra={"of": "scoring", "status": "pruned", "reason": "nothing changed in its favour"},
    )
    trial = summarize([*journal([s]), late.at(999)]).trials[0]
    assert trial.state == "pruned"
    assert trial.reason == "nothing changed in its favour; paused at step 120: P(top 3) 0.32 is below the price of 0.40"
    assert [(d.action, d.step, d.reason) for d in trial.decisions] == [
        ("PAUSE", 120, "P(top 3) 0.32 is below the price of 0.40")
    ]


# A10


def test_a_sweep_over_sampled_axes_alone_has_importances():
    summary = summarize(sampled(16))
    share = {i.axes: i.share for i in summary.importances if i.metric == "transfer/score"}
    assert share["learning_rate",] > 0.5 > share["replay",]
    page = render_html(summary)
    assert "there is nothing to compare" not in page
    assert "<td>x 10</td>" in page


# A11


def test_a_best_below_its_base_is_said_to_be():
    summary = summarize(journal([story()]))
    best = next(f for f in summary.answer if f.about == "best")
    assert "no setting beat its base" in best.sentence
    assert best.numbers["beat_base"] is False


def test_a_sweep_in_which_everything_scores_zero_names_no_best():
    rows = lengths(story(), [0.0, 0.0, 0.0], base=0.0, se=0.0)
    summary = summarize(rows)
    assert summary.best == ()
    assert summary.headline.startswith("Every completed trial scores 0 on transfer/score, so no best is named.")


def test_a_cost_that_nobody_recorded_is_said_not_to_be_known():
    said = {f.about: f.sentence for f in summarize(lengths(story(), [0.9, 0.9, 0.9])).answer}
    assert said["cost"] == "What it cost was not recorded."


def test_a_zero_is_no_reason_where_less_is_better():
    spec = definition(
        {},
        objective={"metric": "transfer/score", "goal": "minimize"},
        constraints=[{"metric": "transfer/score", "at_least": 0.5}],
    )
    summary = summarize(lengths(story(), [0.0, 0.0, 0.0], base=0.2, spec=spec))
    assert summary.headline.startswith("The one completed setting does not meet all constraints.")


def test_what_meets_the_constraints_and_scores_zero_is_not_said_to_miss_them():
    spec = definition({}, constraints=[{"metric": "transfer/score", "at_most": 0.5}])
    rows = lengths(story(), [0.0, 0.0, 0.0], spec=spec) + lengths(story("answer-only"), [0.8, 0.8, 0.8])[2:]
    said = summarize(rows).headline
    assert said.startswith("Every completed trial that meets all constraints scores 0 on transfer/score")


def test_where_runs_count_by_their_best_a_stopped_one_that_misses_a_constraint_is_why_no_best_is_named():
    spec = definition(
        {},
        objective={"metric": "transfer/score", "goal": "maximize", "at": "best"},
        constraints=[{"metric": "transfer/score", "at_least": 0.99}],
    )
    summary = summarize(lengths(story(), [0.8, 0.9, 0.7], end="pruned", spec=spec))
    assert summary.headline.startswith("The one completed setting does not meet all constraints.")


def test_a_rival_without_an_error_is_not_said_to_be_told_apart(monkeypatch):
    monkeypatch.setitem(BASE, "transfer/score", 0.7)
    stories = [
        story(config={"learning_rate": i / 100}, curves={"transfer/score": c})
        for i, c in enumerate((UP, DOWN, DOWN), 1)
    ]
    rows = journal(stories, spec=definition({}, constraints=[]))
    bare = [replace(r, se={}) if r.kind == "report" and r.trial == stories[2].id else r for r in rows]
    said = {f.about: f.sentence for f in summarize(bare).answer}
    assert said["ties"] == (
        "The best is told apart from 1 of 2 other ranked settings; the rest came without standard errors."
    )


# Verdicts


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.70, 0.60, 0.75, 0.88, 0.95, 0.96, 0.97, 0.97], Kind.RECOVERED),
        ([0.70, 0.60, 0.65, 0.70, 0.74, 0.78, 0.82, 0.86], Kind.UNDER_OPTIMISED),
        ([0.60, 0.20, 0.05, 0.05, 0.04, 0.05, 0.05, 0.05], Kind.COLLAPSED),
        ([0.90, 0.80, 0.75, 0.75, 0.76, 0.75, 0.75, 0.75], Kind.WORSE),
        ([0.97, 0.97, 0.97, 0.97, 0.97, 0.97, 0.97, 0.97], Kind.UNCHANGED),
        ([0.70, 0.80, 0.96, 0.97, 0.90, 0.85, 0.80, 0.75], Kind.OVER_TRAINED),
    ],
)
def test_the_rules_of_a_verdict(values, kind):
    (verdict,) = summarize(lengths(story(), values)).settings[0].verdicts
    assert verdict.kind is kind
    assert verdict.confidence is not None
    assert verdict.confidence >= 0.95


def test_from_an_error_rate_of_zero_nothing_is_lost_by_half():
    spec = definition({}, objective={"metric": "transfer/score", "goal": "minimize"}, constraints=[])
    rows = lengths(story(), [0.1, 0.2, 0.2, 0.2, 0.2], base=0.0, spec=spec)
    assert summarize(rows).settings[0].verdicts[0].kind is Kind.WORSE


def test_a_gain_and_a_gain_lost_again():
    rows = lengths(story(), [0.32, 0.38, 0.42, 0.45, 0.46, 0.46], base=0.30)
    assert summarize(rows).settings[0].verdicts[0].kind is Kind.IMPROVED
    rows = lengths(story(), [0.34, 0.40, 0.48, 0.44, 0.38, 0.33], base=0.30)
    verdict = summarize(rows).settings[0].verdicts[0]
    assert verdict.kind is Kind.OVER_TRAINED
    assert "best 0.48 at step 200" in verdict.sentence


def test_a_real_fall_that_may_be_too_small_to_count_is_not_called_no_fall():
    """Of 5 % of the base, 0.0485 here, on either side: 0.04 below, give or take 0.014."""
    (verdict,) = summarize(lengths(story(), [0.93] * 4, se=0.005)).settings[0].verdicts
    assert verdict.kind is Kind.INCONCLUSIVE
    assert verdict.evidence["change"]["high"] < 0
    assert "not told from the base" not in verdict.sentence
    assert "below the base; whether by 5 % of it or more is not known" in verdict.sentence
    assert "a difference of 0.0085 would be seen with about" in verdict.settle


def test_what_is_open_says_what_would_settle_it():
    (verdict,) = summarize(lengths(story(), [0.96, 0.90, 0.94, 0.92], se=0.03)).settings[0].verdicts
    assert verdict.kind is Kind.INCONCLUSIVE
    assert verdict.confidence is None
    assert "items" in verdict.settle
    stopped = summarize(lengths(story(), [0.60, 0.30, 0.10], end="pruned")).settings[0].verdicts[0]
    assert (stopped.kind, stopped.settle) == (Kind.INCONCLUSIVE, "running it to its budget of 400 steps")


def test_worse_data_at_as_many_steps_is_what_limits_a_setting_that_no_longer_rises():
    good = story(curves={"transfer/score": lambda share: -0.05})
    poor = story("answer-only", curves={"transfer/score": lambda share: -0.5})
    summary = summarize(
        journal([good, poor], spec=definition({"data": ["verified-long-cot", "answer-only"]}, constraints=[]))
    )
    kinds = {s.config["data"]: [v.kind for v in s.verdicts] for s in summary.settings}
    assert Kind.DATA_LIMITED in kinds["answer-only"]
    assert Kind.DATA_LIMITED not in kinds["verified-long-cot"]


def test_a_larger_model_that_gains_more_shows_that_capacity_limits():
    small = story(curves={"transfer/score": lambda share: -0.5, "math/in_domain": lambda share: 0.5})
    large = story(
        config={"model": "tiny-m"}, curves={"transfer/score": lambda share: -0.02, "math/in_domain": lambda share: 0.5}
    )
    summary = summarize(journal([small, large], spec=definition({"model": ["tiny-s", "tiny-m"]}, constraints=[])))
    kinds = {s.config["model"]: [v.kind for v in s.verdicts] for s in summary.settings}
    assert Kind.CAPACITY_LIMITED in kinds["tiny-s"]
    assert Kind.CAPACITY_LIMITED not in kinds["tiny-m"]


def test_the_price_in_safety_is_told_in_points_a_point():
    summary = summarize(journal([story()]))
    cost = next(v for v in summary.settings[0].verdicts if v.kind is Kind.SAFETY_COST)
    assert cost.evidence["refusal"] < 0 < cost.evidence["gained"]
    assert cost.evidence["price"] == pytest.approx(-cost.evidence["refusal"] / cost.evidence["gained"])


def test_a_curve_without_errors_or_base_gets_no_verdict_but_says_what_is_missing():
    rows = lengths(story(), [0.9, 0.8, 0.9])
    bare = [replace(r, se={}) if r.kind == "report" else r for r in rows]
    verdict = summarize(bare).settings[0].verdicts[0]
    assert (verdict.kind, verdict.settle) == (Kind.INCONCLUSIVE, "scores with their standard errors")
    baseless = [r for r in rows if not r.trial.startswith("base-")]
    assert summarize(baseless).settings[0].verdicts[0].settle == "a score of the base model at step 0"


def test_dips_are_told_in_the_numbers_of_the_mean_over_seeds():
    stories = [story(seed=i, curves={"transfer/score": dip(0.5, 0.99)}) for i in range(3)]
    verdict = summarize(journal(stories, spec=definition({}, constraints=[]))).settings[0].verdicts[0]
    assert verdict.kind is Kind.RECOVERED
    assert verdict.evidence["runs"] == 3


def test_the_console_ends_with_the_answer():
    summary = summarize(journal([story(), story("answer-only")]))
    assert console_lines(summary) == [f.sentence for f in summary.answer]
    assert scored  # the journal's own helper, used above


# The verdict on the whole sweep


def stages(*changes):
    return lambda share: changes[min(int(share * len(changes)), len(changes) - 1)]


UP, DOWN = stages(0.0, 0.2), stages(-0.1, -0.3)


@pytest.mark.parametrize(
    ("curves", "constraint", "outcome"),
    [
        ([UP, DOWN], None, "gained"),
        ([dip(0.4, 1.0), DOWN], None, "kept"),
        ([dip(0.5, 0.7)], None, "not-yet"),
        ([DOWN, DOWN], None, "lost"),
        ([UP, DOWN], {"metric": "transfer/score", "at_least": 0.99}, "lost"),
    ],
)
def test_a_sweep_as_a_whole_is_judged_by_the_stated_rule(curves, constraint, outcome, monkeypatch):
    monkeypatch.setitem(BASE, "transfer/score", 0.7)
    stories = [story(config={"learning_rate": i / 100}, curves={"transfer/score": c}) for i, c in enumerate(curves, 1)]
    spec = definition({}, constraints=[constraint] if constraint else [])
    found = summarize(journal(stories, spec=spec)).verdict
    assert found.outcome == outcome, found.sentence
    assert found.confidence >= 0.95


def test_settings_above_their_base_that_miss_a_constraint_are_said_to(monkeypatch):
    monkeypatch.setitem(BASE, "transfer/score", 0.7)
    spec = definition({}, constraints=[{"metric": "transfer/score", "at_least": 0.99}])
    found = summarize(journal([story(curves={"transfer/score": UP})], spec=spec)).verdict
    assert "1 above the base; 1 of them misses a constraint" in found.sentence
    assert (found.outcome, found.confidence) == ("lost", None)  # nothing was judged to have got worse


def test_one_setting_at_its_base_with_few_items_leaves_the_sweep_undecided():
    found = summarize(lengths(story(), [0.7, 0.7, 0.7, 0.71], base=0.7, se=0.05)).verdict
    assert (found.outcome, found.confidence) == ("inconclusive", None)
    assert summarize(journal([story()])[:3]).verdict is None


def test_where_safety_is_the_objective_the_front_is_that_of_safety_and_the_task():
    spec = definition({}, objective={"metric": "safety/refusal", "goal": "maximize"}, constraints=[])
    summary = summarize(journal([story(), story("answer-only")], spec=spec))
    assert any(s.front for s in summary.settings)
