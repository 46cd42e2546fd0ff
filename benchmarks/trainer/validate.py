"""How long does `dipsweep validate` take for a large tier and a large model? Made-up rows, and a model folder of headers alone.

python -m benchmarks.trainer.validate [--rows 50000] [--chars 2000] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import random
import tempfile
import time
from pathlib import Path

from cluster.preflight.checks import preflight
from sweeps.config.sweep_file.yaml import load
from tests.support.models.chat_formats import FORMATS, template
from tests.support.models.hollow_models import write_hollow

QWEN3_14B = {
    "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
    "intermediate_size": 17408, "vocab_size": 151936, "tie_word_embeddings": False,
}  # fmt: skip


def write_rows(file: Path, count: int, chars: int) -> None:
    """Writes conversations of about so many characters each: words drawn by rank, a thought and an answer."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(5000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    with open(file, "w") as out:
        for number in range(count):
            size = int(draw.lognormvariate(0, 0.5) * chars)
            text = " ".join(draw.choices(words, weights, k=max(8, size // 6)))
            cut = len(text) // 10
            messages = [
                {"role": "user", "content": f"Question {number}: {text[:cut]}?"},
                {"role": "assistant", "content": f"<think>\n{text[cut:]}\n</think>\n\n{number}"},
            ]
            out.write(json.dumps({"messages": messages}) + "\n")


def write_tokenizer(folder: Path, sample: list[str]) -> None:
    """Trains a byte-level tokenizer of 8,000 tokens on a sample, with a ChatML template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        sample, trainers.BpeTrainer(vocab_size=8000, initial_alphabet=alphabet, show_progress=False)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|im_sep|>"]})
    fast.chat_template = template(FORMATS["phi-4"])
    fast.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--chars", type=int, default=2_000)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        os.environ["DIPSWEEP_CACHE"] = str(home / "cache")
        from transformers import AutoConfig

        write_hollow(home / "model", AutoConfig.for_model("qwen3", **QWEN3_14B))
        write_rows(home / "rows.jsonl", options.rows, options.chars)
        with open(home / "rows.jsonl") as file:
            write_tokenizer(home / "model", [next(file) for _ in range(min(2000, options.rows))])
        (home / "large.yaml").write_text(
            "name: large\nmodels: {large: {path: model}}\ntiers: {rows: {path: rows.jsonl, max_long_rows: 1.0}}\n"
            f"storage: {home}/runs\ntrainer: {{steps: 10, max_length: 4096}}\n"
        )
        size = (home / "rows.jsonl").stat().st_size / 1e6
        weights = sum(file.stat().st_size for file in (home / "model").glob("*.safetensors")) / 1e9
        for what in ("first", "again"):
            profile = cProfile.Profile()
            wall, cpu = time.monotonic(), time.process_time()
            if options.profile:
                profile.enable()
            notes = preflight(load(home / "large.yaml")).notes
            profile.disable()
            print(f"{what}: {options.rows:,} rows of {size:.0f} MB with a model of {weights:.0f} GB: "
                  f"{time.process_time() - cpu:.1f} s CPU, {time.monotonic() - wall:.1f} s wall")  # fmt: skip
            if options.profile and what == "first":
                pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
        print("\n".join(notes))


if __name__ == "__main__":
    main()
