"""Whole checkpoints: a plain Hugging Face folder, the trainer's state beside it, and a manifest written last.

    step-000040/
      model.safetensors, config.json, tokenizer…   what `from_pretrained` reads
      trainer.safetensors                          Adam's moments by parameter name, random states
      trainer.json                                 step, counters, configuration, fingerprint of the data
      manifest.json                                names, sizes, sha256; its presence means that all of it is there

Nothing is pickled. State is stored whole, by parameter name, so any number of workers can take it up. The data position
needs no state: the rows of step n follow from the seed (`trainers.order`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sweeps.errors import StorageError
from sweeps.trial import Saved

MANIFEST: Final = "manifest.json"
STATE: Final = "trainer.safetensors"
FACTS: Final = "trainer.json"
VERSION: Final = 1


def step_folder(folder: Path, step: int) -> Path:
    """Returns where the checkpoint of a step lies inside an attempt's folder."""
    return folder / f"step-{step:06d}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint holds.

    Attributes:
        step: optimizer steps behind it.
        files: name -> (size in bytes, sha256 as hex).
        digest: `sha256:<hex>` of the weights.
    """

    step: int
    files: Mapping[str, tuple[int, str]]
    digest: str


def seal(folder: Path, step: int) -> Saved:
    """Writes the manifest of a folder whose files are all there; from then on the checkpoint counts."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    files = {name: {"size": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in names}
    weights = [str(entry["sha256"]) for name, entry in files.items() if _is_weights(name)]
    single = weights[0] if len(weights) == 1 else hashlib.sha256("".join(weights).encode()).hexdigest()
    manifest = {"version": VERSION, "step": step, "digest": f"sha256:{single}", "files": files}
    waiting = folder / f".{MANIFEST}.{os.getpid()}"
    with open(waiting, "w", encoding="utf-8") as out:
        json.dump(manifest, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    os.replace(waiting, folder / MANIFEST)
    return Saved(step, str(folder), manifest["digest"])  # type: ignore[arg-type]


def read_manifest(path: str | Path) -> Manifest:
    """Reads a checkpoint's manifest.

    Raises:
        StorageError: there is none (the checkpoint is not whole), or it cannot be read.
    """
    file = Path(path) / MANIFEST
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        files = {name: (int(entry["size"]), str(entry["sha256"])) for name, entry in data["files"].items()}
        if outside := [name for name in files if Path(name).name != name]:
            raise StorageError(
                f"{file} names {outside[0]!r}, which lies outside its folder; the manifest was tampered with"
            )
        return Manifest(int(data["step"]), files, str(data["digest"]))
    except FileNotFoundError:
        raise StorageError(f"checkpoint {path} has no {MANIFEST}: it was never finished; use an earlier one") from None
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise StorageError(f"{file} is not a manifest: {type(e).__name__}: {e}") from e


def verify(path: str | Path) -> Manifest:
    """Compares every file of a checkpoint with its manifest and returns the manifest.

    Raises:
        StorageError: a file is missing, of another size, or has changed; the message names all of them.
    """
    folder, manifest = Path(path), read_manifest(path)
    faults = []
    for name, (size, digest) in manifest.files.items():
        file = folder / name
        if not file.is_file():
            faults.append(f"{name} is missing")
        elif file.stat().st_size != size:
            faults.append(f"{name} has {file.stat().st_size} bytes, not {size}")
        elif _sha256(file) != digest:
            faults.append(f"{name} has changed since it was written")
    if faults:
        raise StorageError(f"checkpoint {folder} is damaged: {'; '.join(faults)}; use an earlier one")
    return manifest


def fresh(folder: Path) -> Path:
    """Returns an empty folder of that name; what an interrupted save left there is removed."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


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


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors") and name != STATE


def _sha256(file: Path) -> str:
    with open(file, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
