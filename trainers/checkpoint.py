"""Whole checkpoints: a plain Hugging Face folder, the trainer's state beside it, and a manifest written last.

    step-000040/
      model.safetensors, config.json, tokenizer…   what `from_pretrained` reads
      trainer.safetensors                          Adam's moments by parameter name, random states
      trainer.json                                 step, counters, configuration, fingerprint of the data
      manifest.json                                names, sizes, sha256; its presence means that all of it is there

Nothing is pickled. State is stored whole, by parameter name, so any number of workers can take it up. The data position
needs no state: the rows of step n follow from the seed (`trainers.data.sampler`).
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sweeps.checkpoints.manifest import MANIFEST, STATE, VERSION, Manifest, read_manifest, seal, verify
from sweeps.errors import StorageError, TrialFailed

FACTS: Final = "trainer.json"
__all__ = ["FACTS", "MANIFEST", "STATE", "Manifest", "fresh", "random_states", "read_manifest", "read_state",
           "restore_random_states", "room_for", "seal", "step_folder", "verify", "write_state"]  # fmt: skip


def step_folder(folder: Path, step: int) -> Path:
    """Returns where the checkpoint of a step lies inside an attempt's folder."""
    return folder / f"step-{step:06d}"


def fresh(folder: Path) -> Path:
    """Returns an empty folder of that name; what an interrupted save left there is removed."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def room_for(target: Path) -> Iterator[None]:
    """What is written in this block needs room: without it the trial ends with a clear reason, and nothing half is left.

    Raises:
        TrialFailed: `disk-full`.
    """
    try:
        yield
    except (OSError, SafetensorError) as e:
        if getattr(e, "errno", None) not in (errno.ENOSPC, errno.EDQUOT) and "No space left" not in str(e):
            raise
        shutil.rmtree(target, ignore_errors=True)
        raise TrialFailed(
            "disk-full",
            f"no room is left for checkpoint {target}; free some or use another disk, then run the sweep again",
        ) from e


def write_state(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes the trainer's tensors and facts into a checkpoint that is being made."""
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / STATE)
    (folder / FACTS).write_text(json.dumps({"version": VERSION, **facts}, indent=1, allow_nan=False), encoding="utf-8")


def read_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads the trainer's tensors (on the CPU) and facts.

    Raises:
        StorageError: the checkpoint holds weights only.
    """
    folder = Path(path)
    if not (folder / STATE).is_file() or not (folder / FACTS).is_file():
        raise StorageError(f"checkpoint {folder} holds no {STATE}: it can be scored or exported, but not resumed from")
    return load_file(folder / STATE), json.loads((folder / FACTS).read_text(encoding="utf-8"))


def random_states() -> dict[str, Tensor]:
    """Returns the random states of this process, as tensors."""
    states = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng/cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(tensors: Mapping[str, Tensor]) -> None:
    """Takes up the random states of a checkpoint."""
    torch.set_rng_state(tensors["rng/cpu"])
    if "rng/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng/cuda"])
