from __future__ import annotations

import pytest

from sweeps import SpecError, Sweep, choice, grid, loguniform, randint, uniform
from sweeps.config.sweep_file.yaml import loads


def test_yaml_and_python_are_the_same_sweep():
    yaml = (
        "name: same\nspace:\n  data: {grid: [verified-long-cot, answer-only]}\n  learning_rate: {loguniform: [1.0e-5, 1.0e-3]}\n"
        "search: {algorithm: random, trials: 4}\n"
    )
    python = Sweep(
        name="same",
        space={"data": grid("verified-long-cot", "answer-only"), "learning_rate": loguniform(1e-5, 1e-3)},
        search={"algorithm": "random", "trials": 4},
    )
    assert loads(yaml) == python
    assert loads(yaml).id == python.id


def test_where_it_is_stored_and_what_it_may_cost_do_not_change_what_a_sweep_is():
    one = Sweep(name="a", storage="./x", limits={"wall_hours": 1.0})
    assert one.id == Sweep(name="a").id
    assert one.id != Sweep(name="a", seed=1).id


def test_what_was_written_as_yaml_reads_back_as_the_same_sweep(tmp_path):
    from cluster.run_sweep import write_spec
    from sweeps.config.sweep_file.yaml import load

    sweep = Sweep(
        name="all",
        space={
            "learning_rate": uniform(1e-5, 1e-3),
            "batch_tokens": randint(512, 2048),
            "lr_scheduler_type": choice("wsd", "cosine"),
            "steps": grid(4, 8),
        },
        search={"algorithm": "optuna-tpe", "trials": 4},
        constraints=[{"metric": "safety/refusal", "relative_to_base": -0.1}],
    )
    write_spec(sweep, tmp_path)
    assert load(tmp_path / "spec.yaml").id == sweep.id


def test_faults_in_python_name_the_dotted_path():
    with pytest.raises(SpecError) as e:
        Sweep(name="x", trainer={"learning_rate": 0}, space={"steps": grid()})
    assert [f.where for f in e.value.faults] == ["trainer.learning_rate", "space.steps"]


def test_a_sweep_is_frozen():
    sweep = Sweep(name="x")
    with pytest.raises(ValueError, match="frozen"):
        sweep.seed = 3


def test_every_trainer_setting_reaches_the_worker_under_the_same_name_and_default():
    from sweeps.config.blocks import TrainerBlock, TrialSettings
    from sweeps.config.plan import Plan

    config = Plan(Sweep(name="x")).known_trials()[0].config
    settings = TrialSettings.from_config(config)
    for name, value in TrainerBlock().model_dump().items():
        assert getattr(settings, name) == value, name


def test_paths_in_a_file_are_relative_to_the_file_and_stand_absolute_in_the_sweep(tmp_path, monkeypatch):
    from sweeps.config.sweep_file.yaml import load

    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "s.yaml"
    path.write_text(
        "name: p\nmodels: {own: {path: ../model}, tiny-s: {path: builtin}}\ntiers: {ours: {path: ours.jsonl}}\n"
    )
    here = load(path)
    monkeypatch.chdir(tmp_path)
    assert load("sub/s.yaml").id == here.id
    assert here.models["own"].path == str(tmp_path / "sub" / ".." / "model")
    assert here.models["tiny-s"].path == "builtin"
    assert here.tiers["ours"].path == str(tmp_path / "sub" / "ours.jsonl")
