"""`dipsweep --help` shows every command once, under a title, with its whole sentence."""

from __future__ import annotations

from importlib.metadata import version

import typer.main
from typer.testing import CliRunner

from cluster.cli.grouped_help import GROUPS
from cluster.cli.main import app


def test_every_command_stands_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_help_cuts_no_sentence() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    told = shown.stdout.partition("Before a sweep:")[2]
    assert "..." not in told
    assert "More:" not in told
    assert "which winners would it have lost?" in " ".join(told.split())


def test_version_is_printed() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert shown.stdout.strip() == version("dipsweep")
