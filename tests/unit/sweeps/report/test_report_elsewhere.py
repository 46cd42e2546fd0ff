"""Results taken elsewhere: tables, figures, Markdown, several sweeps side by side."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace

import pytest
import yaml
from typer.testing import CliRunner

from cluster.cli.main import app
from sweeps.errors import InputError
from sweeps.journal.writer import SweepJournal
from sweeps.report import summarize
from sweeps.report.figure import write_figure
from sweeps.report.markdown import comparison, markdown, side_by_side
from tests.support.report_journals import SWEEP, demo_stories, journal, story


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    storage = tmp_path_factory.mktemp("runs")
    with SweepJournal(storage / SWEEP) as log:
        for row in journal([*demo_stories(), story("good|<b>", config={"note": 1}), story(config={"note": "text"})]):
            log.append(row)
    return storage


def dipsweep(*argv):
    return CliRunner().invoke(app, [str(a) for a in argv])


def test_every_score_is_exported_as_csv_and_parquet_alike(storage, tmp_path):
    for name in ("out.csv", "out.parquet"):
        done = dipsweep("export-table", SWEEP, tmp_path / name, "--storage", storage)
        assert done.exit_code == 0, done.exception
    import pyarrow.parquet

    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert len(rows) == len(table)
    assert [float(r["value"]) for r in rows] == [r["value"] for r in table]
    assert {r["step"] for r in table} >= {0, 5, 400}


@pytest.mark.parametrize("table", ["scores", "trials", "verdicts", "decisions", "costs"])
def test_every_table_can_be_exported_settings_of_two_types_as_text(storage, tmp_path, table):
    out = tmp_path / "out.parquet"
    assert dipsweep("export-table", SWEEP, out, "--table", table, "--storage", storage).exit_code == 0
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(out).to_pylist()
    assert rows
    if table == "trials":
        assert {r["config.note"] for r in rows} == {None, "1", "text"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("export-table", SWEEP, "out.xlsx"), "got suffix '.xlsx'; expected .csv or .parquet"),
        (("export-table", SWEEP, "out.csv", "--table", "curve"), "expected one of curves, .*did you mean 'curves'"),
        (("export-table", SWEEP, "none/out.csv"), "no folder none to write it to"),
        (("figure", SWEEP, "bars", "out.svg"), "got figure 'bars'; expected curves"),
        (("figure", SWEEP, "curves", "out.gif"), "expected one of .svg, .pdf, .png"),
        (("figure", SWEEP, "curves", "out.svg", "--metric", "math/aime"), "no trial was scored on 'math/aime'"),
    ],
)
def test_what_cannot_be_written_is_said_with_what_would_do(storage, tmp_path, monkeypatch, argv, said):
    monkeypatch.chdir(tmp_path)
    done = dipsweep(*argv, "--storage", storage)
    with pytest.raises(InputError, match=said):
        raise done.exception
    assert list(tmp_path.iterdir()) == []


def test_a_figure_is_drawn_as_svg_without_matplotlib(storage, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = dipsweep("figure", SWEEP, "curves", tmp_path / "out.svg", "--storage", storage)
    assert done.exit_code == 0, done.exception
    assert (tmp_path / "out.svg").read_text().startswith("<svg")
    with pytest.raises(InputError, match=r"needs matplotlib: pip install 'dipsweep\[figures\]'; .svg does not"):
        write_figure(summarize(journal([story()])), tmp_path / "out.png")


@pytest.mark.optional
@pytest.mark.parametrize(("name", "magic"), [("out.pdf", b"%PDF"), ("out.png", b"\x89PNG")])
def test_a_figure_is_drawn_as_pdf_and_png(tmp_path, name, magic):
    pytest.importorskip("matplotlib")
    summary = summarize(journal(demo_stories()))
    path = write_figure(summary, tmp_path / name, trials=[summary.trials[0].id])
    assert path.read_bytes().startswith(magic)


def test_markdown_holds_the_answer_and_what_users_wrote_stays_text(storage):
    done = dipsweep("report", SWEEP, "--markdown", "--storage", storage)
    summary = summarize(journal(demo_stories()))
    assert "of 9 settings, " in done.stdout
    assert "good\\|&lt;b>" in done.stdout
    for finding in summary.answer:
        assert finding.sentence in markdown(summary)


def test_a_model_card_begins_with_metadata_that_is_yaml():
    text = markdown(summarize(journal(demo_stories())), card=True)
    _, head, _ = text.split("---\n", 2)
    card = yaml.safe_load(head)
    assert card["base_model"] == "tiny-s"
    metrics = [r["metrics"][0]["type"] for r in card["model-index"][0]["results"]]
    assert "transfer/score" in metrics


def other_sweep(rows, sweep="other-00000000", suite=None):
    def moved(row):
        kept = replace(row, sweep=sweep)
        return replace(kept, suite=suite) if suite and getattr(kept, "suite", "") else kept

    return [moved(row) for row in rows]


def test_two_sweeps_stand_side_by_side_with_what_their_bests_differ_in():
    a = summarize(journal([story(), story("answer-only")]))
    b = summarize(other_sweep(journal([story(replay=0.0), story(replay=0.2)])))
    text = side_by_side([a, b])
    assert f"| | fake `{SWEEP}` | fake `other-00000000` |" in text.replace("|  |", "| |")
    assert "Bests of fake-1a2b3c4d and other-00000000 differ in: data (answer-only, verified-long-cot)" in text
    assert "transfer/score: other-00000000 is " in text


def test_scores_of_two_suites_are_not_compared():
    a = summarize(journal([story()]))
    b = summarize(other_sweep(journal([story()]), suite="gym@77777777"))
    (line,) = comparison(a, b)
    assert "were scored by two suites (mini@3f2e91aa, gym@77777777): no score is compared" in line
