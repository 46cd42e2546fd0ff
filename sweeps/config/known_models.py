"""The models of the paper (arXiv 2604.06628) by name: their shapes, and what training one of them takes.

Shapes are those of the published config.json files. `gpus` is the smallest power of two of 80 GB devices on which
`trainers.model.estimates.memory` lets a full fine-tune in bf16 fit, with packs of 16,384 tokens and activation
checkpointing; a test holds the table to that arithmetic. Nothing here downloads anything: a model is read from its `path`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides how many parameters a decoder has. `tied`: input and output embeddings are one matrix."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocab: int
    tied: bool = True

    def config(self) -> dict[str, Any]:
        """Returns the shape in the words of a config.json."""
        return {
            "num_hidden_layers": self.layers, "hidden_size": self.hidden, "intermediate_size": self.feed_forward,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": self.head_size,
            "vocab_size": self.vocab, "tie_word_embeddings": self.tied,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published base model.

    Attributes:
        repository: its name on the Hugging Face hub.
        gpus: 80 GB devices that a full fine-tune needs.
        refused: why it cannot be trained as it is published; empty where it can.
    """

    repository: str
    shape: Shape
    gpus: int
    refused: str = ""


INTERNLM: Final = (
    "InternLM2.5 is published with modelling code of its own (auto_map), which dipsweep never runs, and transformers 5 "
    "has no internlm2; it computes what Llama does, so convert its weights to a Llama folder and give that as path"
)
KNOWN: Final = {
    "qwen3-0.6b": KnownModel("Qwen/Qwen3-0.6B-Base", Shape(28, 1024, 3072, 16, 8, 128, 151_936), 1),
    "qwen3-1.7b": KnownModel("Qwen/Qwen3-1.7B-Base", Shape(28, 2048, 6144, 16, 8, 128, 151_936), 1),
    "qwen3-4b": KnownModel("Qwen/Qwen3-4B-Base", Shape(36, 2560, 9728, 32, 8, 128, 151_936), 2),
    "qwen3-8b": KnownModel("Qwen/Qwen3-8B-Base", Shape(36, 4096, 12_288, 32, 8, 128, 151_936, tied=False), 4),
    "qwen3-14b": KnownModel("Qwen/Qwen3-14B-Base", Shape(40, 5120, 17_408, 40, 8, 128, 151_936, tied=False), 8),
    "qwen2.5-0.5b": KnownModel("Qwen/Qwen2.5-0.5B", Shape(24, 896, 4864, 14, 2, 64, 151_936), 1),
    "qwen2.5-1.5b": KnownModel("Qwen/Qwen2.5-1.5B", Shape(28, 1536, 8960, 12, 2, 128, 151_936), 1),
    "qwen2.5-3b": KnownModel("Qwen/Qwen2.5-3B", Shape(36, 2048, 11_008, 16, 2, 128, 151_936), 1),
    "qwen2.5-7b": KnownModel("Qwen/Qwen2.5-7B", Shape(28, 3584, 18_944, 28, 4, 128, 152_064, tied=False), 4),
    "qwen2.5-14b": KnownModel("Qwen/Qwen2.5-14B", Shape(48, 5120, 13_824, 40, 8, 128, 152_064, tied=False), 8),
    "internlm2.5-20b": KnownModel(
        "internlm/internlm2_5-20b", Shape(48, 6144, 16_384, 48, 8, 128, 92_544, tied=False), 8, INTERNLM
    ),
    "gemma3-27b": KnownModel("google/gemma-3-27b-pt", Shape(62, 5376, 21_504, 32, 16, 128, 262_208), 16),
}


def known_model(name: str) -> KnownModel | None:
    """Returns the model of a name, however it is spelt: `qwen3-4b`, `Qwen3-4B-Base`, `qwen2-5-7b`."""
    plain = _plain(name)
    return next((model for key, model in KNOWN.items() if _plain(key) == plain), None)


def _plain(name: str) -> str:
    return (
        name.lower().rpartition("/")[2].removesuffix("-base").removesuffix("-pt").translate(str.maketrans("._", "--"))
    )
