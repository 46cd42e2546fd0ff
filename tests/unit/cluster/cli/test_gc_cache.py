"""`dipsweep gc --cache`: what lies in this machine's cache, and what of it would go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from sweeps.errors import InputError


def gc(*words: str) -> str:
    answer = CliRunner().invoke(app, ["gc", *words], catch_exceptions=True)
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer.stdout


def test_it_says_what_would_go_and_removes_it_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path))
    assert gc("--cache") == f"{tmp_path}: 0 copies, 0.0 MB; 0, 0.0 MB, would go\n"
    old, new = (tmp_path / "fetched" / name for name in ("0123-old", "4567-new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x" * 1_500_000)
    then = time.time() - 40 * 86400
    os.utime(old, (then, then))
    lines = gc("--cache").splitlines()
    assert lines[0] == f"{old}  1.5 MB  not used for 40 days: would go"
    assert lines[2] == f"{tmp_path}: 2 copies, 3.0 MB; 1, 1.5 MB, would go; --apply removes it"
    assert "0, 0.0 MB, would go" in gc("--cache", "--older-than", "60")
    assert old.is_dir()
    assert gc("--cache", "--apply").endswith("2 copies, 3.0 MB; 1, 1.5 MB, removed\n")
    assert (old.exists(), new.is_dir()) == (False, True)


def test_it_wants_a_sweep_or_the_cache():
    with pytest.raises(InputError, match="got neither a sweep nor --cache; expected one"):
        gc()
    with pytest.raises(InputError, match="got a sweep and --cache; expected one"):
        gc("tiers", "--cache")
    with pytest.raises(InputError, match="got --older-than with a sweep, where it says nothing"):
        gc("tiers", "--older-than", "5")
    with pytest.raises(InputError, match="got --storage with --cache, where it says nothing"):
        gc("--cache", "--storage", "runs")
