"""A user's own model folder and own conversations, by the command, from another folder; and what is said when they are wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.model.files.builtin import builtin_folder


def dipsweep(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster.cli.main", *argv], capture_output=True, text=True, check=False, cwd=cwd
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a sweep file, a model and a data file beside it."""
    shutil.copytree(builtin_folder("tiny-xs"), tmp_path / "model")
    talks = [
        {"messages": [{"role": "user", "content": f"SUM {i}+{i}="}, {"role": "assistant", "content": str(2 * i)}]}
        for i in range(40)
    ]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(t) + "\n" for t in talks))
    (tmp_path / "own.yaml").write_text(
        "name: own\nmodels: {mine: {path: model}}\ntiers: {talks: {path: talks.jsonl}}\n"
        "trainer: {steps: 2, learning_rate: 1.0e-3, batch_tokens: 256, max_length: 64}\nevaluation: {items: 4, at: [2]}\n"
    )
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def test_an_own_model_trains_on_own_conversations_from_any_folder_and_a_second_run_finds_it_done(home: Path):
    first = dipsweep("run", "../own.yaml", "--in-process", cwd=home / "elsewhere")
    assert first.returncode == 0, first.stderr
    assert "completed at step 2 [1/1]" in first.stdout
    page = next((home / "elsewhere").glob("runs/own-*/report/index.html"))
    assert "own" in page.read_text()
    (tier,) = json.loads(page.with_name("report.json").read_text())["tiers"]
    assert (tier["tier"], tier["counts"]["rows"], tier["shares"]["reasoning"]) == ("talks", 40, 0.0)
    second = dipsweep("run", "../own.yaml", "--in-process", cwd=home / "elsewhere")
    assert second.returncode == 0, second.stderr
    assert "is finished already" in second.stdout
    log = "".join(file.read_text() for file in (page.parents[1] / "log").iterdir())
    assert log.count('"kind":"tier"') == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda home: shutil.rmtree(home / "model"), "models.mine.path: no folder"),
        (lambda home: (home / "model" / "config.json").unlink(), "has no config.json"),
        (
            lambda home: (home / "model" / "model.safetensors").rename(home / "model" / "pytorch_model.bin"),
            "only pytorch_model.bin",
        ),
        (
            lambda home: (home / "model" / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}'),
            "key 'auto_map' would run or choose code",
        ),
        (lambda home: (home / "talks.jsonl").unlink(), "tiers.talks.path: no file"),
    ],
)
def test_what_is_wrong_with_own_files_is_said_before_anything_starts(home: Path, spoil, message: str):
    spoil(home)
    for command in ("validate", "run"):
        out = dipsweep(command, str(home / "own.yaml"), cwd=home / "elsewhere")
        assert out.returncode == 2, out
        assert message in out.stderr
    assert not (home / "elsewhere" / "runs").exists()


def test_conversations_that_cannot_be_read_are_said_with_their_place_before_anything_starts(home: Path):
    (home / "talks.jsonl").write_text('{"messages": "no list"}\n' * 30)
    out = dipsweep("run", str(home / "own.yaml"), "--in-process", cwd=home / "elsewhere")
    assert out.returncode == 2
    assert "talks.jsonl:1: messages must be a list" in out.stderr
    assert "30 of 30 rows are bad" in out.stderr
