"""The `evaluation` part of a sweep file: what cannot work is told before anything starts."""

from __future__ import annotations

import json

import pytest

from cluster.preflight.checks import preflight
from evaluators.engines.huggingface import load
from evaluators.evaluate import score_model
from evaluators.suites.registry import load_suite
from evaluators.test_time import all_measured
from sweeps import Sweep
from sweeps.config.sweep_file.yaml import load as load_file
from sweeps.config.trial import EvalSpec
from sweeps.errors import SpecError
from trainers.model.files.builtin import builtin_folder


def sweep(tmp_path, **settings):
    return Sweep(name="e", storage=str(tmp_path / "runs"), trainer={"steps": 20}, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"objective": {"metric": "transfer/scoore"}},
            "objective.metric: 'transfer/scoore' is not measured by suite mini; did you mean 'transfer/score'",
        ),
        ({"objective": {"metric": "math/score@8"}}, r"objective.metric: 'math/score@8' is not measured"),
        (
            {"constraints": [{"metric": "safety/refusl", "at_least": 0.5}]},
            r"constraints\[0\].metric: 'safety/refusl' is not measured by suite mini; did you mean 'safety/refusal'",
        ),
        ({"evaluation": {"suite": "gym", "judge": "/no/judge"}}, "evaluation.judge: no folder /no/judge"),
        ({"evaluation": {"suite": "lm-eval:maths/sums"}}, "evaluation.suite: .*expected lm-eval:ROLE/TASK"),
        ({"evaluation": {"suite": "lm-eval:math/sums@/no/tasks"}}, "evaluation.suite: .*no folder /no/tasks"),
    ],
)
def test_what_would_fail_later_is_told_before_anything_starts(tmp_path, settings, message):
    with pytest.raises(SpecError, match=message):
        preflight(sweep(tmp_path, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"objective": {"metric": "math/score@8"}, "evaluation": {"test_time": ["@8"]}},
        {"objective": {"metric": "math/score,avg=4,t=1"}, "evaluation": {"test_time": ["@4,t=1.0"]}},
        {"constraints": [{"metric": "length/truncated,cap=8", "at_most": 0.5}], "evaluation": {"test_time": ["cap=8"]}},
        {"objective": {"metric": "train/loss", "goal": "minimize"}},
    ],
)
def test_metrics_of_the_suite_its_test_time_and_the_trainer_pass(tmp_path, settings):
    preflight(sweep(tmp_path, **settings))


def test_what_a_suite_says_that_it_measures_is_what_it_measures():
    suite = load_suite(EvalSpec("mini", 1, ("@2", "cap=4")))
    assert all_measured(suite) == set(score_model(load(builtin_folder("tiny-xs")), suite).metrics)


def test_other_means_do_not_hide_in_the_suites_name():
    with pytest.raises(SpecError, match=r"evaluation\.suite: got 'mini\|@8'; expected the name of a suite"):
        Sweep(name="e", evaluation={"suite": "mini|@8"})


@pytest.mark.parametrize(
    ("suite", "expected"),
    [
        ("paper:bench", "paper:{here}/bench"),
        ("lm-eval:math/a,general/b@tasks", "lm-eval:math/a,general/b@{here}/tasks"),
        ("lm-eval:math/a", "lm-eval:math/a"),
        ("gym", "gym"),
    ],
)
def test_folders_of_suite_and_judge_are_relative_to_the_file(tmp_path, monkeypatch, suite, expected):
    judged = not suite.startswith("lm-eval:")  # whose tasks judge for themselves
    evaluation = {"suite": suite, **({"judge": "judges/one"} if judged else {})}
    (tmp_path / "sweep.yaml").write_text(json.dumps({"name": "e", "evaluation": evaluation}))
    monkeypatch.chdir("/")
    block = load_file(tmp_path / "sweep.yaml").evaluation
    assert block.suite == expected.format(here=tmp_path)
    assert block.judge == (f"{tmp_path}/judges/one" if judged else None)
