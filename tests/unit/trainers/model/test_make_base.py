from dataclasses import replace
from itertools import islice

import pytest
import torch

from trainers.data.tiny_study.builtin_items import training_items
from trainers.data.tiny_study.vocabulary import build_tokenizer
from trainers.model.make_base import RECIPES, build_model, collate, learning_rate, sampler, train

RECIPE = replace(RECIPES["xs"], steps=60, warmup=5, batch=16)


@pytest.fixture(scope="module")
def pools():
    return {task: [item for item, _ in islice(training_items(task), 40)] for task in ("leg_counting", "spell_backward")}


@pytest.fixture(scope="module")
def tokenizer(pools):
    return build_tokenizer(
        text for pool in pools.values() for i in pool for text in (i.prompt, i.trace or "", i.target)
    )


def test_a_base_learns_and_the_same_recipe_makes_the_same_base(pools, tokenizer):
    torch.set_num_threads(1)

    def made():
        torch.manual_seed(RECIPE.seed)
        model = build_model(RECIPE, tokenizer)
        return model, train(model, sampler(tokenizer, pools, RECIPE), RECIPE, tokenizer.pad_token_id)

    (first, loss), (second, _) = made(), made()
    assert loss < 3.0 < torch.log(torch.tensor(float(len(tokenizer))))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_batches_show_a_quarter_of_what_can_be_reasoned_with_its_trace(pools, tokenizer):
    batch = sampler(tokenizer, {"leg_counting": pools["leg_counting"]}, replace(RECIPE, batch=1000))
    first_ids = [answer[0] for _, answer in batch()]
    reasoned = sum(first != tokenizer.convert_tokens_to_ids("</think>") for first in first_ids) / 1000
    assert 0.15 < reasoned < 0.35


def test_loss_falls_on_replies_only_their_end_of_turn_included():
    ids, mask, labels = collate([([1, 7, 8], [5, 9, 2]), ([1, 7], [2])], pad=0)
    assert ids.tolist() == [[1, 7, 8, 5, 9, 2], [1, 7, 2, 0, 0, 0]]
    assert mask.tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert labels.tolist() == [[-100, -100, -100, 5, 9, 2], [-100, -100, 2, -100, -100, -100]]


def test_the_rate_warms_up_and_ends_at_a_tenth():
    assert learning_rate(RECIPE, 0) == pytest.approx(RECIPE.lr / RECIPE.warmup)
    assert max(learning_rate(RECIPE, step) for step in range(60)) <= RECIPE.lr
    assert learning_rate(RECIPE, RECIPE.steps) == pytest.approx(0.1 * RECIPE.lr)
