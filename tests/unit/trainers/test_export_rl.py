"""A checkpoint as the start of RL: prompts, reward and configs as the frameworks read them."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from sweeps.config.trial import TierSource
from sweeps.errors import InputError
from trainers.export_rl import (
    FRAMEWORKS,
    GROUP,
    PROSE,
    RlPrompt,
    RlSettings,
    fitting_prompts,
    lengths,
    rl_prompts,
    write_rl,
)
from trainers.model.files.builtin import builtin_folder

PROMPTS = [
    RlPrompt([{"role": "user", "content": "1+1=?"}], "2"),
    RlPrompt([{"role": "user", "content": "it's 2+2?"}], "4"),
]
SETTINGS = RlSettings(1e-3, 256, 3)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with a model, whose template opens a thought."""
    shutil.copytree(builtin_folder("tiny-xs"), tmp_path / "model")
    return tmp_path


def chat_model(folder: Path) -> None:
    """Gives the model the template of a chat model, whose turns end with a token that is not the tokenizer's eos."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)


def made(folder: Path) -> dict[str, Any]:
    write_rl("trl", folder, PROMPTS, SETTINGS)
    return runpy.run_path(str(folder / "reward.py"))


def tier(folder: Path, *pairs: tuple[str, str]) -> TierSource:
    file = folder / "ours.jsonl"
    rows = [[{"role": "user", "content": ask}, {"role": "assistant", "content": reply}] for ask, reply in pairs]
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return TierSource(str(file))


def test_prompts_of_a_built_in_tier_are_distinct_and_their_answers_lack_the_thought():
    found = rl_prompts("verified-long-cot", TierSource())
    prompts = found.prompts
    assert found.doubts == []
    asked = [p.prompt[-1]["content"] for p in prompts]
    assert len(set(asked)) == len(asked) > 1000
    assert prompts[0].prompt[-1]["role"] == "user"
    assert not [p for p in prompts if "think" in p.answer or not p.answer.lstrip("-").isdigit()]


def test_conversations_with_tools_and_without_an_answer_are_left_out(tmp_path):
    ask, reply = {"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>a</think> b"}
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}],
    }
    rows = [[ask, reply], [ask, reply], [ask, call, {"role": "tool", "content": "1", "name": "f"}, reply]]
    file = tmp_path / "ours.jsonl"
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    assert rl_prompts("ours", TierSource(str(file))).prompts == [RlPrompt([ask], "b")]
    file.write_text(json.dumps({"messages": rows[2]}) + "\n")
    with pytest.raises(InputError, match="without tools"):
        rl_prompts("ours", TierSource(str(file)))


def test_the_answer_of_the_data_is_found_as_evaluation_finds_it_and_an_unended_thought_has_none(tmp_path):
    source = tier(
        tmp_path,
        ("a", "<think>1</think> So \\boxed{\\frac{1}{2}}."),
        ("b", "Well.\nAnswer: 7"),
        ("c", "<think> 1 2 3"),
    )
    assert [p.answer for p in rl_prompts("ours", source).prompts] == [r"\frac{1}{2}", "7"]


def test_what_makes_the_reward_worth_less_is_said(tmp_path):
    prose = "It is " + "very " * PROSE + "large."
    doubts = rl_prompts("ours", tier(tmp_path, ("a", prose), ("a", "2"), ("a", "2"), ("b", prose))).doubts
    assert [doubt[:31] for doubt in doubts] == [
        "1 questions have several answer",
        f"half of the answers have {PROSE + 3} wor",
    ]
    assert rl_prompts("ours", tier(tmp_path, ("a", "2"), ("a", "2"), ("b", "3"))).doubts == []


def test_the_reward_compares_the_final_answer_in_each_frameworks_form(out):
    reward = made(out)
    said = [[{"role": "assistant", "content": "3 </think> 2"}], [{"role": "assistant", "content": "</think>5"}]]
    assert reward["reward"](said, answer=["2", "4"], prompts=None) == [1.0, 0.0]
    assert reward["compute_score"]("d", "<think>4", "4") == 0.0
    assert reward["compute_score"]("d", "1</think> 4\n", "4", extra_info={}) == 1.0
    found = reward["reward_func"](["ask: 1</think>2", "ask: </think>2"], ["ask: ", "ask: "], ["2", "3"])
    assert found["rewards"].tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="does not hold its prompt"):
        reward["reward_func"](["</think>2"], ["ask: "], ["2"])


@pytest.mark.parametrize("reply", ["4", "<think>4", "4</think>", "</think> 5", "", "</think>"])
def test_a_reply_without_an_answer_has_no_reward_where_the_prompt_opens_a_thought(reply, out):
    assert made(out)["right"](reply, "4") == 0.0


def test_a_chat_model_is_asked_for_no_thought_and_its_end_of_turn_is_no_answer(out):
    chat_model(out / "model")
    reward = made(out)
    assert reward["right"]("4", "4") == 1.0
    query = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>" + "<pad>" * 3
    found = reward["reward_func"]([query], ["<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"], ["4"])
    assert found["rewards"].tolist() == [1.0]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_tier_of_few_questions_makes_whole_batches_of_them(framework, out):
    started = write_rl(framework, out, PROMPTS, SETTINGS).read_text()
    batch = {
        "trl": f"per_device_train_batch_size: {2 * GROUP}\n",
        "verl": "data.train_batch_size=2 ",
        "open-rlhf": "--rollout_batch_size 2 ",
    }
    assert batch[framework] in started


def test_trl_gets_a_config_and_a_folder_that_datasets_reads(out):
    config = yaml.safe_load(write_rl("trl", out, PROMPTS, SETTINGS).read_text())
    assert config["model_name_or_path"] == "model"
    assert config["learning_rate"] == pytest.approx(1e-4)
    assert config["per_device_train_batch_size"] % config["num_generations"] == 0
    rows = [json.loads(line) for line in (out / config["dataset_name"] / "train.jsonl").read_text().splitlines()]
    assert rows[0] == {"prompt": [{"role": "user", "content": "1+1=?"}], "answer": "2"}


def test_verl_gets_parquet_in_its_columns(out):
    write_rl("verl", out, PROMPTS, SETTINGS)
    row = pq.read_table(out / "data" / "train.parquet").to_pylist()[1]
    assert row["prompt"] == PROMPTS[1].prompt
    assert row["reward_model"] == {"style": "rule", "ground_truth": "4"}


@pytest.mark.parametrize("framework", ["verl", "open-rlhf"])
def test_a_script_is_shell_and_takes_options_that_win(framework, out):
    script = write_rl(framework, out, PROMPTS, SETTINGS)
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    program = out / "bin" / "python3"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    program.chmod(0o755)
    path = {"PATH": f"{program.parent}:/usr/bin:/bin"}
    said = subprocess.run([script, "--last=1"], env=path, capture_output=True, text=True, check=True)
    words = said.stdout.splitlines()
    assert words[0] == "-m"
    assert words[-1] == "--last=1"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_prompts_and_replies_together_fit_the_models_context(framework, out):
    config = json.loads((out / "model" / "config.json").read_text())
    longest = lengths(out / "model", PROMPTS, SETTINGS).prompt
    (out / "model" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": longest + 40}))
    written = write_rl(framework, out, PROMPTS, SETTINGS).read_text()
    said = {
        "trl": ["max_completion_length: 40\n"],
        "verl": [f"data.max_prompt_length={longest} ", "data.max_response_length=40 "],
        "open-rlhf": [f"--prompt_max_len {longest} ", "--generate_max_len 40 "],
    }
    assert [word for word in said[framework] if word not in written] == []


def test_a_prompt_without_room_for_a_reply_is_refused(out):
    config = json.loads((out / "model" / "config.json").read_text())
    (out / "model" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4}))
    with pytest.raises(InputError, match="context 4: no room for a reply"):
        write_rl("trl", out, PROMPTS, SETTINGS)


def test_a_context_that_is_stretched_has_the_room_that_it_has(out):
    config = json.loads((out / "model" / "config.json").read_text())
    longest = lengths(out / "model", PROMPTS, SETTINGS).prompt
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": longest, "rope_theta": 10_000.0}
    (out / "model" / "config.json").write_text(
        json.dumps({**config, "max_position_embeddings": longest, "rope_parameters": yarn})
    )
    assert lengths(out / "model", PROMPTS, SETTINGS).reply == min(SETTINGS.max_length, 3 * longest)


def test_a_prompt_that_sft_had_no_room_for_shortens_nobodys_replies(out):
    long = RlPrompt([{"role": "user", "content": "1+" * 300 + "1=?"}], "301")
    assert fitting_prompts(out / "model", [*PROMPTS, long], SETTINGS) == PROMPTS
    with pytest.raises(InputError, match=r"conversations of SFT had 256 at most \(trainer\.max_length\)"):
        fitting_prompts(out / "model", [long], SETTINGS)


def test_an_unknown_framework_is_named_with_those_that_are_known(tmp_path):
    with pytest.raises(InputError, match="trl, verl, open-rlhf; did you mean 'trl'"):
        write_rl("trll", tmp_path, PROMPTS, SETTINGS)
    assert list(FRAMEWORKS) == ["trl", "verl", "open-rlhf"]


def test_a_small_learning_rate_is_a_number_in_the_config(out: Path):
    write_rl("trl", out, PROMPTS, RlSettings(1e-5, 256))
    assert yaml.safe_load((out / "grpo.yaml").read_text())["learning_rate"] == pytest.approx(1e-6)


def test_tags_of_a_thought_end_no_reply_where_the_tokenizer_calls_them_special(out: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tokenizer.save_pretrained(out / "model")
    reward = made(out)
    assert not {"<think>", "</think>"} & set(reward["ENDS"])
    assert reward["right"]("4</think>", "4") == 0.0


@pytest.mark.slow
@pytest.mark.optional
def test_trl_trains_on_what_is_written(out: Path):
    """DIPSWEEP_TRL is TRL's command in an environment of its own (`python -m benchmarks.end_to_end --setup` makes one)."""
    program = os.environ.get("DIPSWEEP_TRL") or shutil.which("trl")
    if not program:
        pytest.skip("DIPSWEEP_TRL names no command, and trl is not installed")
    write_rl("trl", out, PROMPTS, SETTINGS)
    short = ["--max_steps", "2", "--max_completion_length", "16", "--use_cpu", "true", "--bf16", "false"]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**own, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [program, "grpo", "--config", "grpo.yaml", *short],
        cwd=out, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out / "out" / "model.safetensors").is_file()
    state = json.loads((out / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["global_step"] == 2
