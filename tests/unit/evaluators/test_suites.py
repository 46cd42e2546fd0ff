from dataclasses import replace

import numpy as np
import pytest

from evaluators import tasks as suites
from evaluators.evaluate import evaluate
from evaluators.score import read_reply, score
from evaluators.scores import Answered
from evaluators.suites.registry import load_suite
from evaluators.tasks import EvalTask, Suite
from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError
from sweeps.statistics import pack, unpack
from trainers.model.files.builtin import builtin_folder


def judged(name, role, targets, **judges):
    """A small real task: the answer must equal its target."""
    right = {f"{role}/{name}": lambda i, answer: answer == targets[i]}
    return EvalTask(name, role, tuple(f"{name} {i}" for i in range(len(targets))), tuple(targets), 10, right | judges)


def said(*answers):
    return [Answered("", answer, 3, answer is None) for answer in answers]


def test_role_scores_are_means_over_tasks_with_their_combined_error():
    suite = Suite(
        "small",
        (judged("a", "math", ["1", "2", "3", "4"]), judged("b", "math", ["x", "y"])),
        {"math/score": ("math/a", "math/b")},
    )
    scores = score(suite, [said("1", "2", "3", "0"), said("x", None)])
    assert scores.metrics["math/a"] == 0.75
    assert scores.metrics["math/b"] == 0.5
    assert scores.metrics["math/score"] == 0.625
    assert scores.n == {"math/a": 4, "math/b": 2, "math/score": 6} | {k: 6 for k in scores.n if k.startswith("length/")}
    combined = (scores.se["math/a"] ** 2 + scores.se["math/b"] ** 2) ** 0.5 / 2
    assert scores.se["math/score"] == pytest.approx(combined)
    assert scores.metrics["length/truncated"] == pytest.approx(1 / 6)


def test_outcomes_are_kept_item_by_item():
    suite = Suite("small", (judged("a", "math", list("12345")),), {})
    scores = score(suite, [said("1", "0", "3", "4", None)])
    assert unpack(scores.outcomes["math/a"], 5) == [True, False, True, True, False]


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 100])
def test_packed_outcomes_come_back(n):
    bits = [i % 3 == 0 for i in range(n)]
    assert unpack(pack(bits), n) == bits
    assert len(pack(bits)) == (n + 3) // 4


@pytest.mark.parametrize(
    ("text", "opened", "thought", "answer"),
    [
        ("1+2=3</think>3", True, "1+2=3", "3"),
        ("</think> 3 ", True, "", "3"),
        ("1+2=3;3", True, "1+2=3;3", None),
        ("plain answer", False, "", "plain answer"),
        ("<think>first</think>no<think>again</think>yes", False, "first</think>noagain", "yes"),
        ("<think>never ends", False, "never ends", None),
    ],
)
def test_only_what_follows_the_last_thought_is_the_answer(text, opened, thought, answer):
    reply = read_reply(text, tokens=5, truncated=False, opened=opened)
    assert (reply.thought, reply.answer) == (thought, answer)


def test_the_version_changes_with_items_caps_and_judges_and_with_nothing_else():
    first = load_suite(EvalSpec("mini", 20))
    assert load_suite(EvalSpec("mini", 20)).version == first.version
    task = first.tasks[0]
    longer = EvalTask(task.name, task.role, task.prompts, task.targets, task.cap + 1, task.judges)
    others = [
        load_suite(EvalSpec("mini", 21)),
        load_suite(EvalSpec("mini", 20), seed=1),
        Suite("mini", (longer, *first.tasks[1:]), first.means),
        Suite("mini", first.tasks, {}),
    ]
    assert len({suite.version for suite in [first, *others]}) == 5
    assert others[2].items_digest == first.items_digest


def test_mini_measures_all_four_roles_and_asks_no_question_twice():
    suite = load_suite(EvalSpec("mini", 50))
    assert {task.role for task in suite.tasks} == {"math", "transfer", "general", "safety"}
    for task in suite.tasks:
        assert len(set(task.prompts)) == len(task.prompts) <= 50


def test_unknown_suites_and_no_items_are_refused():
    with pytest.raises(InputError, match="did you mean 'mini'"):
        load_suite(EvalSpec("minni"))
    with pytest.raises(InputError, match="expected 1 or more"):
        load_suite(EvalSpec("mini", 0))


def test_the_shipped_base_scores_as_the_tiny_study_says_and_the_same_every_time():
    scores = evaluate(builtin_folder("tiny-s"), EvalSpec(items=40))
    assert scores.metrics["transfer/score"] > 0.9
    assert scores.metrics["general/score"] > 0.95
    assert scores.metrics["safety/refusal"] > 0.95
    assert scores.metrics["safety/over_refusal"] < 0.05
    assert 0.1 < scores.metrics["math/in_domain"] < 0.5
    assert set(scores.metrics) == set(scores.se) == set(scores.n)
    assert scores.suite.startswith("mini@")
    assert scores.cost["cpu_s"] > 0
    again = evaluate(builtin_folder("tiny-s"), EvalSpec(items=40))
    assert (again.metrics, again.outcomes, again.suite) == (scores.metrics, scores.outcomes, scores.suite)


def test_a_folder_without_a_model_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"has no config.json"):
        evaluate(tmp_path)


def test_a_changed_scorer_changes_the_version_and_a_changed_comment_does_not(tmp_path, monkeypatch):
    def version(code):
        name = f"evaluators_scorer_{abs(hash(code))}"
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(suites, "OWN", (*suites.OWN, name))
        return suites.code_of(name)

    first = version('"""Judges."""\n\ndef right(a):\n    """Is it right?"""\n    return a == "1"\n')
    assert version('"""Judges well."""\ndef right(a):\n    return a == "1"  # as it must be\n') == first
    assert version('"""Judges."""\n\ndef right(a):\n    return a in "1"\n') != first
    suite = load_suite(EvalSpec("mini", 4))
    assert replace(suite, judged_by=(*suite.judged_by, "numpy")).version != suite.version
    assert "trainers.data.tiny_study.tasks" in suite.judged_by


@pytest.mark.parametrize("name", ["mini", "gym"])
def test_a_suite_whose_extra_is_missing_is_answered_with_the_command(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("trainers.data.tiny_study.tasks.find_spec", lambda module: None)
    with pytest.raises(InputError, match=rf"suite '{name}' is judged by reasoning-gym.*pip install 'dipsweep\[gym\]'"):
        load_suite(EvalSpec(name, items=1))


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        (lambda i, answer: {}["x"], r"its judge raised KeyError: 'x' \(test_suites\.py:\d+\)"),
        (lambda i, answer: None, "its judge returned None; expected True, False, or a number from 0 to 1"),
        (lambda i, answer: 1.5, "its judge returned 1.5; expected"),
        (lambda i, answer: float("nan"), "its judge returned nan; expected"),
        (lambda i, answer: "1", "its judge returned '1'; expected"),
    ],
)
def test_a_judge_that_raises_or_says_nothing_that_counts_is_named_with_its_item(judge, why):
    suite = Suite("own", (EvalTask("a", "math", ("p",), ("t",), 10, {"math/a": judge}),), {})
    with pytest.raises(InputError, match=f"^suite 'own', math/a, item 0: {why}"):
        score(suite, [said("x")])


def test_a_judge_may_answer_with_numpys_numbers():
    suite = Suite("own", (EvalTask("a", "math", ("p", "q"), ("t", "t"), 10, {"math/a": lambda i, a: np.bool_(i)}),), {})
    assert score(suite, [said("x", "y")]).metrics["math/a"] == 0.5
