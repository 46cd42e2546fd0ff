import json

import pytest
from transformers import AutoTokenizer

from sweeps.errors import InputError
from trainers.data.tiny_study.builtin_items import IN_DOMAIN, REPLAY_TASKS, eval_items, training_items
from trainers.data.tiny_study.tasks import TASKS
from trainers.model.files.builtin import BUILTIN, builtin_folder

TURN = {"role": "user", "content": "SUM 3+4-2="}


@pytest.fixture(params=BUILTIN)
def folder(request):
    return builtin_folder(request.param)


@pytest.fixture
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_every_shipped_text_comes_back_as_it_went_in(tokenizer):
    items = [i for task in TASKS for i in eval_items(task)]
    items += [i for task in (IN_DOMAIN, *REPLAY_TASKS) for i, _ in training_items(task)[:500]]
    texts = [text for i in items for text in (i.prompt, i.trace or "", i.target)]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert tokenizer.batch_decode(ids) == texts
    assert not any(tokenizer.unk_token_id in row for row in ids)


def test_a_thought_stands_in_its_tags_and_the_end_of_turn_closes_the_reply(tokenizer):
    reasoned = [TURN, {"role": "assistant", "content": "<think>3+4=7;7-2=5</think>5"}]
    direct = [TURN, {"role": "assistant", "content": "5"}]
    render = tokenizer.apply_chat_template
    assert render(reasoned, tokenize=False) == "<bos>SUM 3+4-2=<think>3+4=7;7-2=5</think>5<eos>"
    assert render(direct, tokenize=False) == "<bos>SUM 3+4-2=<think></think>5<eos>"
    assert render([TURN], tokenize=False, add_generation_prompt=True) == "<bos>SUM 3+4-2=<think>"


def test_the_assistant_mask_covers_the_reply_and_its_end_of_turn(tokenizer):
    chat = [TURN, {"role": "assistant", "content": "5"}]
    made = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(made["input_ids"], made["assistant_masks"], strict=True)
    assert tokenizer.convert_ids_to_tokens([i for i, inside in pairs if inside]) == ["</think>", "5", "<eos>"]


def test_shipped_bases_are_small_and_say_how_they_were_made(folder):
    assert (folder / "model.safetensors").stat().st_size < 4_000_000
    facts = json.loads((folder / "training.json").read_text())
    assert facts["parameters"] > 0
    assert facts["recipe"]["steps"] > 0


def test_an_unknown_base_is_refused_with_what_ships():
    with pytest.raises(InputError, match="did you mean 'tiny-s'"):
        builtin_folder("tiny-z")
