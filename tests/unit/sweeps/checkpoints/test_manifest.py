"""A manifest that makes no sense is damage; a disk that is away says nothing of a checkpoint."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from sweeps.checkpoints import manifest
from sweeps.checkpoints.manifest import MANIFEST, read_manifest, seal, verify
from sweeps.errors import DamagedCheckpoint, StorageDenied, StorageUnavailable


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "step-000004"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    seal(folder, 4)
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        '{"version": 1',
        '{"version": 1, "step": 1e400, "digest": "", "files": {}}',
        '{"version": 1, "step": 4, "digest": "", "files": {"a": {"size": NaN, "sha256": ""}}}',
        '{"version": 1, "step": 4, "digest": "", "files": [["a", 1]]}',
        *(
            json.dumps({"version": 1, "step": 4, "digest": "", "files": {name: {"size": 0, "sha256": ""}}})
            for name in ("../a", "/etc/passwd", "..", "a/b", "a\0b", MANIFEST)
        ),
    ],
)
def test_what_makes_no_sense_or_leads_elsewhere_is_damage(sealed: Path, text: str):
    (sealed / MANIFEST).write_text(text)
    with pytest.raises(DamagedCheckpoint):
        verify(sealed)


@pytest.mark.parametrize("instead", ["nothing", "folder", "pipe", "link to itself", "link to nowhere"])
@pytest.mark.parametrize("name", [MANIFEST, "model.safetensors"])
def test_another_thing_in_the_place_of_a_file_is_damage(sealed: Path, name: str, instead: str):
    place = sealed / name
    place.unlink()
    if instead == "folder":
        place.mkdir()
    elif instead == "pipe":
        os.mkfifo(place)
    elif instead != "nothing":
        place.symlink_to(place.name if instead == "link to itself" else "/nowhere/at/all")
    with pytest.raises(DamagedCheckpoint):
        verify(sealed)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT, errno.EACCES])
@pytest.mark.parametrize("name", [MANIFEST, "model.safetensors"])
def test_what_cannot_be_read_now_is_not_called_damaged(sealed: Path, name: str, number: int, monkeypatch):
    def away(path: Path) -> None:
        if path.name == name:
            raise OSError(number, os.strerror(number), str(path))

    read, stat = manifest.read_file, Path.stat
    monkeypatch.setattr(manifest, "read_file", lambda path: (away(path), read(path))[1])
    monkeypatch.setattr(Path, "stat", lambda path, **how: (away(path), stat(path, **how))[1])
    with pytest.raises((StorageUnavailable, StorageDenied)):
        verify(sealed)
    monkeypatch.undo()
    assert read_manifest(sealed).step == verify(sealed).step == 4
