"""Whatever reports come, in whatever order: no verdict against a protected trial, an end to everything paused, finite N.

The same holds after a restore at any moment.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sweeps.config.objective import Goal
from sweeps.executors.simulated import verdict_row
from sweeps.journal.rows import Row
from sweeps.stopping.base import Action
from sweeps.stopping.dip_aware import DipAware
from tests.support.rows import make_row

Y, BUDGET, EVERY, MOST = "transfer/score", 320, 20, 6
moves = st.floats(-6.0, 6.0).map(lambda v: round(v, 2))


class Sweep(RuleBasedStateMachine):
    """A sweep whose scores an adversary chooses; strict protection must hold at every report."""

    def __init__(self):
        super().__init__()
        self.rows: list[Row] = []
        self.rule = DipAware(Goal(Y, top=2))
        self.level: dict[str, float] = {}
        self.step: dict[str, int] = {}
        self.attempt: dict[str, int] = {}
        self.paused: set[str] = set()
        self.stopped: set[str] = set()
        self.tell(make_row("report", "s", "base-m", step=0, metrics={Y: 50.0}, se={Y: 0.5}))

    def tell(self, row: Row) -> None:
        row = row.at(len(self.rows))
        self.rows.append(row)
        self.rule.observe(row)

    def running(self) -> list[str]:
        gone = self.paused | self.stopped
        return [t for t in self.step if t not in gone and self.step[t] < BUDGET]

    def run(self, trial: str, move: float) -> None:
        """One more report of a running trial, and what the rule makes of it."""
        self.step[trial] += EVERY
        self.level[trial] += move
        at, score = self.step[trial], {Y: self.level[trial]}
        self.tell(make_row("report", "s", trial, self.attempt[trial], step=at, metrics=score, se={Y: 1.0}))
        verdict = self.rule.decide(trial)
        if verdict.action is Action.CONTINUE:
            return
        assert not self.rule.ranking.forecaster.trials[trial].phase.protected
        assert at < BUDGET
        self.tell(verdict_row("s", trial, verdict, at))
        (self.paused if verdict.action is Action.PAUSE else self.stopped).add(trial)

    def choose_trial_to_resume(self) -> bool:
        """Does as the rule says about the paused trials; False when it wants none of them."""
        trial = self.rule.choose_trial_to_resume(sorted(self.paused))
        if trial is None:
            return False
        assert trial in self.paused
        self.paused.remove(trial)
        self.attempt[trial] += 1
        self.tell(make_row("attempt", "s", trial, self.attempt[trial], step=self.step[trial]))
        return True

    @precondition(lambda self: len(self.step) < MOST)
    @rule()
    def start(self):
        trial = f"t-{len(self.step)}"
        self.level[trial], self.step[trial], self.attempt[trial] = 50.0, 0, 1
        self.tell(make_row("trial", "s", trial, budget=BUDGET, config={"model": "m"}))

    @precondition(lambda self: self.running())
    @rule(data=st.data(), move=moves, times=st.integers(1, 4))
    def report(self, data, move, times):
        trial = data.draw(st.sampled_from(self.running()))
        for _ in range(times):
            if trial in self.running():
                self.run(trial, move)

    @precondition(lambda self: any(r.kind == "report" and r.step for r in self.rows))
    @rule(data=st.data())
    def again(self, data):
        """The same row arrives twice."""
        row = data.draw(st.sampled_from([r for r in self.rows if r.kind == "report" and r.step]))
        assert self.rule.observe(row) is False

    @precondition(lambda self: self.paused)
    @rule()
    def free_machine(self):
        self.choose_trial_to_resume()

    @rule()
    def restore(self):
        again = DipAware(Goal(Y, top=2))
        for row in self.rows:
            again.observe(row)
        for trial in self.running():
            assert again.decide(trial) == self.rule.decide(trial)
        assert again.choose_trial_to_resume(sorted(self.paused)) == self.rule.choose_trial_to_resume(
            sorted(self.paused)
        )
        self.rule = again

    @invariant()
    def probabilities_are_probabilities(self):
        for forecast in self.rule.ranking.forecaster.trials.values():
            top_k = self.rule.ranking.probability(forecast)
            assert top_k is None or -1e-9 <= top_k.p <= 1 + 1e-9
            assert math.isfinite(forecast.phase.level)

    def teardown(self):
        """Left to itself the sweep ends: no trial reports beyond its budget, no paused one is resumed for ever."""
        left = len(self.step) * (BUDGET // EVERY) + 1
        for _ in range(left):
            for trial in self.running():
                self.run(trial, 0.0)
            if not self.running() and not self.choose_trial_to_resume():
                break
        assert not self.running()
        assert self.rule.choose_trial_to_resume(sorted(self.paused)) is None


Sweep.TestCase.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStrictProtection = pytest.mark.timeout(300)(Sweep.TestCase)
