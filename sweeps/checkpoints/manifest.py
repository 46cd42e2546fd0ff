"""When a checkpoint counts: a manifest of names, sizes and sha256, written last, after everything else is on the disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from sweeps.config.trial import Saved
from sweeps.errors import DamagedCheckpoint
from sweeps.storage.base import storage_error
from sweeps.storage.local import read_file, sync, write_through

MANIFEST: Final = "manifest.json"
STATE: Final = "trainer.safetensors"
VERSION: Final = 1
OF_NFS: Final = ".nfs"
"""What NFS calls a file that was removed while somebody has it open; it goes by itself."""


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

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())


def seal(folder: Path, step: int) -> Saved:
    """Writes the manifest of a folder whose files are all there; from then on the checkpoint counts.

    Files and folders reach the disk before the manifest does: after a power cut, present still means whole.
    """
    names = sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p.name != MANIFEST and not p.name.startswith(OF_NFS)
    )
    files = {}
    for name in names:
        files[name] = {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        sync(folder / name)
    for home in {folder / parent for name in names for parent in PurePosixPath(name).parents} | {folder}:
        sync(home)
    weights = [str(entry["sha256"]) for name, entry in files.items() if is_weights(name)]
    single = weights[0] if len(weights) == 1 else hashlib.sha256("".join(weights).encode()).hexdigest()
    digest = f"sha256:{single}"
    waiting = folder / f".{MANIFEST}.{os.getpid()}"
    write_through(
        waiting, json.dumps({"version": VERSION, "step": step, "digest": digest, "files": files}, indent=1).encode()
    )
    os.replace(waiting, folder / MANIFEST)
    sync(folder)
    sync(folder.parent)
    return Saved(step, str(folder), digest)


def read_manifest(path: str | Path, digest: str = "") -> Manifest:
    """Reads the manifest of a checkpoint in a folder.

    Args:
        digest: that of the weights which its sweep wrote there; "" where that is not known.

    Raises:
        DamagedCheckpoint: there is none (the checkpoint is not whole), it makes no sense, or it is another checkpoint's.
        StorageError: it cannot be read now.
    """
    try:
        data = read_file(Path(path) / MANIFEST)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL):
            raise unfinished(path) from None
        raise storage_error(Path(path) / MANIFEST, e) from e  # a disk that is away says nothing of the checkpoint
    manifest = parse_manifest(data, f"{path}/{MANIFEST}")
    if digest and manifest.digest != digest:
        raise DamagedCheckpoint(
            f"checkpoint {path} holds other weights than its sweep wrote there (got {manifest.digest}; expected {digest}); "
            "use an earlier one"
        )
    return manifest


def unfinished(where: object) -> DamagedCheckpoint:
    """Returns what to say of a checkpoint without a manifest."""
    return DamagedCheckpoint(f"checkpoint {where} has no {MANIFEST}: it was never finished; use an earlier one")


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Reads a manifest's text.

    Raises:
        DamagedCheckpoint: it makes no sense, or names files outside its folder.
    """
    try:
        found = json.loads(data)
        files = {name: (int(entry["size"]), str(entry["sha256"])) for name, entry in found["files"].items()}
        manifest = Manifest(int(found["step"]), files, str(found["digest"]))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as e:
        raise DamagedCheckpoint(f"{where} is not a manifest: {type(e).__name__}: {e}") from e
    if outside := [name for name in files if _leads_out(name)]:
        raise DamagedCheckpoint(f"{where} names {outside[0]!r}, which is no file of its folder; it was tampered with")
    return manifest


def _leads_out(name: str) -> bool:
    """False for a file of a checkpoint; it may lie in a folder of its own, as further chat templates of a tokenizer do."""
    return name == MANIFEST or "\0" in name or any(part in ("", ".", "..") for part in name.split("/"))


def verify(path: str | Path, wanted: Callable[[str], bool] = lambda name: True, digest: str = "") -> Manifest:
    """Compares the files of a checkpoint with its manifest and returns the manifest.

    Args:
        path: its folder. wanted: which files matter; all by default. digest: as of `read_manifest`.

    Raises:
        DamagedCheckpoint: a file is missing, of another size, or has changed; the message names all of them.
    """
    folder, manifest = Path(path), read_manifest(path, digest)
    faults = [f for name in manifest.files if wanted(name) and (f := fault(folder, name, manifest))]
    if faults:
        raise DamagedCheckpoint(f"checkpoint {folder} is damaged: {'; '.join(faults)}; use an earlier one")
    return manifest


def fault(folder: Path, name: str, manifest: Manifest) -> str:
    """Returns what is wrong with one file of a checkpoint; empty when nothing is."""
    file, (size, digest) = folder / name, manifest.files[name]
    try:
        there = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return f"{name} is missing"
    except OSError as e:
        if e.errno != errno.ELOOP:
            raise storage_error(file, e) from e
        return f"{name} is a link to itself"
    if not stat.S_ISREG(there.st_mode):
        return f"{name} is no file"
    if there.st_size != size:
        return f"{name} has {there.st_size} bytes, not {size}"
    try:
        return "" if sha256(file) == digest else f"{name} has changed since it was written"
    except OSError as e:
        raise storage_error(file, e) from e


def is_weights(name: str) -> bool:
    """True for a file of the model's weights."""
    return name.endswith(".safetensors") and name != STATE


def sha256(file: Path) -> str:
    """Returns the sha256 of a file, as hex."""
    with open(file, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
