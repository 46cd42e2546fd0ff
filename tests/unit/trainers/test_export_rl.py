"""A checkpoint as the start of RL: prompts, reward and configs as the frameworks read them."""

from __future__ import annotations

import json
import runpy
import subprocess

import pyarrow.parquet as pq
import pytest
import yaml

from sweeps.config.trial import TierSource
from sweeps.errors import InputError
from trainers.export_rl import FRAMEWORKS, RlPrompt, RlSettings, rl_prompts, write_rl

PROMPTS = [
    RlPrompt([{"role": "user", "content": "1+1=?"}], "2"),
    RlPrompt([{"role": "user", "content": "it's 2+2?"}], "4"),
]
SETTINGS = RlSettings(1e-3, 256, 3)


def test_prompts_of_a_built_in_tier_are_distinct_and_their_answers_lack_the_thought():
    prompts = rl_prompts("verified-long-cot", TierSource())
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
    assert rl_prompts("ours", TierSource(str(file))) == [RlPrompt([ask], "b")]
    file.write_text(json.dumps({"messages": rows[2]}) + "\n")
    with pytest.raises(InputError, match="without tools"):
        rl_prompts("ours", TierSource(str(file)))


def test_the_reward_compares_the_final_answer_in_each_frameworks_form(tmp_path):
    write_rl("trl", tmp_path, PROMPTS, SETTINGS)
    made = runpy.run_path(str(tmp_path / "reward.py"))
    said = [[{"role": "assistant", "content": "<think> 3 </think> 2"}], [{"role": "assistant", "content": "5"}]]
    assert made["reward"](said, answer=["2", "4"], prompts=None) == [1.0, 0.0]
    assert made["compute_score"]("d", "<think>4", "4") == 0.0
    assert made["compute_score"]("d", " 4\n", "4", extra_info={}) == 1.0
    found = made["reward_func"](["ask: 2", "ask: 2"], ["ask: ", "ask: "], ["2", "3"])
    assert found["rewards"].tolist() == [1.0, 0.0]


def test_trl_gets_a_config_and_a_folder_that_datasets_reads(tmp_path):
    config = yaml.safe_load(write_rl("trl", tmp_path, PROMPTS, SETTINGS).read_text())
    assert config["model_name_or_path"] == "model"
    assert config["learning_rate"] == pytest.approx(1e-4)
    assert config["per_device_train_batch_size"] % config["num_generations"] == 0
    rows = [json.loads(line) for line in (tmp_path / config["dataset_name"] / "train.jsonl").read_text().splitlines()]
    assert rows[0] == {"prompt": [{"role": "user", "content": "1+1=?"}], "answer": "2"}


def test_verl_gets_parquet_in_its_columns(tmp_path):
    write_rl("verl", tmp_path, PROMPTS, SETTINGS)
    row = pq.read_table(tmp_path / "data" / "train.parquet").to_pylist()[1]
    assert row["prompt"] == PROMPTS[1].prompt
    assert row["reward_model"] == {"style": "rule", "ground_truth": "4"}


@pytest.mark.parametrize("framework", ["verl", "open-rlhf"])
def test_a_script_is_shell_and_takes_options_that_win(framework, tmp_path):
    script = write_rl(framework, tmp_path, PROMPTS, SETTINGS)
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    program = tmp_path / "bin" / "python3"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    program.chmod(0o755)
    path = {"PATH": f"{program.parent}:/usr/bin:/bin"}
    said = subprocess.run([script, "--last=1"], env=path, capture_output=True, text=True, check=True)
    words = said.stdout.splitlines()
    assert words[0] == "-m"
    assert words[-1] == "--last=1"


def test_an_unknown_framework_is_named_with_those_that_are_known(tmp_path):
    with pytest.raises(InputError, match="trl, verl, open-rlhf; did you mean 'trl'"):
        write_rl("trll", tmp_path, PROMPTS, SETTINGS)
    assert list(FRAMEWORKS) == ["trl", "verl", "open-rlhf"]
