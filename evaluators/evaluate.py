"""A checkpoint in, scores out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from evaluators.benchmarks.judges import judged_by
from evaluators.cache import ScoreCache
from evaluators.decoding import GREEDY, Decoding, Reply
from evaluators.digest import folder_digest
from evaluators.early_stopping import cache_key, evaluate_sequentially
from evaluators.engines.base import Engine, decoded, encode_prompts
from evaluators.engines.huggingface import load
from evaluators.engines.select import engine_for, engine_settings
from evaluators.kept_replies import kept_of, replies_of
from evaluators.partial import PartialEvaluation
from evaluators.score import judged, read_reply, score
from evaluators.scores import Answered, Scores
from evaluators.suites.lm_eval import evaluate_lm_eval
from evaluators.suites.registry import load_suite
from evaluators.tasks import Suite
from evaluators.test_time import Variant, cut, joined, parse_variant
from sweeps.config.eval_job import EarlyEnd
from sweeps.config.trial import EvalSpec
from sweeps.errors import StorageError
from sweeps.replies import ReplyWriter, from_bytes, to_bytes

DEFAULT: Final = EvalSpec()
JUDGE_CAP: Final = 1024
"""New tokens in which a judge may think and give its verdict."""


def evaluate(
    model_folder: Path,
    evaluation: EvalSpec = DEFAULT,
    *,
    seed: int = 0,
    decoding: Decoding | None = None,
    cache: ScoreCache | None = None,
    digest: str = "",
    early: EarlyEnd | None = None,
    base: Scores | None = None,
    keep: ReplyWriter | None = None,
    keep_network: bool = False,
    beside_training: bool = False,
) -> Scores:
    """Scores a plain Hugging Face folder (config, safetensors, tokenizer) on a suite; the same scores every time.

    Args:
        evaluation: the suite, its settings, and at most how many items per task; small tasks have fewer.
        seed: which items; the same for every checkpoint that is to be compared.
        decoding: how replies are drawn; by default as the suite says, greedily for most.
        cache: looked up first and filled afterwards. digest: of the folder, if known; else its files are read for it.
        early: when to end before all items are asked. base: the scores of its base model; without them all are asked.
        keep: takes the replies, or a sample of them. Scores in the cache whose replies were not kept are measured again.
        keep_network: for a process that scores checkpoints and does nothing else; see `engine_for`.
        beside_training: for a process that trains on the same device; see `engine_for`.

    Raises:
        InputError: the folder does not hold a model, the suite is unknown, or does not measure what `early` asks about.
    """
    started = Started()
    if evaluation.suite.startswith("lm-eval:") and not evaluation.files:
        scores, replies = evaluate_lm_eval(load(model_folder), evaluation.suite, items=evaluation.items)
        if keep is not None and keep.mode != "none":
            keep(kept_of(replies, keep.mode), len(replies), scores.suite)
        return replace(scores, cost=started.spent())
    asked = load_suite(evaluation, seed=seed, decoding=decoding)
    key = None
    if cache is not None:
        settings = engine_settings(beside_training=beside_training) | (
            cache_key(early, base) if early is not None and base is not None else {}
        )
        key = (digest or folder_digest(Path(model_folder)), asked.version, settings)
        known = cache.get(*key)
        if known is not None and (keep is None or keep.mode == "none" or _kept_before(cache, key, keep)):
            return replace(known, cost=started.spent(), cached=True)
    scores, answered, variants = measure(
        engine_for(Path(model_folder), keep_network=keep_network, judge=asked.judge, beside_training=beside_training),
        asked,
        early,
        base,
    )
    if keep is not None and keep.mode != "none":
        groups = [replies_of(answered), *(replies_of(each, variant.name) for variant, each in variants)]
        replies = [reply for group in groups for reply in group]
        kept = [reply for group in groups for reply in kept_of(group, keep.mode)]
        keep(kept, len(replies), scores.suite)
        if cache is not None and key is not None:
            cache.put_replies(*key, keep.mode, to_bytes(kept, len(replies), {"suite": scores.suite}))
    scores = replace(scores, cost=started.spent())
    if cache is not None and key is not None:
        cache.put(*key, scores)
    return scores


def _kept_before(cache: ScoreCache, key: tuple[str, str, dict[str, str]], keep: ReplyWriter) -> bool:
    """Passes on the replies of cached scores; False where they were not kept."""
    found = cache.replies(*key, keep.mode)
    if found is None:
        return False
    try:
        facts, replies = from_bytes(found)
    except StorageError:
        return False
    keep(replies, int(facts["of"]), str(facts["suite"]))
    return True


class Started:
    """A moment from which an evaluation's cost counts."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.monotonic()

    def spent(self) -> dict[str, float]:
        """Returns `cpu_s` of this process, and where it sees a GPU its wall clock as `gpu_s`."""
        import torch

        cost = {"cpu_s": time.process_time() - self.cpu}
        return cost | {"gpu_s": time.monotonic() - self.wall} if torch.cuda.is_available() else cost


def score_model(engine: Engine, suite: Suite, early: EarlyEnd | None = None, base: Scores | None = None) -> Scores:
    """Scores a model that is already in memory; see `evaluate`."""
    return measure(engine, suite, early, base).scores


class Measured(NamedTuple):
    """A model's scores, what it answered, and what it answered under each variant of `test_time`."""

    scores: Scores
    asked: PartialEvaluation
    variants: list[tuple[Variant, PartialEvaluation]]


def measure(engine: Engine, suite: Suite, early: EarlyEnd | None = None, base: Scores | None = None) -> Measured:
    """Returns a model's scores and what it answered; see `evaluate`."""
    started, ask = Started(), partial(_ask, engine)
    ended: dict[str, Any] = {}
    if early is not None and base is not None:
        asked, ended = evaluate_sequentially(ask, suite, early, base)
    else:
        asked = ask(suite)
    scores = score(asked.suite, asked.read, asked.right)
    variants = [(variant, _with(variant, engine, asked)) for variant in map(parse_variant, suite.variants)]
    for variant, each in variants:
        scores = joined(scores, variant, score(each.suite, each.read, each.right))
    # Suite and items are those of the whole: the items that were asked are its first ones.
    spent = started.spent()
    scores = replace(scores, suite=suite.version, items_digest=suite.items_digest, cost=spent, asked=ended)
    return Measured(scores, asked, variants)


def _with(variant: Variant, engine: Engine, asked: PartialEvaluation) -> PartialEvaluation:
    """Asks the same items under other means at test time."""
    suite = variant.of(asked.suite)
    if variant.cap is not None and variant.cheap and all(variant.cap <= task.cap for task in asked.suite.tasks):
        drawn = [cut(replies, variant.cap) for replies in asked.drawn]
    else:
        drawn = _drawn(suite, answer(engine, suite)[0])
    said = _read(engine, suite, drawn, asked.opened)
    return PartialEvaluation(suite, drawn, said, asked.opened, _right(suite, said))


def _ask(engine: Engine, suite: Suite) -> PartialEvaluation:
    replies, every = answer(engine, suite)
    drawn, left = _drawn(suite, replies), iter(every)
    opened = [list(islice(left, len(task.prompts))) for task in suite.tasks]
    said = _read(engine, suite, drawn, opened)
    return PartialEvaluation(suite, drawn, said, opened, _right(suite, said))


def _read(
    engine: Engine, suite: Suite, drawn: Sequence[Sequence[Reply]], opened: Sequence[Sequence[bool]]
) -> list[list[Answered]]:
    """Reads the replies of each task; `opened` is per item."""
    return [
        read(engine.tokenizer, replies, [flag for flag in flags for _ in range(suite.samples(task))])
        for task, replies, flags in zip(suite.tasks, drawn, opened, strict=True)
    ]


def _drawn(suite: Suite, replies: Sequence[Reply]) -> list[list[Reply]]:
    """Splits the replies by task."""
    left = iter(replies)
    return [list(islice(left, len(task.prompts) * suite.samples(task))) for task in suite.tasks]


def answer(engine: Engine, suite: Suite) -> tuple[list[Reply], list[bool]]:
    """Returns the replies to all items of a suite, samples of an item in a row, and of each item whether its prompt opens
    a thought."""
    prompts = [prompt for task in suite.tasks for prompt in task.prompts]
    counts = [suite.samples(task) for task in suite.tasks for _ in task.prompts]
    caps = [task.cap for task in suite.tasks for _ in range(len(task.prompts) * suite.samples(task))]
    encoded = encode_prompts(engine.tokenizer, prompts)
    asked = [ids for ids, count in zip(encoded.ids, counts, strict=True) for _ in range(count)]
    return engine.generate(asked, caps, suite.decoding), encoded.opened


def _right(suite: Suite, replies: Sequence[Sequence[Answered]]) -> dict[str, list[float]]:
    if suite.judge:
        suite = judged_by(partial(_ask_judge, _judge_at(suite.judge)), suite, replies)
    return judged(suite, replies)


@cache
def _judge_at(folder: str) -> Engine:
    """Judges stay in memory: an evaluator asks the same one about every checkpoint."""
    return load(Path(folder))


def _ask_judge(judge: Engine, questions: Sequence[str]) -> list[str]:
    """Returns what a judge answers; "", which is no verdict, where it never came to the end of its thought."""
    encoded = encode_prompts(judge.tokenizer, questions)
    replies = judge.generate(encoded.ids, [JUDGE_CAP] * len(questions), GREEDY)
    return [reply.answer or "" for reply in read(judge.tokenizer, replies, encoded.opened)]


def read(tokenizer: Any, replies: Sequence[Reply], opened: Sequence[bool]) -> list[Answered]:
    """Decodes replies and splits thought from answer; `opened` says of each whether its prompt opened a thought."""
    texts = decoded(tokenizer, [reply.ids for reply in replies])
    return [
        read_reply(text, tokens=len(reply.ids), truncated=reply.truncated, opened=flag, entropy=reply.entropy)
        for text, reply, flag in zip(texts, replies, opened, strict=True)
    ]
