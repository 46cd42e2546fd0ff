"""A checkpoint in, scores out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.generate import Reply, generate
from evaluators.score import Answered, Scores, read_reply, score
from evaluators.suites import Suite, load_suite


def evaluate(model_folder: Path, suite: str = "mini", *, items: int = 100, seed: int = 0) -> Scores:
    """Scores a plain Hugging Face folder (config, safetensors, tokenizer) on a suite, greedily and deterministically.

    Args:
        items: items per task, at most; small tasks have fewer.
        seed: which items; the same for every checkpoint that is to be compared.

    Raises:
        InputError: the folder does not hold a model, or the suite is unknown.
    """
    started = time.process_time()
    asked = load_suite(suite, items=items, seed=seed)
    model = load(model_folder)
    return score_model(model, asked, started=started)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in eval mode with its tokenizer."""

    model: Any
    tokenizer: Any


def load(folder: Path) -> Loaded:
    """Loads a checkpoint from local files: fp32 on a CPU, bf16 on a GPU.

    Raises:
        InputError: the folder does not hold a model, or it is unsafe to load.
    """
    import torch

    from trainers.models import load_model, load_tokenizer

    gpu = torch.cuda.is_available()
    model = load_model(folder, dtype=torch.bfloat16 if gpu else torch.float32)
    return Loaded(model.eval().to("cuda" if gpu else "cpu"), load_tokenizer(folder))


def score_model(loaded: Loaded, suite: Suite, *, started: float | None = None) -> Scores:
    """Scores a model that is already in memory; `started` is the process time from which its cost counts."""
    started = time.process_time() if started is None else started
    prompts = [prompt for task in suite.tasks for prompt in task.prompts]
    caps = [task.cap for task in suite.tasks for _ in task.prompts]
    ids, opened = encode_prompts(loaded.tokenizer, prompts)
    replies = generate(loaded.model, ids, caps, stop=stop_ids(loaded))
    answered = read(loaded.tokenizer, replies, opened)
    by_task, at = [], 0
    for task in suite.tasks:
        by_task.append(answered[at : at + len(task.prompts)])
        at += len(task.prompts)
    scores = score(suite, by_task, cost := {"cpu_s": 0.0})
    cost["cpu_s"] = time.process_time() - started
    return scores


def encode_prompts(tokenizer: Any, prompts: Sequence[str]) -> tuple[list[list[int]], bool]:
    """Returns token ids of each prompt as a chat turn, and whether the template opens a thought for the model."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    opened = bool(texts) and texts[0].rstrip().endswith("<think>")
    return tokenizer(texts, add_special_tokens=False)["input_ids"], opened


def stop_ids(loaded: Loaded) -> frozenset[int]:
    """Returns the ids that end a reply: the tokenizer's, and those of the model's generation settings."""
    named = loaded.model.generation_config.eos_token_id
    ids = {loaded.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return frozenset(ids - {None})


def read(tokenizer: Any, replies: Sequence[Reply], opened: bool) -> list[Answered]:
    """Decodes replies and splits thought from answer."""
    texts = tokenizer.batch_decode([reply.ids for reply in replies], skip_special_tokens=True)
    return [
        read_reply(text, tokens=len(reply.ids), truncated=reply.truncated, opened=opened)
        for text, reply in zip(texts, replies, strict=True)
    ]
