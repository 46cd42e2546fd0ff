"""The vLLM engine against a stand-in with vLLM's interface: it holds a real model and generates with it on the CPU."""

import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

from evaluators.decoding import Decoding
from evaluators.engines import vllm as vllm_engine
from evaluators.engines.base import encode_prompts
from evaluators.engines.generate import generate
from evaluators.engines.huggingface import load
from evaluators.evaluate import answer, evaluate, score_model
from evaluators.suites.registry import load_suite
from sweeps.config.trial import EvalSpec
from trainers.model.builtin import builtin_folder
from trainers.model.load import load_model


@dataclass
class SamplingParams:
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop_token_ids: list
    detokenize: bool


class LLM:
    """vLLM's offline engine as far as it is used: token ids in and out, and calls into its worker."""

    started = 0

    def __init__(self, model, dtype, seed, worker_extension_cls, disable_log_stats):
        type(self).started += 1
        module, _, name = worker_extension_cls.rpartition(".")
        self.model = load_model(model, dtype=torch.float32).eval()
        self.worker = getattr(import_module(module), name)()
        self.worker.model_runner = SimpleNamespace(model=SimpleNamespace(load_weights=self.load_weights))
        self.cached = True

    def load_weights(self, weights):
        self.model.load_state_dict(dict(weights), strict=False)

    def collective_rpc(self, method, args):
        return [getattr(self.worker, method)(*args)]

    def reset_prefix_cache(self):
        self.cached = False

    def generate(self, prompts, settings, use_tqdm):
        assert not use_tqdm
        ids = [prompt["prompt_token_ids"] for prompt in prompts]
        stop = frozenset(settings[0].stop_token_ids)
        how = Decoding(settings[0].temperature, settings[0].top_p, seed=settings[0].seed)
        replies = generate(self.model, ids, [s.max_tokens for s in settings], stop=stop, decoding=how)
        end = min(stop)
        ended = [(r.ids, "length") if r.truncated else ([*r.ids, end], "stop") for r in replies]
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, finish_reason=why)]) for ids, why in ended]


@pytest.fixture
def vllm(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=SamplingParams))
    monkeypatch.setattr(vllm_engine, "_engine", None)
    monkeypatch.setattr(LLM, "started", 0)


@pytest.fixture
def later(tmp_path):
    """A checkpoint of the same architecture with other weights."""
    folder = tmp_path / "later"
    shutil.copytree(builtin_folder("tiny-xs"), folder)
    model = load_model(folder, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    model.save_pretrained(folder)
    return folder


def test_it_scores_as_the_engine_that_is_always_there(vllm):
    suite = load_suite(EvalSpec("mini", 6))
    theirs = score_model(load(builtin_folder("tiny-xs")), suite)
    ours = score_model(vllm_engine.engine_for(builtin_folder("tiny-xs")), suite)
    assert (ours.metrics, ours.outcomes, ours.suite) == (theirs.metrics, theirs.outcomes, theirs.suite)


def test_the_next_checkpoint_is_loaded_into_the_engine_that_runs(vllm, later):
    suite = load_suite(EvalSpec("mini", 6))
    first = vllm_engine.engine_for(builtin_folder("tiny-xs"))
    before = answer(first, suite)[0]
    second = vllm_engine.engine_for(later)
    assert second is first
    assert LLM.started == 1
    assert not first.llm.cached  # keys and values of the old weights must not be found again
    assert answer(second, suite)[0] == answer(load(later), suite)[0] != before


def test_another_architecture_gets_an_engine_of_its_own(vllm):
    first = vllm_engine.engine_for(builtin_folder("tiny-xs"))
    assert vllm_engine.engine_for(builtin_folder("tiny-s")) is not first
    assert LLM.started == 2


def test_a_thought_over_its_budget_is_closed_and_answered_as_elsewhere(vllm):
    loaded, engine = load(builtin_folder("tiny-s")), vllm_engine.engine_for(builtin_folder("tiny-s"))
    ids, _ = encode_prompts(engine.tokenizer, ["SUM 1+2+3+4+5+6=", "SUM 1+2="])
    ids = [[*prompt, *engine.tokenizer("1+2=3;", add_special_tokens=False)["input_ids"]] for prompt in ids]
    for caps in ([24, 24], [2, 3], [3, 1]):
        how = Decoding(think_cap=2)
        assert engine.generate(ids, caps, how) == loaded.generate(ids, caps, how)


def test_without_weights_nothing_is_scored_under_the_old_ones(vllm, later):
    vllm_engine.engine_for(builtin_folder("tiny-xs"))
    for file in later.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no model\*\.safetensors"):
        vllm_engine.engine_for(later)


def test_where_it_is_usable_evaluations_go_through_it(vllm, monkeypatch):
    monkeypatch.setattr(vllm_engine, "usable", lambda: True)
    monkeypatch.setattr("evaluators.engines.select.version", lambda name: "1")
    scores = evaluate(builtin_folder("tiny-xs"), EvalSpec(items=2))
    assert LLM.started == 1
    assert scores.metrics["safety/refusal"] == 1.0
