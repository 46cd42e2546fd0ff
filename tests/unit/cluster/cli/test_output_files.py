"""A file that a command is asked to write, and cannot, is told in a sentence before any work."""

import pytest

from cluster.cli.main import app
from sweeps.errors import InputError

testing = pytest.importorskip("typer.testing")

COMMANDS = {
    "plan": ["plan", "absent.yaml", "--gpus", "2", "--html", "{out}.html"],
    "preview": ["preview", "absent.yaml", "--html", "{out}.html"],
    "replay": ["replay", "absent.jsonl", "--rule", "asha", "--json", "{out}.json"],
    "export-table": ["export-table", "absent", "{out}.csv"],
    "figure": ["figure", "absent", "curves", "{out}.svg"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_is_not_there_is_named(command, tmp_path):
    assert ": no folder " in refused(COMMANDS[command], tmp_path / "absent" / "out")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_is_no_file(command, tmp_path):
    for suffix in ("html", "json", "csv", "svg"):
        (tmp_path / f"out.{suffix}").mkdir()
    assert "got a folder; expected a file" in refused(COMMANDS[command], tmp_path / "out")


def test_the_picture_beside_a_replay_is_looked_at_too(tmp_path):
    (tmp_path / "out.html").mkdir()
    assert "out.html: got a folder" in refused(COMMANDS["replay"], tmp_path / "out")


def refused(words, out):
    answer = testing.CliRunner().invoke(app, [word.format(out=out) for word in words])
    assert isinstance(answer.exception, InputError), answer.output
    return str(answer.exception)
