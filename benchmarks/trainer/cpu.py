"""Training steps on the CPU, ours against others', in tokens per CPU-second of one process.

    python -m benchmarks.trainer.cpu --size small --rounds 3 [--trl] [--out FILE.json]

Every variant trains the same model on the same rows with AdamW and clipping, about 2,048 tokens a step, one thread.
Variants take turns in one process, so that whatever else the machine does falls on all of them; the best round counts,
and only ratios within one run mean anything. `--trl` needs TRL 1.16 importable (README.md: in an environment of its own).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.trainer.shapes import CPU, Qwen3, rows
from sweeps.config.blocks import TrialSettings
from trainers.data.batching.packing import collate
from trainers.data.batching.sampler import fill_steps, shuffled_forever
from trainers.data.chat.rows import Rows
from trainers.model.attention import PACKED, register
from trainers.step import Learner
from trainers.throughput import ThroughputMeter

PACK_TOKENS = 2048
WARM_STEPS = 1
Variant = Callable[[], tuple[int, float]]
"""Trains some steps; returns (tokens, CPU-seconds)."""


def settings(precision: str) -> TrialSettings:
    config = {"model": "bench", "data": "bench", "steps": 100_000, "learning_rate": 1e-4, "batch_tokens": PACK_TOKENS}
    return TrialSettings.from_config({**config, "precision": precision})


def ours(shape: Qwen3, table: Rows, precision: str, num_steps: int) -> Variant:
    """The worker itself: its order, its packing, its update."""
    register()
    device = torch.device("cpu")
    learner = Learner(settings(precision), shape.network(PACKED), device, world=1)
    steps = fill_steps(shuffled_forever(len(table), "bench"), table.lengths(), PACK_TOKENS)
    labels, meter = table.labels(), ThroughputMeter(device, world=1)
    done = 0

    def run() -> tuple[int, float]:
        nonlocal done
        start, tokens = time.process_time(), 0
        for chosen in islice(steps, num_steps):
            done += 1
            learner.update(done, [collate(table, chosen)], sum(labels[i] for i in chosen), meter).tolist()
            tokens += sum(table.length(i) for i in chosen)
        return tokens, time.process_time() - start

    return run


def padded_batch(table: Rows, chosen: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
    longest = max(table.length(i) for i in chosen)
    ids, labels = (torch.full((len(chosen), longest), fill) for fill in (0, -100))
    for at, i in enumerate(chosen):
        row = torch.tensor(table.ids(i).tolist())
        ids[at, : len(row)] = row
        labels[at, : len(row)] = torch.where(torch.tensor(table.learn(i).tolist()), row, -100)
    mask = torch.arange(longest) < torch.tensor([table.length(i) for i in chosen])[:, None]
    return {"input_ids": ids, "attention_mask": mask.long()}, labels


def dense_batch(table: Rows, chosen: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
    """A pack as transformers handles it by itself: it finds the rows by their positions and builds a dense mask."""
    pack = collate(table, chosen)
    labels = torch.full_like(pack.input_ids, -100)
    labels[0, pack.predicting + 1] = pack.targets
    return {"input_ids": pack.input_ids, "position_ids": pack.position_ids}, labels


def plain(shape: Qwen3, table: Rows, precision: str, num_steps: int, *, packed: bool) -> Variant:
    """A plain loop over transformers: batches of 8 padded rows, or packs under a dense mask; logits for every token."""
    network = shape.network("sdpa")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    stream = shuffled_forever(len(table), "bench")
    steps = fill_steps(stream, table.lengths(), PACK_TOKENS) if packed else iter(lambda: list(islice(stream, 8)), None)
    batch = dense_batch if packed else padded_batch

    def run() -> tuple[int, float]:
        start, tokens = time.process_time(), 0
        for chosen in islice(steps, num_steps):
            inputs, labels = batch(table, chosen)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = network(**inputs, use_cache=False).logits[:, :-1].float()
            loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            float(loss.detach())
            tokens += sum(table.length(i) for i in chosen)
        return tokens, time.process_time() - start

    return run


def trl(shape: Qwen3, table: Rows, precision: str, num_steps: int) -> Variant:
    """TRL's SFTTrainer, best-fit-decreasing packs of the same size; its warm steps are left out."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    def labels(i: int) -> list[int]:
        return [t if learn else -100 for t, learn in zip(table.ids(i).tolist(), table.learn(i).tolist(), strict=True)]

    data = {
        "input_ids": [table.ids(i).tolist() for i in range(len(table))],
        "labels": [*map(labels, range(len(table)))],
    }
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(shape.vocab)}, unk_token="t3"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="t2", pad_token="t0", unk_token="t3")

    def run() -> tuple[int, float]:
        network = shape.network("sdpa")
        seen: list[int] = []
        ends: list[float] = []
        network.register_forward_pre_hook(lambda m, a, k: seen.append(k["input_ids"].numel()), with_kwargs=True)

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *_: Any, **__: Any) -> None:
                ends.append(time.process_time())

        options = SFTConfig(
            output_dir=tempfile.mkdtemp(),
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_steps=1000,
            max_steps=num_steps + WARM_STEPS,
            learning_rate=1e-4,
            disable_tqdm=True,
            bf16=precision == "bf16",
            gradient_checkpointing=False,
            packing=True,
            packing_strategy="bfd",
            max_length=PACK_TOKENS,
            per_device_train_batch_size=1,
        )
        trainer = SFTTrainer(
            model=network,
            args=options,
            train_dataset=Dataset.from_dict(data),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
        return sum(seen[WARM_STEPS:]), ends[-1] - ends[WARM_STEPS - 1]

    return run


def variants(shape: Qwen3, table: Rows, num_steps: int, with_trl: bool) -> dict[str, Variant]:
    out: dict[str, Variant] = {}
    for precision in ("fp32", "bf16"):
        out[f"ours {precision}"] = ours(shape, table, precision, num_steps)
        out[f"padded {precision}"] = plain(shape, table, precision, num_steps, packed=False)
        out[f"dense mask {precision}"] = plain(shape, table, precision, num_steps, packed=True)
        if with_trl:
            out[f"trl bfd {precision}"] = trl(shape, table, precision, num_steps)
    return out


def measure(todo: dict[str, Variant], rounds: int) -> dict[str, list[float]]:
    """Runs every variant `rounds` times in turn, after one round to warm up; tokens per CPU-second of each round."""
    rates: dict[str, list[float]] = {name: [] for name in todo}
    for turn in range(rounds + 1):
        for name, run in todo.items():
            if turn == 0 and name.startswith("trl"):
                continue  # warms up within each round
            tokens, seconds = run()
            if turn:
                rates[name].append(tokens / seconds)
                print(f"round {turn}  {name:16} {tokens / seconds:8.0f} tokens/CPU-s", flush=True)
    return rates


def ratios(best: dict[str, float]) -> dict[str, float]:
    """The ratios that the bars are about."""
    pairs = [
        ("ours fp32", "trl bfd fp32"),
        ("ours bf16", "trl bfd bf16"),
        ("ours bf16", "trl bfd fp32"),
        ("ours fp32", "padded fp32"),
        ("ours bf16", "padded bf16"),
        ("ours fp32", "dense mask fp32"),
        ("ours bf16", "dense mask bf16"),
        ("ours bf16", "ours fp32"),
    ]
    return {f"{a} / {b}": round(best[a] / best[b], 2) for a, b in pairs if a in best and b in best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(CPU), default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trl", action="store_true", help="measure TRL too")
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    shape, num_steps = CPU[options.size], {"small": 4, "large": 1}[options.size]
    table = rows(96, shape.vocab, median=250, shortest=50, longest=1000)
    todo = variants(shape, table, num_steps, options.trl)
    rates = measure({n: run for n, run in todo.items() if not options.only or n in options.only}, options.rounds)
    best = {name: max(values) for name, values in rates.items()}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    answer = {"size": options.size, "versions": versions, "tokens_per_cpu_s": rates, "ratios": ratios(best)}
    print(json.dumps(answer["ratios"], indent=1))
    if options.out:
        options.out.write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
