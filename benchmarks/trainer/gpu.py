"""Training steps on one CUDA device, without Ray: tokens per second and MFU of packed rows of 0.5-2k tokens.

    python -m benchmarks.trainer.gpu                      every size, path and check, a table and gpu.json
    python -m benchmarks.trainer.gpu --sizes 1.7B --pack-tokens 8192 --gradient-checkpointing
    python -m benchmarks.trainer.gpu --rehearse           every line of it on the CPU with a toy model: figures mean nothing

Weights and tokens are random. `ours` is the worker under autocast, `ours sharded` the same as one FSDP2 unit a layer on
one device (bf16 throughout), `dense mask` is transformers' SDPA over a packed row, what a pack costs without
variable-length attention. MFU counts no recomputation (`trainers.model.estimates.flops`), against the bf16 rate in
`trainers.throughput`.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.trainer.shapes import GPU, Qwen3, rows
from sweeps.config.blocks import TrialSettings
from trainers.data.batching.layout import Layout
from trainers.data.batching.packing import Pack, collate
from trainers.data.batching.sampler import fill_steps, shuffled_forever
from trainers.data.chat.rows import Rows
from trainers.model.attention import PACKED, attend_in_buckets, choose_kernel, register
from trainers.model.estimates.flops import step_flops
from trainers.step import Learner
from trainers.throughput import ThroughputMeter, peak_flops

STEPS, WARM_STEPS = 8, 3
SHAPES = {**GPU, "toy": Qwen3(2, 64, 192, 4, 2, 16, vocab=1000)}
Work = tuple[Pack, list[int], int]
"""A pack, the lengths of its rows, the number of its labels."""


def work(table: Rows, pack_tokens: int) -> list[Work]:
    steps = fill_steps(shuffled_forever(len(table), "bench"), table.lengths(), pack_tokens)
    labels = table.labels()
    return [
        (collate(table, chosen), [table.length(i) for i in chosen], sum(labels[i] for i in chosen))
        for chosen in islice(steps, STEPS + WARM_STEPS)
    ]


def settings(pack_tokens: int, gradient_checkpointing: bool) -> TrialSettings:
    config = {
        "model": "bench",
        "data": "bench",
        "steps": 1000,
        "batch_tokens": pack_tokens,
        "gradient_checkpointing": gradient_checkpointing,
    }
    return TrialSettings.from_config(config)


def ours(shape: Qwen3, config: TrialSettings, device: torch.device, sharded: bool) -> Callable[[int, Work], Any]:
    register()
    learner = Learner(config, shape.network(PACKED, device.type), device, world=1, sharded=sharded)
    meter = ThroughputMeter(device, world=1)
    return lambda step, item: learner.update(step, [item[0]], item[2], meter)


def dense(shape: Qwen3, config: TrialSettings, device: torch.device) -> Callable[[int, Work], Any]:
    network = shape.network("sdpa", device.type)
    if config.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)

    def step(number: int, item: Work) -> Any:
        pack = item[0].to(device)
        with torch.autocast(device.type, torch.bfloat16):
            inputs = {"input_ids": pack.input_ids, "position_ids": pack.position_ids, "use_cache": False}
            logits = network(**inputs, logits_to_keep=pack.predicting).logits[0]
        loss = F.cross_entropy(logits.float(), pack.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(step: Callable[[int, Work], Any], todo: Sequence[Work], shape: Qwen3, device: torch.device) -> dict[str, Any]:
    for number, item in enumerate(todo[:WARM_STEPS], start=1):
        step(number, item)
    wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for number, item in enumerate(todo[WARM_STEPS:], start=WARM_STEPS + 1):
        step(number, item)
    wait(device)
    seconds = time.perf_counter() - start
    measured = todo[WARM_STEPS:]
    config, parameters = shape.architecture(), num_parameters(shape)
    flops = sum(step_flops(config, parameters, lengths, labels) for _, lengths, labels in measured)
    peak = peak_flops(device)
    return {
        "tokens_per_s": round(sum(sum(lengths) for _, lengths, _ in measured) / seconds),
        "label_tokens_per_s": round(sum(labels for _, _, labels in measured) / seconds),
        "mfu": None if peak is None else round(flops / seconds / peak, 4),
        "memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1) if device.type == "cuda" else None,
    }


def num_parameters(shape: Qwen3) -> int:
    from transformers import Qwen3ForCausalLM

    with torch.device("meta"):
        return sum(p.numel() for p in Qwen3ForCausalLM(shape.architecture()).parameters())


def kernels_agree(device: torch.device) -> dict[str, float | str]:
    """Compares the chosen kernel with SDPA over the same rows, both in bf16, and both with fp32."""
    choice, lengths = choose_kernel(device, torch.bfloat16), [700, 650, 300, 64, 5]
    layout = Layout.of(lengths).to(device)
    q, k, v = (torch.randn(sum(lengths), heads, 128, device=device) for heads in (16, 8, 8))
    truth = attend_in_buckets(q, k, v, layout, 128**-0.5, None)
    q, k, v = (x.bfloat16() for x in (q, k, v))
    ours = choice.kernel(q, k, v, layout, 128**-0.5, None).float()
    sdpa = attend_in_buckets(q, k, v, layout, 128**-0.5, None).float()
    return {
        "kernel": f"{choice.name}: {choice.reason}",
        "relative_error": float((ours - truth).norm() / truth.norm()),
        "relative_error_of_sdpa": float((sdpa - truth).norm() / truth.norm()),
    }


def one_process_group() -> None:
    """FSDP2 wants a process group even for one device; a file-less store needs no network."""
    if not torch.distributed.is_initialized():
        kind = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(kind, store=torch.distributed.HashStore(), rank=0, world_size=1)


def run(size: str, path: str, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    shape, config = SHAPES[size], settings(options.pack_tokens, options.gradient_checkpointing)
    table = rows(options.rows, shape.vocab, median=1000, shortest=500, longest=2000)
    todo = work(table, options.pack_tokens)
    answer = {
        "size": size,
        "path": path,
        "pack_tokens": options.pack_tokens,
        "gradient_checkpointing": options.gradient_checkpointing,
    }
    try:
        if path == "dense mask":
            step = dense(shape, config, device)
        else:
            if path == "ours sharded":
                one_process_group()
            step = ours(shape, config, device, sharded=path == "ours sharded")
        answer |= timed(step, todo, shape, device)
    except torch.cuda.OutOfMemoryError as e:
        answer["error"] = f"out of memory: {str(e).splitlines()[0]}"
    step = None  # type: ignore[assignment]
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where there is no device
    return answer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=sorted(SHAPES), default=list(GPU))
    parser.add_argument("--paths", nargs="+", default=["ours", "ours sharded", "dense mask"])
    parser.add_argument("--pack-tokens", type=int, default=16_384)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available() and not options.rehearse:
        raise SystemExit(f"torch {torch.__version__} sees no CUDA device; this benchmark is about one (or: --rehearse)")
    import transformers

    device = torch.device("cpu") if options.rehearse else torch.device("cuda", torch.cuda.current_device())
    if options.rehearse:
        options.sizes, options.rows = ["toy"], 30
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    name = "cpu, a rehearsal" if options.rehearse else torch.cuda.get_device_name(device)
    answer: dict[str, Any] = {"device": name, "versions": versions}
    answer["kernels"] = kernels_agree(device)
    print(json.dumps(answer, indent=1), flush=True)
    answer["runs"] = []
    for size in options.sizes:
        for path in options.paths:
            answer["runs"].append(run(size, path, options, device))
            print(json.dumps(answer["runs"][-1]), flush=True)
            options.out.write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
