"""`dipsweep report` as a stranger calls it: odd sweeps, and options that do not go together."""

import json
from dataclasses import replace

import pytest

from cluster.cli.main import app
from sweeps.errors import InputError
from sweeps.journal.writer import SweepJournal
from tests.support.report_journals import demo_stories, journal

testing = pytest.importorskip("typer.testing")
ROWS = journal(demo_stories())


def write(storage, name, rows):
    with SweepJournal(storage / name) as log:
        for row in rows:
            log.append(replace(row, sweep=name))


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write(root, "whole-00000001", ROWS)
    write(root, "again-00000002", ROWS)
    write(root, "begun-00000003", ROWS[: len(ROWS) // 2])
    write(root, "fresh-00000004", ROWS[:1])
    write(root, "bare-00000005", [])
    write(root, "ended-00000006", journal(demo_stories()[:2]))
    return root


def report(storage, *words):
    answer = testing.CliRunner().invoke(app, ["report", *words, "--storage", str(storage)])
    if isinstance(answer.exception, InputError):
        return str(answer.exception)
    assert answer.exit_code == 0, answer.output
    return answer.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("whole", "--card", "--json"), "report: got --json with --card; expected one of them"),
        (("whole", "--markdown", "--json"), "report: got --json with --markdown; expected one of them"),
        (("whole", "again", "--card"), "report: got --card with several sweeps; expected one"),
        (("whole", "again", "whole-00000001"), "whole-00000001 twice; expected different sweeps"),
        (("fresh", "--card"), "report: fresh-00000004 has no best setting yet"),
        (("none",), "no sweep 'none'"),
    ],
)
def test_what_does_not_go_together_is_refused(storage, words, message):
    assert message in report(storage, *words)


def test_markdown_says_where_a_sweep_stands_that_has_not_ended(storage):
    text = report(storage, "begun", "--markdown")
    assert "State: 1 trial still open, 4 not started." in text
    assert "This sweep has not ended: no driver since" in text
    assert "has not ended" in " ".join(json.loads(report(storage, "begun", "--json"))["notes"])
    assert "State:" not in report(storage, "ended", "--markdown")


def test_a_journal_with_nothing_but_its_drivers_row_has_its_id(storage):
    assert report(storage, "bare", "--markdown").startswith("## bare-00000005 (`bare-00000005`)")


def test_beside_a_sweep_without_scores_nothing_is_compared_and_it_says_which(storage):
    text = report(storage, "whole", "fresh")
    assert "whole-00000001 and fresh-00000004: nothing was scored yet in fresh-00000004" in text
    assert "| state | " in text
    assert "two suites" not in text
