import pytest

from evaluators.decoding import ThinkTags
from evaluators.engines.base import decoded
from trainers.data.tiny_study.vocabulary import build_tokenizer


@pytest.mark.parametrize("special", [False, True])
def test_tags_of_a_thought_stay_also_where_they_are_special_tokens(special):
    tokenizer = build_tokenizer(["1+2=3"])
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
        assert "</think>" not in tokenizer.decode(tokenizer("1</think>2")["input_ids"], skip_special_tokens=True)
    ids = tokenizer("<think>1+2=3</think>3<eos>", add_special_tokens=False)["input_ids"]
    assert decoded(tokenizer, [ids, []]) == ["<think>1+2=3</think>3", ""]


@pytest.mark.parametrize("special", [False, True])
def test_spaces_are_what_the_model_wrote_also_where_a_tokenizer_cleans_up(special):
    tokenizer = build_tokenizer(["print ( ' ' ) . 1 , 2"])
    tokenizer.clean_up_tokenization_spaces = True
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    ids = tokenizer("print ( ' ' ) . 1 , 2", add_special_tokens=False)["input_ids"]
    assert decoded(tokenizer, [ids]) == ["print ( ' ' ) . 1 , 2"]


def test_a_thought_is_open_from_its_last_tag_on():
    tags = ThinkTags(1, 2)
    assert [tags.leave_open(ids) for ids in ([1, 5], [1, 5, 2], [5], [1, 2, 1], [2])] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert [ThinkTags(None, 2).leave_open(ids) for ids in ([5], [5, 2])] == [True, False]
