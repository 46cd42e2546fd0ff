"""`dipsweep list`, and following a sweep: whatever wrote it."""

import json
from dataclasses import replace

import pytest

from cluster.cli.main import app
from cluster.cli.render import Follower, states_or_faults, sweep_state
from cluster.run_sweep import run
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.errors import StorageError
from sweeps.journal.notes import write_note
from sweeps.journal.rows import EndRow
from sweeps.journal.writer import SweepJournal, sweeps_in
from sweeps.storage.factory import open_store
from sweeps.storage.memory import MemoryStore
from tests.support.report_journals import SWEEP, demo_stories, journal

testing = pytest.importorskip("typer.testing")


def rows_without_end():
    return [r for r in journal(demo_stories()) if not (isinstance(r, EndRow) and not r.trial)]


def write(storage, name=SWEEP, rows=None):
    with SweepJournal(storage / name) as log:
        for row in rows or journal(demo_stories()):
            log.append(replace(row, sweep=name))
    return storage / name


def listed(storage, *options):
    answer = testing.CliRunner().invoke(app, ["list", "--storage", str(storage), *options])
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_a_running_sweep_whose_configurations_lack_settings_is_listed_without_its_progress(tmp_path):
    with SweepJournal(tmp_path / SWEEP) as log:
        for row in rows_without_end():
            log.append(row)
        (state,) = states_or_faults(sweeps_in(open_store(tmp_path)))  # its driver is alive: this process
    assert state["driver"]["state"] == "alive"
    assert state["states"]["completed"] == 3
    assert "progress" not in state


def test_such_a_sweep_can_be_followed_too():
    rows = journal(demo_stories())
    follower = Follower(MemoryStore(), plan=Plan(Sweep(name="s", space={"replay": grid(0.0)})))
    assert follower.progress() is not None
    assert follower.take(rows) == follower.state.done
    assert follower.state.history.curves
    assert follower.progress() is None


def test_tags_choose_what_is_listed_and_a_sweep_has_to_have_all_of_them(tmp_path):
    one, two = write(tmp_path, "one-1a2b3c4d"), write(tmp_path, "two-1a2b3c4d")
    write_note(one, who="ana", tags={"paper": True, "v2": True})
    write_note(two, who="ana", tags={"paper": True})
    assert "one-1a2b3c4d  19 trials" in listed(tmp_path)
    assert listed(tmp_path, "--tag", "v2").rstrip().endswith("[paper, v2]")
    assert sweep_state(open_store(one))["tags"] == ["paper", "v2"]
    assert "two-1a2b3c4d" not in listed(tmp_path, "--tag", "paper", "--tag", "v2")
    assert listed(tmp_path, "--tag", "none").strip() == f"no sweeps under {tmp_path} with tag none"
    assert [s["tags"] for s in json.loads(listed(tmp_path, "--json"))] == [["paper", "v2"], ["paper"]]


def test_a_sweep_whose_driver_ended_before_its_first_row_is_listed_and_can_go_on(tmp_path):
    definition = Sweep(name="early", stopping={"rule": "dip-aware", "experience": str(tmp_path / "a-file")})
    (tmp_path / "a-file").write_text("no folder")
    with pytest.raises(StorageError):
        run(definition, storage=tmp_path / "runs", backend="in-process", say=lambda line: None)
    line = listed(tmp_path / "runs")
    assert line.startswith(f"{definition.id}  1 trials: nothing started; stopped; no driver since 20")
    assert f"dipsweep resume {definition.id} goes on" in line
