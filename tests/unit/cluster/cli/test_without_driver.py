"""A sweep whose driver is gone: every command that shows or follows it says so, and says how it goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cli import main as cli
from cluster.run_sweep import write_report, write_spec
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.controller.controller import SweepController
from sweeps.journal.writer import SweepJournal
from sweeps.stopping import NeverStop

SWEEP = Sweep(name="lost", space={"replay": grid(0.0, 0.1)})
DRIVER = """
import os, sys
from pathlib import Path
from tests.unit.cluster.cli.test_without_driver import drive
drive(Path(sys.argv[1]))
os.kill(os.getpid(), 9)
"""


def drive(root: Path) -> SweepJournal:
    """Begins the sweep as a driver does; it is held until the journal is closed."""
    journal = SweepJournal(root / SWEEP.id)
    write_spec(SWEEP, root / SWEEP.id)
    controller = SweepController(Plan(SWEEP), journal, NeverStop(SWEEP.goal))
    controller.launch(controller.next_trials()[0].id)
    return journal


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-c", DRIVER, str(root)], check=False)
    return root


def ask(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dipsweep", *argv])
    with pytest.raises(SystemExit) as e:
        cli.main()
    return int(e.value.code or 0)


@pytest.mark.parametrize("command", [["status", SWEEP.id], ["list"]])
def test_status_and_list_say_since_when_nobody_drives_it_and_how_it_goes_on(monkeypatch, capsys, killed: Path, command):
    assert ask(monkeypatch, *command, "--storage", str(killed)) == 0
    out = capsys.readouterr().out
    assert "no driver since 20" in out
    assert f"dipsweep resume {SWEEP.id} goes on" in out
    assert "running" not in out


def test_scripts_read_it_from_json(monkeypatch, capsys, killed: Path):
    assert ask(monkeypatch, "status", SWEEP.id, "--storage", str(killed), "--json") == 0
    state = json.loads(capsys.readouterr().out)
    assert state["driver"]["state"] == "lost"
    assert state["states"] == {"waiting": 1}


@pytest.mark.parametrize("command", [["logs", "-f"], ["watch"]])
def test_followers_end_with_a_code_of_their_own(monkeypatch, capsys, killed: Path, command):
    monkeypatch.setattr("cluster.cli.render.DRIVER_CHECK_S", 0.2)
    name, *flags = command
    assert ask(monkeypatch, name, SWEEP.id, *flags, "--storage", str(killed)) == 4
    assert f"dipsweep resume {SWEEP.id} goes on" in capsys.readouterr().err


def test_the_report_says_it_too(killed: Path):
    page = write_report(killed / SWEEP.id)
    assert f"dipsweep resume {SWEEP.id} goes on" in Path(page).read_text()


def test_while_somebody_drives_it_nothing_of_that_is_said(monkeypatch, capsys, tmp_path: Path):
    journal = drive(tmp_path)
    try:
        assert ask(monkeypatch, "status", SWEEP.id, "--storage", str(tmp_path)) == 0
    finally:
        journal.close()
    out = capsys.readouterr().out
    assert "running" in out
    assert "no driver" not in out
