"""Whole checkpoints: a plain Hugging Face folder, the trainer's state beside it, and a manifest written last.

    step-000040/
      model.safetensors, config.json, tokenizer…   what `from_pretrained` reads
      trainer.safetensors                          Adam's moments by parameter name, random states
      trainer.json                                 step, counters, configuration, fingerprint of the data
      manifest.json                                names, sizes, sha256; its presence means that all of it is there

Nothing is pickled. State is stored whole, by parameter name, so any number of workers can take it up. The data position
needs no state: the rows of step n follow from the seed (`trainers.data.batching.sampler`).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sweeps.checkpoints.manifest import MANIFEST, STATE, VERSION, Manifest, read_manifest, seal, verify
from sweeps.config.trial import Saved
from sweeps.errors import StorageError, StorageUnavailable
from sweeps.storage.base import trouble_at

FACTS: Final = "trainer.json"
FIRST_S: Final = 0.5
WAIT_S: Final = 120.0  # other workers wait meanwhile, in a collective that gives up after minutes
__all__ = ["FACTS", "MANIFEST", "STATE", "Manifest", "facts_as_read", "fresh", "random_states", "read_manifest", "read_state",
           "restore_random_states", "seal", "step_folder", "verify", "write_patiently", "write_state"]  # fmt: skip


def step_folder(folder: Path, step: int) -> Path:
    """Returns where the checkpoint of a step lies inside an attempt's folder."""
    return folder / f"step-{step:06d}"


def fresh(folder: Path) -> Path:
    """Returns an empty folder of that name; what an interrupted save left there is removed."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def write_patiently(
    target: Path,
    write: Callable[[], Saved],
    give_up: Callable[[], bool] = lambda: False,
    waiting: Callable[[str], None] = lambda reason: None,
) -> Saved:
    """Returns what `write` returns, tried for `WAIT_S` while the disk has no room, or it or a folder is gone; leaves no half.

    Args:
        target: the checkpoint's folder. give_up: looked at between tries; True ends the waiting.
        waiting: told once what the disk needs.

    Raises:
        StorageUnavailable: the disk did not take it in that time. The training is sound, and can go on from the checkpoint
            before. StorageDenied: this user may not write there (any more); the same holds.
    """

    def attempt() -> Saved:
        try:
            return write()
        except (OSError, SafetensorError) as e:
            trouble = trouble_at(target, e)
            shutil.rmtree(target, ignore_errors=True)
            if trouble is None:
                raise
            raise type(trouble)(f"checkpoint {target.name} of {target.parent} was not written: {trouble}") from e

    until, pause = time.monotonic() + WAIT_S, FIRST_S
    while True:
        try:
            return attempt()
        except StorageUnavailable as e:
            if pause == FIRST_S:
                waiting(f"{e}; training waits for it, up to {WAIT_S:.0f} s")
            if give_up() or time.monotonic() + pause > until:
                raise
        _sleep(pause, give_up)
        pause = min(2 * pause, 10.0)


def _sleep(seconds: float, give_up: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not give_up() and time.monotonic() < until:
        time.sleep(0.2)


def write_state(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes the trainer's tensors and facts into a checkpoint that is being made."""
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / STATE)
    (folder / FACTS).write_text(_facts_text(facts), encoding="utf-8")


def facts_as_read(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a trainer's facts as `read_state` will return them."""
    return dict(json.loads(_facts_text(facts)))


def _facts_text(facts: Mapping[str, Any]) -> str:
    return json.dumps({"version": VERSION, **facts}, indent=1, allow_nan=False)


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
