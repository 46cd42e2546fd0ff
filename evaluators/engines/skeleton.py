"""One network for all checkpoints of a model: an evaluator keeps it, and only weights change from one to the next."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evaluators.engines.huggingface import Loaded, load
from sweeps.checkpoints.manifest import MANIFEST, is_weights
from trainers.model.files.folder import checked_folder
from trainers.model.files.weights import check_finite, stored_shapes

UNREAD: Final = (MANIFEST, "trainer.json", "training.json")
"""Files of a checkpoint, or of a base model, from which no engine is made."""


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """A loaded model, and what must be the same of a folder whose weights it may take.

    Attributes:
        files: digest of all files that are no weights: config, tokenizer, chat template, generation settings.
        stored: names and shapes in the weight files. buffers: what the model was made with beside its weights.
    """

    loaded: Loaded
    files: str
    stored: dict[str, tuple[int, ...]]
    buffers: dict[str, Any]


_kept: _Skeleton | None = None


def load_again(folder: Path) -> Loaded:
    """Does what `load` does, and returns the model of the call before where only its weights differ.

    The model that the call before returned must not be used any more. In any doubt a new one is made: other files beside the
    weights, weights of other names or shapes or such as transformers rearranges, a model that has changed as it ran.

    Raises:
        InputError: the folder does not hold a model, or it is unsafe to load.
    """
    global _kept
    kept, _kept = _kept, None  # whatever breaks halfway is not used again
    if kept is None or not _takes(kept, folder):
        kept = _new(folder)
    _kept = kept
    return kept.loaded


def _new(folder: Path) -> _Skeleton:
    loaded = load(folder)
    buffers = {name: buffer.clone() for name, buffer in loaded.model.named_buffers()}
    return _Skeleton(loaded, _other_files(folder), stored_shapes(folder), buffers)


def _takes(kept: _Skeleton, folder: Path) -> bool:
    """Puts the weights of a folder into a kept model; False where that is not to be done."""
    import torch
    from safetensors.torch import load_file

    from trainers.model.load import keeps_names

    folder = checked_folder(folder)
    if _other_files(folder) != kept.files or stored_shapes(folder) != kept.stored or not keeps_names(folder):
        return False
    model = kept.loaded.model
    places = dict(model.named_parameters()) | dict(model.named_buffers())
    same = all(torch.equal(places[name], buffer) for name, buffer in kept.buffers.items() if name not in kept.stored)
    if not same or not kept.stored.keys() <= places.keys():
        return False
    with torch.no_grad():
        for file in sorted(f for f in folder.glob("*.safetensors") if is_weights(f.name)):
            tensors = load_file(file)
            check_finite(folder, tensors.items())
            for name, tensor in tensors.items():
                places[name].copy_(tensor)
    return True


def _other_files(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name not in UNREAD:
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()
