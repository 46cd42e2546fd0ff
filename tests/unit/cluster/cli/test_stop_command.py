"""`stop` and `pause` of a sweep that has ended leave nothing behind that would end what is added to it later."""

import pytest

from cluster.cli.main import app
from cluster.run_sweep import write_spec
from sweeps.config.schema import Sweep
from sweeps.controller.requests import pending
from sweeps.journal.writer import SweepJournal
from sweeps.storage.factory import open_store
from tests.support.rows import make_row

testing = pytest.importorskip("typer.testing")
SWEEP = Sweep(name="over")


@pytest.mark.parametrize("action", ["stop", "pause"])
def test_a_sweep_that_has_ended_has_nothing_to_stop(tmp_path, action):
    write_spec(SWEEP, tmp_path / SWEEP.id)
    with SweepJournal(tmp_path / SWEEP.id) as journal:
        journal.append(make_row("sweep", SWEEP.id, extra={"name": "over", "spec": SWEEP.to_json(), "trials": 1}))
        journal.append(make_row("end", SWEEP.id, extra={"of": "sweep", "status": "completed"}))
    told = testing.CliRunner().invoke(app, [action, SWEEP.id, "--storage", str(tmp_path)])
    assert told.output == f"{SWEEP.id}: it has ended; nothing to {action}\n"
    assert pending(open_store(tmp_path), SWEEP.id) == []


@pytest.mark.parametrize("action", ["stop", "pause"])
def test_a_sweep_that_nobody_drives_has_nothing_to_stop_and_the_next_resume_is_not_stopped(tmp_path, action):
    write_spec(SWEEP, tmp_path / SWEEP.id)
    with SweepJournal(tmp_path / SWEEP.id) as journal:
        journal.append(make_row("sweep", SWEEP.id, extra={"name": "over", "spec": SWEEP.to_json(), "trials": 1}))
    told = testing.CliRunner().invoke(app, [action, SWEEP.id, "--storage", str(tmp_path)])
    assert "no driver since 20" in told.output
    assert f"dipsweep resume {SWEEP.id} goes on; nothing to {action}\n" in told.output
    assert pending(open_store(tmp_path), SWEEP.id) == []
