"""What a user of an export does with it: transformers alone, its own chat template, its own generation settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from evaluators.decoding import GREEDY
from evaluators.engines.base import decoded, encode_prompts
from evaluators.engines.huggingface import load

CAP = 24


def evaluated(checkpoint: str | Path, prompts: Sequence[str]) -> list[str]:
    """Returns what an evaluator has a checkpoint reply, greedily, in at most CAP tokens."""
    loaded = load(Path(checkpoint))
    ids = encode_prompts(loaded.tokenizer, prompts).ids
    return decoded(loaded.tokenizer, [reply.ids for reply in loaded.generate(ids, [CAP] * len(prompts), GREEDY)])


def by_transformers(folder: Path, prompts: Sequence[str]) -> list[str]:
    """Returns the same of a folder by transformers' own loading, template and `generate`, all prompts as one padded batch."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
    batch = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    batch.pop("token_type_ids", None)
    said = model.generate(**batch, max_new_tokens=CAP, do_sample=False)[:, batch["input_ids"].shape[1] :]
    ends = model.generation_config.eos_token_id
    replies = []
    for row in said.tolist():
        end = next((i for i, token in enumerate(row) if token in ends), len(row))
        replies.append(row[:end])
    return decoded(tokenizer, replies)
