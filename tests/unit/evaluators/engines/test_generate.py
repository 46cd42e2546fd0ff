import pytest
import torch

from evaluators.decoding import Decoding
from evaluators.engines.base import encode_prompts, think_tags
from evaluators.engines.generate import batches, generate, left_padded, sample
from evaluators.engines.huggingface import load, stop_ids
from sweeps.errors import InputError
from trainers.data.tiny_study.builtin_items import eval_items
from trainers.data.tiny_study.tasks import TASKS
from trainers.model.files.builtin import builtin_folder


@pytest.fixture(scope="module")
def loaded():
    torch.set_num_threads(1)
    return load(builtin_folder("tiny-s"))


@pytest.fixture(scope="module")
def prompts(loaded):
    """Prompts of all lengths, in an order that is not sorted."""
    asked = [eval_items(task)[i].prompt for i in range(3) for task in TASKS]
    return encode_prompts(loaded.tokenizer, asked).ids


def alone(loaded, prompt, cap):
    """What the plain generation loop of transformers gives for one prompt."""
    ids = torch.tensor([prompt])
    out = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=cap, do_sample=False)
    return out[0, len(prompt) :].tolist()


def test_batched_replies_are_those_of_each_prompt_alone(loaded, prompts):
    stop = stop_ids(loaded)
    replies = generate(loaded.model, prompts, [24] * len(prompts), stop=stop)
    for prompt, reply in zip(prompts, replies, strict=True):
        expected = alone(loaded, prompt, 24)
        assert reply.ids == [token for token in expected if token not in stop]
        assert reply.truncated == (expected[-1] not in stop)


def test_replies_do_not_depend_on_how_prompts_are_batched(loaded, prompts):
    caps = [8 + i % 5 for i in range(len(prompts))]
    whole = generate(loaded.model, prompts, caps, stop=stop_ids(loaded))
    assert whole == generate(loaded.model, prompts, caps, stop=stop_ids(loaded), batch_rows=7)
    assert whole == generate(loaded.model, prompts, caps, stop=stop_ids(loaded), batch_tokens=100)


def test_every_prompt_keeps_its_own_cap(loaded, prompts):
    caps = [1 + i % 3 for i in range(len(prompts))]
    replies = generate(loaded.model, prompts, caps, stop=frozenset())
    assert [len(reply.ids) for reply in replies] == caps
    assert all(reply.truncated for reply in replies)


def test_nothing_asked_gives_nothing(loaded):
    assert generate(loaded.model, [], [], stop=frozenset()) == []


def test_batches_hold_every_prompt_once_and_stay_within_their_bounds():
    prompts = [[0] * (1 + i * 7 % 23) for i in range(50)]
    caps = [5 + i % 4 for i in range(50)]
    grouped = list(batches(prompts, caps, 8, 120))
    assert sorted(i for batch in grouped for i in batch) == list(range(50))
    for batch in grouped:
        assert len(batch) <= 8
        assert len(batch) * max(len(prompts[i]) + caps[i] for i in batch) <= 120


def test_a_prompt_over_the_bound_gets_a_batch_of_its_own():
    assert list(batches([[0] * 50, [0] * 50], [10, 10], 8, 20)) == [[0], [1]]


def test_padding_stands_on_the_left():
    ids, mask = left_padded([[5, 6, 7], [8]], "cpu")
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_sampled_replies_depend_on_seed_and_item_alone(loaded, prompts):
    warm = Decoding(temperature=1.5, seed=1)
    caps, stop = [12] * len(prompts), stop_ids(loaded)
    first = generate(loaded.model, prompts, caps, stop=stop, decoding=warm)
    assert first == generate(loaded.model, prompts, caps, stop=stop, decoding=warm, batch_rows=5)
    assert first != generate(loaded.model, prompts, caps, stop=stop, decoding=Decoding(temperature=1.5, seed=2))
    assert first != generate(loaded.model, prompts, caps, stop=stop)


def test_sampling_follows_the_distribution_and_its_nucleus():
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.3]])).repeat(3000, 1)
    drawn = [i / 3000 for i in range(3000)]
    tokens = sample(logits, drawn, 1.0, 1.0)
    assert [tokens.count(t) / 3000 for t in range(3)] == pytest.approx([0.1, 0.6, 0.3], abs=0.002)
    tokens = sample(logits, drawn, 1.0, 0.7)
    assert [tokens.count(t) / 3000 for t in range(3)] == pytest.approx([0, 2 / 3, 1 / 3], abs=0.002)
    assert set(sample(logits, drawn, 0.05, 1.0)) == {1}


def test_a_thought_over_its_budget_is_closed_and_answered(loaded):
    tokenizer = loaded.tokenizer
    ids = encode_prompts(tokenizer, ["SUM 1+2+3+4+5+6="]).ids
    end = tokenizer.convert_tokens_to_ids("</think>")
    ids = [ids[0] + tokenizer("1+2=3;", add_special_tokens=False)["input_ids"]]  # a thought that has begun
    free = generate(loaded.model, ids, [24], stop=stop_ids(loaded))
    how, tags = Decoding(think_cap=2), think_tags(tokenizer)
    forced = generate(loaded.model, ids, [24], stop=stop_ids(loaded), decoding=how, tags=tags)
    assert end in free[0].ids[3:]
    assert forced[0].ids[:2] == free[0].ids[:2]
    assert forced[0].ids[2] == end
    assert not forced[0].truncated


def test_a_reply_without_a_thought_has_none_to_be_closed(loaded):
    tokenizer, how = loaded.tokenizer, Decoding(think_cap=1)
    end = tokenizer.convert_tokens_to_ids("</think>")
    ids = [[*ids, end] for ids in encode_prompts(tokenizer, ["SORT UP 3,1,2="]).ids]  # the prompt has closed it
    free = loaded.generate(ids, [8], Decoding())
    assert len(free[0].ids) > 1
    assert loaded.generate(ids, [8], how) == free


def test_a_tokenizer_that_cannot_close_a_thought_is_refused():
    class Tokenizer:
        def get_vocab(self) -> dict[str, int]:
            return {"<unk>": 0, "think": 1}

    with pytest.raises(InputError, match="</think>, which is no token of this model's tokenizer"):
        think_tags(Tokenizer())


def test_settings_that_cannot_work_are_refused_together():
    with pytest.raises(InputError, match=r"top_p is 0, .*; several samples need a temperature"):
        Decoding(top_p=0, samples=4)
