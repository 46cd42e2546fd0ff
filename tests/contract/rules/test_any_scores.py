"""Whatever numbers a sweep reports, every rule answers, with probabilities, through each of its three adapters."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import optuna
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks.stopping import any_curves
from cluster.tune.rule_scheduler import RuleScheduler
from sweeps.config.objective import Goal
from sweeps.errors import InputError
from sweeps.executors.simulated import Recording, simulate
from sweeps.journal.rows import ReportRow, split_finite
from sweeps.stopping.base import Action
from sweeps.stopping.noise import as_number, as_step, estimate, noise_floor
from sweeps.stopping.optuna_pruner import METRIC, RulePruner
from sweeps.stopping.registry import parse_rule
from tests.support.rows import make_row

RULES = ["dip-aware", "dip-aware:protect=soft", "asha", "median", "hyperband", "patient:patience=2"]
BUDGET = 90
ANY = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-1.0, 1.0),
    st.integers(0, 10).map(lambda i: i / 10),
    st.sampled_from([0.0, 1.0, -0.0, math.nan, math.inf, -math.inf, 1e300, -1e300, 1e-320, 1e12]),
)
CURVE = st.lists(ANY, min_size=1, max_size=9)
ERROR = st.one_of(st.none(), st.just(0.0), st.floats(0.0, 1e3), st.sampled_from([1e-300, 1e-12, math.nan, math.inf]))
SWEEP = st.tuples(st.lists(CURVE, min_size=1, max_size=6), ERROR, st.sampled_from(RULES), st.booleans())
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
STRAIGHT = ([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]] * 2, None, "dip-aware", True)
ROUNDED = ([[0.8, 0.8, 0.8, 0.9, 0.9], [0.8] * 6, [1.0] * 6, [0.9, 0.8, 0.9, 0.8]], None, "dip-aware", False)
HUGE = ([[1e300, -1e300, 1e308, 0.0], [1.0, 2.0, 1.0, 2.0, 3.0]], 1e-300, "dip-aware", True)


def odds_are_probabilities(verdict):
    assert verdict.reason
    json.dumps(dict(verdict.evidence), allow_nan=False)
    for name in ("p_top", "p_feasible", "p_halfway"):
        assert 0.0 <= verdict.evidence.get(name, 0.0) <= 1.0


def recording(trial, values, error):
    rows = []
    for j, value in enumerate(values):
        good, bad = split_finite({METRIC: value})
        se = {METRIC: error} if good and error is not None else {}
        rows.append(ReportRow("", trial, step=10 * (j + 1), metrics=good, invalid=bad, se=se))
    return Recording(trial, make_row("trial", "", trial, budget=BUDGET), tuple(rows), (1.0,) * len(rows))


@pytest.mark.filterwarnings("ignore:The reported value is ignored")
def test_curves_of_every_kind_have_an_answer_through_every_adapter():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # 93: a unit that changed by many powers of ten while revisions were taken back; the others: scores of all sizes in a sweep
    seeds = [93, 978, 6243, 12202, *range(20)]
    count, found = any_curves.faults(seeds, 1000)
    assert found == []
    assert count == sum(len(any_curves.drawn(seed).curves) for seed in seeds)


@QUICK
@given(SWEEP)
@example(STRAIGHT)
@example(ROUNDED)
@example(HUGE)
def test_the_simulated_clock_ends_every_sweep_of_any_scores(drawn):
    curves, error, text, up = drawn
    rule = parse_rule(text, Goal(METRIC, maximize=up, top=2))
    out = simulate([recording(f"t-{i}", ys, error) for i, ys in enumerate(curves)], rule, workers=2)
    assert {r.ended for r in out.runs.values()} <= {"completed", "pruned"}
    for run in out.runs.values():
        for _, verdict in run.verdicts:
            odds_are_probabilities(verdict)


@QUICK
@given(SWEEP)
@example(STRAIGHT)
@example(ROUNDED)
@example(HUGE)
def test_optunas_pruner_takes_any_scores(drawn):
    curves, error, text, up = drawn
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name, _, rest = text.partition(":")
    given_settings = dict(part.split("=") for part in rest.split(",") if part)
    if "patience" in given_settings:
        given_settings["patience"] = int(given_settings["patience"])
    pruner = RulePruner(budget=BUDGET, rule=name, top=2, **given_settings)
    study = optuna.create_study(direction="maximize" if up else "minimize", pruner=pruner)
    for values in curves:
        trial = study.ask()
        trial.set_user_attr("se", error)
        for j, value in enumerate(values):
            trial.report(value, 10 * (j + 1))
            trial.should_prune()
            odds_are_probabilities(pruner.verdicts[trial.number])
        study.tell(trial, 0.0)


class Controller:
    """What a scheduler reads of Tune's controller."""

    def __init__(self, trials):
        self.trials = trials

    def get_trials(self):
        return self.trials


class Trial:
    """What a scheduler reads of a Tune trial."""

    def __init__(self, name, budget=BUDGET):
        self.trial_id, self.status, self.config = name, "RUNNING", {"steps": budget}


KINDS = st.sampled_from([float, np.float32, np.float64, np.array, torch.tensor])
STEPS = st.sampled_from([int, np.int64, np.int32, float, torch.tensor])


@QUICK
@given(SWEEP, KINDS, STEPS)
@example(STRAIGHT, np.float32, np.int64)
@example(HUGE, float, int)
def test_ray_tunes_scheduler_takes_any_scores_of_any_numeric_type(drawn, kind, step_kind):
    curves, error, text, up = drawn
    name, _, rest = text.partition(":")
    given_settings = dict(part.split("=") for part in rest.split(",") if part)
    if "patience" in given_settings:
        given_settings["patience"] = int(given_settings["patience"])
    scheduler = RuleScheduler("acc", "max" if up else "min", rule=name, top=2, **given_settings)
    control = Controller([Trial(str(i)) for i in range(len(curves))])
    with np.errstate(over="ignore"):  # 1e300 as a float32 is inf
        for trial, values in zip(control.trials, curves, strict=True):
            scheduler.on_trial_add(control, trial)
            for j, value in enumerate(values):
                result = {"step": step_kind(10 * (j + 1)), "acc": kind(value), "acc_se": error}
                said = scheduler.on_trial_result(control, trial, result)
                assert said in ("CONTINUE", "STOP")
                if said == "STOP":
                    break
            scheduler.on_trial_complete(control, trial, {})


# --- single promises ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [float, np.float32, np.float16, np.array, torch.tensor, int])
def test_a_number_is_a_number_of_whichever_library(kind):
    assert as_number(kind(1)) == 1.0
    assert as_step(kind(1)) == 1


@pytest.mark.parametrize("value", [None, "1", True, np.bool_(True), np.zeros(2), torch.zeros(3), {}, []])
def test_what_is_no_number_is_none(value):
    assert as_number(value) is None
    assert as_step(value) is None


def test_a_step_is_whole():
    assert as_step(1.5) is None
    assert as_step(math.nan) is None
    assert as_step(100.0) == 100


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_the_noise_floor_scales_with_the_scores_and_is_never_nought(scale):
    values = [scale * v for v in (0.1, 0.2, 0.3, 0.4, 0.7)]
    assert noise_floor(values) == pytest.approx(scale * noise_floor([v / scale for v in values]))
    assert noise_floor(values) > 0.0
    assert noise_floor([scale] * 4) > 0.0
    assert noise_floor([0.0]) > 0.0


def test_scores_rounded_to_two_digits_are_no_surer_than_their_rounding():
    from sweeps.journal.history import History

    history = History()
    for trial in range(4):
        for step in range(1, 30):
            value = round(0.3 + 0.02 * trial + 0.01 * step, 2)
            history.fold(make_row("report", "s", f"t-{trial}", step=step, metrics={METRIC: value}))
    assert estimate(history.curves.values(), METRIC) == pytest.approx(0.01 / math.sqrt(12), rel=0.01)


@pytest.mark.parametrize("text", ["asha:grace=10,reduction=2", "median", "hyperband:grace=10", "patient:patience=1"])
@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("up", [True, False])
def test_the_usual_rules_end_a_trial_that_is_never_finite(text, bad, up):
    rule = parse_rule(text, Goal(METRIC, maximize=up, top=2))
    for trial in range(4):
        for step in range(10, 90, 10):
            rule.observe(make_row("report", "s", f"t-{trial}", step=step, metrics={METRIC: 0.5}))
            rule.decide(f"t-{trial}")
    said = []
    for step in range(10, 90, 10):
        rule.observe(make_row("report", "s", "gone", step=step, invalid={METRIC: bad}))
        said.append(rule.decide("gone").action)
    assert Action.STOP in said


def test_no_risk_is_no_odds_based_prune_and_no_division_by_nought():
    rule = parse_rule("dip-aware:risk=0", Goal(METRIC, top=1))
    curves = [[0.5 + 0.01 * i + 0.05 * j for j in range(9)] for i in range(3)] + [[0.1] * 9]
    out = simulate([recording(f"t-{i}", ys, 0.01) for i, ys in enumerate(curves)], rule, workers=2)
    assert all(r.ended == "completed" for r in out.runs.values())
    assert rule.choose_trial_to_resume(["t-0"]) is None


def test_the_last_result_that_tune_shows_only_on_completion_is_seen():
    scheduler = RuleScheduler("acc", "max", budget=100)
    control = Controller([Trial("a")])
    scheduler.on_trial_add(control, control.trials[0])
    scheduler.on_trial_result(control, control.trials[0], {"step": 80, "acc": 0.5})
    scheduler.on_trial_complete(control, control.trials[0], {"step": 100, "acc": 0.9})
    curve = scheduler.rule.history.curves["a"]
    assert curve.points[100].metrics == {"acc": 0.9}
    assert curve.state == "completed"


def reported(study, values, se=0.01):
    trial = study.ask()
    trial.set_user_attr("se", se)
    return trial, [trial.report(v, 10 * (j + 1)) or trial.should_prune() for j, v in enumerate(values)]


def test_two_studies_of_one_name_share_a_pruner_and_nothing_else():
    pruner = RulePruner(budget=BUDGET, top=1, protect="soft")
    first, second = (optuna.create_study(study_name="s", direction="maximize", pruner=pruner) for _ in range(2))
    for _ in range(4):
        trial, _ = reported(first, [0.9] * 9)
        first.tell(trial, 0.9)
    assert any(reported(first, [0.1] * 8)[1])
    assert not any(reported(second, [0.1] * 8)[1])
    assert any(reported(first, [0.1] * 8)[1])


def test_a_pruner_can_be_pickled_and_goes_on_from_the_study():
    pruner = RulePruner(budget=BUDGET, top=1, protect="soft")
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for _ in range(4):
        trial, _ = reported(study, [0.9] * 9)
        study.tell(trial, 0.9)
    study.pruner = pickle.loads(pickle.dumps(pruner))
    assert any(reported(study, [0.1] * 8)[1])


@pytest.mark.parametrize("found", [None, 0, "many", 1.5])
def test_a_study_without_a_usable_budget_is_refused_and_not_left_unpruned_in_silence(found):
    study = optuna.create_study(direction="maximize", pruner=RulePruner(budget="steps"))
    trial = study.ask()
    trial.set_user_attr("steps", found)
    trial.report(0.5, 10)
    with pytest.raises(InputError, match="RulePruner\\(budget=640\\)"):
        trial.should_prune()


# --- what Optuna asks of its own pruners, and Ray of its own schedulers --------------------------------------------------


@pytest.mark.parametrize("rule", ["dip-aware", "asha", "median", "hyperband", "patient"])
class TestAsOptunaAsks:
    def test_a_trial_without_a_report_is_not_pruned(self, rule):
        study = optuna.create_study(pruner=RulePruner(budget=BUDGET, rule=rule))
        assert not study.ask().should_prune()

    def test_a_first_trial_is_not_pruned_at_its_first_report(self, rule):
        study = optuna.create_study(pruner=RulePruner(budget=BUDGET, rule=rule))
        trial = study.ask()
        trial.report(1.0, 10)
        assert not trial.should_prune()

    @pytest.mark.parametrize("direction", ["minimize", "maximize"])
    def test_the_best_of_a_study_is_never_pruned(self, rule, direction):
        sign = 1.0 if direction == "maximize" else -1.0
        study = optuna.create_study(direction=direction, pruner=RulePruner(budget=BUDGET, rule=rule, top=1))
        for i in range(5):
            trial, said = reported(study, [sign * (i + 0.1 * j) for j in range(9)])
            assert not any(said)
            study.tell(trial, 0.0)

    def test_asking_twice_changes_nothing(self, rule):
        study = optuna.create_study(direction="maximize", pruner=RulePruner(budget=BUDGET, rule=rule, top=1))
        for _ in range(3):
            trial, _ = reported(study, [0.9] * 9)
            study.tell(trial, 0.9)
        trial = study.ask()
        for j in range(8):
            trial.report(0.1, 10 * (j + 1))
            assert trial.should_prune() == trial.should_prune()


@pytest.mark.parametrize("rule", ["dip-aware", "asha", "median", "hyperband", "patient"])
class TestAsRayAsks:
    def test_an_error_takes_a_trial_out_and_others_go_on(self, rule):
        scheduler = RuleScheduler("acc", "max", rule=rule, top=1)
        control = Controller([Trial("a"), Trial("b")])
        for trial in control.trials:
            scheduler.on_trial_add(control, trial)
            scheduler.on_trial_result(control, trial, {"step": 10, "acc": 0.5})
        scheduler.on_trial_error(control, control.trials[0])
        assert scheduler.on_trial_result(control, control.trials[1], {"step": 20, "acc": 0.6}) == "CONTINUE"
        assert scheduler.rule.history.curves["a"].state == "failed"

    def test_a_result_that_comes_twice_is_one_result(self, rule):
        scheduler = RuleScheduler("acc", "max", rule=rule, top=1)
        control = Controller([Trial("a")])
        scheduler.on_trial_add(control, control.trials[0])
        for _ in range(2):
            assert scheduler.on_trial_result(control, control.trials[0], {"step": 10, "acc": 0.5}) == "CONTINUE"
        assert list(scheduler.rule.history.curves["a"].points) == [10]

    def test_a_result_without_the_metric_stops_nothing(self, rule):
        scheduler = RuleScheduler("acc", "max", rule=rule, top=1)
        control = Controller([Trial("a")])
        scheduler.on_trial_add(control, control.trials[0])
        assert scheduler.on_trial_result(control, control.trials[0], {"step": 10, "note": "hello"}) == "CONTINUE"
