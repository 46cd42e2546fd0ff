"""`search.promote` on a real local Ray of two CPUs, with stand-ins for training and scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.journal.rows import AttemptRow, EndRow, TrialRow, VerdictRow
from sweeps.journal.state import SweepState
from sweeps.journal.vocabulary import EndOf, TrialStatus
from sweeps.journal.writer import read_rows, sweeps_in
from tests.support.programs import ray_programs

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_promising_runs_go_first_and_branches_of_what_was_given_up_end_unbegun(tmp_path: Path):
    with ray_programs("tests.scenario.programs.promotion") as (start, _):
        process = start(tmp_path, "ray")
        _, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    rows = read_rows(next(iter(sweeps_in(tmp_path))))
    state = SweepState(rows)
    trials = state.trials.values()
    ended = [r.trial for r in rows if isinstance(r, EndRow) and r.of is EndOf.SCORING]
    assert sorted(ended) == sorted(state.trials)
    assert len(state.trials) == 20
    assert any(isinstance(r, VerdictRow) and r.reason.startswith("held: P(top 1)") for r in rows)
    configurations = {t.id for t in trials if not t.parent}
    named = max(i for i, r in enumerate(rows) if isinstance(r, TrialRow) and r.trial in configurations)
    begun = [i for i, r in enumerate(rows) if isinstance(r, AttemptRow) and r.trial not in configurations]
    assert begun
    assert min(begun) > named
    unbegun = [t for t in trials if not t.attempt]
    assert unbegun
    for branch in unbegun:
        assert branch.status is TrialStatus.PRUNED
        assert branch.curve.reason.startswith(f"ended with its trunk {branch.parent}, which was pruned at step ")
    best = max(state.with_status(TrialStatus.COMPLETED), key=lambda t: t.curve.values("transfer/score")[-1])
    rates = {t.id: abs(t.row.config["learning_rate"] - 1e-3) for t in trials}
    assert rates[best.id] == min(rates.values())
