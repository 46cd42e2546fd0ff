"""Where compute went: every second once, work that was done twice by name, and what was saved."""

from __future__ import annotations

import pytest

from sweeps.journal.rows import AttemptRow, EndRow, EvalRow, ReportRow, Row, TrialRow
from sweeps.journal.vocabulary import EndStatus
from sweeps.report import summarize
from sweeps.report.analysis.costs.ledger import ledger, ledger_text


def report(trial: str, attempt: int, step: int, cost: float) -> Row:
    return ReportRow("s", trial, attempt, step, metrics={"train/loss": 1.0}, cost={"gpu_s": cost})


ROWS = [
    TrialRow("s", "t-1", budget=100, config={"model": "m", "learning_rate": 1.0}),
    AttemptRow("s", "t-1", 1, 0, workers=1),
    report("t-1", 1, 40, 40.0),
    report("t-1", 1, 60, 60.0),  # its worker dies; the last checkpoint is of step 40
    AttemptRow("s", "t-1", 2, 40, workers=1),
    report("t-1", 2, 100, 60.0),
    EvalRow("s", "t-1", 2, 100, cost={"gpu_s": 5.0}),
    EvalRow("s", "base-m", step=0, cost={"gpu_s": 2.0}),
    EndRow("s", "t-1", 2, 100),
    TrialRow("s", "t-2", budget=60, config={"model": "m", "learning_rate": 2.0}, parent="t-1", fork_step=40),
    AttemptRow("s", "t-2", 1, 40, workers=1, parent="t-1", fork_step=40),
    report("t-2", 1, 50, 10.0),
    EndRow("s", "t-2", 1, 50, status=EndStatus.PRUNED),
]


def test_every_second_is_counted_once_and_work_done_twice_is_named():
    rows = [row.at(i) for i, row in enumerate(ROWS)]
    account = ledger(rows, summarize(rows))
    whole, branch = account.trials.values()
    assert account.unit == "gpu_s"
    assert (whole.training, whole.repeated, whole.scoring) == (120.0, 20.0, 5.0)
    assert (branch.training, branch.shared, branch.stopped) == (10.0, 40.0, 10.0)
    assert account.total.training == pytest.approx(130.0)
    assert account.total.scoring == pytest.approx(7.0)  # the base model's too
    assert "130.0" in ledger_text(account, 3.6)
    assert "0.14 USD" in ledger_text(account, 3.6)


def test_cpus_that_worked_beside_gpus_are_counted():
    scoring = EvalRow("s", "t-1", 2, 100, cost={"cpu_s": 1234.5})
    rows = [row.at(i) for i, row in enumerate([*ROWS[:-1], scoring, ROWS[-1]])]
    account = ledger(rows, summarize(rows))
    assert (account.unit, account.cpu_s) == ("gpu_s", 1234.5)
    assert "1,234.5 seconds of CPUs beside it" in ledger_text(account)
