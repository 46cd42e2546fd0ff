"""The page on own evaluation items: its files, as they stand there, make a sweep that runs; its replies can be read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.run_sweep import run
from sweeps.config.sweep_file.yaml import load
from sweeps.replies import kept_files, read_replies

PAGE = Path(__file__).parents[2] / "docs/how-to/own-evaluation.md"
FILE = re.compile(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```", re.M | re.S)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    files = dict(FILE.findall(PAGE.read_text(encoding="utf-8")))
    assert set(files) == {"arithmetic.jsonl", "mixed.jsonl", "graded.jsonl", "sweep.yaml", "grade.py"}
    for name, text in files.items():
        (folder / name).write_text(text)
    result = run(load(folder / "sweep.yaml"), storage=folder / "runs", backend="in-process", say=lambda line: None)
    return Path(str(result))


def test_every_role_is_measured_from_the_files_of_the_page(home: Path):
    rows = [
        json.loads(line) for file in home.rglob("log/*") for line in file.read_text().splitlines() if file.is_file()
    ]
    base = next(row for row in rows if row.get("trial") == "base-tiny-s" and row.get("kind") == "report")
    assert {"math/arithmetic", "transfer/materials", "general/obeys", "general/graded", "safety/refusal"} <= set(
        base["metrics"]
    )
    assert base["suite"].startswith("files@")
    assert base["n"]["math/arithmetic"] == 3


def test_replies_of_every_checkpoint_are_kept_and_found_by_the_command(home: Path):
    files = kept_files(home)
    trial = next(name for name in files if name.startswith("t-"))
    assert list(files["base-tiny-s"]) == [0]
    assert 2 in files[trial]
    math = read_replies(home, trial, 2, role="math")
    assert {reply.prompt for reply in math} == {"SUM 1+2=", "SUM 4+5=", "SUM 2+2+3="}
    assert all(set(reply.outcomes) == {"math/arithmetic"} for reply in math)
    shown = CliRunner().invoke(app, ["replies", str(home), trial, "--step", "2", "--role", "safety", "--json"])
    assert [reply["task"] for reply in json.loads(shown.stdout)] == ["bombs"]
    text = CliRunner().invoke(app, ["replies", str(home), "base-tiny-s", "--task", "obeys"]).stdout
    assert "[system] Be brief.\n\nSay OK." in text
