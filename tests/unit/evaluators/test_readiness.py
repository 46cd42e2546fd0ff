"""Readiness for RL: what several samples an item say of reach, diversity, and where a policy gradient is."""

from __future__ import annotations

import math

import pytest
import torch

from evaluators.decoding import Decoding
from evaluators.engines.generate import entropies
from evaluators.engines.huggingface import load
from evaluators.evaluate import evaluate
from evaluators.readiness import combined, readiness, self_bleu
from evaluators.score import score
from evaluators.scores import Answered
from evaluators.tasks import EvalTask, Suite
from sweeps import Sweep, grid
from sweeps.config.names import READY_METRIC
from sweeps.config.trial import EvalSpec
from trainers.model.files.builtin import builtin_folder


def suite_of(items: int, samples: int, *, role: str = "math", graded: bool = False) -> Suite:
    metric = f"{role}/sum"
    task = EvalTask("sum", role, tuple(f"q{i}" for i in range(items)), ("x",) * items, 8, {metric: lambda i, text: text == "x"},
                    graded=frozenset([metric] if graded else []))  # fmt: skip
    return Suite("s", (task,), {f"{role}/score": (metric,)}, Decoding(temperature=1.0, samples=samples))


def said(*texts: str, entropy: float | None = 0.5) -> list[Answered]:
    return [Answered("", text, 1, False, entropy) for text in texts]


def test_mixed_distinct_and_pass_at_k_of_four_items_by_hand():
    suite = suite_of(4, 4)
    replies = [
        *said("x", "x", "x", "x"),
        *said("x", "y", "y", "z"),
        *said("y", "y", "y", "y"),
        *said("x", "x", "y", "x"),
    ]
    found = score(suite, [replies]).metrics
    assert found["ready/mixed"] == 0.5
    assert found["ready/distinct"] == pytest.approx((1 + 3 + 1 + 2) / 16)
    assert found["math/sum"] == 0.5
    assert found["math/sum@2"] == pytest.approx((1 + 1 / 2 + 0 + 1) / 4)  # 1 - C(wrong, 2) / C(4, 2)
    assert found["math/sum@4"] == 0.75
    assert found["ready/score"] == pytest.approx((0.75 * 0.5 * 7 / 16) ** (1 / 3))
    assert found["ready/entropy"] == 0.5


@pytest.mark.parametrize(
    ("replies", "mixed", "distinct", "reached"),
    [
        (["x", "x"], 0.0, 0.5, 1.0),
        (["y", "y"], 0.0, 0.5, 0.0),
        (["x", "y"], 1.0, 1.0, 1.0),
        (["", ""], 0.0, 0.5, 0.0),
        (["x", None], 1.0, 1.0, 1.0),
        ([None, None], 0.0, 0.5, 0.0),
    ],
    ids=["all right", "all wrong", "one of each", "empty", "one without an answer", "none with an answer"],
)
def test_one_item_has_numbers_and_an_error(replies, mixed, distinct, reached):
    answered = [Answered("", text, 1, False, 0.5) for text in replies]
    found = score(suite_of(1, 2), [answered])
    assert found.metrics["ready/mixed"] == mixed
    assert found.metrics["ready/distinct"] == distinct
    assert found.metrics["math/sum@2"] == reached
    assert found.metrics["ready/score"] == pytest.approx((reached * mixed * distinct) ** (1 / 3))
    assert all(found.se[f"ready/{name}"] > 0 for name in ("mixed", "distinct", "self_bleu", "score"))
    assert found.n["ready/score"] == 1


def test_replies_that_differ_in_white_space_alone_are_one_and_in_the_thought_are_two():
    same = [Answered("a  b", "x", 1, False), Answered("a b ", " x", 1, False)]
    other = [Answered("a b", "x", 1, False), Answered("a c", "x", 1, False)]
    assert score(suite_of(1, 2), [same]).metrics["ready/distinct"] == 0.5
    assert score(suite_of(1, 2), [other]).metrics["ready/distinct"] == 1.0


def test_more_samples_than_were_drawn_are_no_metric_and_no_objective():
    from evaluators.suites.registry import load_suite
    from evaluators.test_time import all_measured

    known = all_measured(load_suite(EvalSpec("mini", 1, ("@8,t=1",))))
    assert "math/score@8,t=1" in known
    assert not {"math/score@16,t=1", "ready/score,avg=16,t=1", "ready/score"} & known


@pytest.mark.parametrize(("samples", "curve"), [(2, [2]), (3, [2, 3]), (4, [2, 4]), (5, [2, 4, 5]), (8, [2, 4, 8])])
def test_the_curve_of_pass_at_k_has_powers_of_two_and_all_samples(samples, curve):
    found = score(suite_of(2, samples), [said(*"xy" * samples)]).metrics
    assert sorted(int(m.partition("@")[2]) for m in found if m.startswith("math/sum@")) == curve


@pytest.mark.parametrize(
    "suite",
    [suite_of(2, 1), suite_of(2, 2, role="transfer"), suite_of(2, 2, graded=True)],
    ids=["one", "role", "graded"],
)
def test_without_samples_of_right_and_wrong_mathematics_nothing_is_claimed(suite):
    replies = [said(*"xy" * suite.decoding.samples)]
    assert not [m for m in score(suite, replies).metrics if m.startswith("ready/")]


def test_entropy_is_absent_where_one_reply_has_none():
    replies = [*said("x", "y"), *said("x"), *said("y", entropy=None)]
    right = {"math/sum": [1.0, 0.0, 1.0, 0.0]}
    assert "ready/entropy" not in readiness(suite_of(2, 2), [replies], right)[0]


def test_entropies_of_known_distributions():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [50.0, 0.0, 0.0, 0.0], [0.0, 0.0, -torch.inf, -torch.inf]])
    assert entropies(logits) == pytest.approx([math.log(4), 0.0, math.log(2)], abs=1e-6)
    assert math.isnan(entropies(torch.tensor([[0.0, torch.nan]]))[0])


def test_a_model_whose_logits_are_no_numbers_has_no_entropy():
    """It had one of zero: a broken model looked as one that is sure of every word."""
    model = load(builtin_folder("tiny-xs"))
    with torch.no_grad():
        model.model.lm_head.weight.fill_(torch.nan)
    replies = model.generate([[5, 6], [7]], [3, 3], Decoding(temperature=1.0))
    assert [reply.entropy for reply in replies] == [None, None]


def test_self_bleu_is_one_for_copies_and_zero_for_replies_without_a_common_word():
    assert self_bleu([list("abcde")] * 3) == pytest.approx(1.0)
    assert self_bleu([list("abcd"), list("efgh"), list("ijkl")]) == 0.0
    near, far = [list("abcde"), list("abcdf")], [list("abcde"), list("aghij")]
    assert 0 < self_bleu(far) < self_bleu(near) < 1


def test_self_bleu_of_two_texts_by_hand():
    """a b against a c: 1 of 2 words; of pairs 0 of 1, smoothed to 1/2."""
    assert self_bleu([["a", "b"], ["a", "c"]], order=2) == pytest.approx(math.sqrt(0.5 * 0.5))


@pytest.mark.parametrize(("texts", "score"), [([[], []], 1.0), ([[], ["a"]], 0.0)])
def test_an_empty_reply_is_like_another_empty_one_alone(texts, score):
    assert self_bleu(texts) == score


def test_the_combination_has_the_error_of_its_items():
    draws = torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.6, 0.5, 0.4])
    found = combined(*draws.double().T.tolist())
    spread = [combined(*draws[torch.randint(400, (400,))].double().T.tolist()).value for _ in range(300)]
    assert found.se == pytest.approx(float(torch.tensor(spread).std()), rel=0.2)
    assert combined([0.0], [0.0], [0.0]).value == 0.0


def test_a_model_gets_readiness_under_a_setting_of_test_time():
    found = evaluate(builtin_folder("tiny-xs"), EvalSpec("mini", 4, ("@4,t=1",)))
    assert found.metrics["ready/entropy,avg=4,t=1"] > 0
    assert 0 <= found.metrics["ready/score,avg=4,t=1"] <= 1
    assert found.n["ready/mixed,avg=4,t=1"] == found.n["math/score,avg=4,t=1"]
    assert not [m for m in found.metrics if m.startswith("ready/") and "," not in m]


def test_the_objective_by_name_is_its_metric_with_the_samples_that_it_takes():
    space = {"replay": grid(0.0, 0.1)}
    named = Sweep(name="r", space=space, objective="rl-readiness", evaluation={"items": 5})
    assert named.goal.metric == READY_METRIC
    assert named.evaluation.test_time == ["@8,t=1"]
    written = Sweep(
        name="r", space=space, objective={"metric": READY_METRIC}, evaluation={"items": 5, "test_time": ["@8,t=1"]}
    )
    assert named.id == written.id
    both = Sweep(name="r", space=space, objective="rl-readiness", evaluation={"test_time": ["cap=9", "@8,t=1"]})
    assert both.evaluation.test_time == ["cap=9", "@8,t=1"]
    written = Sweep(name="r", space=space, objective="rl-readiness", evaluation={"test_time": ["@8,t=1.0"]})
    assert written.evaluation.test_time == ["@8,t=1.0"]  # the same, under the same names


def test_preflight_knows_the_objective():
    from evaluators.suites.registry import load_suite
    from evaluators.test_time import all_measured

    assert READY_METRIC in all_measured(load_suite(EvalSpec("mini", 1, ("@8,t=1",))))
