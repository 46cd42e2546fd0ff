"""A stop rule that stumbles on a cluster: attempts are asked to save, nothing more starts, and the journal says why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.mailbox import MetricsReported
from cluster.train.worker import attempt_of
from sweeps.errors import StrategyError
from sweeps.journal.state import SweepState
from sweeps.journal.vocabulary import SweepStatus
from sweeps.stopping import Verdict
from tests.unit.cluster.driver.test_reassign import Driver


def decide(trial: str) -> Verdict:
    raise KeyError("x")


def test_a_rule_that_stumbles_has_attempts_save_and_ends_the_sweep_with_its_name_in_the_journal(monkeypatch):
    driver, asked = Driver(monkeypatch, {"m": 1}, cpus=2), list[Any]()
    driver.control.stop_all_gracefully = SimpleNamespace(remote=lambda: asked.append("save"))  # type: ignore[attr-defined]
    attempt = attempt_of(driver.start().launch)
    monkeypatch.setattr(driver.controller.rule, "decide", decide)
    driver.loop._handle(MetricsReported(attempt, 2, {"train/loss": 1.0}, {}, {}))
    assert driver.loop.next_launch() is None  # though there is room
    for _ in range(2):
        driver.loop._check_for_end()
    assert asked == ["save"]
    assert driver.loop.deadline < float("inf")
    state = SweepState(driver.controller.journal.rows())
    assert state.status is SweepStatus.STOPPED
    (why,) = state.interrupts
    assert why.startswith("stop rule 'none' (sweeps.stopping.base.NeverStop): KeyError: 'x' (test_broken_rule.py:")
    with pytest.raises(StrategyError, match="KeyError: 'x'"):
        driver.controller.raise_if_broken()
    assert len(SweepState(driver.controller.journal.rows()).interrupts) == 1
    assert not driver.loop.is_over()  # its processes have yet to go
