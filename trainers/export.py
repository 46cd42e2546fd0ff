"""`dipsweep export`: a checkpoint as a plain Hugging Face folder, without the trainer's state."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from sweeps.errors import InputError
from trainers import checkpoint
from trainers.model.load import load_model

OURS = frozenset({checkpoint.STATE, checkpoint.FACTS, checkpoint.MANIFEST})


def export(source: str | Path, target: str | Path, *, dtype: torch.dtype | None = None) -> Path:
    """Writes weights, configuration and tokenizer of a checkpoint to a new folder.

    Args:
        source: a checkpoint folder; checked against its manifest first.
        target: a folder that is missing or empty.
        dtype: type of the exported weights; by default the fp32 they were trained in.

    Returns:
        The target folder.

    Raises:
        InputError: the target holds something already.
        StorageError: the checkpoint is damaged or was never finished.
    """
    folder, out = Path(source), Path(target)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"export target {out} is not empty; give a new folder")
    manifest = checkpoint.verify(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name in manifest.files:
        converted = dtype is not None and (name.endswith(".safetensors") or name.endswith(".safetensors.index.json"))
        if name not in OURS and not converted:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, out / name)
    if dtype is not None:
        load_model(folder).to(dtype).save_pretrained(out)
    return out
