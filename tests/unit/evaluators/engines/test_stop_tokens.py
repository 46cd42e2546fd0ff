"""Generation ends where training ends: at the token with which the chat template ends a turn, whatever the eos is."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
from transformers import GenerationConfig

from evaluators.engines import vllm as vllm_engine
from evaluators.engines.base import encode_prompts, stop_token_ids
from evaluators.engines.huggingface import load
from evaluators.evaluate import answer, score_model
from evaluators.suites.registry import load_suite
from sweeps.config.trial import EvalSpec
from tests.support.fake_vllm import LLM, SamplingParams
from trainers.data.chat.tokenization import tokenise
from trainers.export import write_stop_tokens
from trainers.model.files.builtin import builtin_folder
from trainers.model.load import load_tokenizer

SUITE = load_suite(EvalSpec("mini", 6))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The tiny model as Qwen2.5's bases are: turns end with one token (<eos>), the tokenizer's eos is another (<unk>)."""
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(builtin_folder("tiny-s"), folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<unk>"}))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("eos_token", "'<eos>'"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 3}))
    return folder


@pytest.fixture
def vllm(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=SamplingParams))
    monkeypatch.setattr(vllm_engine, "_engine", None)
    monkeypatch.setattr(vllm_engine, "on_gpu", lambda: True)


def test_the_tokens_are_the_template_s_the_tokenizer_s_and_those_of_the_generation_settings(base):
    tokenizer = load_tokenizer(base)
    assert tokenizer.eos_token == "<unk>"
    assert stop_token_ids(tokenizer, None) == {2, 3}
    assert stop_token_ids(tokenizer, 1) == {1, 2, 3}
    assert stop_token_ids(tokenizer, [0, 1]) == {0, 1, 2, 3}


def test_hugging_face_ends_where_training_ends(base):
    ours, known = score_model(load(base), SUITE), score_model(load(builtin_folder("tiny-s")), SUITE)
    assert ours.outcomes == known.outcomes
    assert ours.metrics["length/truncated"] == known.metrics["length/truncated"] < 0.2


def test_vllm_ends_where_training_ends(base, vllm):
    assert answer(vllm_engine.engine_for(base), SUITE)[0] == answer(load(base), SUITE)[0]


def test_exports_say_where_replies_end(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "out")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 3, "temperature": 0.6}))
    write_stop_tokens(folder)
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [2, 3]
    assert json.loads((folder / "generation_config.json").read_text())["temperature"] == 0.6
    (folder / "generation_config.json").unlink()
    write_stop_tokens(folder)
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [2, 3]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "SUM 1+2="}],
        [{"role": "system", "content": "ab"}, {"role": "user", "content": "SUM 1+2="}],
        [
            {"role": "user", "content": "1"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "SUM 1+2="},
        ],
    ],
)
def test_a_prompt_is_what_a_training_row_begins_with_token_by_token(base, messages):
    tokenizer = load_tokenizer(base)
    prompt = encode_prompts(tokenizer, [tuple(messages)])
    rows = tokenise(tokenizer, [[*messages, {"role": "assistant", "content": "<think>1+2=3</think>3"}]], 200).rows
    last = rows.ids(len(rows) - 1).tolist()
    assert last[: len(prompt.ids[0])] == prompt.ids[0]
    assert prompt.opened == [True]
