"""Notes and tags: rows of people, beside the log of the driver."""

import os

import pytest

from cluster.cli.render import states_or_faults
from sweeps import load
from sweeps.errors import InputError
from sweeps.journal.history import History
from sweeps.journal.notes import NoteReader, read_notes, tags_of, write_note
from sweeps.journal.rows import NoteRow
from sweeps.journal.state import SweepState
from sweeps.journal.writer import SweepJournal, read_rows
from sweeps.report.analysis.summarize import summarize, with_notes
from sweeps.report.html.page import render_html
from sweeps.report.html.sweep_catalog import SweepCatalog
from sweeps.report.markdown import markdown, side_by_side
from sweeps.storage.factory import open_store
from tests.support.report_journals import SWEEP, demo_stories, journal


@pytest.fixture
def home(tmp_path):
    with SweepJournal(tmp_path / SWEEP) as log:
        for row in journal(demo_stories()):
            log.append(row)
    return tmp_path / SWEEP


def test_notes_are_read_in_the_order_in_which_they_were_written_and_change_nothing_of_the_log(home):
    before = read_rows(home)
    write_note(home, who="ana@lab", text="the rate was too high")
    write_note(home, who="bo@lab", trial="t-1", text="look at step 40 | <b>", tags={"odd": True})
    assert [(n.who, n.trial, n.text, n.sweep) for n in read_notes(home)] == [
        ("ana@lab", "", "the rate was too high", SWEEP),
        ("bo@lab", "t-1", "look at step 40 | <b>", SWEEP),
    ]
    assert read_rows(home) == before


def test_a_note_is_taken_while_a_driver_holds_the_sweep(home):
    with SweepJournal(home):
        write_note(home, who="ana", text="still running")
    assert [n.text for n in read_notes(home)] == ["still running"]


def test_the_last_word_on_a_tag_counts_for_the_sweep_and_each_trial_by_itself(home):
    for trial, tags in (
        ("", {"paper": True, "draft": True}),
        ("t-1", {"odd": True}),
        ("", {"draft": False, "v2": True}),
    ):
        write_note(home, who="ana", trial=trial, tags=tags)
    notes = read_notes(home)
    assert tags_of(notes) == ("paper", "v2")
    assert tags_of(notes, "t-1") == ("odd",)
    assert tags_of(notes, "t-2") == ()


@pytest.mark.parametrize(
    ("text", "tags", "message"),
    [
        ("  ", {}, "got an empty note"),
        ("x" * 4001, {}, "4,001 characters; expected at most 4,000"),
        ("", {"two words": True}, "got tag 'two words'"),
        ("", {"": True}, "got tag ''"),
        ("", {"x" * 41: True}, "at most 40"),
        ("", {"-draft": True}, "got tag '-draft'"),
    ],
)
def test_what_is_no_note_is_refused_and_nothing_is_written(home, text, tags, message):
    with pytest.raises(InputError, match=message):
        write_note(home, who="ana", text=text, tags=tags)
    assert read_notes(home) == []


def test_a_damaged_note_is_shown_as_one_and_hides_no_other(home):
    write_note(home, who="ana", text="a rate of 1e-3")
    (path,) = (home / "notes").iterdir()
    path.write_bytes(path.read_bytes().replace(b"1e-3", b"1e-4"))
    write_note(home, who="ana", text="another")
    damaged, other = read_notes(home)
    assert "cannot be read: its checksum does not fit" in damaged.text
    assert not damaged.who
    assert other.text == "another"


def test_a_reader_reads_only_new_notes_again(home, monkeypatch):
    write_note(home, who="ana", text="first")
    reader = NoteReader(home)
    reader.rows()
    write_note(home, who="ana", text="second")
    asked, read = [], type(reader.store).read
    monkeypatch.setattr(type(reader.store), "read", lambda self, key: asked.append(key) or read(self, key))
    assert [n.text for n in reader.rows()] == ["first", "second"]
    assert len(asked) == 1


def test_a_note_in_a_log_makes_no_trial_and_no_state():
    rows = [NoteRow("s-1a2b3c4d", "t-9", text="x", tags={"odd": True})]
    assert not History(rows).curves
    assert not SweepState(rows).trials


def test_notes_and_tags_stand_in_the_results_the_page_and_the_tables(home):
    trial = summarize(read_rows(home)).trials[0]
    write_note(home, who="ana", text="keep <this> | one", tags={"paper": True})
    write_note(home, who="bo", trial=trial.id, text="odd curve", tags={"odd": True})
    r = load(home)
    assert r.tags == ("paper",)
    assert r.trial(trial.id).tags == ("odd",)
    assert [n.text for n in r.notes()] == ["keep <this> | one", "odd curve"]
    found = r.summary.to_json()
    assert found["tags"] == ["paper"]
    assert found["user_notes"][1]["trial"] == trial.id
    page = render_html(r.summary)
    assert '<span class="tag">paper</span>' in page
    assert "keep &lt;this&gt; | one (ana, " in page
    assert f"{trial.label} ({trial.id}): odd curve (bo, " in page
    text = markdown(r.summary)
    assert "Tags: `paper`" in text
    assert r"keep &lt;this> \| one" in text
    assert "| tags | paper | paper |" in side_by_side([r.summary, r.summary])


def test_tags_come_and_go_in_the_list_of_sweeps_without_a_new_row(home):
    catalog = SweepCatalog(home.parent)
    assert [one.tags for one in catalog.all()] == [()]
    write_note(home, who="ana", tags={"paper": True})
    assert [one.tags for one in catalog.all()] == [("paper",)]
    summary = catalog.sweep(SWEEP).summary
    assert summary is not None
    assert summary.tags == ("paper",)
    write_note(home, who="ana", tags={"paper": False})
    assert [one.tags for one in catalog.all()] == [()]


def test_results_hear_of_notes_that_come_later(home):
    r = load(home)
    write_note(home, who="ana", text="later")
    assert not r.notes()
    assert [n.text for n in r.refresh().notes()] == ["later"]


def test_without_notes_a_summary_stays_the_same():
    summary = summarize(journal(demo_stories()))
    assert with_notes(summary, []) is summary


def test_a_note_that_cannot_be_read_is_said_to_be_of_nobody(home):
    write_note(home, who="ana", text="one")
    (torn,) = (home / "notes").iterdir()
    torn.write_bytes(torn.read_bytes()[:-20])
    summary = with_notes(summarize(read_rows(home)), read_notes(home))
    assert "(, )" not in markdown(summary) + render_html(summary)
    assert "cannot be read" in markdown(summary)


def test_a_note_of_several_lines_cannot_pass_for_several_notes(home):
    testing = pytest.importorskip("typer.testing")
    from cluster.cli.main import app

    write_note(home, who="ana", text="one\n2026-01-01T00:00:00Z  bo  the sweep: two")
    told = testing.CliRunner().invoke(app, ["note", str(home)]).output
    assert [line[:1] for line in told.splitlines()] == ["2", " "]


def test_what_would_steer_a_terminal_is_shown_as_an_escape(home):
    testing = pytest.importorskip("typer.testing")
    from cluster.cli.main import app

    write_note(home, who="\x1b[31mana", text="red \x1b[0m")
    for words in (["note", str(home)], ["report", str(home), "--markdown"]):
        told = testing.CliRunner().invoke(app, words).output
        assert "\x1b" not in told
        assert "\\x1b[31mana" in told


def test_a_note_that_may_not_be_read_hides_neither_the_others_nor_the_sweep(home, tmp_path):
    write_note(home, who="ana", text="seen")
    os.mkfifo(home / "notes/99999999999999999999-aa.jsonl")
    seen, other = [n.text for n in read_notes(home)]
    assert seen == "seen"
    assert other.startswith("(notes/99999999999999999999-aa.jsonl cannot be read: ")
    (state,) = states_or_faults([open_store(home)])
    assert "unreadable" not in state
