"""Budgets that share a trunk: which steps they share, and that sharing changes no bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sweeps import Sweep, choice, grid, uniform
from sweeps.config.blocks import TrialSettings
from sweeps.config.plan import Plan
from sweeps.config.shared_prefix import shared_steps, why_not
from sweeps.config.trial import Saved
from tests.support.models.tiny_sft import Notes, tier, trial, write_base
from trainers.loop import train
from trainers.schedule import lr_factor

WSD = {"lr_scheduler_type": "wsd", "warmup_steps": 3, "decay": 0.2}


def config(steps: int, **changes) -> dict:
    return {**WSD, "steps": steps, **changes}


@pytest.mark.parametrize(
    ("settings", "shared"),
    [
        (config(100), 81),
        (config(100, decay=0.001), 100),  # a decay of one step: its rate is still the full one
        (config(100, decay=1.0), 1),
        (config(100, lr_scheduler_type="constant"), 100),
        (config(100, lr_scheduler_type="cosine"), 0),
        (config(100, lr_scheduler_type="linear"), 0),
        (config(100, warmup_steps=0.1), 0),
        (config(100, warmup_steps=0), 81),
        (config(2), 0),  # still warming up when it ends
    ],
)
def test_runs_share_the_steps_before_their_rate_falls(settings, shared):
    assert shared_steps(settings) == shared


@pytest.mark.parametrize("settings", [config(40), config(40, decay=0.5), config(17, lr_scheduler_type="constant")])
def test_up_to_the_shared_steps_a_longer_run_has_the_same_rates(settings):
    short = TrialSettings(model="m", data="d", **settings)
    long = TrialSettings(model="m", data="d", **{**settings, "steps": 400})
    shared = shared_steps(settings)
    assert all(lr_factor(s, short) == lr_factor(s, long) for s in range(1, shared + 1))
    assert shared == short.steps or lr_factor(shared + 1, short) != lr_factor(shared + 1, long)


def sweep(**changes) -> Sweep:
    space = {"steps": grid(10, 20, 40), "replay": grid(0.0, 0.1)}
    return Sweep(**{"name": "t", "space": space, "trainer": {**WSD, "learning_rate": 1e-3}, **changes})


def test_the_longest_run_is_the_trunk_and_keeps_what_the_others_need():
    plan = Plan(sweep())
    trials = {(t.steps, t.config["replay"]): t for t in plan.known_trials()}
    assert plan.branch_of(trials[40, 0.1].config) is None
    for steps, at in ((10, 9), (20, 17)):
        branch = plan.branch_of(trials[steps, 0.1].config)
        assert branch == (trials[40, 0.1].id, at)
        assert at in trials[40, 0.1].saves
        assert at not in trials[40, 0.1].snapshots  # saved, not scored
    assert plan.steps_to_run() == 2 * (40 + 1 + 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {"share_trunk": False}},
        {"trainer": {"lr_scheduler_type": "cosine", "warmup_steps": 3}},
        {"trainer": {"lr_scheduler_type": "wsd", "warmup_steps": 0.1}},
        {"space": {"steps": choice(10, 20), "replay": grid(0.0)}, "search": {"algorithm": "random", "trials": 2}},
    ],
)
def test_where_runs_are_not_twins_nothing_is_shared(changes):
    plan = Plan(sweep(**changes))
    settings = plan.config({"steps": 10}, {}, 0)
    assert plan.branch_of(settings) is None


def test_sampled_settings_are_drawn_once_for_all_budgets():
    space = {"steps": grid(10, 20, 40), "replay": grid(0.0, 0.1), "weight_decay": uniform(0.0, 0.1)}
    plan = Plan(sweep(space=space, search={"algorithm": "random", "trials_per_cell": 2}))
    assert plan.groups == (0, 1, 0, 1, 0, 1)
    long = plan.config({"steps": 40, "replay": 0.1}, {"weight_decay": 0.05}, 0)
    assert plan.branch_of({**long, "steps": 10}) == (plan.trial(long).id, 9)
    assert plan.branch_of(long) is None


def test_why_nothing_is_shared_is_said():
    assert "cosine" in why_not(config(10, lr_scheduler_type="cosine"))
    assert "give it in steps" in why_not(config(10, warmup_steps=0.1))
    assert why_not(config(10)) == ""


@pytest.mark.parametrize("schedule", ["wsd", "constant"])
def test_a_branch_off_the_trunk_equals_a_run_of_its_own_to_the_bit(tmp_path: Path, schedule):
    base = write_base(tmp_path / "base")

    def run(name: str, steps: int, snapshots: tuple[int, ...], resume: Saved | None = None) -> dict[int, Saved]:
        notes = Notes()
        one = trial(base, snapshots, steps=steps, lr_scheduler_type=schedule, warmup_steps=3, decay=0.4)
        train(one, notes, folder=tmp_path / name, resume=resume, data=tier())
        return {c.step: c for c in notes.checkpoints}

    def weights(saved: Saved) -> dict[str, torch.Tensor]:
        return load_file(Path(saved.path) / "model.safetensors")

    fork = shared_steps({"lr_scheduler_type": schedule, "warmup_steps": 3, "decay": 0.4, "steps": 8})
    trunk = run("trunk", 16, (min(fork, 8), 16))
    alone = weights(run("alone", 8, (8,))[8])
    branch = weights(trunk[8] if fork == 8 else run("branch", 8, (8,), trunk[fork])[8])
    assert alone.keys() == branch.keys()
    assert all(torch.equal(alone[k], branch[k]) for k in alone)
    assert not all(torch.equal(alone[k], v) for k, v in weights(trunk[16]).items())


def decays(**changes) -> Sweep:
    space = {"decay": grid(0.2, 0.5), "min_lr_rate": grid(0.0, 0.1), "replay": grid(0.0, 0.1)}
    return Sweep(**{"name": "t", "space": space, "trainer": {**WSD, "steps": 40, "learning_rate": 1e-3}, **changes})


def test_runs_that_differ_in_how_their_rate_falls_fork_where_it_begins_to():
    plan = Plan(decays())
    of = {(t.config["decay"], t.config["min_lr_rate"], t.config["replay"]): t for t in plan.known_trials()}
    trunk = of[0.2, 0.0, 0.1]
    assert plan.branch_of(trunk.config) is None
    assert plan.branch_of(of[0.2, 0.1, 0.1].config) == (
        trunk.id,
        33,
    )  # its last 8 steps fall, the first of them at the full rate
    assert plan.branch_of(of[0.5, 0.0, 0.1].config) == (trunk.id, 21)
    assert plan.branch_of(of[0.5, 0.1, 0.1].config) == (trunk.id, 21)
    assert {21, 33} <= trunk.saves
    assert plan.steps_to_run() == 2 * (40 + 7 + 19 + 19)


def test_budgets_and_decays_share_one_trunk_that_of_the_longest_full_rate():
    plan = Plan(decays(space={"steps": grid(20, 40), "decay": grid(0.1, 0.5)}))
    of = {(t.steps, t.config["decay"]): t for t in plan.known_trials()}
    trunk = of[40, 0.1]
    assert plan.branch_of(trunk.config) is None
    assert {key: plan.branch_of(t.config).step for key, t in of.items() if t is not trunk} == {
        (20, 0.1): 19, (40, 0.5): 21, (20, 0.5): 11,
    }  # fmt: skip
    assert {plan.branch_of(t.config).parent for t in of.values() if t is not trunk} == {trunk.id}


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {"share_trunk": False}},
        {"trainer": {**WSD, "warmup_steps": 0.1, "steps": 40}},
        {
            "space": {"decay": grid(0.2, 0.5), "weight_decay": uniform(0.0, 0.1)},
            "search": {"algorithm": "random", "trials_per_cell": 2},
        },
    ],
)
def test_decays_share_nothing_where_their_runs_are_not_twins(changes):
    plan = Plan(decays(**changes))
    assert plan.branch_of(plan.config({"decay": 0.5}, {"weight_decay": 0.05}, 0)) is None


@pytest.mark.parametrize("ending", [{"decay": 0.25}, {"min_lr_rate": 0.5}, {"decay": 0.6, "min_lr_rate": 0.2}])
def test_another_decay_off_the_trunk_equals_a_run_of_its_own_to_the_bit(tmp_path: Path, ending):
    base = write_base(tmp_path / "base")
    own = {"lr_scheduler_type": "wsd", "warmup_steps": 3, "decay": 0.25, "steps": 12}

    def run(name: str, settings: dict, snapshots: tuple[int, ...], resume: Saved | None = None) -> dict[int, Saved]:
        notes = Notes()
        train(trial(base, snapshots, **settings), notes, folder=tmp_path / name, resume=resume, data=tier())
        return {c.step: c for c in notes.checkpoints}

    def weights(saved: Saved) -> dict[str, torch.Tensor]:
        return load_file(Path(saved.path) / "model.safetensors")

    other = {**own, **ending}
    fork = shared_steps(other)
    trunk = run("trunk", own, (fork, 12))
    alone = weights(run("alone", other, (12,))[12])
    branch = weights(run("branch", other, (12,), trunk[fork])[12])
    assert all(torch.equal(alone[k], branch[k]) for k in alone)
    same = other == own
    assert all(torch.equal(alone[k], v) for k, v in weights(trunk[12]).items()) == same


def test_a_sweep_over_decays_trains_what_its_plan_counts_and_scores_every_trial(tmp_path):
    """In this process, with a trainer that only counts steps; the trunk ends before its last branch is named."""
    from cluster.run_sweep import run
    from tests.support.fakes import FakeScores, FakeTrainer

    sweep = decays(
        space={"decay": grid(0.25, 0.5), "min_lr_rate": grid(0.0, 0.1)},
        trainer={**WSD, "steps": 16, "learning_rate": 1e-3}, evaluation={"at": {"every": 4}}, storage=str(tmp_path),
    )  # fmt: skip
    trainer = FakeTrainer()
    results = run(
        sweep, backend="in-process", train=trainer, evaluate=lambda job: FakeScores({"transfer/score": job.step / 16}),
        say=lambda line: None,
    )  # fmt: skip
    assert len(trainer.log) == Plan(sweep).steps_to_run() == 16 + 3 + 7 + 7
    assert [t.state for t in results.summary.trials] == ["completed"] * 4
    for t in results.summary.trials:
        assert [p.step for p in t.curves["transfer/score"]] == [4, 8, 12, 16]
