"""The reward reads replies as evaluation does, whichever framework decoded them."""

from __future__ import annotations

import itertools
import runpy
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluators.engines.base import decoded
from evaluators.score import read_reply
from evaluators.scorers import scorer_of
from trainers.export_rl import RlPrompt, RlSettings, write_rl
from trainers.model.files.builtin import builtin_folder
from trainers.rl_reward import behind, final_answer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THOUGHTS = (
    "", "t</think>", "<think>t</think>", "<think>t", "<think></think>", "<think>a</think>b<think>c</think>", "</think></think>",
    "<think>\\boxed{9}</think>\n\n", "<think>Answer: 9\n</think>", "<think>a</think>4<think>b",
)  # fmt: skip
BODIES = (
    "4", " 4\n", "", "\n", "Answer: 4", "**Answer:** 4", "answer: 4.", "ANSWER : 1,000", "Final answer: 4 \r\n", "Answer:\n4",
    "Answer: 3\nAnswer: 4\nDone.", "The answer is 4", "<answer>4</answer>", "<answer> 3 </answer> or <answer>\n4 </answer>",
    "in <answer> tags: <answer>4</answer>", "<answer>4", "<answer></answer>", "<ANSWER>4</ANSWER>", "\\boxed{4}",
    "$\\boxed{ 4 }$.", "\\boxed{\\frac{1}{2}}", "\\boxed{\\boxed{4}}", "\\boxed{4", "\\boxed{3} \\boxed{4", "\\boxed{\\{1,2\\}}",
    "\\boxed{\\left\\{x\\right.}", "\\boxed{3}\nAnswer: 4", "<answer>\\boxed{4}</answer>", "٤", "４", "½", "1/2", "1 000",
    "1\u202f000", "1,000", "-4", "−4", "4.0", "4%", "e\u0301", "é", "4\u2028", "4\x85", "\ufeff4", "4<|tool|>", "<|im_start|>4",
    "a<|tool|>\nAnswer: 4",
)  # fmt: skip
ENDS = ("", "<|im_end|>", "<|endoftext|>")


def tokenizer(opened: bool, special: bool) -> Any:
    """A tokenizer of bytes, whose chat template may open a thought and which may call the tags of a thought special."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({sign: place for place, sign in enumerate(signs)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|pad|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|tool|>"]})
    tags = ["<think>", "</think>"]
    if special:
        fast.add_special_tokens({"additional_special_tokens": tags}, replace_extra_special_tokens=False)
    else:
        fast.add_tokens([AddedToken(tag, special=False) for tag in tags])
    fast.chat_template = CHATML.replace("assistant\n{% endif", "assistant\n<think>{% endif") if opened else CHATML
    return fast


def by_trl(reward: dict[str, Any], tokens: Any, prompt: str, ids: list[int], label: str) -> float:
    said = tokens.batch_decode([ids], skip_special_tokens=True)
    return float(reward["reward"]([[{"role": "assistant", "content": said[0]}]], answer=[label], prompts=None)[0])


def by_verl(reward: dict[str, Any], tokens: Any, prompt: str, ids: list[int], label: str) -> float:
    said = tokens.decode(ids, skip_special_tokens=True)
    return float(reward["compute_score"](data_source="d", solution_str=said, ground_truth=label, extra_info={}))


def by_open_rlhf(reward: dict[str, Any], tokens: Any, prompt: str, ids: list[int], label: str) -> float:
    asked = tokens(prompt, add_special_tokens=False)["input_ids"]
    said = tokens.decode(asked + ids, skip_special_tokens=False)
    return float(reward["reward_func"]([said], [prompt], [label])["rewards"][0])


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("heard", [by_trl, by_verl, by_open_rlhf])
def test_a_reply_is_rewarded_where_evaluation_by_the_scorer_exact_finds_it_right(
    heard: Callable[..., float], opened: bool, special: bool, tmp_path: Path
):
    from transformers import AutoTokenizer

    shutil.copytree(builtin_folder("tiny-xs"), tmp_path / "model", ignore=shutil.ignore_patterns("*token*", "chat*"))
    ours = tokenizer(opened, special)
    ours.save_pretrained(tmp_path / "model")
    asked = [{"role": "user", "content": "2 + 2?"}]
    write_rl("open-rlhf", tmp_path, [RlPrompt(asked, "4")], RlSettings(1e-3, 256))
    reward, theirs = runpy.run_path(str(tmp_path / "reward.py")), AutoTokenizer.from_pretrained(tmp_path / "model")
    prompt = theirs.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    stops = {ours.convert_tokens_to_ids(end) for end in ENDS if end}
    exact = scorer_of("exact").score
    assert exact is not None
    others, rewarded = [], 0
    for parts in itertools.product(THOUGHTS, BODIES, ENDS):
        ids = ours("".join(parts), add_special_tokens=False)["input_ids"]
        kept = ids[:-1] if ids and ids[-1] in stops else ids
        answer = read_reply(decoded(ours, [kept])[0], tokens=len(ids), truncated=False, opened=opened).answer
        for label in {"4", "x", *([] if answer is None else [final_answer(answer)])}:
            expected = answer is not None and bool(exact(answer, {"answer": label}))
            rewarded += expected
            if heard(reward, theirs, prompt, ids, label) != float(expected):
                others.append(("".join(parts), label, expected))
    assert others == []
    assert rewarded > 500


@pytest.mark.parametrize("sign", ["*", " "])
def test_a_reply_that_repeats_one_sign_for_ever_is_read_at_once(sign: str):
    began = time.process_time()
    assert final_answer(f"Answer: **4{sign * 30_000}5** ") == f"4{sign * 30_000}5"
    assert time.process_time() - began < 1.0  # a pattern that tries every part of it takes ten times as long


def test_a_reply_is_found_behind_its_prompt_whatever_a_tokenizer_did_to_white_space_and_accents():
    assert behind("a b: 4", "a b:") == " 4"
    assert behind("a , b : 4", "a, b:").strip() == "4"
    assert behind("caf\u00e9:4", "cafe\u0301:") == "4"
    assert behind("ab:", "a b:") == ""
    assert behind(" ab: \u0301", "a b:").strip() == "\u0301"
    for query in ("ab", "abc:4", "", "x a"):
        with pytest.raises(ValueError, match="does not hold its prompt"):
            behind(query, "a b:")


def test_a_thought_that_trl_put_beside_the_answer_is_a_thought():
    from trainers.rl_reward import reward

    said = [
        [{"role": "assistant", "reasoning_content": "3", "content": "4"}],
        [{"role": "assistant", "thinking": "3", "content": "4"}],
        [{"role": "assistant", "reasoning_content": "4", "content": ""}],
        [{"role": "assistant", "reasoning_content": "4"}],
        [{"role": "assistant", "content": None}],
    ]
    assert reward(said, answer=["4"] * 5) == [1.0, 1.0, 0.0, 0.0, 0.0]
