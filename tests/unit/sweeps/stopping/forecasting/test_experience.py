"""What finished sweeps say of a new one: as much as they agree, never more than the rule's own prior leaves open."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.run_sweep import run
from sweeps import Sweep, grid
from sweeps.config.objective import Goal
from sweeps.controller.earlier_sweeps import summed_up
from sweeps.errors import InputError
from sweeps.journal.reader import read_rows
from sweeps.journal.rows import SweepRow, VerdictRow
from sweeps.stopping.dip_aware import DipAware
from sweeps.stopping.forecasting.experience import MOST_CURVES, MOST_DIPS, Experience, Gains, joined
from sweeps.stopping.forecasting.shared_gain import INTERVALS, Revision, SharedGain
from tests.support.fakes import FakeTrainer, fake_evaluate

ONE = np.ones(INTERVALS)


def said(mean: float, variance: float = 0.001) -> Gains:
    return Gains(mean * ONE, variance * ONE)


def test_without_finished_sweeps_nothing_moves():
    assert not Experience()
    mass, count = Experience().forms(5)
    assert (mass.sum(), count) == (0.0, 0.0)


def test_one_sweep_moves_the_prior_a_little_and_three_that_agree_most_of_the_way():
    one, many = (joined([said(0.3)] * n, 0 * ONE, 0.04 * ONE) for n in (1, 3))
    assert 0.05 < one[0][0] < 0.2 < many[0][0] < 0.3
    assert many[1][0] < one[1][0] <= 0.04


def test_sweeps_that_disagree_leave_the_prior_at_least_as_wide_as_it_was():
    mean, variance = joined([said(m) for m in (-1.0, 0.0, 1.0)], 0 * ONE, 0.04 * ONE)
    assert mean == pytest.approx(0 * ONE, abs=1e-9)
    assert (variance >= 0.04).all()


def test_what_no_run_says_anything_of_stays_as_it_was():
    few, gains = SharedGain(False, 8), SharedGain(False, 8)
    few.add(Revision(2, 0.5, 0.01))  # one is too few to speak
    for _ in range(5):
        gains.add(Revision(2, 0.5, 0.01))
    for shared, known in ((few, []), (gains, [2])):
        told = Gains.from_json(json.loads(json.dumps(Gains.of(shared, 2.0).to_json())))
        assert np.flatnonzero(np.isfinite(told.variance)).tolist() == known
        mean, variance = joined([told], shared.prior_mean, shared.prior_variance)
        same = [k for k in range(INTERVALS) if k not in known]
        assert mean[same] == pytest.approx(shared.prior_mean[same])
        assert variance[same] == pytest.approx(shared.prior_variance[same])
    assert Gains.of(gains, 2.0).mean[2] == pytest.approx(0.25)  # in the sweep's own spread


def test_dips_of_others_count_for_half_and_never_for_more_than_their_bound():
    assert Experience([{"version": 1, "kinds": {}, "forms": [], "dips": [1, 6]}]).dips() == (0.5, 3.0)
    assert Experience([{"version": 1, "kinds": {}, "forms": [], "dips": [10, 40]}]).dips() == (2.0, MOST_DIPS)
    assert Experience([{"version": 1, "kinds": {}, "forms": []}]).dips() == (0.0, 0.0)  # told by an earlier version


def test_curves_of_others_count_for_half_and_never_for_more_than_their_bound():
    mass, count = Experience([{"version": 1, "kinds": {}, "forms": [[1, 10.0]]}]).forms(3)
    assert mass.tolist() == [0.0, 5.0, 0.0]
    assert count == 5.0
    assert Experience([{"version": 1, "kinds": {}, "forms": [[1, 500.0]]}]).forms(3)[1] == MOST_CURVES
    assert not Experience([{"version": 99, "kinds": {}, "forms": []}])


def sweep(name: str, metric: str = "transfer/score", **stopping: object) -> Sweep:
    space = {"replay": grid(0.0, 0.02, 0.1), "learning_rate": grid(1e-3, 2e-3)}
    return Sweep(
        name=name, space=space, trainer={"steps": 16}, evaluation={"at": {"every": 1}}, stopping=stopping,
        objective={"metric": metric},
    )  # fmt: skip


def go(asked: Sweep, storage: Path) -> tuple[Path, list[str]]:
    lines: list[str] = []
    run(asked, storage=storage, backend="in-process", say=lines.append, train=FakeTrainer(), evaluate=fake_evaluate)
    return storage / asked.id, lines


def test_a_sweep_begins_from_those_of_a_storage_that_asked_the_same_and_its_replay_needs_none_of_them(tmp_path: Path):
    for name in ("a", "b"):
        go(sweep(name), tmp_path / "past")
    go(sweep("c", metric="safety/refusal"), tmp_path / "past")
    torn = tmp_path / "past" / "torn"
    (torn / "log").mkdir(parents=True)
    (torn / "log" / "00000001.jsonl").write_text('{"kind": "swe\n{"kind": 3}\n')
    home, lines = go(sweep("new", rule="dip-aware", top=1, experience=str(tmp_path / "past")), tmp_path)
    rows = read_rows(home)
    first = next(r for r in rows if isinstance(r, SweepRow))
    named = [s["sweep"].rpartition("-")[0] for s in first.experience["sweeps"]]
    assert sorted(named) == ["a", "b"]
    assert all(len(s["digest"]) == 64 for s in first.experience["sweeps"])
    assert any(line.startswith("the stop rule begins with experience from") for line in lines)

    again = DipAware(Goal("transfer/score", top=1), trials=6)
    for row in rows:
        if isinstance(row, VerdictRow) and row.evidence.get("p_top") is not None:
            assert again.decide(row.trial).reason == row.reason
        again.observe(row)
    assert again.ranking.forecaster.experience.sweeps


def test_experience_belongs_to_the_rule_that_has_a_use_for_it(tmp_path: Path):
    with pytest.raises(InputError, match="rule 'asha' has no experience"):
        go(sweep("x", rule="asha", experience=str(tmp_path)), tmp_path)


def test_a_finished_sweep_is_summed_up_in_its_own_spread(tmp_path: Path):
    home, _ = go(sweep("a"), tmp_path)
    told = summed_up(read_rows(home), Goal("transfer/score"))
    assert told["curves"] == 6
    assert list(told["kinds"]) == ["cosine"]
    assert all(len(view) == INTERVALS for view in told["kinds"]["cosine"].values())
    assert sum(share for _, share in told["forms"]) == pytest.approx(6, abs=0.5)
