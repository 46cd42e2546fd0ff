"""How much faster is our generation than `model.generate` on the same prompts, unsorted, in padded batches?

    OMP_NUM_THREADS=1 python benchmarks/evaluators/generation.py [MODEL_FOLDER] [--items 100] [--rounds 3]

Both sides answer the items of the suite `mini` greedily with the same model and caps, in turn within one process; replies
must agree token for token. The plain side takes prompts in random order, 64 a batch, padded on the left, up to the
longest cap of its batch. CPU-seconds of the process; the median ratio of the rounds is what counts.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path

import torch

from evaluators.engines.base import encode_prompts
from evaluators.engines.generate import generate, left_padded
from evaluators.engines.huggingface import load, stop_ids
from evaluators.suites.registry import load_suite
from sweeps.config.trial import EvalSpec
from trainers.model.files.builtin import builtin_folder

PLAIN_BATCH = 64


def plain(model, prompts, caps, pad):
    """Batches as they come, each run to its longest reply."""
    replies = []
    for start in range(0, len(prompts), PLAIN_BATCH):
        ids, mask = left_padded(prompts[start : start + PLAIN_BATCH], model.device)
        cap = max(caps[start : start + PLAIN_BATCH])
        ids[mask == 0] = pad
        out = model.generate(ids, attention_mask=mask, max_new_tokens=cap, do_sample=False)
        replies += out[:, ids.shape[1] :].tolist()
    return replies


def trimmed(reply, cap, stop):
    """What the suite would have seen of a plain reply: up to its end, at most its own cap."""
    end = next((i for i, token in enumerate(reply) if token in stop), len(reply))
    return reply[: min(end, cap)]


def measure(folder: Path, items: int, rounds: int) -> dict:
    loaded = load(folder)
    suite = load_suite(EvalSpec("mini", items))
    asked = [(prompt, task.cap) for task in suite.tasks for prompt in task.prompts]
    random.Random(0).shuffle(asked)
    ids = encode_prompts(loaded.tokenizer, [prompt for prompt, _ in asked]).ids
    caps, stop = [cap for _, cap in asked], stop_ids(loaded)
    ratios, seconds = [], []
    for _ in range(rounds):
        start = time.process_time()
        theirs = plain(loaded.model, ids, caps, loaded.tokenizer.pad_token_id)
        middle = time.process_time()
        ours = generate(loaded.model, ids, caps, stop=stop)
        end = time.process_time()
        seconds.append({"plain": round(middle - start, 3), "ours": round(end - middle, 3)})
        ratios.append((middle - start) / (end - middle))
    agree = sum(trimmed(a, c, stop) == b.ids for a, b, c in zip(theirs, ours, caps, strict=True)) / len(ids)
    tokens = sum(len(reply.ids) for reply in ours)
    return {
        "model": folder.name,
        "prompts": len(ids),
        "mean_reply_tokens": round(tokens / len(ids), 1),
        "same_replies": agree,
        "cpu_seconds": seconds,
        "ratio": round(statistics.median(ratios), 2),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=builtin_folder("tiny-s"))
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(options.folder, options.items, options.rounds), indent=1))


if __name__ == "__main__":
    main()
