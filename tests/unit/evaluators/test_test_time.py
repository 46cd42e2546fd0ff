"""Test-time compute as an axis: more samples, other caps, forced budgets, each under a name of its own."""

import re
from dataclasses import replace

import pytest

from evaluators.decoding import Reply
from evaluators.engines.huggingface import load
from evaluators.evaluate import answer, evaluate, score_model
from evaluators.suites.registry import load_suite
from evaluators.test_time import Variant, cut, parse_variant
from sweeps import Sweep
from sweeps.config.names import METRIC
from sweeps.config.plan import Plan
from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError, SpecError
from sweeps.replies import ReplyWriter, read_replies
from trainers.model.files.builtin import builtin_folder


@pytest.fixture(scope="module")
def loaded():
    return load(builtin_folder("tiny-xs"))


@pytest.mark.parametrize(
    ("text", "variant", "names"),
    [
        ("@8", Variant(samples=8), ("math/score,avg=8", "math/score@8")),
        ("cap=64", Variant(cap=64), ("math/score,cap=64", "math/score@8,cap=64")),
        ("think=32", Variant(think=32), ("math/score,think=32", "math/score@8,think=32")),
        ("r=8", Variant(r=8), ("math/score,r=8", "math/score@8,r=8")),
        ("@4,t=1.2,cap=64", Variant(4, 64, None, 1.2), ("math/score,avg=4,t=1.2,cap=64", "math/score@8,t=1.2,cap=64")),
    ],
)
def test_a_variant_is_written_as_its_metrics_are(text, variant, names):
    assert parse_variant(text) == variant
    assert (variant.name("math/score"), variant.name("math/score@8")) == names
    assert all(re.match(METRIC, name) for name in names)


@pytest.mark.parametrize(
    "text",
    ["", "8", "@1", "cap=0", "cap=x", "caps=3", "cap=3,cap=4", "think=0", "@4,t=0", "t=-1", "r=0", "r=1.5", "r=9999"],
)
def test_what_is_no_variant_is_refused(text):
    with pytest.raises(InputError):
        parse_variant(text)


def test_a_reply_that_is_cut_is_what_generation_with_that_cap_would_have_given(loaded):
    suite = load_suite(EvalSpec("mini", 8))
    replies, _ = answer(loaded, suite)
    for cap in (1, 3, 6):
        assert cut(replies, cap) == answer(loaded, Variant(cap=cap).of(suite))[0]
    assert cut([Reply([5, 6], False)], 2) == [Reply([5, 6], True)]  # the token that ends it would have been the third
    assert cut([Reply([5, 6], False)], 3) == [Reply([5, 6], False)]


def test_replies_of_every_variant_are_kept_under_its_name(tmp_path):
    keep = ReplyWriter(tmp_path, "all", "base-tiny-xs", 0, 0)
    scores = evaluate(builtin_folder("tiny-xs"), EvalSpec("mini", 2, ("@3", "cap=2")), keep=keep)
    kept = read_replies(tmp_path, "base-tiny-xs", role="math")
    for metric in ("math/chain_sum_long", "math/chain_sum_long,cap=2", "math/chain_sum_long,avg=3"):
        found = [reply.outcomes[metric] for reply in kept if metric in reply.outcomes]
        assert len(found) == (6 if "avg" in metric else 2)
        assert sum(found) / len(found) == pytest.approx(scores.metrics[metric])
    assert {reply.task for reply in kept if "math/chain_sum_long,cap=2" in reply.outcomes} == {"chain_sum_long,cap=2"}
    assert all(reply.tokens <= 2 for reply in kept if reply.task.endswith(",cap=2"))


def test_every_variant_has_names_of_its_own_and_leaves_the_suites_own_scores_as_they_are(loaded):
    plain = score_model(loaded, load_suite(EvalSpec("mini", 6)))
    scores = score_model(loaded, load_suite(EvalSpec("mini", 6, ("@3", "cap=2", "think=2"))))
    assert {name: scores.metrics[name] for name in plain.metrics} == plain.metrics
    assert scores.suite != plain.suite
    added = set(scores.metrics) - set(plain.metrics)
    assert {"transfer/score@3", "transfer/score,avg=3", "transfer/score,cap=2", "transfer/score,think=2"} <= added
    assert all(re.search(r"@[23]$|,avg=3$|,cap=2$|,think=2$", name) for name in added)
    assert scores.metrics["transfer/score@3"] >= scores.metrics["transfer/score,avg=3"]
    assert scores.metrics["length/mean,cap=2"] <= 2 < plain.metrics["length/mean"]
    assert scores.metrics["length/truncated,cap=2"] > plain.metrics["length/truncated"]
    assert set(scores.metrics) == set(scores.se) == set(scores.n)


def test_other_caps_are_other_versions_and_other_names():
    suite = load_suite(EvalSpec("mini", 4))
    longer = replace(suite, tasks=tuple(replace(task, cap=task.cap + 1) for task in suite.tasks))
    assert longer.version != suite.version != load_suite(EvalSpec("mini", 4, ("cap=9",))).version


def test_a_sweep_asks_for_variants_by_the_names_of_their_metrics():
    sweep = Sweep(name="v", evaluation={"test_time": ["@4", "cap=16"]}, objective={"metric": "transfer/score@4"})
    assert Plan(sweep).known_trials()[0].evaluation == EvalSpec("mini", test_time=("@4", "cap=16"))
    with pytest.raises(SpecError, match="test_time"):
        Sweep(name="v", evaluation={"test_time": ["samples=4"]})
