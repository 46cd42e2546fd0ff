"""What DipAware does, as curves in and verdicts out."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweeps.config.objective import Constraint, Goal
from sweeps.errors import InputError
from sweeps.executors.simulated import Recording, simulate
from sweeps.journal.rows import SweepRow
from sweeps.report.replay import read_rows, replay
from sweeps.stopping.base import Action, Phase
from sweeps.stopping.dip_aware import DipAware
from sweeps.stopping.promotion import PromoteByOdds
from tests.support.rows import make_row

PUBLISHED = Path(__file__).parents[4] / "benchmarks" / "stopping" / "published.jsonl"
Y = "transfer/score"
SAFE = "safety/refusal"


def smooth(x, a, b):
    u = np.clip((x - a) / (b - a), 0, 1)
    return u * u * (3 - 2 * u)


X = np.arange(1, 33) / 32
RISE = 0.10 * smooth(X, 0, 0.6)
DIP = -0.12 * smooth(X, 0, 0.1) + 0.24 * smooth(X, 0.1, 0.6)
FALL = -0.20 * smooth(X, 0, 0.15)
FLAT = 0.0 * X
LATE = 0.10 * smooth(X, 0, 0.3) - 0.25 * smooth(X, 0.3, 1.0)


class Sweep:
    """Hands curves to a rule report by report, in rounds, and keeps what it said."""

    def __init__(self, rule, curves, *, se=0.01, base=0.4, seed=0, budget=640, more=None, config=None):
        self.rule, self.said, self.live = rule, defaultdict(dict), dict.fromkeys(curves, True)
        noise = np.random.default_rng(seed)
        if base is not None:
            rule.observe(
                make_row(
                    "report",
                    "s",
                    "base-m",
                    step=0,
                    metrics={Y: base, **(more or {}).get("base", {})},
                    se={Y: se / 2} if se else {},
                )
            )
        for trial in curves:
            rule.observe(make_row("trial", "s", trial, budget=budget, config={"model": "m", **(config or {})}))
        for i in range(len(X)):
            for trial, values in curves.items():
                if not self.live[trial]:
                    continue
                step = budget * (i + 1) // len(X)
                value = (base or 0.4) + float(values[i]) + (se or 0.01) * float(noise.normal())
                extra = {k: float(v[i]) for k, v in (more or {}).get(trial, {}).items()}
                rule.observe(
                    make_row(
                        "report",
                        "s",
                        trial,
                        step=step,
                        metrics={Y: value, **extra},
                        se={Y: se, **dict.fromkeys(extra, 0.01)} if se else {},
                    )
                )
                if i + 1 < len(X):
                    self.said[trial][step] = verdict = rule.decide(trial)
                    self.live[trial] = verdict.action is Action.CONTINUE

    def end(self, trial):
        """Returns (step of the verdict that ended the trial or None, the last verdict)."""
        step = max(self.said[trial])
        return (None if self.live[trial] else step), self.said[trial][step]


FIELD = {"rise-a": RISE, "rise-b": RISE * 1.2, "rise-c": RISE * 0.9, "rise-d": RISE * 1.1, "flat": FLAT}


SLOW = -0.12 * smooth(X, 0, 0.1) + 0.06 * smooth(X, 0.1, 1.0)
RUNS = (None, None)

# settings, curve beside FIELD, steps between which it ends (RUNS: never), action, phases it may then be in
TABLE = [
    ({}, DIP, RUNS, "CONTINUE", "plateau before"),
    ({"protect": "soft"}, DIP, RUNS, "CONTINUE", "plateau before"),
    ({"pause": False}, DIP, RUNS, "CONTINUE", "plateau before"),
    ({}, FALL, (256, 400), "PAUSE", "collapse recovery"),
    ({"protect": "soft"}, FALL, (100, 300), "PAUSE", "dip"),
    ({"pause": False}, FALL, (256, 400), "STOP", "collapse recovery"),
    ({}, LATE, (200, 400), "PAUSE", "late-decline"),
    ({"risk": 0.01}, LATE, (401, 620), "PAUSE", "late-decline"),
    ({}, SLOW, (240, 400), "PAUSE", "recovery collapse"),
    ({"protect": "soft"}, SLOW, (100, 300), "PAUSE", "dip recovery"),
    ({"patience": 2.0}, SLOW, (100, 200), "PAUSE", "collapse recovery"),
    ({}, FLAT - 0.02, (60, 300), "PAUSE", "before plateau"),
]


@pytest.mark.parametrize("base", [0.4, None], ids=["base reported", "base not reported"])
@pytest.mark.parametrize(("settings", "curve", "between", "action", "phases"), TABLE)
def test_the_table_of_settings_curves_and_verdicts(settings, curve, between, action, phases, base):
    ended, verdict = Sweep(DipAware(Goal(Y, top=3), **settings), {**FIELD, "it": curve}, base=base).end("it")
    assert (ended is None) == (between is RUNS)
    assert ended is None or between[0] <= ended <= between[1]
    assert str(verdict.action) == action
    assert str(verdict.phase) in phases.split()
    if action == "PAUSE" and verdict.phase in (Phase.DIP, Phase.RECOVERY, Phase.COLLAPSE):
        protected, until = verdict.evidence["protected"], verdict.evidence["until"]
        told = f"in its patience until step {until:.0f}" if protected else f"its patience ended at step {until:.0f}"
        assert told in verdict.reason
        assert (ended < until) == protected


@pytest.mark.parametrize("protect", ["strict", "soft"])
@pytest.mark.parametrize("base", [0.4, None], ids=["base reported", "base not reported"])
def test_a_dip_that_recovers_to_the_top_runs_to_its_end_and_a_collapse_does_not(protect, base):
    rule = DipAware(Goal(Y, top=3), protect=protect)
    sweep = Sweep(rule, {**FIELD, "dip": DIP, "fall": FALL}, base=base)
    assert sweep.end("dip")[0] is None
    step, verdict = sweep.end("fall")
    assert step is not None
    assert step <= 448
    assert "P(top 3)" in verdict.reason


def test_strict_protection_never_ends_a_trial_inside_the_patience_with_its_dip():
    rule = DipAware(Goal(Y, top=1), protect="strict")
    sweep = Sweep(rule, {**FIELD, "fall": FALL})
    step, verdict = sweep.end("fall")
    assert verdict.action is Action.PAUSE
    assert step >= verdict.evidence["until"]
    held = [v for v in sweep.said["fall"].values() if v.evidence.get("held")]
    assert held
    assert all("protected until step" in v.reason for v in held)


@pytest.mark.parametrize("protect", ["strict", "soft"])
@pytest.mark.parametrize("trials", [0, 6])
def test_where_all_of_a_small_sweep_fall_a_fall_gives_nobody_up(protect, trials):
    """Runs on a score that training only lowers: half of them are the best three, however far below the base model."""
    curves = {f"t{i}": FALL + 0.03 * i * smooth(X, 0.3, 1.0) for i in range(6)}
    sweep = Sweep(DipAware(Goal(Y, top=3), protect=protect, trials=trials), curves)
    assert [sweep.end(t)[0] for t in ("t3", "t4", "t5")] == [None] * 3
    unfallen = {f"u{i}": RISE + 0.02 * i for i in range(3)}
    sweep = Sweep(DipAware(Goal(Y, top=3), protect=protect, trials=trials), {**unfallen, "fall": FALL, "again": FALL})
    assert None not in (sweep.end("fall")[0], sweep.end("again")[0])


def test_what_rises_and_then_falls_for_good_is_pruned():
    sweep = Sweep(DipAware(Goal(Y, top=3)), {**FIELD, "dip": DIP, "late": LATE})
    step, verdict = sweep.end("late")
    assert step is not None
    assert step < 640
    assert verdict.action is Action.PAUSE


def test_a_lone_collapse_is_given_up_and_a_lone_dip_is_not():
    step, verdict = Sweep(DipAware(Goal(Y)), {"fall": FALL}).end("fall")
    assert step is not None
    assert "half-way back" in verdict.reason
    assert Sweep(DipAware(Goal(Y)), {"dip": DIP}).end("dip")[0] is None


@pytest.mark.parametrize("rivals", [0, 1])
def test_a_collapse_given_up_with_too_few_rivals_does_not_come_back_for_the_lack_of_them(rivals):
    """It had been resumed at once, and paused again after every further report."""

    def recording(trial, values):
        rows = [
            make_row("report", "", trial, step=20 * i, metrics={Y: 0.4 + float(v)}, se={Y: 0.01})
            for i, v in enumerate(values, 1)
        ]
        start = make_row("trial", "", trial, budget=640, config={"model": "m"})
        return Recording(trial, start, tuple(rows), (1.0,) * len(rows))

    base = make_row("report", "", "base-m", step=0, metrics={Y: 0.4}, se={Y: 0.005})
    rule = PromoteByOdds(Goal(Y, top=3))
    sweep = [*(recording(f"rise-{i}", RISE) for i in range(rivals)), recording("fall", FALL)]
    run = simulate(sweep, rule, workers=2, shared=[base]).runs["fall"]
    assert (run.attempt, run.ended) == (1, "pruned")
    rule.observe(make_row("sweep", "s", name="s", trials=9))
    rule.observe(make_row("trial", "s", "new", budget=640, config={"model": "m"}))
    assert rule.newcomer() > 0.0
    assert rule.choose_trial_to_promote(["fall"]) is None


@pytest.mark.parametrize("loss", ["rises", "nan"])
def test_a_diverged_trial_is_stopped_at_once_whatever_its_score(loss):
    rule = DipAware(Goal(Y))
    rule.observe(make_row("trial", "s", "t", budget=100, config={"model": "m"}))
    losses = {10: 2.0, 20: 1.5, 30: 2.9, 40: 3.5}
    verdicts = []
    for step, value in losses.items():
        bad = loss == "nan" and step == 40
        row = make_row("report", "s", "t", step=step, metrics={Y: 0.5} if bad else {Y: 0.5, "train/loss": value})
        rule.observe(
            make_row("report", "s", "t", step=step, metrics={Y: 0.5}, invalid={"train/loss": "nan"}) if bad else row
        )
        verdicts.append(rule.decide("t"))
    assert [v.action for v in verdicts[:3]] == [Action.CONTINUE] * 3
    assert verdicts[3].action is Action.STOP
    assert verdicts[3].phase is Phase.DIVERGED
    assert "step 40" in verdicts[3].reason


def test_a_constraint_missed_for_good_stops_and_one_missed_in_its_dip_waits():
    goal = Goal(Y, top=3, constraints=(Constraint(SAFE, relative_to_base=-0.10),))
    safe = {"base": {SAFE: 1.0}, **{t: {SAFE: 1.0 + FLAT} for t in FIELD}}
    gone, back = 1.0 - 0.6 * smooth(X, 0, 0.2), 1.0 - 0.5 * smooth(X, 0, 0.12) + 0.5 * smooth(X, 0.12, 0.4)
    curves = {**FIELD, "gone": RISE * 1.3, "back": RISE * 1.3}
    sweep = Sweep(DipAware(goal), curves, more={**safe, "gone": {SAFE: gone}, "back": {SAFE: back}})
    step, verdict = sweep.end("gone")
    assert verdict.action is Action.STOP
    assert "infeasible for good: safety/refusal" in verdict.reason
    assert step > 64
    assert sweep.end("back")[0] is None


def verdicts(rule, curves, **how):
    return {t: {s: str(v.action) for s, v in said.items()} for t, said in Sweep(rule, curves, **how).said.items()}


def test_shift_and_scale_of_the_metric_change_no_verdict():
    curves = {**FIELD, "dip": DIP, "fall": FALL, "late": LATE}
    plain = verdicts(DipAware(Goal(Y, top=2)), curves)
    big = verdicts(DipAware(Goal(Y, top=2)), {t: 128 * v for t, v in curves.items()}, se=1.28, base=100.0)
    assert big == plain
    assert any("PAUSE" in v.values() for v in plain.values())


def back_at_base(se, items):
    """P(a run 25 points down after 10 % of its budget ends above its base), as scores with this s.e. tell it."""
    rule = DipAware(Goal(Y))
    n = {Y: round(0.25 / se**2)} if items else {}
    rule.observe(make_row("report", "s", "base-m", step=0, metrics={Y: 0.4}, se={Y: se}, n=n))
    rule.observe(make_row("trial", "s", "deep", budget=640, config={"model": "m"}))
    for step, score in ((20, 0.31), (40, 0.2), (60, 0.15), (80, 0.15)):
        rule.observe(make_row("report", "s", "deep", step=step, metrics={Y: score}, se={Y: se}, n=n))
    forecaster = rule.ranking.forecaster
    return forecaster.probability_above(forecaster.trials["deep"], 0.4)


def test_more_items_make_a_score_surer_and_not_a_dip_more_hopeless():
    few, many, unsized = back_at_base(0.012, True), back_at_base(0.002, True), back_at_base(0.002, False)
    assert 0.05 < few == back_at_base(0.012, False)  # where the two ways of sizing meet
    assert few / 2 < many < 2 * few
    assert unsized < many / 4


def test_minimising_the_negative_is_the_same_as_maximising():
    curves = {**FIELD, "dip": DIP, "fall": FALL}
    rows = journal(curves)
    up, down = DipAware(Goal(Y, top=2)), DipAware(Goal(Y, maximize=False, top=2))
    for row in rows:
        up.observe(row)
        measured = row.kind == "report"
        down.observe(replace(row, metrics={k: -v for k, v in row.metrics.items()}) if measured else row)
        if row.kind == "report" and row.step:
            assert up.decide(row.trial).action is down.decide(row.trial).action


def journal(curves, *, se=0.01, seed=1):
    noise = np.random.default_rng(seed)
    rows = [make_row("report", "s", "base-m", step=0, metrics={Y: 0.4}, se={Y: se})]
    rows += [make_row("trial", "s", t, budget=640, config={"model": "m"}) for t in curves]
    for i in range(len(X)):
        for t, v in curves.items():
            rows.append(
                make_row(
                    "report",
                    "s",
                    t,
                    step=20 * (i + 1),
                    metrics={Y: 0.4 + float(v[i]) + se * float(noise.normal())},
                    se={Y: se},
                )
            )
    return rows


def test_the_order_and_number_of_arrivals_does_not_change_the_last_verdict():
    curves = {**FIELD, "fall": FALL}
    rows = [r for r in journal(curves) if r.step is None or r.step <= 320]
    straight, mixed = DipAware(Goal(Y, top=2)), DipAware(Goal(Y, top=2))
    for row in rows:
        straight.observe(row)
    late = [r for r in rows if r.trial == "fall" and r.step in (100, 200)]
    for row in [*(r for r in rows if r not in late), *late, *late]:
        mixed.observe(row)
    a, b = straight.decide("fall"), mixed.decide("fall")
    assert (a.action, a.phase) == (b.action, b.phase)
    assert a.evidence["level"] == pytest.approx(b.evidence["level"])


FALLEN = {Phase.DIP, Phase.RECOVERY, Phase.COLLAPSE, Phase.LATE_DECLINE}


@pytest.mark.parametrize(("cut_off", "drop"), [(0.8, -0.2), (0.3, -0.1)])
@pytest.mark.parametrize("protect", ["strict", "soft"])
def test_a_jump_in_truncation_is_no_dip_and_no_collapse(cut_off, drop, protect):
    cut = {"length/truncated": np.where(X > 0.3, cut_off, 0.02)}
    curves = {**FIELD, "long": np.where(X > 0.3, drop, 0.02)}
    plain = Sweep(DipAware(Goal(Y, top=3), protect=protect), curves)
    censored = Sweep(DipAware(Goal(Y, top=3), protect=protect), curves, more={"long": cut})
    assert FALLEN & {v.phase for v in plain.said["long"].values()}
    assert not FALLEN & {v.phase for v in censored.said["long"].values()}
    assert f"{cut_off:.0%} of replies cut off" in censored.end("long")[1].reason


def test_other_signals_stand_in_the_evidence_as_they_were_given():
    more = {"base": {"math/in_domain": 0.3, "length/mean": 90.0}}
    more["rise-a"] = {"math/in_domain": 0.3 + X, "length/mean": 200 - 100 * X}
    said = Sweep(DipAware(Goal(Y, top=2)), FIELD, more=more).said["rise-a"]
    signals = said[160].evidence["signals"]
    assert signals["math/in_domain"] == pytest.approx(0.55)
    assert signals["base length/mean"] == 90.0


def test_scores_of_two_suites_are_never_one_curve():
    """A harder suite from step 220 on: no dip, no collapse, and no verdict from the old one's rivals."""
    rule = DipAware(Goal(Y, top=1))
    rule.observe(make_row("report", "s", "base-m", step=0, metrics={Y: 0.5}, se={Y: 0.01}, suite="a"))
    for trial in ("t", "rival"):
        rule.observe(make_row("trial", "s", trial, budget=640, config={"model": "m"}))
        for step in range(20, 220, 20):
            rule.observe(make_row("report", "s", trial, step=step, metrics={Y: 0.6}, se={Y: 0.01}, suite="a"))
    for count, step in enumerate(range(220, 640, 20), 1):
        rule.observe(make_row("report", "s", "t", step=step, metrics={Y: 0.3}, se={Y: 0.01}, suite="b"))
        verdict = rule.decide("t")
        assert verdict.action is Action.CONTINUE
        assert verdict.phase not in FALLEN
        if count < 3:
            assert f"{count} of 3 reports" in verdict.reason


def test_before_a_wsd_decay_a_low_score_is_not_held_against_a_trial():
    curves = {**FIELD, "low": -0.06 * smooth(X, 0, 0.1)}
    plain, decaying = DipAware(Goal(Y, top=3), protect="soft"), DipAware(Goal(Y, top=3), protect="soft")
    for rule, config in ((plain, {}), (decaying, {"lr_scheduler_type": "wsd", "decay": 0.2})):
        for row in journal(curves):
            if row.kind == "trial" and row.trial == "low":
                row = make_row("trial", "s", "low", budget=640, config={"model": "m", **config})
            if row.step is None or row.step <= 480:
                rule.observe(row)
    odds = [r.ranking.probability(r.ranking.forecaster.trials["low"]).p for r in (plain, decaying)]
    assert odds[1] > odds[0]


def test_every_verdict_is_one_sentence_with_numbers_and_plain_json_evidence():
    sweep = Sweep(DipAware(Goal(Y, top=3)), {**FIELD, "dip": DIP, "fall": FALL})
    for said in sweep.said.values():
        for verdict in said.values():
            assert "\n" not in verdict.reason
            assert any(c.isdigit() for c in verdict.reason)
            json.dumps(dict(verdict.evidence), allow_nan=False)


@pytest.mark.parametrize(
    "setting", [{"protect": "hard"}, {"risk": 2.0}, {"patience": 0.5}, {"cap": 0.0}, {"soft_protection_factor": 0.1}]
)
def test_a_setting_out_of_range_is_refused_with_its_name(setting):
    with pytest.raises(InputError, match=next(iter(setting))):
        DipAware(Goal(Y), **setting)


# --- the published tables (arXiv 2604.06628) ----------------------------------------------------------------------------


def with_se(rows, se):
    """The rows with a standard error for every score, or as they are."""
    return [replace(r, se=dict.fromkeys(r.metrics, se)) if se else r for r in rows]


def published(sweep, protect, se=None):
    rows = with_se([r for r in read_rows(PUBLISHED) if r.sweep == sweep], se)
    return replay(rows, f"dip-aware:protect={protect}", top=1)["sweeps"][sweep]["trials"]


@pytest.mark.parametrize("se", [None, 1.3, 2.0])
@pytest.mark.parametrize("protect", ["strict", "soft"])
@pytest.mark.parametrize("sweep", ["qwen3-4b-math500", "qwen3-4b-aime24"])
def test_4b_long_cot_beside_answer_only_runs_to_its_end(sweep, protect, se):
    assert published(sweep, protect, se)["qwen3-4b-long-cot"]["stopped_at"] is None


@pytest.mark.parametrize("se", [None, 1.3, 2.0])
@pytest.mark.parametrize("protect", ["strict", "soft"])
def test_1_7b_long_cot_beside_answer_only_is_given_up_before_60_percent(protect, se):
    trials = published("qwen3-1.7b-math500", protect, se)
    assert trials["qwen3-1.7b-long-cot"]["stopped_at"] <= 0.6 * 640
    assert trials["qwen3-1.7b-answer-only"]["stopped_at"] is None


BACK = {"math500": 160, "livecodebench_v2": 320, "ifeval": 480, "gpqa-diamond": 0, "mmlu-pro": 40, "aime24": 20}


@pytest.mark.parametrize("se", [None, 1.5, 2.0])
@pytest.mark.parametrize("protect", ["strict", "soft"])
@pytest.mark.parametrize("name", list(BACK))
def test_each_4b_long_cot_curve_alone_is_left_alone_until_it_is_back_and_runs_to_its_end(name, protect, se):
    """Steps of return as published. No sentence before them calls the run collapsed, where its noise is known."""
    goal = Goal(_metric(f"qwen3-4b-{name}"), top=1)
    rule, said = DipAware(goal, protect=protect), {}
    for row in with_se([r for r in read_rows(PUBLISHED) if r.sweep == f"qwen3-4b-{name}"], se):
        if row.trial.endswith("long-cot") or row.trial.startswith("base-"):
            rule.observe(row)
            if row.kind == "report" and row.step:
                said[row.step] = rule.decide(row.trial)
    assert set(BACK.values()) - {0} <= set(said)
    assert {v.action for v in said.values()} == {Action.CONTINUE}
    if se:
        assert all(v.phase is not Phase.COLLAPSE for step, v in said.items() if step <= BACK[name])


def _metric(sweep):
    return next(m for r in read_rows(PUBLISHED) if r.sweep == sweep for m in r.metrics)


def test_a_sweep_goes_on_with_the_budget_of_risk_that_it_began_with():
    """Its default was half of what it is now; a sweep that goes on under another version is the same sweep."""
    goal = Goal(Y)

    def budget(row: SweepRow, **given: float) -> float:
        rule = DipAware(goal, **given)
        rule.observe(row)
        return rule.max_lost_winners

    assert DipAware(goal).kept_defaults == {"max_lost_winners": pytest.approx(0.2)}
    assert budget(SweepRow("s", version=1, rule={"max_lost_winners": 0.15})) == 0.15
    assert budget(SweepRow("s", version=1)) == pytest.approx(0.1)
    assert budget(SweepRow("s", version=1), max_lost_winners=0.3) == 0.3
    assert budget(SweepRow("s", version=1), risk=0.3) == pytest.approx(0.3)
    assert not DipAware(goal, max_lost_winners=0.3).kept_defaults
    assert budget(SweepRow("", experience={"sweeps": []})) == pytest.approx(
        0.2
    )  # of a replay, not of a sweep that began
