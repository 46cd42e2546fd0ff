"""A model of 16,000 parameters, a tokenizer of single characters, conversations of sums, and hooks that remember."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sweeps.config.trial import ModelSource, Saved, TierSource, TrialSpec, trial_id
from trainers.data.types import Conversation, TierData
from trainers.loop import train

TEMPLATE = (
    "{% for m in messages %}{{ '[' + m.role[0] + ']' + m.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[a]' }}{% endif %}"
)


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    signs = ["<pad>", "</s>", "<unk>", *"[]suaeht 0123456789+-=;><kin/"]
    words = {sign: i for i, sign in enumerate(dict.fromkeys(signs))}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    return fast


def network(attn: str = "eager", vocab: int = 64, **shape: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    settings = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 64,
        "tie_word_embeddings": True,
        **shape,
    }
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=vocab, attn_implementation=attn, **settings)).train()


def write_base(folder: Path) -> Path:
    """Writes model and tokenizer as a Hugging Face folder."""
    network().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def sums(n: int, seed: int = 0) -> list[Conversation]:
    """Conversations about sums of 2 to 6 numbers, of 14 to 60 characters."""
    draw = random.Random(seed)
    out = []
    for _ in range(n):
        terms = [draw.randint(1, 9) for _ in range(draw.randint(2, 6))]
        question = "+".join(map(str, terms))
        thought = ";".join(str(sum(terms[: i + 1])) for i in range(len(terms)))
        out.append(
            [
                {"role": "user", "content": question + "="},
                {"role": "assistant", "content": f"<think>{thought}</think>{sum(terms)}"},
            ]
        )
    return out


def tier() -> TierData:
    return TierData(primary=sums(90), replay=sums(40, seed=1))


def trial(base: Path, snapshots: tuple[int, ...], **settings: Any) -> TrialSpec:
    config = {
        "model": "tiny",
        "data": "sums",
        "seed": 0,
        "replay": 0.25,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "batch_tokens": 256,
        "precision": "fp32",
        "logging_steps": 3,
        **settings,
        "steps": settings.get("steps", snapshots[-1]),
    }
    return TrialSpec(trial_id(config), "s-test", config, ModelSource(str(base)), TierSource("unused"), snapshots)


@dataclass
class Notes:
    """Hooks that remember everything and ask to stop once `stop_after` steps were heard of."""

    stop_after: int | None = None
    reports: dict[int, dict[str, float]] = field(default_factory=dict)
    progress: dict[int, dict[str, float]] = field(default_factory=dict)
    costs: list[Mapping[str, float]] = field(default_factory=list)
    checkpoints: list[Saved] = field(default_factory=list)
    asked: int = 0

    def report(
        self, step: int, metrics: Mapping[str, float], *, progress: Mapping[str, float], cost: Mapping[str, float]
    ) -> None:
        self.reports[step], self.progress[step] = dict(metrics), dict(progress)
        self.costs.append(cost)

    def saved(self, checkpoint: Saved) -> None:
        self.checkpoints.append(checkpoint)

    def stop_asked(self) -> bool:
        self.asked += 1
        return self.stop_after is not None and self.asked > self.stop_after

    def trained(self) -> dict[int, dict[str, float]]:
        """The reports without what a clock had a part in."""
        return {s: {k: v for k, v in m.items() if k.startswith("train/")} for s, m in self.reports.items()}


def run(
    base: Path,
    folder: Path,
    snapshots: tuple[int, ...],
    *,
    notes: Notes | None = None,
    resume: Saved | None = None,
    data: TierData | None = None,
    **settings: Any,
) -> Notes:
    """Trains a trial with these settings and returns what its hooks heard."""
    notes = notes or Notes()
    train(trial(base, snapshots, **settings), notes, folder=Path(folder), resume=resume, data=data or tier())
    return notes


def weights(notes: Notes) -> dict[str, torch.Tensor]:
    """Returns the weights of the last checkpoint."""
    return load_file(Path(notes.checkpoints[-1].path) / "model.safetensors")


def same_to_the_bit(a: Notes, b: Notes) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
