"""A checkpoint as the start of RL: prompts, reward and configs as the frameworks read them."""

from __future__ import annotations

import itertools
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from sweeps.config.trial import TierSource
from sweeps.errors import InputError
from tests.support.models.tiny_sft import Notes, trial
from tests.support.models.tiny_sft import tier as sums
from tests.support.programs import REPO
from tests.support.rl import verl_program
from trainers.data.chat.template import ChatTemplate
from trainers.export import export
from trainers.export_rl import (
    ADAPTERS,
    FRAMEWORKS,
    PROSE,
    STEPS,
    RlPrompt,
    RlSettings,
    check_framework,
    fitting_prompts,
    lengths,
    rl_prompts,
    write_rl,
)
from trainers.loop import train
from trainers.model.files.builtin import builtin_folder
from trainers.model.load import load_tokenizer

PROMPTS = [
    RlPrompt([{"role": "user", "content": "1+1=?"}], "2"),
    RlPrompt([{"role": "user", "content": "it's 2+2?"}], "4"),
]
SETTINGS = RlSettings(1e-3, 256, 3)
MANY = [RlPrompt([{"role": "user", "content": f"{n}+1=?"}], str(n + 1)) for n in range(100)]
"""Six whole batches and four questions more."""
ODD = r""" é, (x) = it's \'1\' {y} $z "q"; #% """
"""A folder's name of signs that shells, Hydra and its configurations read in ways of their own."""
OPEN_RLHF_OPTIONS = {
    "actor.model_name_or_path", "actor.num_nodes", "actor.num_gpus_per_node",
    "actor.adam.lr", "actor.gradient_checkpointing_enable", "data.prompt_dataset",
    "data.input_key", "data.label_key", "data.apply_chat_template", "data.max_len", "data.max_samples",
    "reward.remote_url", "algo.advantage.estimator", "algo.kl.init_coef", "rollout.n_samples_per_prompt",
    "rollout.batch_size", "rollout.max_new_tokens", "train.batch_size", "train.num_episodes", "train.seed",
    "train.colocate_all", "vllm.num_engines", "vllm.gpu_memory_utilization", "vllm.enable_sleep", "ds.enable_sleep",
    "ckpt.output_dir",
}  # fmt: skip
"""Of the parser of OpenRLHF 0.11.2, those that are used; 0.10 and earlier had other names."""
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with a model, whose template opens a thought."""
    shutil.copytree(builtin_folder("tiny-xs"), tmp_path / "model")
    return tmp_path


def chat_model(folder: Path, template: str = CHATML) -> None:
    """Gives the model the template of a chat model, whose turns end with a token that is not the tokenizer's eos."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def made(folder: Path) -> dict[str, Any]:
    write_rl("trl", folder, PROMPTS, SETTINGS)
    return runpy.run_path(str(folder / "reward.py"))


def words(script: Path) -> list[str]:
    """Runs a script with a `python3` that only tells its words."""
    program = script.parent / "bin" / "python3"
    program.parent.mkdir(exist_ok=True)
    program.write_text('#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done\n')
    program.chmod(0o755)
    path = {"PATH": f"{program.parent}:/usr/bin:/bin"}
    said = subprocess.run([script, "--last=1"], env=path, capture_output=True, text=True, check=True)
    return said.stdout.splitlines()


def options(script: Path) -> dict[str, str]:
    """Returns the settings of a script by name; "" for those without a value."""
    _, _, *said, last = words(script)
    assert last == "--last=1"
    if "=" in said[0]:
        return dict(word.split("=", 1) for word in said)
    values = {word.removeprefix("--"): "" for word in said if word.startswith("--")}
    return values | {a.removeprefix("--"): b for a, b in itertools.pairwise(said) if not b.startswith("--")}


def tier(folder: Path, *pairs: tuple[str, str]) -> TierSource:
    return conversations(
        folder, *([{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in pairs)
    )


def conversations(folder: Path, *rows: list[dict[str, Any]]) -> TierSource:
    file = folder / "ours.jsonl"
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return TierSource(str(file))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows that a framework reads."""
    return list(pq.read_table(folder / "data" / "train.parquet").to_pylist())


def asked_by_plain_tokenizers(folder: Path) -> list[str]:
    """What a framework asks: its rows under the tokenizer's own chat template."""
    tokenizer = load_tokenizer(folder / "model")
    return [
        tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        for row in rows_of(folder)
    ]


def test_prompts_of_a_built_in_tier_are_distinct_and_their_answers_lack_the_thought():
    found = rl_prompts("verified-long-cot", TierSource())
    prompts = found.prompts
    assert found.doubts == []
    asked = [p.prompt[-1]["content"] for p in prompts]
    assert len(set(asked)) == len(asked) > 1000
    assert prompts[0].prompt[-1]["role"] == "user"
    assert not [p for p in prompts if "think" in p.answer or not p.answer.lstrip("-").isdigit()]


def test_conversations_that_make_no_prompt_are_left_out_and_counted(tmp_path):
    ask, reply = {"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>a</think> b"}
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}],
    }
    tools = [ask, call, {"role": "tool", "content": "1", "name": "f"}, reply]
    wrong = [ask, reply, {"role": "user", "content": "r"}, {"role": "assistant", "content": "c", "weight": 0}]
    unended = [ask, {"role": "assistant", "content": "<think>a"}]
    rows = [[ask, reply], [ask, reply], tools, wrong, [ask, reply, ask], unended]
    found = rl_prompts("ours", conversations(tmp_path, *rows))
    assert found.prompts == [RlPrompt([ask], "b")]
    assert found.left_out == {
        "with tools, whose environments are not in the data": 1,
        "whose last reply SFT did not learn": 1,
        "that do not end with a reply of the assistant": 1,
        "whose last reply has no answer": 1,
    }
    with pytest.raises(InputError, match="no conversation that makes a prompt: 1 with tools"):
        rl_prompts("ours", conversations(tmp_path, tools))


def test_the_answer_of_the_data_is_found_as_evaluation_finds_it_and_an_unended_thought_has_none(tmp_path):
    source = tier(
        tmp_path,
        ("a", "<think>1</think> So \\boxed{\\frac{1}{2}}."),
        ("b", "Well.\nAnswer: 7"),
        ("c", "<think> 1 2 3"),
    )
    assert [p.answer for p in rl_prompts("ours", source).prompts] == [r"\frac{1}{2}", "7"]


def test_what_makes_the_reward_worth_less_is_said(out, tmp_path):
    def doubts(*pairs):
        return fitting_prompts(out / "model", rl_prompts("ours", tier(tmp_path, *pairs)).prompts, SETTINGS).doubts

    prose = "It is " + "very " * PROSE + "large."
    assert [doubt[:31] for doubt in doubts(("1", prose), ("1", "2"), ("1", "2"), ("3", prose))] == [
        "1 questions have several answer",
        f"half of the answers have {PROSE + 3} wor",
    ]
    assert doubts(("1", "2"), ("1", "2"), ("3", "3")) == []


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
        "trl": "gradient_accumulation_steps: 2\n",
        "verl": "data.train_batch_size=2 ",
        "open-rlhf": "--rollout.batch_size 2 ",
    }
    assert batch[framework] in started


def test_trl_gets_a_config_and_a_folder_that_datasets_reads(out):
    config = yaml.safe_load(write_rl("trl", out, PROMPTS, SETTINGS).read_text())
    assert config["model_name_or_path"] == "model"
    assert config["learning_rate"] == pytest.approx(1e-4)
    assert config["per_device_train_batch_size"] % config["num_generations"] == 0
    assert config["gradient_accumulation_steps"] == len(PROMPTS)
    assert config["dataset_name"] == "data"
    assert rows_of(out)[0] == {"prompt": [{"role": "user", "content": "1+1=?"}], "answer": "2"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_answers_that_look_like_dates_stay_text(framework, out):
    """What reads JSON lines takes them for dates where all of them look like one, and no reply equals a date."""
    write_rl(framework, out, [RlPrompt([{"role": "user", "content": "2024-01-05"}], "2024-01-06")], SETTINGS)
    (row,) = rows_of(out)
    assert row["prompt"][0]["content"] == "2024-01-05"
    assert (row["reward_model"]["ground_truth"] if framework == "verl" else row["answer"]) == "2024-01-06"


def test_verl_gets_parquet_in_its_columns(out):
    write_rl("verl", out, PROMPTS, SETTINGS)
    row = rows_of(out)[1]
    assert row["prompt"] == PROMPTS[1].prompt
    assert row["reward_model"] == {"style": "rule", "ground_truth": "4"}


@pytest.mark.parametrize("framework", ["verl", "open-rlhf"])
def test_a_script_is_shell_and_takes_options_that_win(framework, out):
    script = write_rl(framework, out, PROMPTS, SETTINGS)
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    assert words(script)[0] == "-m"
    assert words(script)[-1] == "--last=1"


@pytest.mark.parametrize("framework", ["verl", "open-rlhf"])
def test_paths_of_a_script_are_whole_since_ray_may_run_in_another_folder(framework, tmp_path):
    folder = tmp_path / "(a) $b; c=d"
    shutil.copytree(builtin_folder("tiny-xs"), folder / "model")
    said = options(write_rl(framework, folder, PROMPTS, SETTINGS))
    paths = {
        "verl": ["data.train_files", "actor_rollout_ref.model.path", "reward.custom_reward_function.path"],
        "open-rlhf": ["data.prompt_dataset", "actor.model_name_or_path", "reward.remote_url"],
    }
    for key in paths[framework]:
        assert Path(said[key].strip("'")).is_relative_to(folder)
        assert Path(said[key].strip("'")).exists()


@pytest.mark.parametrize(
    ("name", "written"), [("it's 1, 2", r"it\'s 1, 2"), (r"a\'b\\'c\d", r"a\\\'b\\\\\'c\d"), ("$y{z} =", "$y{z} =")]
)
def test_a_path_is_written_as_hydra_reads_it(name, written, tmp_path):
    folder = tmp_path / name
    shutil.copytree(builtin_folder("tiny-xs"), folder / "model")
    said = options(write_rl("verl", folder, PROMPTS, SETTINGS))
    assert said["data.train_files"] == f"'{tmp_path}/{written}/data/train.parquet'"


@pytest.mark.parametrize(
    ("framework", "sign"),
    [
        *(("open-rlhf", sign) for sign in (",", "@", "*", "?", "[1]")),
        *(("verl", sign) for sign in ("${x}", "*", "?", "[1]")),
    ],
)
def test_a_folder_whose_path_a_framework_would_read_otherwise_is_refused_by_the_script(framework, sign, tmp_path):
    folder = tmp_path / f"a{sign}b"
    shutil.copytree(builtin_folder("tiny-xs"), folder / "model")
    script = write_rl(framework, folder, PROMPTS, SETTINGS)
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"got folder {folder}; expected one without" in done.stderr


@pytest.mark.parametrize("framework", ["verl", "open-rlhf"])
def test_a_script_finds_its_folder_whatever_that_is_called_and_wherever_it_starts(framework, tmp_path):
    """`cd` takes a folder that begins with a dash for an option, and looks in CDPATH before it looks here."""
    folder, other = tmp_path / "-x", tmp_path / "other"
    shutil.copytree(builtin_folder("tiny-xs"), folder / "model")
    (other / "-x").mkdir(parents=True)
    write_rl(framework, folder, PROMPTS, SETTINGS)
    words(folder / "run.sh")  # makes the program that it starts
    done = subprocess.run(
        ["sh", "--", "-x/run.sh"], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "CDPATH": str(other)},
    )  # fmt: skip
    assert str(folder / "model") in done.stdout


@pytest.mark.parametrize("prompts", [PROMPTS, MANY, MANY[:1]])
def test_verl_makes_all_steps_on_one_gpu_and_saves_a_model_that_transformers_loads(prompts, out):
    said = options(write_rl("verl", out, prompts, SETTINGS))
    batch = int(said["data.train_batch_size"])
    assert len(prompts) // batch * int(said["trainer.total_epochs"]) >= int(said["trainer.total_training_steps"])
    assert int(said["trainer.total_training_steps"]) % int(said["trainer.save_freq"]) == 0
    assert "hf_model" in said["actor_rollout_ref.actor.checkpoint.save_contents"]
    assert said["actor_rollout_ref.rollout.tensor_model_parallel_size"] == said["trainer.n_gpus_per_node"] == "1"
    rows = batch * int(said["actor_rollout_ref.rollout.n"])
    assert rows % int(said["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"]) == 0


@pytest.mark.parametrize("prompts", [PROMPTS, MANY, MANY[:1]])
def test_open_rlhf_makes_all_steps_of_whole_batches_on_one_gpu(prompts, out):
    said = options(write_rl("open-rlhf", out, prompts, SETTINGS))
    assert said.keys() == OPEN_RLHF_OPTIONS
    batch, samples = int(said["rollout.batch_size"]), int(said["data.max_samples"])
    assert samples % batch == 0 < samples <= len(prompts)
    assert STEPS <= samples // batch * int(said["train.num_episodes"]) < 2 * STEPS
    assert int(said["train.batch_size"]) == batch * int(said["rollout.n_samples_per_prompt"])
    assert said["vllm.num_engines"] == said["actor.num_gpus_per_node"] == "1"
    assert float(said["vllm.gpu_memory_utilization"]) <= 0.6
    room = lengths(out / "model", prompts, SETTINGS)
    assert (said["data.max_len"], said["rollout.max_new_tokens"]) == (str(room.prompt + room.reply), str(room.reply))


def test_a_prompt_that_the_tokenizer_cannot_write_is_refused_where_replies_are_found_by_it(out):
    odd = RlPrompt([{"role": "user", "content": "2 € + 2?"}], "4")
    with pytest.raises(InputError, match=r"the tokenizer cannot write a prompt.*export for trl or verl"):
        write_rl("open-rlhf", out, [*PROMPTS, odd], SETTINGS)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_prompts_and_replies_together_fit_the_models_context(framework, out):
    config = json.loads((out / "model" / "config.json").read_text())
    longest = lengths(out / "model", PROMPTS, SETTINGS).prompt
    (out / "model" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": longest + 40}))
    written = write_rl(framework, out, PROMPTS, SETTINGS).read_text()
    said = {
        "trl": ["max_completion_length: 40\n"],
        "verl": [f"data.max_prompt_length={longest} ", "data.max_response_length=40 "],
        "open-rlhf": [f"--data.max_len {longest + 40} ", "--rollout.max_new_tokens 40 "],
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


def test_verl_that_knows_no_yarn_is_told_the_context(out):
    config = json.loads((out / "model" / "config.json").read_text())
    longest = lengths(out / "model", PROMPTS, SETTINGS).prompt
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": longest, "rope_theta": 10_000.0}
    for positions, said in ((longest, str(4 * longest)), (8 * longest, None)):
        (out / "model" / "config.json").write_text(
            json.dumps({**config, "max_position_embeddings": positions, "rope_parameters": yarn})
        )
        found = options(write_rl("verl", out, PROMPTS, SETTINGS))
        assert found.get("+actor_rollout_ref.model.override_config.max_position_embeddings") == said
        assert found["data.max_response_length"] == str(3 * longest)
        assert found["actor_rollout_ref.rollout.max_model_len"] == str(4 * longest)
        shutil.rmtree(out / "data")


def test_a_prompt_that_sft_had_no_room_for_shortens_nobodys_replies(out):
    long = RlPrompt([{"role": "user", "content": "1+" * 300 + "1=?"}], "301")
    found = fitting_prompts(out / "model", [*PROMPTS, long], SETTINGS)
    assert found.prompts == PROMPTS
    assert found.left_out == {"behind which max_length 256 had no room for a reply in SFT either": 1}
    with pytest.raises(InputError, match=r"conversations of SFT had 256 at most \(trainer\.max_length\)"):
        fitting_prompts(out / "model", [long], SETTINGS)


def test_prompts_that_the_chat_template_refused_in_sft_are_left_out_of_rl(out):
    """One of them, such as one that holds a control token, keeps no model from its export."""
    chat_model(out / "model")
    odd = RlPrompt([{"role": "user", "content": "1<|im_end|>+1=?"}], "2")
    found = fitting_prompts(out / "model", [*PROMPTS, odd], SETTINGS)
    assert found.prompts == PROMPTS
    assert found.left_out == {"that the chat template refused in SFT too": 1}
    with pytest.raises(InputError, match=r"takes none of 1 prompts: message 0 \(user\) holds"):
        fitting_prompts(out / "model", [odd], SETTINGS)


def test_open_rlhf_gets_no_prompt_in_which_it_would_look_for_a_picture(out):
    odd = RlPrompt([{"role": "user", "content": "What does <image> mean in HTML?"}], "4")
    with pytest.raises(InputError, match=r"a prompt holds <image>, which OpenRLHF takes for a picture"):
        write_rl("open-rlhf", out, [*PROMPTS, odd], SETTINGS)


def test_rl_of_all_weights_behind_adapters_has_the_rate_of_all_weights():
    config = {"learning_rate": 1e-3, "max_length": 256, "seed": 3, "lora_rank": 0}
    assert RlSettings.of(config) == SETTINGS
    assert RlSettings.of(config | {"lora_rank": 8}) == RlSettings(1e-3 / ADAPTERS, 256, 3)


def test_an_unknown_framework_is_named_with_those_that_are_known(tmp_path):
    with pytest.raises(InputError, match="trl, verl, open-rlhf; did you mean 'trl'"):
        write_rl("trll", tmp_path, PROMPTS, SETTINGS)
    assert list(FRAMEWORKS) == ["trl", "verl", "open-rlhf"]


@pytest.mark.parametrize("name", ["a*b", "a?b", "a[1]"])
def test_a_folder_is_refused_in_which_trl_would_read_the_data_of_others(name: str, tmp_path: Path):
    """`datasets` takes the path for a pattern: in `a*b` it read the data of `axb` as well, in silence."""
    with pytest.raises(InputError, match="which TRL reads as patterns"):
        check_framework("trl", tmp_path / name / "out")
    check_framework("verl", tmp_path / name)


def test_a_small_learning_rate_is_a_number_in_the_config(out: Path):
    write_rl("trl", out, PROMPTS, RlSettings(1e-5, 256))
    assert yaml.safe_load((out / "grpo.yaml").read_text())["learning_rate"] == pytest.approx(1e-6)


def test_tags_of_a_thought_stay_in_replies_where_the_tokenizer_calls_them_special(out: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tokenizer.save_pretrained(out / "model")
    ids = tokenizer("1</think>4")["input_ids"]
    assert AutoTokenizer.from_pretrained(out / "model").decode(ids, skip_special_tokens=True) == "14"
    reward = made(out)
    assert not {"<think>", "</think>"} & set(reward["ENDS"])
    assert reward["right"]("4</think>", "4") == 0.0
    written = AutoTokenizer.from_pretrained(out / "model")
    assert written("1</think>4")["input_ids"] == ids
    heard = written.decode(ids, skip_special_tokens=True)
    assert reward["compute_score"]("d", heard, "4") == 1.0


@pytest.mark.parametrize(
    ("template", "asked"),
    [
        (CHATML, "<|im_start|>user\n1+1=?<|im_end|>\n<|im_start|>assistant\n"),
        (CHATML.partition("{% if")[0], "<|im_start|>user\n1+1=?<|im_end|>\n<|im_start|>assistant\n"),
        (CHATML.partition("{% if")[0] + "\n", "<|im_start|>user\n1+1=?<|im_end|>\n<|im_start|>assistant\n"),
        (
            "{{ strftime_now('%d %b %Y') }}\n" + CHATML,
            "26 Jul 2024\n<|im_start|>user\n1+1=?<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_rl_asks_as_sft_and_evaluation_asked(template: str, asked: str, out: Path):
    """Also where the template pays no heed to `add_generation_prompt`, or prints today's date."""
    from transformers import AutoTokenizer

    chat_model(out / "model", template)
    write_rl("trl", out, PROMPTS, SETTINGS)
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    said = tokenizer.apply_chat_template(PROMPTS[0].prompt, tokenize=False, add_generation_prompt=True)
    assert said == asked


DATED_UNLESS_TOLD = "{% if messages[0].role != 'system' %}{{ strftime_now('%d %b %Y') }}\n{% endif %}" + CHATML
"""As Llama 3's: what the first prompt shows of a template need not be what the second one gets."""


@pytest.mark.parametrize("framework", ["trl", "verl"])
def test_rl_asks_as_sft_asked_in_every_prompt_and_not_in_the_first_one_alone(framework: str, out: Path):
    chat_model(out / "model", DATED_UNLESS_TOLD)
    ask = {"role": "user", "content": "1+1=?"}
    prompts = [RlPrompt([{"role": "system", "content": "sum"}, ask], "2"), RlPrompt([ask], "2")]
    write_rl(framework, out, prompts, SETTINGS)
    assert asked_by_plain_tokenizers(out)[1].startswith("26 Jul 2024\n<|im_start|>user\n1+1=?<|im_end|>")


def test_a_prompt_that_rl_would_ask_otherwise_is_shown(out: Path, monkeypatch: pytest.MonkeyPatch):
    chat_model(out / "model", DATED_UNLESS_TOLD)
    monkeypatch.setattr(ChatTemplate, "source", DATED_UNLESS_TOLD)
    with pytest.raises(InputError, match=r"asks 2 of 2 prompts otherwise .*expected '26 Jul 2024"):
        write_rl("trl", out, PROMPTS, SETTINGS)


KEEPS_TAGS = CHATML
BESIDE = CHATML.replace(
    "{{ m.content }}", "{% if m.reasoning_content %}[{{ m.reasoning_content }}]{% endif %}{{ m.content }}"
)
BESIDE_ALONE = BESIDE.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1].strip() }}")
EITHER = CHATML.replace(
    "{{ m.content }}",
    "{% if m.reasoning_content is string %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}",
)
FORGETS = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1].strip() }}")


@pytest.mark.parametrize("framework", ["trl", "verl"])
@pytest.mark.parametrize(
    ("template", "inside", "shown"),
    [
        *((KEEPS_TAGS, inside, "<think>\nhm\n</think>\n\n2<|im_end|>") for inside in (True, False)),
        (BESIDE, False, "[hm]2<|im_end|>"),
        *((BESIDE_ALONE, inside, "[hm]2<|im_end|>") for inside in (True, False)),
        *((EITHER, inside, "<think>\nhm\n</think>\n\n2<|im_end|>") for inside in (True, False)),
        *((FORGETS, inside, "assistant\n2<|im_end|>") for inside in (True, False)),
    ],
)
def test_thoughts_of_earlier_replies_stand_in_prompts_where_sft_showed_them(
    template: str, inside: bool, shown: str, framework: str, out: Path, tmp_path: Path
):
    chat_model(out / "model", template)
    ask, again = {"role": "user", "content": "1+1=?"}, {"role": "user", "content": "and 1?"}
    said = {"content": "<think>\nhm\n</think>\n\n2"} if inside else {"content": "2", "reasoning_content": "hm"}
    reply = {"role": "assistant", "content": "3"}
    found = rl_prompts(
        "ours", conversations(tmp_path, [ask, reply], [ask, {"role": "assistant", **said}, again, reply])
    )
    expected = [ChatTemplate(load_tokenizer(out / "model")).render(p.prompt, prompt=True) for p in found.prompts]
    assert shown in expected[1]
    write_rl(framework, out, fitting_prompts(out / "model", found.prompts, SETTINGS).prompts, SETTINGS)
    assert asked_by_plain_tokenizers(out) == expected


@pytest.mark.parametrize(("replies", "doubts"), [("33", 0), ("34", 1)])
def test_prompts_that_the_template_asks_alike_are_one(replies: str, doubts: int, out: Path, tmp_path: Path):
    """With several answers it is a question with several answers, of which the first one counts."""
    chat_model(out / "model", FORGETS)
    ask, again = {"role": "user", "content": "1+1=?"}, {"role": "user", "content": "and 1?"}
    rows = [
        [
            ask,
            {"role": "assistant", "content": f"<think>{thought}</think>2"},
            again,
            {"role": "assistant", "content": b},
        ]
        for thought, b in zip(("hm", "well"), replies, strict=True)
    ]
    found = fitting_prompts(out / "model", rl_prompts("ours", conversations(tmp_path, *rows)).prompts, SETTINGS)
    write_rl("trl", out, found.prompts, SETTINGS)
    assert [row["answer"] for row in rows_of(out)] == ["3"]
    assert [doubt[:36] for doubt in found.doubts] == ["1 questions have several answers in "] * doubts
    assert found.left_out == {}


def test_prompts_of_which_some_open_a_thought_are_refused_since_a_reply_alone_does_not_tell(out: Path):
    opens = CHATML.replace(
        "assistant\n{% endif", "assistant\n{% if messages[0].role == 'system' %}<think>{% endif %}{% endif"
    )
    chat_model(out / "model", opens)
    ask = {"role": "user", "content": "1+1=?"}
    told = RlPrompt([{"role": "system", "content": "think"}, ask], "2")
    with pytest.raises(InputError, match="opens a thought in 1 of 3 prompts; expected all or none"):
        write_rl("trl", out, [*PROMPTS, told], SETTINGS)


@pytest.mark.slow
@pytest.mark.optional
@pytest.mark.parametrize(("prompts", "gpus"), [(PROMPTS, 1), (MANY, 1), (MANY, 8)])
def test_open_rlhf_takes_what_is_written(prompts: list[RlPrompt], gpus: int, out: Path):
    """DIPSWEEP_OPENRLHF is a folder with OpenRLHF's package `openrlhf` (its wheel, unpacked); see the program."""
    source = os.environ.get("DIPSWEEP_OPENRLHF", "")
    if not source:
        pytest.skip("DIPSWEEP_OPENRLHF names no folder")
    _, *said = words(write_rl("open-rlhf", out, prompts, SETTINGS))
    more = ["--actor.num_gpus_per_node", gpus, "--vllm.num_engines", gpus]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.rl.openrlhf_program", source, *said[:-1], *map(str, more)],
        cwd=REPO, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["labels"] == [p.answer for p in prompts[: len(prompts) // 16 * 16 or None]]
    assert found["rewards"] == [0.0, 1.0] * (len(found["rewards"]) // 2)
    assert {round(each, 3) for each in found["advantages"]} == {-0.935, 0.935}
    assert found["batches"] == found["batches"] // 1
    assert STEPS <= found["steps"] < 2 * STEPS
    assert found["critic"] is None


@pytest.mark.slow
@pytest.mark.optional
@pytest.mark.parametrize("prompts", [PROMPTS, MANY])
@pytest.mark.parametrize(
    ("gpus", "name", "stretch"), [(1, "a", 1), (8, "a", 1), pytest.param(1, ODD, 1, id="odd"), (1, "a", 4)]
)
def test_verl_takes_what_is_written(gpus: int, name: str, stretch: int, prompts: list[RlPrompt], tmp_path: Path):
    """DIPSWEEP_VERL is a Python interpreter that imports verl; see the program."""
    python = os.environ.get("DIPSWEEP_VERL", "")
    if not python:
        pytest.skip("DIPSWEEP_VERL names no interpreter")
    out = tmp_path / name
    shutil.copytree(builtin_folder("tiny-xs"), out / "model")
    if stretch > 1:
        config = json.loads((out / "model" / "config.json").read_text())
        yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10_000.0}
        short = {**config, "max_position_embeddings": 64, "rope_parameters": yarn}
        (out / "model" / "config.json").write_text(json.dumps(short))
    _, *said = words(write_rl("verl", out, prompts, SETTINGS))
    more = [f"trainer.n_gpus_per_node={gpus}"]
    if gpus > len(prompts):  # a GPU has fewer than eight of a step's replies
        more.append("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2")
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, verl_program.__file__, *said[:-1], *more],
        env={**own, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["rows"], found["prompt"]) == (len(prompts), prompts[0].prompt)
    assert found["rewards"] == [1.0, 0.0]
    assert found["tokens"] <= found["context"]
    assert found["steps"] == found["saves"] == STEPS


def sft(base: str, folder: Path, **settings: Any) -> str:
    """Trains a model that ships for four steps; returns its checkpoint."""
    notes = Notes()
    config = trial(builtin_folder(base), (2, 4), batch_tokens=256, **settings)
    train(config, notes, folder=folder, resume=None, data=sums())
    return notes.checkpoints[-1].path


@pytest.mark.slow
@pytest.mark.optional
@pytest.mark.parametrize(("base", "rank"), [("tiny-xs", 0), ("tiny-xs", 4), ("tiny-r", 0)])
def test_trl_trains_on_what_is_written(base: str, rank: int, tmp_path: Path):
    """DIPSWEEP_TRL is TRL's command in an environment of its own (`python -m benchmarks.end_to_end --setup` makes one)."""
    program = os.environ.get("DIPSWEEP_TRL") or shutil.which("trl")
    if not program:
        pytest.skip("DIPSWEEP_TRL names no command, and trl is not installed")
    out = tmp_path / "out"
    export(sft(base, tmp_path / "run", lora_rank=rank), out / "model")
    write_rl("trl", out, PROMPTS, SETTINGS)
    short = ["--max_steps", "2", "--max_completion_length", "16", "--use_cpu", "true", "--bf16", "false"]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**own, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [program, "grpo", "--config", "grpo.yaml", *short, "--logging_steps", "1"],
        cwd=out, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out / "out" / "model.safetensors").is_file()
    state = json.loads((out / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["global_step"] == 2
    assert [0 <= line["rewards/reward/mean"] <= 1 for line in state["log_history"][:2]] == [True, True]
