"""The simulated clock: machines, time, pausing and resuming."""

from __future__ import annotations

import pytest

from benchmarks.stopping.worlds import generate, goal
from sweeps.config.objective import Goal
from sweeps.executors.simulated import Recording, simulate
from sweeps.stopping.base import Action, NeverStop, StopRule, Verdict
from sweeps.stopping.dip_aware import DipAware
from tests.support.rows import make_row

Y = "y"


def run_of(trial, values, seconds=1.0):
    rows = tuple(make_row("report", "", trial, step=i + 1, metrics={Y: float(v)}) for i, v in enumerate(values))
    return Recording(trial, make_row("trial", "", trial, budget=len(values)), rows, (seconds,) * len(values))


class PauseOnce(StopRule):
    """Pauses a trial after its first report and resumes the paused in order."""

    def decide(self, trial):
        first = self.history.curves[trial].attempt == 1
        return Verdict(Action.PAUSE if first else Action.CONTINUE, "first come, first paused")

    def choose_trial_to_resume(self, paused):
        return paused[0]


def test_without_a_rule_everything_runs_and_time_is_that_of_the_machines():
    out = simulate([run_of("a", [1, 2]), run_of("b", [1, 2, 3], seconds=2.0)], NeverStop(Goal(Y)), workers=2)
    assert (out.spent, out.full, out.makespan, out.saved) == (8.0, 8.0, 6.0, 0.0)
    assert out.completed("a")
    assert out.completed("b")


def test_one_machine_runs_trials_one_after_the_other_in_their_order():
    out = simulate([run_of("a", [1, 2]), run_of("b", [1, 2])], NeverStop(Goal(Y)), workers=1)
    assert [(r.trial, r.step) for r in out.journal if r.kind == "report"] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_a_resumed_trial_pays_for_its_resume_and_goes_on_where_it_was():
    out = simulate([run_of("a", [1, 2, 3]), run_of("b", [1, 2, 3])], PauseOnce(Goal(Y)), workers=1)
    assert out.spent == pytest.approx(6 + 2 * 0.3)
    attempts = [(r.trial, r.attempt, r.step) for r in out.journal if r.kind == "attempt"]
    assert attempts == [("a", 1, 0), ("b", 1, 0), ("a", 2, 1), ("b", 2, 1)]
    assert all(out.completed(t) for t in "ab")


def test_rows_are_numbered_in_the_order_in_which_the_rule_sees_them():
    out = simulate([run_of("a", [1, 2])], NeverStop(Goal(Y)), workers=1)
    assert [r.seq for r in out.journal] == list(range(len(out.journal)))
    assert [r.kind for r in out.journal] == ["trial", "attempt", "report", "report", "end"]


def test_a_200_trial_sweep_loses_no_winner_and_saves_a_quarter():
    sweep = generate("published", 11, trials=200)
    out = simulate(sweep.recordings, DipAware(goal(), protect="soft"), workers=16, shared=sweep.shared)
    assert all(out.completed(t) for t in sweep.winners(1))
    assert out.saved > 0.25
    assert {r.ended for r in out.runs.values()} <= {"completed", "pruned"}


@pytest.mark.parametrize("seed", [3, 4])
def test_no_protected_trial_is_ever_paused_under_strict(seed):
    sweep = generate("broad", seed, trials=24)
    out = simulate(sweep.recordings, DipAware(goal(), protect="strict"), shared=sweep.shared)
    given = [v for r in out.runs.values() for _, v in r.verdicts]
    assert given
    assert not any(v.evidence.get("protected") for v in given)


def test_a_rule_rebuilt_from_the_journal_at_any_row_goes_on_with_the_same_decisions():
    sweep = generate("broad", 5, trials=12)
    journal = simulate(sweep.recordings, DipAware(goal()), workers=4, shared=sweep.shared).journal
    whole = DipAware(goal())
    verdicts = {}
    for row in journal:
        whole.observe(row)
        if row.kind == "report" and row.step:
            verdicts[row.seq] = whole.decide(row.trial)
    for cut in range(40, len(journal), 97):
        again = DipAware(goal())
        for row in journal[:cut]:
            again.observe(row)
        for row in journal[cut : cut + 12]:
            again.observe(row)
            if row.seq in verdicts:
                assert again.decide(row.trial) == verdicts[row.seq]
