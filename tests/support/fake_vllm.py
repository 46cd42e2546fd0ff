"""A stand-in with vLLM's interface: it holds a real model and generates with it on the CPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

from evaluators.decoding import Decoding
from evaluators.engines.generate import generate
from trainers.model.load import load_model


@dataclass
class SamplingParams:
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop_token_ids: list
    detokenize: bool


class EngineDeadError(Exception):
    """What vLLM raises once its engine process is gone."""


class LLM:
    """vLLM's offline engine as far as it is used: token ids in and out, and calls into its worker."""

    started = 0

    def __init__(self, model, dtype, seed, disable_log_stats, **settings):
        type(self).started += 1
        self.settings = settings
        self.cached = self.alive = True
        self.length = json.loads((Path(model) / "config.json").read_text())["max_position_embeddings"]
        self.model = self._load(model)
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=self.length))

    def _load(self, folder):
        for file in Path(folder).glob("*.safetensors"):  # vLLM takes them all for weights
            assert file.name.startswith("model"), f"There is no module or parameter named as those of {file.name}"
        return load_model(folder, dtype=torch.float32).eval()

    def collective_rpc(self, method, kwargs):
        self._check()
        assert method == "reload_weights"
        self.model = self._load(kwargs["weights_path"])
        return [None]

    def reset_prefix_cache(self):
        self.cached = False

    def _check(self):
        if not self.alive:
            raise EngineDeadError("EngineCore encountered an issue")

    def generate(self, prompts, settings, use_tqdm):
        assert not use_tqdm
        self._check()
        ids = [prompt["prompt_token_ids"] for prompt in prompts]
        if any(len(one) + 1 > self.length for one in ids):
            raise ValueError(f"a prompt is longer than the maximum model length of {self.length}")
        caps = [min(s.max_tokens, self.length - len(one)) for s, one in zip(settings, ids, strict=True)]
        stop = frozenset(settings[0].stop_token_ids)
        how = Decoding(settings[0].temperature, settings[0].top_p, seed=settings[0].seed)
        replies = generate(self.model, ids, caps, stop=stop, decoding=how)
        end = min(stop)
        ended = [(r.ids, "length") if r.truncated else ([*r.ids, end], "stop") for r in replies]
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, finish_reason=why)]) for ids, why in ended]
