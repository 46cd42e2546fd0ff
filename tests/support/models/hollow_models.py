"""Model folders of any size that take no room: headers of safetensors files, and holes where the numbers would stand."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch


def write_hollow(folder: Path, config: Any, shard_bytes: int = 4 * 2**30) -> Path:
    """Writes config and sharded weights of a model as transformers would save it, in bf16; all numbers are 0.

    Args:
        config: a config of transformers, of a causal language model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.core_model_loading import revert_weight_conversion

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(t.shape) for name, t in revert_weight_conversion(model, model.state_dict()).items()}
    for name in model.all_tied_weights_keys:
        shapes.pop(name, None)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    shards = list(_shards(shapes, shard_bytes))
    placed = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / file, shard)
        placed |= dict.fromkeys(shard, file)
    index = {"metadata": {}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _size(shape: tuple[int, ...]) -> int:
    return 2 * torch.Size(shape).numel()


def _shards(shapes: Mapping[str, tuple[int, ...]], limit: int) -> Iterator[dict[str, tuple[int, ...]]]:
    shard: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if shard and sum(map(_size, shard.values())) + _size(shape) > limit:
            yield shard
            shard = {}
        shard[name] = shape
    yield shard


def _write(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    header, at = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + _size(shape)]}
        at += _size(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + at)
