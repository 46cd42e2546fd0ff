"""An evaluation that ends early: how often wrongly, what it saves, and what becomes of its scores."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from cluster.train.functions import score_job
from evaluators.cache import ScoreCache
from evaluators.decoding import Decoding
from evaluators.early_stopping import SequentialTest, evaluate_sequentially
from evaluators.engines.huggingface import load
from evaluators.evaluate import evaluate, score_model
from evaluators.partial import PartialEvaluation, part
from evaluators.scores import Scores
from evaluators.stats import mean_error, share_error
from evaluators.suites.registry import load_suite
from evaluators.tasks import EvalTask, Suite
from sweeps.config.eval_job import EarlyEnd, EvalJob, Question
from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError
from sweeps.statistics import pack, unpack
from trainers.model.files.builtin import builtin_folder

DRAWS = 1000
LEVEL = 0.05
WORSE = Question("transfer/score")
TASKS, ITEMS = 5, 80
PARTS = tuple(f"transfer/t{i}" for i in range(TASKS))
SUITE = Suite(
    "drawn",
    tuple(EvalTask(m[9:], "transfer", ("",) * ITEMS, ("",) * ITEMS, 8, {m: lambda i, answer: True}) for m in PARTS),
    {"transfer/score": PARTS},
)
BASE = np.linspace(0.5, 0.9, TASKS)
"""Chance of a right reply of each task's items; 0.7 in the mean."""


def ended(rng, change=0.0, questions=(WORSE,)):
    """Evaluates a checkpoint whose chances are those of its base and a change; returns what `evaluate_sequentially` does."""
    ours, base = (rng.random((ITEMS, TASKS)) < BASE + shift for shift in (change, 0.0))
    known = Scores({}, {}, {}, "drawn@1", "", {m: pack(base[:, i]) for i, m in enumerate(PARTS)})
    seen = 0

    def ask(some: Suite) -> PartialEvaluation:
        nonlocal seen
        rows = ours[seen : seen + len(some.tasks[0].prompts)]
        seen += len(rows)
        return PartialEvaluation(
            some, [[]] * TASKS, [[]] * TASKS, [[]] * TASKS, {m: list(rows[:, i]) for i, m in enumerate(PARTS)}
        )

    return evaluate_sequentially(ask, SUITE, EarlyEnd(LEVEL, questions, "base"), known)


def bound(value, **how):
    return Question("transfer/score", value, **how)


@pytest.mark.parametrize(
    "questions",
    [
        (WORSE,),
        (bound(0.7, against_base=False),),
        (bound(0.7, against_base=False, ceiling=True),),
        (WORSE, bound(0.7, against_base=False), bound(0.0)),
    ],
    ids=["no difference", "on its floor", "on its ceiling", "all at once"],
)
def test_a_checkpoint_at_its_bound_is_put_out_of_the_running_at_most_at_the_stated_rate(questions):
    rng = np.random.default_rng(7)
    wrong = sum(bool(ended(rng, questions=questions)[1]) for _ in range(DRAWS))
    assert wrong / DRAWS <= LEVEL


@pytest.mark.parametrize(
    ("change", "questions", "clear"),
    [
        (-0.4, (WORSE,), "transfer/score is below its base"),
        (-0.4, (bound(-0.1),), "transfer/score is below its base -0.1"),
        (-0.3, (bound(0.7, against_base=False),), "transfer/score is below 0.7"),
        (0.0, (bound(0.4, against_base=False, ceiling=True),), "transfer/score is above 0.4"),
    ],
)
def test_a_clear_answer_ends_nearly_every_evaluation_early(change, questions, clear):
    rng = np.random.default_rng(8)
    ends = [ended(rng, change, questions)[1] for _ in range(100)]
    said = [end for end in ends if end]
    assert len(said) >= 98
    assert {end["clear"] for end in said} == {clear}
    assert np.mean([end["items"] / end["of"] for end in said]) < 0.4


@pytest.mark.parametrize("change", [0.0, -0.05, -0.1, -0.2, -0.4])
def test_two_standard_errors_of_what_was_asked_hold_the_truth_about_as_often_as_they_should(change):
    rng = np.random.default_rng(9)
    off = []
    for _ in range(300):
        asked, _ = ended(rng, change)
        right = [asked.right[m] for m in PARTS]
        score = np.mean([np.mean(task) for task in right])
        off.append((score - BASE.mean() - change) / mean_error([share_error(sum(task), len(task)) for task in right]))
    assert np.mean(np.abs(off) < 2) > 0.88
    assert -0.35 < np.mean(off) < 0.15


@pytest.mark.parametrize(("line", "values"), [(0.5, [0.0] * 30), (1.0, [0.9] * 200), (0.05, [0.0] * 200)])
def test_a_bet_wins_against_a_claim_that_is_plainly_false(line, values):
    bet = SequentialTest(line)
    bet.update(values)
    assert bet.wealth > 20


@pytest.mark.parametrize("line", [-0.2, 0.0, 0.5, 1.0])
def test_a_bet_against_what_is_true_of_every_item_wins_nothing(line):
    bet = SequentialTest(line)
    bet.update([max(line, 0.0)] * 5000)
    assert bet.wealth <= 1


@pytest.fixture(scope="module")
def suite():
    return load_suite(EvalSpec("mini", 24))


@pytest.fixture(scope="module")
def base(suite):
    return score_model(load(builtin_folder("tiny-xs")), suite)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A checkpoint whose last weights are noise: all it says is wrong."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("broken") / "model"
    shutil.copytree(builtin_folder("tiny-xs"), folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: w.flip(0).contiguous() if w.dim() == 2 else w for name, w in weights.items()},
              folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    return folder


EARLY = EarlyEnd(LEVEL, (Question("general/score"),), "builtin")


def test_the_same_model_again_is_asked_everything_and_scores_the_same(suite, base):
    again = score_model(load(builtin_folder("tiny-xs")), suite, EARLY, base)
    assert again.asked == {}
    assert (again.metrics, again.se, again.n, again.outcomes) == (base.metrics, base.se, base.n, base.outcomes)
    assert (again.suite, again.items_digest) == (base.suite, base.items_digest)


def test_a_broken_checkpoint_is_asked_an_eighth_of_the_items_and_what_it_says_to_them_counts(suite, base, broken):
    whole, cut = score_model(load(broken), suite), score_model(load(broken), suite, EARLY, base)
    assert cut.asked["clear"] == "general/score is below its base"
    assert cut.asked["of"] == sum(len(task.prompts) for task in suite.tasks)
    assert cut.asked["items"] == sum(-(-len(task.prompts) // 8) for task in suite.tasks)
    for task in suite.tasks:
        for metric in task.judges:
            n = cut.n[metric]
            assert n == -(-len(task.prompts) // 8)
            assert unpack(cut.outcomes[metric], n) == unpack(whole.outcomes[metric], n)
    assert cut.se["general/score"] > whole.se["general/score"]
    assert cut.metrics.keys() == whole.metrics.keys()
    assert cut.suite == whole.suite


def test_other_means_at_test_time_answer_the_items_that_were_asked(base, broken):
    suite = load_suite(EvalSpec("mini", 24, ("cap=4", "@2")))
    cut = score_model(load(broken), suite, EARLY, score_model(load(builtin_folder("tiny-xs")), suite))
    assert cut.asked
    assert cut.n["general/score,cap=4"] == cut.n["general/score@2"] == cut.n["general/score"]


def test_scores_of_fewer_items_are_never_taken_for_those_of_all_or_of_another_question(tmp_path, base, broken):
    cache, folder = ScoreCache(tmp_path), broken
    first = evaluate(folder, EvalSpec(items=24), cache=cache, early=EARLY, base=base)
    assert first.asked
    again = evaluate(folder, EvalSpec(items=24), cache=cache, early=EARLY, base=base)
    assert (again.asked, again.outcomes) == (first.asked, first.outcomes)
    other = replace(EARLY, questions=(Question("safety/over_refusal", 1.0, against_base=False, ceiling=True),))
    assert evaluate(folder, EvalSpec(items=24), cache=cache, early=other, base=base).asked == {}
    assert evaluate(folder, EvalSpec(items=24), cache=cache).asked == {}


def test_a_job_finds_its_bases_scores_in_the_sweeps_cache(tmp_path, broken):
    job = EvalJob("t-1", 1, 4, str(broken), "tiny-xs", EvalSpec("mini", 24), early=EARLY)
    scores = score_job(job, scores=str(tmp_path))
    assert scores.asked["clear"] == "general/score is below its base"
    base = score_job(EvalJob("base-tiny-xs", 0, 0, "builtin", "tiny-xs", EvalSpec("mini", 24)), scores=str(tmp_path))
    assert base.cached  # it was scored for the comparison


def test_a_suite_that_does_not_measure_the_question_says_what_it_measures(suite, base):
    with pytest.raises(InputError, match=r"does not measure 'math/scores'; it measures: .*math/score,"):
        score_model(load(builtin_folder("tiny-xs")), suite, EarlyEnd(LEVEL, (Question("math/scores"),), ""), base)


def test_parts_of_a_suite_are_its_items_once_each_and_drawn_apart(suite):
    warm = replace(suite, decoding=Decoding(temperature=1.0))
    parts = [part(warm, a, b) for a, b in ((0, 0.125), (0.125, 0.25), (0.25, 0.5), (0.5, 1))]
    for i, task in enumerate(suite.tasks):
        assert sum((p.tasks[i].prompts for p in parts), ()) == task.prompts
    some = part(suite, 0.5, 1).tasks[0]
    assert all(some.judges["math/chain_sum"](i, target) for i, target in enumerate(some.targets))
    assert len({p.decoding.seed for p in parts}) == 4
