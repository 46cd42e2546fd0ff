"""Places of `search.points_from` without a sweep are told before a sweep starts, all of them, and leave nothing behind."""

import pytest

from cluster.launch import run_with_output
from cluster.preflight.checks import preflight
from sweeps.config.schema import Sweep
from sweeps.errors import SpecError
from sweeps.journal.writer import SweepJournal
from tests.support.report_journals import SWEEP, demo_stories, journal


def searched(*places: str, storage: str) -> Sweep:
    search = {"algorithm": "optuna-tpe", "trials": 2, "points_from": list(places)}
    return Sweep(name="warm", space={"learning_rate": {"loguniform": [1e-4, 1e-2]}}, search=search, storage=storage)


def test_every_place_without_a_sweep_is_named_and_no_sweep_is_begun(tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    with SweepJournal(runs / SWEEP) as log:
        for row in journal(demo_stories()):
            log.append(row)
    wrong = searched("nope-12345678", SWEEP, str(tmp_path / "none"), storage=str(runs))
    with pytest.raises(SpecError) as told:
        run_with_output(wrong, in_process=True)
    assert [fault.where for fault in told.value.faults] == ["search.points_from[0]", "search.points_from[2]"]
    assert [home.name for home in runs.iterdir()] == [SWEEP]


def test_without_a_storage_ids_are_not_looked_up(tmp_path):
    """`validate` does not know which storage `run --storage` is going to name."""
    preflight(searched("nope-12345678", storage=str(tmp_path)))
    with pytest.raises(SpecError, match="where there is no sweep"):
        preflight(searched(str(tmp_path / "none"), storage=str(tmp_path)))


def test_a_sweep_that_has_begun_asks_no_more_for_them(tmp_path):
    sweep = searched("nope-12345678", storage=str(tmp_path))
    with SweepJournal(tmp_path / sweep.id) as log:
        log.append(journal(demo_stories())[0])
    preflight(sweep, str(tmp_path))
