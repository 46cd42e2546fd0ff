"""A checkpoint in, scores out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from evaluators.cache import ScoreCache, folder_digest
from evaluators.generate import Decoding, Reply, generate
from evaluators.score import END_THINK, Answered, Scores, read_reply, score
from evaluators.suites import Suite, load_suite


def evaluate(
    model_folder: Path,
    suite: str = "mini",
    *,
    items: int = 100,
    seed: int = 0,
    decoding: Decoding | None = None,
    cache: ScoreCache | None = None,
    digest: str = "",
) -> Scores:
    """Scores a plain Hugging Face folder (config, safetensors, tokenizer) on a suite; the same scores every time.

    Args:
        items: items per task, at most; small tasks have fewer.
        seed: which items; the same for every checkpoint that is to be compared.
        decoding: how replies are drawn; by default as the suite says, greedily for most.
        cache: looked up first and filled afterwards. digest: of the folder, if known; else its files are read for it.

    Raises:
        InputError: the folder does not hold a model, or the suite is unknown.
    """
    started = time.process_time()
    if suite.startswith("lm-eval:"):
        from evaluators.lm_eval_suite import evaluate_lm_eval

        return evaluate_lm_eval(load(model_folder), suite, items=items)
    asked = load_suite(suite, items=items, seed=seed, decoding=decoding)
    if cache is None:
        return score_model(load(model_folder), asked, started=started)
    key = (digest or folder_digest(Path(model_folder)), asked.version, engine())
    known = cache.get(*key)
    if known is not None:
        return replace(known, cost={"cpu_s": time.process_time() - started})
    scores = score_model(load(model_folder), asked, started=started)
    cache.put(*key, scores)
    return scores


def engine() -> dict[str, str]:
    """Returns what else decides replies on this machine: the generator, the kind of device, the compute type."""
    import torch

    gpu = torch.cuda.is_available()
    code = " ".join(f"{name} {version(name)}" for name in ("dipsweep", "transformers"))
    return {"engine": code, "device": "cuda" if gpu else "cpu", "dtype": "bfloat16" if gpu else "float32"}


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

    settings = engine()
    model = load_model(folder, dtype=getattr(torch, settings["dtype"]))
    return Loaded(model.eval().to(settings["device"]), load_tokenizer(folder))


def score_model(loaded: Loaded, suite: Suite, *, started: float | None = None) -> Scores:
    """Scores a model that is already in memory; `started` is the process time from which its cost counts."""
    started = time.process_time() if started is None else started
    samples = suite.decoding.samples
    prompts = [prompt for task in suite.tasks for prompt in task.prompts]
    caps = [task.cap for task in suite.tasks for _ in range(len(task.prompts) * samples)]
    ids, opened = encode_prompts(loaded.tokenizer, prompts)
    replies = generate(
        loaded.model,
        [prompt for prompt in ids for _ in range(samples)],
        caps,
        stop=stop_ids(loaded),
        decoding=suite.decoding,
        end_think=loaded.tokenizer.convert_tokens_to_ids(END_THINK),
    )
    answered = iter(read(loaded.tokenizer, replies, opened))
    by_task = [list(islice(answered, len(task.prompts) * samples)) for task in suite.tasks]
    scores = score(suite, by_task, {})
    return replace(scores, cost={"cpu_s": time.process_time() - started})


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
