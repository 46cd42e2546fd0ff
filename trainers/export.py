"""`dipsweep export`: a checkpoint as a plain Hugging Face folder, without the trainer's state."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from sweeps.errors import InputError
from trainers import checkpoint
from trainers.data.chat import stop_ids
from trainers.model.load import load_model, load_tokenizer

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
    check_target(out)
    manifest = checkpoint.verify(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name in manifest.files:
        converted = dtype is not None and (name.endswith(".safetensors") or name.endswith(".safetensors.index.json"))
        if name not in OURS and not converted:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, out / name)
    if dtype is not None:
        load_model(folder).to(dtype).save_pretrained(out)
    write_stop_tokens(out)
    return out


def check_target(folder: Path) -> None:
    """Makes sure that something can be exported to a folder.

    Raises:
        InputError: it holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"export target {folder} is not empty; give a new folder")


def write_stop_tokens(folder: Path) -> None:
    """Puts the tokens at which replies end into a model's generation settings, which every engine reads.

    A base model's own settings name its end of text; what was trained ends with the end of turn that its template writes.
    """
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    named = settings.get("eos_token_id")
    ids = stop_ids(load_tokenizer(folder)) | set(named if isinstance(named, list) else {named} - {None})
    settings["eos_token_id"] = sorted(ids)
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
