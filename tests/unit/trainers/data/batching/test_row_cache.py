"""Tokenised rows on the disk save time; whatever is wrong with them costs time, and nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from tests.support.models.tiny_sft import sums, tokenizer
from trainers.data.batching import row_cache
from trainers.data.chat.tokenization import Tokenised

TOKENIZER, ROWS = tokenizer(), sums(8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path))
    return tmp_path / "rows"


def tokenised() -> Tokenised:
    return row_cache.tokenised(TOKENIZER, ROWS, 64, "drop")


def test_a_token_that_changed_on_the_disk_is_trained_by_nobody(folder: Path, caplog: pytest.LogCaptureFixture):
    ids = tokenised().rows.flat_ids
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    at = whole.index(ids.tobytes())
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert np.array_equal(tokenised().rows.flat_ids, ids)
    assert "its checksum does not fit" in caplog.text
    assert file.read_bytes() == whole  # made again
    assert np.array_equal(tokenised().rows.flat_ids, ids)


@pytest.mark.parametrize(
    "error", [SafetensorError("I/O error: No space left on device (os error 28)"), OSError(30, "…")]
)
def test_no_room_for_the_cache_stops_nothing_and_leaves_nothing_half(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def save_file(arrays: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(row_cache, "save_file", save_file)
    assert len(tokenised().rows) == len(ROWS)
    assert list(folder.iterdir()) == []


def test_a_containers_user_without_a_home_has_a_cache_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")  # as Python says

    monkeypatch.delenv("DIPSWEEP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert len(tokenised().rows) == len(ROWS)
    assert len(list(tmp_path.glob("dipsweep-*/cache/rows/*.safetensors"))) == 1
