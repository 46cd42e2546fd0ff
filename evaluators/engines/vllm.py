"""Generation by vLLM, on a GPU where it is installed: one engine per process, weights swapped in place.

Starting vLLM takes a minute or more (memory profile, graphs), loading weights seconds; checkpoints of one sweep differ in
their weights alone. So an evaluator keeps its engine and loads the next checkpoint into it, as long as `config.json`
stays the same. Not tried on a GPU yet: the tests run this module against a small stand-in with vLLM's interface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evaluators.decoding import Decoding, Reply

_engine: VllmEngine | None = None


def usable() -> bool:
    """True where vLLM is installed and there is a GPU for it."""
    import torch

    return torch.cuda.is_available() and find_spec("vllm") is not None


def engine_for(folder: Path) -> VllmEngine:
    """Returns this process's engine with a checkpoint's weights in it; another architecture gets a new engine."""
    global _engine
    if _engine is not None and _engine.takes(folder):
        _engine.load(folder)
    else:
        _engine = None  # before the next one asks for memory
        _engine = VllmEngine(folder)
    return _engine


class WeightLoader:
    """Mixed into vLLM's worker (`worker_extension_cls`), which holds the model."""

    model_runner: Any

    def load_checkpoint(self, folder: str) -> int:
        """Copies a checkpoint's weights into the running model; returns how many tensors were read."""
        count = 0

        def tensors() -> Iterator[tuple[str, Any]]:
            nonlocal count
            for name, tensor in _tensors(Path(folder)):
                count += 1
                yield name, tensor

        self.model_runner.model.load_weights(weights=tensors())
        return count


def _tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                yield name, opened.get_tensor(name)


class VllmEngine:
    """One vLLM engine and the tokenizer of the checkpoint that is in it."""

    def __init__(self, folder: Path) -> None:
        self.vllm: Any = import_module("vllm")
        self.config = (folder / "config.json").read_bytes()
        self.llm = self.vllm.LLM(
            model=str(folder),
            dtype="bfloat16",
            seed=0,
            worker_extension_cls=f"{__name__}.{WeightLoader.__name__}",
            disable_log_stats=True,
        )
        self._look_up(folder)

    def takes(self, folder: Path) -> bool:
        """True for a checkpoint of the same architecture."""
        return (folder / "config.json").read_bytes() == self.config

    def load(self, folder: Path) -> None:
        """Puts a checkpoint's weights in the place of those that are there; what was cached of them is forgotten."""
        if min(self.llm.collective_rpc("load_checkpoint", args=(str(folder),))) < 1:
            raise FileNotFoundError(f"{folder} holds no model*.safetensors")
        self.llm.reset_prefix_cache()
        self._look_up(folder)

    def _look_up(self, folder: Path) -> None:
        from transformers import GenerationConfig

        from evaluators.decoding import END_THINK
        from trainers.model.load import load_tokenizer

        self.tokenizer = load_tokenizer(folder)
        named = GenerationConfig.from_pretrained(folder).eos_token_id if _has_generation(folder) else None
        ids = {self.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
        self.stop = sorted(ids - {None})
        self.end_think = self.tokenizer.convert_tokens_to_ids(END_THINK)

    def generate(self, prompts: Sequence[Sequence[int]], caps: Sequence[int], decoding: Decoding) -> list[Reply]:
        """Returns one reply per prompt; a thought over `decoding.think_cap` is closed and answered in a second pass."""
        think = decoding.think_cap
        first = caps if think is None else [min(cap, think) for cap in caps]
        replies = self._draw(prompts, first, decoding)
        if think is None:
            return replies
        open_ = [i for i, reply in enumerate(replies) if reply.truncated and caps[i] > think]
        said = {i: self._closed(replies[i].ids) for i in open_}
        rest = self._draw(
            [[*prompts[i], *said[i]] for i in open_], [caps[i] - len(said[i]) or 1 for i in open_], decoding
        )
        for i, more in zip(open_, rest, strict=True):
            ids = [*said[i], *more.ids]
            replies[i] = Reply(ids[: caps[i]], more.truncated or len(ids) > caps[i])
        return replies

    def _closed(self, thought: Sequence[int]) -> list[int]:
        return [*thought] if self.end_think in thought else [*thought, self.end_think]

    def _draw(self, prompts: Sequence[Sequence[int]], caps: Sequence[int], how: Decoding) -> list[Reply]:
        if not prompts:
            return []
        settings = [
            self.vllm.SamplingParams(
                temperature=how.temperature,
                top_p=how.top_p if how.temperature else 1.0,
                max_tokens=cap,
                seed=how.seed * 1_000_003 + i,
                stop_token_ids=self.stop,
                detokenize=False,
            )
            for i, cap in enumerate(caps)
        ]
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        drawn = self.llm.generate(asked, settings, use_tqdm=False)
        return [self._reply(one.outputs[0]) for one in drawn]

    def _reply(self, output: Any) -> Reply:
        ids = list(output.token_ids)
        if ids and ids[-1] in self.stop:
            return Reply(ids[:-1], truncated=False)
        return Reply(ids, truncated=output.finish_reason == "length")


def _has_generation(folder: Path) -> bool:
    return (folder / "generation_config.json").is_file()
