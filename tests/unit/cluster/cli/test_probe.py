"""The probe of `dipsweep plan --probe`: what it trains and asks."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from cluster.cli import probe as probing
from cluster.cli.plan_view import longest_lines
from cluster.cli.probe import PROBE, PROBE_STEPS, busy, probe
from cluster.preflight.cost import speeds_for
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.errors import DipsweepError
from sweeps.journal.rows import BASE_PREFIX, EvalRow
from sweeps.planning.speeds import PROCESS_S


def test_a_probe_scores_three_checkpoints_so_that_a_median_leaves_out_the_first_one_and_asks_no_more_than_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "ray.py").write_text("raise RuntimeError('a file of the user, who works here')")
    monkeypatch.chdir(tmp_path)
    sweep = Sweep(
        name="probed",
        space={"model": grid("tiny-xs"), "steps": grid(400)},
        trainer={"batch_tokens": 512, "max_length": 256},
        evaluation={"items": 3, "at": [400], "python": sys.executable},  # a probe is one process
    )
    probed = probe(Plan(sweep), alone=True)
    rows = [row for row in probed.rows if isinstance(row, EvalRow) and not row.trial.startswith(BASE_PREFIX)]
    scored = [row for row in rows if row.cost]
    assert [row.step for row in scored] == [PROBE_STEPS // 3, 2 * PROBE_STEPS // 3, PROBE_STEPS]
    assert all(sum(row.cost.values()) > 0 for row in scored)
    (longest,) = probed.longest
    assert (longest.model, longest.data, longest.peak) == ("tiny-xs", "verified-long-cot", 0)
    assert 64 < longest.tokens <= 256
    assert longest.seconds > 0
    assert longest_lines(probed.longest)[0].startswith("longest rows tiny-xs on verified-long-cot: up to ")
    assert probed.new_process > 0.1  # an interpreter that imports torch
    (speed,) = speeds_for(Plan(sweep), gpu="H100", probed=probed).values()
    assert speed.start_up.source == f"start-up: {PROBE}"
    new = probed.new_process + PROCESS_S
    assert new <= speed.start_up.seconds < new + 10
    assert speed.next_start.seconds == pytest.approx(speed.start_up.seconds - new)


def test_what_trains_on_cpus_is_measured_while_the_others_of_this_machine_train_too(tmp_path: Path):
    sweep = Sweep(
        name="probed",
        space={"model": grid("tiny-xs")},
        trainer={"steps": 40, "batch_tokens": 512, "max_length": 128},
        evaluation={"items": 2, "at": [40]},
    )
    (tmp_path / "probe").mkdir()
    others = set(psutil.Process().children())  # a storage that tests before have started, say
    with busy(2, sweep, tmp_path / "probe"):
        children = set(psutil.Process().children()) - others
        assert [child.cmdline()[-1] for child in children] == [str(tmp_path / "probe" / "sweep.json")] * 2
        assert len(list((tmp_path / "probe").glob("*/probed-*/spec.yaml"))) == 2
    assert not any(child.is_running() for child in children)


def test_a_new_process_that_cannot_train_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probing, "TRAINING_IMPORTS", "import no_such_module")
    with pytest.raises(DipsweepError, match=r"cannot import what trains a model: .*No module named 'no_such_module'$"):
        probing.new_process_seconds()
