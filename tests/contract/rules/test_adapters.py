"""The same curves get the same decisions from the simulator, from plain Ray Tune's scheduler and from plain Optuna."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import optuna
import pytest

from sweeps.config.objective import Goal
from sweeps.errors import InputError
from sweeps.executors.simulated import Recording, simulate
from sweeps.stopping.optuna_pruner import RulePruner
from sweeps.stopping.registry import make_rule
from tests.support.rows import make_row

METRIC, BUDGET, REPORTS = "objective", 320, 16


def curves(count=8, seed=2):
    """Trial index -> scores at 20, 40, ... 320: risers, dips that recover, collapses."""
    rng = np.random.default_rng(seed)
    x = np.arange(1, REPORTS + 1) / REPORTS
    out = {}
    for i in range(count):
        fall = -[0.0, 0.15, 0.25][i % 3] * np.minimum(x / 0.15, 1)
        back = [0.1, 0.3, 0.0][i % 3] * np.clip((x - 0.15) / 0.5, 0, 1)
        out[i] = [float(v) for v in 0.4 + fall + back + 0.01 * rng.normal(size=REPORTS)]
    return out


SE = 0.01


def simulated(rule="dip-aware", *, name=str, **settings):
    """Step at which each trial ended under the simulated clock with one slot; `name` makes a trial's id."""
    recordings = [
        Recording(
            name(i),
            make_row("trial", "", name(i), budget=BUDGET, config={"model": ""}),
            tuple(
                make_row("report", "", name(i), step=20 * (j + 1), metrics={METRIC: v}, se={METRIC: SE})
                for j, v in enumerate(ys)
            ),
            (1.0,) * REPORTS,
        )
        for i, ys in curves().items()
    ]
    out = simulate(recordings, make_rule(rule, Goal(METRIC, top=2), **settings), workers=1)
    return {i: 20 * out.runs[name(i)].done for i in curves()}


class FakeTrial:
    """What the scheduler reads of a Ray Tune trial."""

    def __init__(self, i):
        self.trial_id, self.status, self.config = str(i), "PENDING", {"steps": BUDGET}


class FakeController:
    """One slot: runs what the scheduler chooses, to its end or to the scheduler's word."""

    def __init__(self, scheduler):
        self.scheduler, self.trials, self.done = scheduler, [FakeTrial(i) for i in curves()], {}
        for trial in self.trials:
            scheduler.on_trial_add(self, trial)

    def get_trials(self):
        return self.trials

    def stop_trial(self, trial):
        trial.status = "TERMINATED"
        self.scheduler.on_trial_remove(self, trial)

    def run(self, limit=10_000):
        for _ in range(limit):
            trial = self.scheduler.choose_trial_to_run(self)
            if trial is None:
                return {int(t): s for t, s in self.done.items()}
            trial.status = "RUNNING"
            self.advance(trial)
        raise AssertionError("the scheduler never came to an end")

    def advance(self, trial):
        ys = curves()[int(trial.trial_id)]
        for step in range(self.done.get(trial.trial_id, 0) + 20, BUDGET + 1, 20):
            self.done[trial.trial_id] = step
            result = {"step": step, METRIC: ys[step // 20 - 1], f"{METRIC}_se": SE, "training_iteration": 1}
            said = self.scheduler.on_trial_result(self, trial, result)
            if said == "PAUSE":
                trial.status = "PAUSED"
                return
            if said == "STOP":
                break
        trial.status = "TERMINATED"
        self.scheduler.on_trial_complete(self, trial, {})


def scheduler(**settings):
    from cluster.tune.rule_scheduler import RuleScheduler

    return RuleScheduler(METRIC, "max", top=2, **settings)


@pytest.mark.parametrize("protect", ["strict", "soft"])
def test_ray_tunes_scheduler_ends_trials_where_the_simulator_does(protect):
    assert FakeController(scheduler(protect=protect)).run() == simulated(protect=protect, pause=False, trials=8)


def test_ray_tunes_scheduler_pauses_resumes_and_ends_what_stays_paused():
    control = FakeController(scheduler(pause=True))
    assert control.run() == simulated(trials=8)
    assert {t.status for t in control.trials} == {"TERMINATED"}


@pytest.mark.ray
@pytest.mark.parametrize("mode", ["pause", "stop"])
def test_ray_tune_itself_on_one_slot_ends_trials_where_the_simulator_does(mode):
    with tempfile.TemporaryDirectory(prefix="ds", dir="/tmp", ignore_cleanup_errors=True) as temp:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
        env |= {"PYTHONPATH": str(Path(__file__).parents[3]), "RAY_TMPDIR": temp, "RAY_AIR_NEW_OUTPUT": "0"}
        program = [sys.executable, "-m", "tests.contract.rules.tune_program", mode]
        done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ended = {int(i): step for i, step in json.loads(done.stdout.splitlines()[-1]).items()}
    assert ended == simulated(name="{:05d}".format, pause=mode == "pause", trials=len(curves()))
    assert any(step < BUDGET for step in ended.values())


def test_a_scheduler_restarted_from_its_journal_goes_on_with_the_same_decisions(tmp_path):
    whole = FakeController(scheduler(journal=str(tmp_path / "whole.jsonl"))).run()
    first = FakeController(scheduler(journal=str(tmp_path / "cut.jsonl")))
    for _ in range(3):
        trial = first.scheduler.choose_trial_to_run(first)
        trial.status = "RUNNING"
        first.advance(trial)
    again = FakeController.__new__(FakeController)
    again.scheduler, again.trials, again.done = scheduler(journal=str(tmp_path / "cut.jsonl")), first.trials, first.done
    for trial in again.trials:
        again.scheduler.on_trial_add(again, trial)
    assert again.run() == whole


@pytest.mark.parametrize("step", [{}, {"step": None}, {"step": 1.5}, {"step": -20}, {"step": math.nan}])
@pytest.mark.parametrize("rule", ["dip-aware", "asha"])
def test_a_result_without_a_step_is_refused_by_name(step, rule):
    control = FakeController(scheduler(rule=rule))
    with pytest.raises(
        InputError, match=f"got step {step.get('step')}; expected a whole number .* it reports {METRIC}"
    ):
        control.scheduler.on_trial_result(control, control.trials[0], {METRIC: 0.5, **step})


def test_a_trial_without_a_budget_is_refused_with_what_would_do():
    s = scheduler(budget="epochs")
    with pytest.raises(InputError, match="budget=640"):
        s.on_trial_add(None, FakeTrial(0))


def optuna_ends(**settings):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", pruner=RulePruner(budget=BUDGET, top=2, **settings))
    ended = {}

    def objective(trial):
        trial.set_user_attr("se", SE)
        for j, y in enumerate(curves()[trial.number]):
            step = ended[trial.number] = 20 * (j + 1)
            trial.report(y, step)
            if step < BUDGET and trial.should_prune():
                raise optuna.TrialPruned
        return y

    study.optimize(objective, n_trials=len(curves()))
    return ended, study


@pytest.mark.parametrize("protect", ["strict", "soft"])
def test_optunas_pruner_ends_trials_where_the_simulator_does(protect):
    ended, study = optuna_ends(protect=protect)
    assert ended == simulated(protect=protect, pause=False)
    for trial in study.trials:
        pruned = ended[trial.number] < BUDGET
        assert trial.state == (optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE)
        assert trial.last_step == ended[trial.number]
    assert any(step < BUDGET for step in ended.values())


def test_a_nan_score_reaches_the_rule_as_invalid_and_prunes_only_when_it_stays():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", pruner=RulePruner(budget=BUDGET))
    trial = study.ask()
    said = []
    for step, y in ((20, 0.5), (40, math.nan), (60, 0.5), (80, math.nan), (100, math.nan)):
        trial.report(y, step)
        said.append(trial.should_prune())
    assert said == [False, False, False, False, True]
