"""Whole sweeps in a bucket: run, cut off, resumed, with faults on the way; no byte of a credential left anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.run_sweep import run
from sweeps import Sweep, grid
from sweeps.checkpoints.scratch import scratch
from sweeps.config.plan import Plan
from sweeps.config.trial import TrialSpec
from sweeps.errors import Interrupted, SweepBusy
from sweeps.journal.compaction import listed
from sweeps.journal.history import History
from sweeps.journal.writer import SweepJournal, read_rows
from sweeps.storage.factory import open_store
from tests.support.fakes import SealingTrainer, by_trial, fake_evaluate
from tests.support.machines.s3 import FaultProxy, S3Server

SWEEP = Sweep(name="far", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 16, "learning_rate": 1e-3})


@pytest.fixture
def proxy(s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    proxy = FaultProxy(s3_server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setattr("sweeps.storage.retry.FIRST_S", 0.02)
    yield proxy
    proxy.close()


def go(url: str, trainer: SealingTrainer, said: list[str] | None = None) -> object:
    lines = said if said is not None else []
    results = run(SWEEP, storage=url, backend="in-process", say=lines.append, train=trainer, evaluate=fake_evaluate)
    return results.path


def test_a_sweep_runs_in_a_bucket_and_leaves_what_a_folder_would_hold(s3_url: str, s3_server: S3Server, monkeypatch):
    monkeypatch.setattr("sweeps.journal.compaction.PACK", 8)
    home = go(s3_url, SealingTrainer())
    assert str(home) == f"{s3_url}/{SWEEP.id}"
    assert str(home / "report" / "index.html").endswith("/report/index.html")
    rows = read_rows(home)
    assert [c.state for c in History(rows).trials()] == ["completed"] * 2
    store = open_store(s3_url)
    assert len(listed(store / SWEEP.id)[1]) > 3
    assert [r.seq for r in rows] == list(range(len(rows)))
    assert b"<html" in store.read(f"{SWEEP.id}/report/index.html")
    kept = {e.key.rpartition("/")[0] for e in store.list(f"{SWEEP.id}/trials") if e.key.endswith("manifest.json")}
    dropped = {r.path for r in rows if r.kind == "commit" and r.dropped}
    saved = {r.path for r in rows if r.kind == "commit"}
    assert kept == {f"{SWEEP.id}/{path}" for path in saved - dropped}
    assert dropped
    assert 2 * 2 <= len(kept) < len(saved)
    assert not [p for p in scratch().rglob("*") if p.is_file() and not p.name.endswith(".lock")]
    assert go(s3_url, SealingTrainer()) is not None, "a finished sweep is not run again"
    assert len(by_trial(read_rows(home), "attempt")) == 2
    for entry in store.list():
        data = store.read(entry.key)
        assert s3_server.secret.encode() not in data
        assert s3_server.key.encode() not in data


def test_cut_off_and_resumed_on_another_machine_no_finished_trial_runs_again(s3_url: str, tmp_path, monkeypatch):
    trainer = SealingTrainer()
    second = _trials()[1].id
    trainer.fake.die_at = (second, 11)
    with pytest.raises(Interrupted):
        go(s3_url, trainer)
    before = read_rows(f"{s3_url}/{SWEEP.id}")
    monkeypatch.setenv("DIPSWEEP_SCRATCH", str(tmp_path / "another machine"))
    trainer = SealingTrainer()
    home = go(s3_url, trainer)
    rows = read_rows(home)
    assert rows[: len(before)] == before
    assert {c.state for c in History(rows).trials()} == {"completed"}
    assert {trial for trial, _, _ in trainer.fake.log} == {second}
    last = max(r.step for r in before if r.kind == "commit" and r.trial == second and not r.dropped)
    assert trainer.resumed == [(last, f"{_trials()[1].config['replay']} 16")]
    scored = [(r.trial, r.step) for r in rows if r.kind == "report" and r.suite]
    assert len(scored) == len(set(scored))


@pytest.mark.parametrize(
    "fault",
    [("status", 503), ("reset",), ("drop_reply",), ("cut", 30), ("truncate", 10), ("stall", 0.5)],
    ids=lambda f: f[0],
)
def test_every_fourth_request_goes_wrong_and_the_sweep_does_not(s3_url: str, proxy: FaultProxy, fault):
    proxy.rule = lambda number, method, path: fault if number % 4 == 0 else None
    home = go(s3_url, SealingTrainer())
    proxy.calm()
    rows = read_rows(home)
    assert {c.state for c in History(rows).trials()} == {"completed"}
    assert [r.seq for r in rows] == list(range(len(rows)))
    scored = [(r.trial, r.step) for r in rows if r.kind == "report" and r.suite]
    assert len(scored) == len(set(scored))
    assert not [r for r in rows if r.kind == "eval" and r.status == "failed"]


def test_a_checkpoint_that_changed_in_the_bucket_is_found_and_the_one_before_is_used(s3_url: str):
    trainer = SealingTrainer()
    second = _trials()[1].id
    trainer.fake.die_at = (second, 11)
    with pytest.raises(Interrupted):
        go(s3_url, trainer)
    store = open_store(f"{s3_url}/{SWEEP.id}")
    steps = sorted(r.step for r in read_rows(store) if r.kind == "commit" and r.trial == second and r.step)
    store.write(f"trials/{second}/attempt-1/step-{steps[-1]:06d}/state", b"0.9 16")
    trainer, said = SealingTrainer(), list[str]()
    home = go(s3_url, trainer, said)
    assert trainer.resumed[0][0] == steps[-2]
    struck = [r for r in read_rows(home) if r.kind == "commit" and r.damaged]
    assert [r.step for r in struck] == [steps[-1]]
    assert "state has" in struck[0].reason
    assert {c.state for c in History(read_rows(home)).trials()} == {"completed"}


def test_the_server_dies_in_mid_sweep_and_nothing_but_time_is_lost(s3_url: str, s3_server: S3Server):
    """SIGKILL and restart while a trial trains: calls wait, what was confirmed is there."""
    killed = []

    class Killing(SealingTrainer):
        def __call__(self, trial, hooks, *, folder, resume):
            if not killed:
                killed.append(True)
                s3_server.kill()
                s3_server.start()
            super().__call__(trial, hooks, folder=folder, resume=resume)

    home = go(s3_url, Killing())
    assert killed
    assert {c.state for c in History(read_rows(home)).trials()} == {"completed"}


def test_of_two_drivers_of_one_sweep_the_second_is_refused(s3_url: str):
    with SweepJournal(f"{s3_url}/{SWEEP.id}", lease_s=1.0), pytest.raises(SweepBusy, match="is running this sweep"):
        SweepJournal(f"{s3_url}/{SWEEP.id}", lease_s=1.0)


def _trials() -> list[TrialSpec]:
    return list(Plan(SWEEP).known_trials())
