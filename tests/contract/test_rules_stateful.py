"""Whatever reports come, in whatever order: no verdict against a protected trial, also after a restore."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sweeps.records import Row
from sweeps.simulate import verdict_row
from sweeps.stopping.base import Action, Goal
from sweeps.stopping.dip_aware import DipAware

Y, BUDGET = "transfer/score", 320
moves = st.floats(-6.0, 6.0).map(lambda v: round(v, 2))


class Sweep(RuleBasedStateMachine):
    """A sweep whose scores an adversary chooses; strict protection must hold at every report."""

    def __init__(self):
        super().__init__()
        self.rows: list[Row] = []
        self.rule = DipAware(Goal(Y, top=2))
        self.level: dict[str, float] = {}
        self.step: dict[str, int] = {}
        self.ended: set[str] = set()
        self.tell(Row("report", "s", "base-m", step=0, metrics={Y: 50.0}, se={Y: 0.5}))

    def tell(self, row: Row) -> None:
        row = row.at(len(self.rows))
        self.rows.append(row)
        self.rule.observe(row)

    def running(self) -> list[str]:
        return [t for t in self.step if t not in self.ended and self.step[t] < BUDGET]

    @precondition(lambda self: len(self.step) < 6)
    @rule()
    def start(self):
        trial = f"t-{len(self.step)}"
        self.level[trial], self.step[trial] = 50.0, 0
        self.tell(Row("trial", "s", trial, budget=BUDGET, config={"model": "m"}))

    @precondition(lambda self: self.running())
    @rule(data=st.data(), move=moves, times=st.integers(1, 4))
    def report(self, data, move, times):
        trial = data.draw(st.sampled_from(self.running()))
        for _ in range(times):
            if trial in self.ended or self.step[trial] >= BUDGET:
                return
            self.step[trial] += 20
            self.level[trial] += move
            self.tell(Row("report", "s", trial, step=self.step[trial], metrics={Y: self.level[trial]}, se={Y: 1.0}))
            self.judge(trial)

    @precondition(lambda self: any(r.kind == "report" and r.step for r in self.rows))
    @rule(data=st.data())
    def again(self, data):
        """The same row arrives twice."""
        row = data.draw(st.sampled_from([r for r in self.rows if r.kind == "report" and r.step]))
        assert self.rule.observe(row) is False

    def judge(self, trial):
        verdict = self.rule.decide(trial)
        track = self.rule.race.field.tracks.get(trial)
        if verdict.action is not Action.CONTINUE:
            assert track is not None
            assert not track.phase.protected
            assert self.step[trial] < BUDGET
            self.tell(verdict_row("s", trial, verdict, self.step[trial]))
            self.ended.add(trial)

    @rule()
    def restore(self):
        again = DipAware(Goal(Y, top=2))
        for row in self.rows:
            again.observe(row)
        for trial in self.running():
            assert again.decide(trial) == self.rule.decide(trial)
        parked = sorted(self.ended)
        assert again.wake(parked) == self.rule.wake(parked)
        self.rule = again

    @invariant()
    def probabilities_are_probabilities(self):
        for track in self.rule.race.field.tracks.values():
            standing = self.rule.race.standing(track)
            assert standing is None or -1e-9 <= standing.p <= 1 + 1e-9


Sweep.TestCase.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStrictProtection = pytest.mark.timeout(300)(Sweep.TestCase)
