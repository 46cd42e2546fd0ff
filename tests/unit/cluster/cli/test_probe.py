"""The probe of `dipsweep plan --probe`: what it trains and asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.cli import plan_view
from cluster.cli.plan_view import PROBE, PROBE_STEPS, probe
from cluster.preflight.cost import speeds_for
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.errors import DipsweepError
from sweeps.journal.rows import BASE_PREFIX, EvalRow


def test_a_probe_scores_three_checkpoints_so_that_a_median_leaves_out_the_first_one_and_asks_no_more_than_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "ray.py").write_text("raise RuntimeError('a file of the user, who works here')")
    monkeypatch.chdir(tmp_path)
    sweep = Sweep(
        name="probed",
        space={"model": grid("tiny-xs"), "steps": grid(400)},
        trainer={"batch_tokens": 512, "max_length": 256},
        evaluation={"items": 3, "at": [400]},
    )
    probed = probe(Plan(sweep))
    rows = [row for row in probed.rows if isinstance(row, EvalRow) and not row.trial.startswith(BASE_PREFIX)]
    scored = [row for row in rows if row.cost]
    assert [row.step for row in scored] == [PROBE_STEPS // 3, 2 * PROBE_STEPS // 3, PROBE_STEPS]
    assert all(sum(row.cost.values()) > 0 for row in scored)
    assert probed.new_process > 0.1  # an interpreter that imports torch
    (speed,) = speeds_for(Plan(sweep), gpu="H100", probed=probed).values()
    assert speed.start_up.source == f"start-up: {PROBE}"
    assert probed.new_process <= speed.start_up.seconds < probed.new_process + 10
    assert speed.next_start.seconds == pytest.approx(speed.start_up.seconds - probed.new_process)


def test_a_new_process_that_cannot_train_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plan_view, "TRAINING_IMPORTS", "import no_such_module")
    with pytest.raises(DipsweepError, match=r"cannot import what trains a model: .*No module named 'no_such_module'$"):
        plan_view.new_process_seconds()
