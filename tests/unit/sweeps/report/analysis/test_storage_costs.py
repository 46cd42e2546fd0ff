"""Who used what of a storage: every second of every sweep once, by the user whose driver spent it."""

from __future__ import annotations

import getpass
from dataclasses import replace

from sweeps.journal.lease import driving_user
from sweeps.journal.rows import AttemptRow, EvalRow, LeaseRow, ReportRow, Row, TrialRow
from sweeps.journal.state import SweepState
from sweeps.journal.writer import SweepJournal
from sweeps.report.analysis.costs.storage import NOT_RECORDED, costs_of_storage, spent_by_user
from sweeps.report.analysis.findings.trials import Spent


def report(attempt: int, step: int, seconds: float) -> Row:
    return ReportRow("s", "t-1", attempt, step, metrics={"train/loss": 1.0}, cost={"gpu_s": seconds})


ROWS = [
    LeaseRow("s", host="a", user="ana"),
    TrialRow("s", "t-1", budget=100, config={"model": "m"}),
    AttemptRow("s", "t-1", 1, 0),
    report(1, 40, 40.0),
    EvalRow("s", "base-m", step=0, cost={"cpu_s": 3.0}),
    report(1, 60, 60.0),
    LeaseRow("s", host="b", user="ben"),
    AttemptRow("s", "t-1", 2, 40),
    report(2, 100, 55.0),
    EvalRow("s", "t-1", 2, 100, cost={"gpu_s": 5.0}),
]


def test_each_second_goes_to_whose_driver_spent_it():
    found = spent_by_user(ROWS)
    assert found == {"ana": Spent(cpu_s=3.0, gpu_s=60.0), "ben": Spent(gpu_s=60.0)}
    total = SweepState(ROWS).costs.total()
    assert sum(found.values(), Spent()) == Spent(total["cpu_s"], total["gpu_s"])


def test_a_journal_that_does_not_say_who_is_nobodys():
    rows = [LeaseRow("s", host="a"), *ROWS[1:5]]
    assert spent_by_user(rows) == {NOT_RECORDED: Spent(cpu_s=3.0, gpu_s=40.0)}
    assert spent_by_user([]) == {NOT_RECORDED: Spent()}


def test_the_driver_writes_down_its_user(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPSWEEP_USER", "from-elsewhere")
    with SweepJournal(tmp_path / "s-12345678") as journal:
        (row,) = journal.rows()
    assert row.user == "from-elsewhere"
    monkeypatch.delenv("DIPSWEEP_USER")
    assert driving_user() == getpass.getuser()


def test_a_storage_adds_up_by_user_and_by_sweep(tmp_path, monkeypatch):
    for name, user, seconds in (("one", "ana", 1800.0), ("two", "ana", 900.0), ("three", "ben", 900.0)):
        monkeypatch.setenv("DIPSWEEP_USER", user)
        with SweepJournal(tmp_path / f"{name}-12345678") as journal:
            for row in (*ROWS[1:3], report(1, 40, seconds)):
                journal.append(replace(row, sweep=f"{name}-12345678"))
    (tmp_path / "broken-12345678" / "log").mkdir(parents=True)
    (tmp_path / "broken-12345678" / "log" / "000000000.jsonl").write_text(
        f"{ROWS[0].line()}\n{ROWS[1].line()}\n", encoding="utf-8"
    )
    used = costs_of_storage(tmp_path)
    assert used.total == Spent(gpu_s=3600.0)
    assert used.users == {"ana": Spent(gpu_s=2700.0), "ben": Spent(gpu_s=900.0)}
    lines = [line.split() for line in str(used).splitlines()]
    assert ["ana", "0.750", "75", "%", "–", "–"] in lines
    assert [" ".join(line[:2]) for line in lines if line and line[0].endswith("-12345678")] == [
        "one-12345678 (ana)", "three-12345678 (ben)", "two-12345678 (ana)",
    ]  # fmt: skip
    assert used.to_json()["users"]["ben"] == {"cpu_s": 0.0, "gpu_s": 900.0}
    assert list(used.unreadable) == ["broken-12345678"]


def test_an_empty_storage_has_cost_nothing(tmp_path):
    used = costs_of_storage(tmp_path)
    assert used.total == Spent()
    assert str(used) == f"no sweeps under {tmp_path}"
