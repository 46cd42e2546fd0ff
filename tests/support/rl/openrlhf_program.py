"""What OpenRLHF makes of an exported run.sh, by its own code: `python -m tests.support.rl.openrlhf_program SOURCE WORDS...`.

SOURCE holds the package `openrlhf`, which does not install without a GPU: what it imports and is not here is replaced by
names that do nothing. WORDS are those behind `python3` in run.sh. Its parser and that parser's checks, its data set, its executor
of replies, its experiences and its advantages run as they are; generation, training and Ray do not. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.machinery
import importlib.util
import json
import runpy
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow.parquet as pq

ABSENT = (
    "aiohttp", "bitsandbytes", "datasets", "deepspeed", "flash_attn", "liger_kernel", "optimum", "peft", "pylatexenc",
    "ring_flash_attn", "torchdata", "vllm", "wandb",
)  # fmt: skip
"""What OpenRLHF imports, and may not be here."""


class _Nothing:
    """Stands for whatever is asked of a missing package."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()

    def __call__(self, *_: Any, **__: Any) -> _Nothing:
        return self


class _Module(ModuleType):
    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Nothing,), {})


class _Missing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what nothing else has found."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in ABSENT else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


class _ParsedError(Exception):
    """Its parser and all checks are through."""


def parsed(words: Sequence[str]) -> Any:
    """Returns the arguments with which its training would begin."""
    import ray

    def begins() -> bool:
        raise _ParsedError(sys._getframe(1).f_locals["args"])

    ray.is_initialized = begins
    sys.argv = [words[0], *words[1:]]
    try:
        runpy.run_module(words[0], run_name="__main__")
    except _ParsedError as found:
        return found.args[0]
    raise SystemExit("its training has not begun")


class _Rows(list[Any]):
    """As much of a data set as is asked for where `datasets` is missing."""

    def select(self, places: Sequence[int]) -> _Rows:
        return _Rows(self[place] for place in places)


def data(args: Any, tokenizer: Any) -> tuple[Any, int]:
    """Returns its prompt data set, and the steps that it plans."""
    from openrlhf.trainer import ppo_trainer

    if isinstance(sys.modules.get("datasets"), _Module):
        rows = pq.read_table(args.data.prompt_dataset).to_pylist()
        ppo_trainer.blending_datasets = lambda *_, **__: _Rows(rows)
    strategy = SimpleNamespace(args=args, is_rank_0=lambda: True, print=lambda *_: None)
    strategy.setup_dataloader = lambda dataset, *_, **__: dataset
    prompts, _, steps = ppo_trainer.prepare_datasets(strategy, tokenizer)
    return prompts, steps


def replies(args: Any, tokenizer: Any, prompts: Any) -> list[dict[str, Any]]:
    """Has its executor hear a right and a wrong reply to each prompt, half and half, and reward them."""
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    executor = SingleTurnAgentExecutor(args.reward.remote_url)

    class Engine:
        said = ""

        async def generate(self, ids: list[int], params: Any, multi_modal_data: Any = None) -> Any:
            assert len(ids) + params.max_tokens <= args.data.max_len
            tokens = tokenizer(self.said, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
            return SimpleNamespace(
                outputs=[SimpleNamespace(token_ids=tokens, finish_reason="stop", logprobs=None, text=self.said)]
            )

    out = []
    for place in range(args.rollout.batch_size):
        _, prompt, label, _ = prompts[place]
        for sample in range(args.rollout.n_samples_per_prompt):
            engine = Engine()
            engine.said = f"</think>{label}" if sample % 2 else f"</think>{label}{label}"
            params = SimpleNamespace(max_tokens=args.rollout.max_new_tokens, logprobs=None)
            out.append(asyncio.run(executor.execute(prompt, label, params, args.data.max_len, tokenizer, engine, None)))
    return out


def advantages(args: Any, tokenizer: Any, heard: list[dict[str, Any]]) -> list[float]:
    """Returns the advantage of each reply, as its experience maker computes it."""
    import torch
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

    strategy = SimpleNamespace(args=args)
    generator = SamplesGenerator(strategy, None, None, tokenizer, [])
    maker = RemoteExperienceMaker(None, None, None, None, SimpleNamespace(value=0.0), strategy, tokenizer)
    samples = [generator._process_response_into_experience(each, max_len=args.data.max_len) for each in heard]
    batches = maker.split_rollout_samples(samples)
    for batch in batches:
        batch.kl = torch.zeros(batch.action_mask.shape)
    made = maker.compute_advantages_and_returns(batches)
    return [
        float(row[mask.bool()][0]) for each in made for row, mask in zip(each.advantages, each.action_mask, strict=True)
    ]


def main(source: str, *words: str) -> None:
    """See the module."""
    sys.path.insert(0, source)
    sys.meta_path.append(_Missing())
    args = parsed(words)
    gpus, engines = args.actor.num_nodes * args.actor.num_gpus_per_node, args.vllm.num_engines
    assert not args.train.colocate_all or gpus == engines * args.vllm.tensor_parallel_size  # as its training asserts
    assert args.train.batch_size // args.train.micro_batch_size // gpus > 0  # micro-batches of a step
    from openrlhf.utils.utils import get_tokenizer

    tokenizer = get_tokenizer(args.actor.model_name_or_path, None, "left")
    prompts, steps = data(args, tokenizer)
    heard = replies(args, tokenizer, prompts)
    found = {
        "steps": steps,
        "batches": len(prompts) / args.rollout.batch_size,
        "labels": prompts.labels,
        "rewards": [None if each["reward"] is None else float(each["reward"]) for each in heard],
        "advantages": advantages(args, tokenizer, heard),
        "critic": args.critic.model_name_or_path,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
