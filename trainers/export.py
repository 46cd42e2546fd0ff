"""`dipsweep export`: a checkpoint as a plain Hugging Face folder, without the trainer's state."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError

from sweeps.checkpoints.manifest import read_manifest, verify
from sweeps.checkpoints.transfer import local_copy
from sweeps.errors import InputError
from sweeps.storage.base import COMMAND_S, is_url, trouble_at
from trainers import checkpoint
from trainers.data.chat.tokenization import stop_ids
from trainers.model.load import load_model, load_tokenizer
from trainers.model.recurrent.recurrence import MOST, RECURRENT_QWEN3, usual_recurrences
from trainers.model.recurrent.recurrent_qwen3 import unrolled

OURS = frozenset({checkpoint.STATE, checkpoint.FACTS, checkpoint.MANIFEST})


def export(
    source: str | Path,
    target: str | Path,
    *,
    digest: str = "",
    dtype: torch.dtype | None = None,
    recurrences: int | None = None,
) -> Path:
    """Writes weights, configuration and tokenizer of a checkpoint to a new folder, which transformers loads with its own code.

    The folder is there when all of it is; what fails or is interrupted leaves it as it was.

    Args:
        source: a checkpoint, a folder or its address in a bucket; checked against its manifest first.
        target: a folder that is missing or empty.
        digest: that of the weights which its sweep wrote there; "" where that is not known.
        dtype: type of the exported weights; by default the fp32 they were trained in.
        recurrences: of a `recurrent_qwen3`, which is written as the plain Qwen3 that it is at so many of them; by default as
            many as its config.json says.

    Returns:
        The target folder.

    Raises:
        InputError: the target holds something already, or the model has no recurrences to choose.
        StorageError: the checkpoint is damaged, another one or was never finished, its bucket does not answer, or the target
            cannot be written.
    """
    out = Path(target)
    with (
        new_folder(out) as made,
        local_copy(str(source), wanted=lambda name: name not in OURS, patience_s=COMMAND_S) as folder,
    ):
        check = read_manifest if is_url(str(source)) else verify  # a copy was compared when it was made
        files = check(folder, digest=digest).files
        _write(folder, made, [name for name in files if name not in OURS], dtype, recurrences)
    return out


def _write(folder: Path, out: Path, files: Sequence[str], dtype: torch.dtype | None, recurrences: int | None) -> None:
    """Writes the files of a whole checkpoint as an export; see there."""
    model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    unrolls = model["model_type"] == RECURRENT_QWEN3
    if recurrences is not None and (not unrolls or not 1 <= recurrences <= MOST):
        raise InputError(
            f"got recurrences {recurrences} for a model of type {model['model_type']}; expected 1 to {MOST} for one "
            f"of type {RECURRENT_QWEN3} (tiny-r)"
        )
    for name in files:
        converted = (dtype is not None or unrolls) and (
            name.endswith(".safetensors") or name.endswith(".safetensors.index.json")
        )
        if not converted:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, out / name)
    if unrolls or dtype is not None:
        network = load_model(folder)
        if unrolls:
            network = unrolled(network, recurrences or usual_recurrences(model))
        network.to(dtype or torch.float32).save_pretrained(out)
    write_stop_tokens(out)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields a folder to write to, all of which `target` holds once it is left without an error, and nothing before that.

    It lies beside the target, or within one that is there already and empty: a disk may be mounted there. A process that is
    killed outright leaves it, as `.export-…`.

    Raises:
        InputError: the target holds something.
        StorageError: its disk is full or away, or it may not be written.
    """
    place = target.absolute()
    within = place.is_dir()
    made = (place if within else place.parent) / f".export-{secrets.token_hex(4)}"
    if place.exists() and (not within or any(place.iterdir())):
        raise InputError(f"export target {target} is not empty; give a new folder")
    try:
        made.mkdir(parents=True)
        yield made
        if not within:
            made.rename(place)
        elif [each for each in place.iterdir() if each != made]:
            raise InputError(f"export target {target} is not empty any more; give a new folder")
        else:
            for each in list(made.iterdir()):
                each.rename(place / each.name)
    except (OSError, SafetensorError) as e:
        if (trouble := trouble_at(place, e)) is None:
            raise
        raise type(trouble)(f"{target} was not exported: {trouble}") from e
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_stop_tokens(folder: Path) -> None:
    """Puts the tokens at which replies end, and that which fills up a batch, into a model's generation settings, which every
    engine reads.

    A base model's own settings name its end of text; what was trained ends with the end of turn that its template writes.
    """
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    named, tokenizer = settings.get("eos_token_id"), load_tokenizer(folder)
    ids = stop_ids(tokenizer) | set(named if isinstance(named, list) else {named} - {None})
    settings["eos_token_id"] = sorted(ids)
    if settings.get("pad_token_id") is None and tokenizer.pad_token_id is not None:
        settings["pad_token_id"] = tokenizer.pad_token_id
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
