"""`stop` and `pause` of a sweep that has ended leave nothing behind that would end what is added to it later."""

import pytest

from cluster.cli.main import app
from cluster.run import write_spec
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
