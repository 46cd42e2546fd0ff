"""The vLLM engine against a stand-in with vLLM's interface (`tests.support.fake_vllm`)."""

import json
import multiprocessing
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from evaluators.decoding import Decoding, Reply
from evaluators.engines import vllm as vllm_engine
from evaluators.engines.base import encode_prompts
from evaluators.engines.huggingface import load
from evaluators.evaluate import answer, evaluate, score_model
from evaluators.suites.registry import load_suite
from sweeps.config.trial import EvalSpec
from sweeps.errors import InputError
from tests.support.fake_vllm import LLM, EngineDeadError, SamplingParams
from trainers.model.files.builtin import builtin_folder
from trainers.model.load import load_model


@pytest.fixture
def vllm(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=SamplingParams))
    monkeypatch.setattr(vllm_engine, "_engine", None)
    monkeypatch.setattr(vllm_engine, "on_gpu", lambda: True)
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


def test_the_trainers_state_in_a_checkpoint_is_not_taken_for_weights(vllm, later):
    expected = answer(load(later), load_suite(EvalSpec("mini", 2)))[0]
    (later / "trainer.safetensors").write_bytes(b"moments")
    for _ in range(2):  # started on it, then reloaded
        assert answer(vllm_engine.engine_for(later), load_suite(EvalSpec("mini", 2)))[0] == expected
    assert LLM.started == 1


def test_it_takes_as_much_of_a_device_as_was_reserved_and_a_judge_leaves(vllm, monkeypatch):
    folder, memory = builtin_folder("tiny-xs"), "gpu_memory_utilization"
    # tiny-xs: weights, and for each of 65,536 tokens keys and values of 2 layers x 1 head x 16, in 16 bits
    expected = 2 * (load(folder).model.num_parameters() + 65_536 * 2 * 2 * 1 * 16)
    assert vllm_engine.judge_bytes(folder) == pytest.approx(expected, rel=0.02)
    assert memory not in vllm_engine.engine_for(folder).llm.settings  # vLLM's own default: nearly all
    monkeypatch.setattr(vllm_engine, "_device_bytes", lambda: 10 * int(vllm_engine.judge_bytes(folder)))
    for share, judge, taken in (("0.5", "", 0.45), ("1.0", str(folder), 0.8), ("0.5", str(folder), 0.35)):
        vllm_engine.close()
        monkeypatch.setenv(vllm_engine.GPU_SHARE, share)
        assert vllm_engine.engine_for(folder, judge=judge).llm.settings[memory] == pytest.approx(taken, abs=0.001)
    vllm_engine.close()
    monkeypatch.setattr(vllm_engine, "_device_bytes", lambda: int(vllm_engine.judge_bytes(folder)))
    with pytest.raises(InputError, match=r"leaves vLLM 0% of the device; expected a smaller judge"):
        vllm_engine.engine_for(folder, judge=str(folder))


def test_a_judge_of_any_kind_is_measured(tmp_path):
    """GPT-2's config.json has names of its own for heads and layers."""
    made = GPT2LMHeadModel(GPT2Config(n_layer=3, n_head=2, n_embd=32, n_positions=64, vocab_size=100))
    made.save_pretrained(tmp_path)
    expected = 2 * (made.num_parameters() + 65_536 * 2 * 3 * 2 * 16)
    assert vllm_engine.judge_bytes(tmp_path) == pytest.approx(expected, rel=1e-6)


def test_another_architecture_gets_an_engine_of_its_own(vllm):
    first = vllm_engine.engine_for(builtin_folder("tiny-xs"))
    assert vllm_engine.engine_for(builtin_folder("tiny-s")) is not first
    assert LLM.started == 2


def test_a_thought_over_its_budget_is_closed_and_answered_as_elsewhere(vllm):
    loaded, engine = load(builtin_folder("tiny-s")), vllm_engine.engine_for(builtin_folder("tiny-s"))
    ids = encode_prompts(engine.tokenizer, ["SUM 1+2+3+4+5+6=", "SUM 1+2="]).ids
    ids = [[*prompt, *engine.tokenizer("1+2=3;", add_special_tokens=False)["input_ids"]] for prompt in ids]
    for caps in ([24, 24], [2, 3], [3, 1]):
        how = Decoding(think_cap=2)
        assert engine.generate(ids, caps, how) == loaded.generate(ids, caps, how)


def test_without_weights_nothing_is_scored_under_the_old_ones(vllm, later):
    vllm_engine.engine_for(builtin_folder("tiny-xs"))
    for file in later.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(InputError, match=r"holds no model\*\.safetensors"):
        vllm_engine.engine_for(later)


def test_where_it_is_usable_evaluations_go_through_it(vllm, monkeypatch):
    monkeypatch.setattr(vllm_engine, "distribution", lambda: "vllm")
    monkeypatch.setattr("evaluators.engines.select.version", lambda name: "1")
    scores = evaluate(builtin_folder("tiny-xs"), EvalSpec(items=2))
    assert LLM.started == 1
    assert scores.metrics["safety/refusal"] == 1.0


def test_an_engine_that_died_is_replaced(vllm):
    suite = load_suite(EvalSpec("mini", 2))
    first = vllm_engine.engine_for(builtin_folder("tiny-xs"))
    expected = answer(first, suite)[0]
    first.llm.alive = False
    with pytest.raises(EngineDeadError):
        answer(first, suite)
    second = vllm_engine.engine_for(builtin_folder("tiny-xs"))
    assert second is not first
    assert answer(second, suite)[0] == expected


class Hanging(LLM):
    """An engine with a process, which is killed in the middle of a call; the call never returns."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        self.process.start()

    def generate(self, prompts, settings, use_tqdm):
        self.process.kill()
        threading.Event().wait()


def test_an_engine_that_is_killed_and_says_nothing_is_noticed(vllm, monkeypatch):
    monkeypatch.setattr(sys.modules["vllm"], "LLM", Hanging)
    monkeypatch.setattr(vllm_engine, "GRACE_S", 0.1)
    engine = vllm_engine.engine_for(builtin_folder("tiny-xs"))
    with pytest.raises(vllm_engine.EngineDied, match="engine process has died"):
        answer(engine, load_suite(EvalSpec("mini", 2)))
    assert not engine.takes(builtin_folder("tiny-xs"))


def test_an_engine_that_does_not_take_the_weights_is_replaced(vllm, later):
    first = vllm_engine.engine_for(builtin_folder("tiny-xs"))
    first.llm.alive = False  # it died between two evaluations: the reload hears of it first
    second = vllm_engine.engine_for(later)
    assert second is not first
    assert answer(second, load_suite(EvalSpec("mini", 2)))[0] == answer(load(later), load_suite(EvalSpec("mini", 2)))[0]


def test_what_another_version_of_transformers_writes_is_no_other_architecture(vllm, later):
    first = vllm_engine.engine_for(builtin_folder("tiny-xs"))
    config = json.loads((later / "config.json").read_text())
    (later / "config.json").write_text(json.dumps(config | {"transformers_version": "9.0", "dtype": "bfloat16"}))
    assert vllm_engine.engine_for(later) is first
    (later / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    assert not first.takes(later)


def test_tied_weights_are_not_reloaded_on_a_cpu(vllm, later, monkeypatch):
    engine = vllm_engine.engine_for(builtin_folder("tiny-xs"))
    assert engine.architecture["tie_word_embeddings"]
    assert engine.takes(later)
    monkeypatch.setattr(vllm_engine, "on_gpu", lambda: False)
    assert not engine.takes(later)
    assert vllm_engine.engine_for(later) is not engine


def test_prompts_over_the_context_cost_their_own_replies_only(vllm):
    loaded, engine = load(builtin_folder("tiny-xs")), vllm_engine.engine_for(builtin_folder("tiny-xs"))
    question = encode_prompts(engine.tokenizer, ["SUM 1+2="]).ids[0]
    prompts = [question, question * 200, question[:1] * (engine.longest - 2)]
    replies = engine.generate(prompts, [24, 24, 24], Decoding())
    assert replies == loaded.generate(prompts, [24, 24, 24], Decoding())
    assert replies[1] == Reply([], truncated=True)
    assert len(replies[2].ids) <= 2


ENGINE = """
import os, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import evaluators.engines.vllm_worker, time; time.sleep(60)"])
print(worker.pid, flush=True)
worker.wait()
"""
EVALUATOR = """
import os, subprocess, sys
os.environ["DIPSWEEP_EVALUATOR_PID"] = str(os.getpid())
engine = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(engine.pid, engine.stdout.readline().strip(), flush=True)
engine.wait()
"""


def test_engine_and_worker_end_with_the_evaluator():
    evaluator = subprocess.Popen([sys.executable, "-c", EVALUATOR, ENGINE], stdout=subprocess.PIPE, text=True)
    handles = [os.pidfd_open(int(pid)) for pid in evaluator.stdout.readline().split()]
    evaluator.kill()
    evaluator.wait()
    evaluator.stdout.close()
    for handle in handles:
        assert select.select([handle], [], [], 20.0)[0], "a process of the engine outlived its evaluator"
        os.close(handle)
