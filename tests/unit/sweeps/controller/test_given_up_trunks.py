"""Branches whose trunk the stop rule gives up before it comes to their fork: they end with it, or begin without it."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.run_sweep import stop_rule
from sweeps import Sweep, grid, loguniform
from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.controller.earlier_sweeps import summed_up
from sweeps.controller.request_handler import carry_out
from sweeps.controller.requests import Request
from sweeps.executors.local import InProcess
from sweeps.journal.rows import AttemptRow, CommitRow, ControlRow, EndRow, LeaseRow, ReportRow, Row, VerdictRow
from sweeps.journal.state import SweepState, is_base
from sweeps.journal.vocabulary import Action, EndOf, Phase, TrialStatus
from sweeps.journal.writer import MemoryJournal
from sweeps.planning.recorded import Scores
from sweeps.planning.simulated_sweep import SimulatedSweep
from sweeps.report import summarize
from sweeps.report.analysis.costs.ledger import ledger
from sweeps.report.replay import histories_of, recorded
from sweeps.stopping.base import NeverStop, StopRule, Verdict
from tests.support.fakes import FakeTrainer, fake_evaluate

BUDGETS = (10, 20, 40)  # branches turn off at 9 and 17 of the run of 40 steps


def sweep() -> Sweep:
    return Sweep(
        name="b",
        space={"steps": grid(*BUDGETS)},
        trainer={"learning_rate": 1e-3, "lr_scheduler_type": "wsd", "warmup_steps": 2},
        evaluation={"at": {"every": 4}},
    )


TRIAL = {t.steps: t.id for t in Plan(sweep()).known_trials()}
LONG, SHORT, MIDDLE = TRIAL[40], TRIAL[10], TRIAL[20]


@dataclass
class _Scripted:
    """At which step the rule gives a trial up, by budget, and how; which paused trials it resumes, once each."""

    at: dict[int, int]
    action: Action = Action.PAUSE
    phase: Phase = Phase.PLATEAU
    resume: list[str] = field(default_factory=list)


class Scripted(StopRule):
    """Follows a script."""

    def __init__(self, script: _Scripted) -> None:
        super().__init__(sweep().goal)
        self.script = script

    def decide(self, trial: str) -> Verdict:
        curve = self.history.curves[trial]
        scored = max(curve.steps(self.goal.metric), default=0)
        if scored == self.script.at.get(curve.budget or 0):
            return Verdict(self.script.action, "no chance", self.script.phase)
        return Verdict(Action.CONTINUE, "fine")

    def choose_trial_to_resume(self, paused: Sequence[str]) -> str | None:
        wanted = next((t for t in self.script.resume if t in paused), None)
        if wanted is not None:
            self.script.resume.remove(wanted)
        return wanted


def run(folder: Path, script: _Scripted, rows: Sequence[Row] = ()) -> tuple[SweepController, FakeTrainer]:
    controller = SweepController(Plan(sweep()), MemoryJournal(rows), Scripted(script))
    trainer = FakeTrainer()
    InProcess(controller, trainer, fake_evaluate, folder).run()
    return controller, trainer


def states(controller: SweepController) -> dict[int, str]:
    return {steps: controller.history.curves[trial].state for steps, trial in TRIAL.items()}


def test_a_branch_beyond_what_its_trunk_reached_ends_with_it_and_an_earlier_one_runs(tmp_path: Path):
    controller, trainer = run(tmp_path, _Scripted({40: 12, 20: 12}))
    assert states(controller) == {10: "completed", 20: "pruned", 40: "pruned"}
    assert [t for t, _, _ in trainer.log] == [LONG] * 12 + [SHORT]
    ends = {r.trial: r for r in controller.journal.rows() if isinstance(r, EndRow) and r.of is EndOf.SCORING}
    assert ends[MIDDLE].reason == f"ended with its trunk {LONG}, which was pruned at step 12 of 40"
    paused = next(r for r in controller.journal.rows() if isinstance(r, VerdictRow) and r.trial == MIDDLE)
    assert (paused.action, paused.step) == (Action.PAUSE, 12)
    assert paused.reason == f"waits with its trunk {LONG}, which was paused at step 12 of 40: no chance"


@pytest.mark.parametrize("action", [Action.PAUSE, Action.STOP])
def test_a_branch_with_a_chance_at_its_own_budget_begins_though_its_trunk_has_none(tmp_path: Path, action: Action):
    controller, trainer = run(tmp_path, _Scripted({40: 12}, action))
    assert states(controller) == {10: "completed", 20: "completed", 40: "pruned"}
    start = next(r for r in controller.journal.rows() if isinstance(r, AttemptRow) and r.trial == MIDDLE)
    assert (start.step, start.parent) == (12, LONG)
    assert [step for t, _, step in trainer.log if t == MIDDLE] == list(range(13, 21))
    said = next(r for r in controller.journal.rows() if isinstance(r, VerdictRow) and r.trial == MIDDLE)
    how = "paused" if action is Action.PAUSE else "pruned"
    assert said.reason == f"begins without its trunk {LONG}, which was {how} at step 12 of 40: fine"
    judged = [r.step for r in controller.journal.rows() if isinstance(r, VerdictRow) and r.trial == MIDDLE]
    assert judged == [12]  # by the trunk's scores, once


def test_a_branch_of_a_trunk_that_diverged_before_the_fork_ends_with_it(tmp_path: Path):
    controller, _ = run(tmp_path, _Scripted({40: 12}, Action.STOP, Phase.DIVERGED))
    assert states(controller) == {10: "completed", 20: "pruned", 40: "pruned"}
    reason = controller.history.curves[MIDDLE].reason
    assert reason == f"ended with its trunk {LONG}, which was pruned at step 12 of 40: no chance"


def test_branches_come_back_with_their_trunk(tmp_path: Path):
    controller, trainer = run(tmp_path, _Scripted({40: 12, 20: 12}, resume=[LONG]))
    assert states(controller) == {10: "completed", 20: "completed", 40: "completed"}
    assert [t for t, _, _ in trainer.log].count(MIDDLE) == 3  # from its fork at 17
    woken = [r for r in controller.journal.rows() if isinstance(r, ControlRow) and r.trial == MIDDLE]
    assert [r.reason for r in woken] == [f"its trunk {LONG} goes on; it begins where that reaches step 17"]


@pytest.mark.parametrize("late", [False, True])
def test_a_branch_begins_at_a_fork_that_its_trunk_had_come_to_whenever_that_is_heard(late: bool):
    """A worker trains on while its scores are on their way: the checkpoint at the fork may come after the verdict."""
    controller = SweepController(Plan(sweep()), MemoryJournal(), Scripted(_Scripted({40: 12, 20: 12})))
    assert controller.launch(controller.next_trials(3)[0].id).spec.id == LONG
    for step in (9, 12) if late else (9, 12, 17):
        controller.saved(LONG, 1, Saved(step, f"/{step}", "a"))
    while (job := controller.next_eval()) is not None:
        if job.step in (0, 12):
            controller.scored(job, {"transfer/score": 0.5}, se={}, n={}, suite="fake@1", cost={})
    assert controller.state.trials[LONG].status is TrialStatus.PAUSED
    begins = {spec.id for spec in controller.next_trials(3)}
    assert (MIDDLE in begins) is not late
    controller.saved(LONG, 1, Saved(17, "/17", "a"))
    assert MIDDLE in {spec.id for spec in controller.next_trials(3)}
    rows = controller.journal.rows()
    committed = next(i for i, row in enumerate(rows) if isinstance(row, CommitRow) and row.step == 17)
    for cut in (committed + 1, len(rows)):  # the driver dies before it has woken the branch, or after
        again = SweepController(Plan(sweep()), MemoryJournal(rows[:cut]), Scripted(_Scripted({40: 12, 20: 12})))
        assert again.state.trials[MIDDLE].status is TrialStatus.WAITING
    launch = controller.launch(MIDDLE)
    assert launch.resume is not None
    assert launch.resume.step == 17


def test_what_is_resumed_is_judged_by_new_scores_only(tmp_path: Path):
    """Its trainer reports before its next score is there: the rule would pause it for what it was resumed with."""
    controller, _ = run(tmp_path, _Scripted({40: 12}, resume=[LONG]))
    verdicts = [r for r in controller.journal.rows() if isinstance(r, VerdictRow) and r.trial == LONG]
    assert [r.step for r in verdicts if r.action is Action.PAUSE] == [12]
    assert states(controller)[40] == "completed"


def test_a_branch_that_the_rule_resumes_begins_without_its_trunk(tmp_path: Path):
    controller, trainer = run(tmp_path, _Scripted({40: 12, 20: 12}, resume=[MIDDLE]))
    assert states(controller)[40] == "pruned"
    assert [step for t, _, step in trainer.log if t == MIDDLE][:2] == [13, 14]


def test_what_a_user_stops_is_that_trial_alone(tmp_path: Path):
    controller = SweepController(Plan(sweep()), MemoryJournal(), Scripted(_Scripted({20: 0})))
    launch = controller.next()
    assert launch is not None
    controller.stop(launch.spec.id, "ada")
    assert {spec.steps for spec in controller.next_trials(3)} == {10, 20}


@pytest.mark.parametrize("action", ["add", "retry", "extend"])
def test_a_branch_that_ended_with_its_trunk_begins_when_it_is_asked_for(tmp_path: Path, action: str):
    first, _ = run(tmp_path, _Scripted({40: 12, 20: 12}))
    script = _Scripted({40: 12, 20: 12})
    controller = SweepController(Plan(sweep()), MemoryJournal(first.journal.rows()), Scripted(script))
    args = {"add": {"set": {"steps": 20}}, "extend": {"steps": 20}, "retry": {}}[action]
    trial = {"add": "", "extend": SHORT, "retry": MIDDLE}[action]
    request = Request(action, trial=trial, args=args, who="ada")
    said = carry_out(controller, request)
    assert said.startswith(f"{MIDDLE} begins at step 12 of {LONG}")
    if action == "retry":  # `RequestHandler.take` writes the request's own row
        controller.control(request.action, "ada", MIDDLE, reason=said)
    trainer = FakeTrainer()
    InProcess(controller, trainer, fake_evaluate, tmp_path).run()
    assert states(controller) == {10: "completed", 20: "completed", 40: "pruned"}
    assert [step for t, _, step in trainer.log if t == MIDDLE] == list(range(13, 21))


def test_a_branch_that_is_asked_for_while_the_rule_has_it_wait_for_machines_starts_once(tmp_path: Path):
    first, _ = run(tmp_path, _Scripted({40: 12, 20: 12}))
    rows = [r for r in first.journal.rows() if not isinstance(r, EndRow) or r.trial == SHORT]
    script = _Scripted({40: 12, 20: 12}, resume=[MIDDLE])
    controller = SweepController(Plan(sweep()), MemoryJournal(rows), Scripted(script))
    assert [t.id for t in controller.next_trials(3)] == [MIDDLE]
    controller.control("retry", "ada", MIDDLE, reason="asked for")
    assert [t.id for t in controller.next_trials(3)] == [MIDDLE]
    controller.launch(MIDDLE)
    assert not controller.next_trials(3)


def test_a_branch_that_was_stopped_and_is_tried_again_waits_for_a_trunk_that_is_on_its_way():
    controller = SweepController(Plan(sweep()), MemoryJournal(), NeverStop(sweep().goal))
    launch = controller.next()
    assert launch is not None
    assert launch.spec.id == LONG
    controller.next_trials(3)
    controller.saved(LONG, 1, Saved(4, "/4", "a"))
    controller.stop(MIDDLE, "ada")
    said = carry_out(controller, Request("retry", trial=MIDDLE, who="ada"))
    assert said == f"{MIDDLE} begins where {LONG} reaches step 17; before: stopped by ada"


def test_the_ledger_counts_what_was_not_begun_as_saved_by_stopping(tmp_path: Path):
    controller, _ = run(tmp_path, _Scripted({40: 12, 20: 12}))
    rows = controller.journal.rows()
    summary = summarize(rows)
    found = {t.id: t for t in summary.trials}
    assert (found[MIDDLE].fork_step, found[MIDDLE].steps_run, found[MIDDLE].own_steps) == (12, 12, 0)
    account = ledger(rows, summary)
    pace = account.trials[LONG].training / 12
    line = account.trials[MIDDLE]
    assert line.training == line.scoring == line.repeated == 0.0
    assert line.stopped == pytest.approx((20 - 12) * pace)
    assert line.shared == pytest.approx(12 * pace)
    costs = summary.costs
    assert (costs.steps_saved, costs.steps_lost) == (28 + 8, 0)
    assert costs.estimated_saved.cpu_s == pytest.approx(account.total.stopped)


def test_a_branch_that_never_began_is_no_run_of_its_own_to_replays_and_later_sweeps(tmp_path: Path):
    rows = run(tmp_path, _Scripted({40: 12, 20: 12}))[0].journal.rows()
    goal = sweep().goal
    assert {r.trial for r in recorded(histories_of(rows)[rows[0].sweep], goal.metric)[0]} == {LONG, SHORT}
    assert summed_up(rows, goal)["curves"] == 2


def test_cut_after_any_row_the_sweep_ends_the_same(tmp_path: Path):
    whole = run(tmp_path, _Scripted({40: 12, 20: 12}))[0]
    rows = whole.journal.rows()
    first = next(i for i, r in enumerate(rows) if isinstance(r, VerdictRow))
    assert any(isinstance(r, ReportRow) and r.inherited for r in rows[first:])
    for cut in range(first, len(rows)):
        again = run(tmp_path, _Scripted({40: 12, 20: 12}), rows[:cut])[0]
        assert states(again) == states(whole), cut
        assert again.history.curves[MIDDLE].reason == whole.history.curves[MIDDLE].reason, cut
        judged = [r for r in again.journal.rows() if isinstance(r, VerdictRow) and r.trial == MIDDLE]
        assert [r.action for r in judged] == [Action.PAUSE], cut


def test_what_the_rows_say_is_what_the_driver_knows(tmp_path: Path):
    controller, _ = run(tmp_path, _Scripted({40: 12, 20: 12}, resume=[LONG]))
    again = SweepState(controller.journal.rows())
    assert {t: s.status for t, s in again.trials.items()} == {t: s.status for t, s in controller.state.trials.items()}
    assert not again.with_status(TrialStatus.WAITING, TrialStatus.PAUSED)


class World(SimulatedSweep):
    """The best rate is 1e-3; every run falls by 0.1 at first and comes back, and gains in its decay."""

    def __init__(self, definition: Sweep) -> None:
        controller = SweepController(Plan(definition), MemoryJournal(), stop_rule(definition), home="memory://")
        super().__init__(controller, 3)
        self.draw = random.Random(0)

    def scores(self, job: EvalJob) -> tuple[float, Scores]:
        metric = "transfer/score"
        if is_base(job.trial):
            return 0.0, {metric: (0.5, 0.01)}
        config = self.controller.specs[job.trial].config
        gain, way = 0.3 - 0.3 * abs(math.log10(config["learning_rate"] / 1e-3)), min(1.0, job.step / 300)
        dip, decay = 0.1 * math.exp(-(((way - 0.1) / 0.08) ** 2)), 0.05 * (job.step == config["steps"])
        return 0.0, {metric: (0.5 + gain * way - dip + decay + self.draw.gauss(0, 0.01), 0.01)}


def test_the_dip_aware_rule_gives_branches_up_by_their_own_odds_and_never_in_a_protected_dip():
    definition = Sweep(
        name="w",
        space={"steps": grid(100, 200, 400), "learning_rate": loguniform(1e-4, 1e-2)},
        search={"algorithm": "random", "trials_per_cell": 12},
        stopping={"rule": "dip-aware", "top": 2},
        trainer={"lr_scheduler_type": "wsd", "warmup_steps": 5},
        evaluation={"at": {"every": 20}},
    )
    world = World(definition)
    while world.advance():
        pass
    rows, rule = world.controller.journal.rows(), stop_rule(definition)
    judged = [r for r in rows if isinstance(r, VerdictRow) and not r.attempt]
    assert any(r.action is Action.PAUSE for r in judged)
    budgets = {t.id: t.row.budget for t in world.controller.state.trials.values()}
    for row in rows:  # the rule decides the same from the rows alone
        if isinstance(row, VerdictRow):
            again = rule.decide(row.trial)
            assert (again.action, again.reason) == (
                row.action,
                row.reason.partition(": ")[2] if not row.attempt else row.reason,
            )
            if not row.attempt and row.action is not Action.CONTINUE:
                assert not row.evidence["protected"]
                assert row.evidence["budget"] == budgets[row.trial] < 400
                assert row.evidence["p_top"] < 3 * row.evidence["bar"]
        rule.observe(row)
    ended = [r for r in rows if isinstance(r, EndRow) and r.of is EndOf.SCORING]
    assert len(ended) == len(budgets) == 36


def _drawn(*key: object) -> float:
    return int(hashlib.sha256(repr(key).encode()).hexdigest()[:8], 16) / 2**32


class AnyVerdict(StopRule):
    """Gives up and resumes at random, always the same from the same rows."""

    def __init__(self, definition: Sweep, seed: int) -> None:
        super().__init__(definition.goal)
        self.seed = seed

    def decide(self, trial: str) -> Verdict:
        curve = self.history.curves[trial]
        u = _drawn(self.seed, trial, max(curve.steps(self.goal.metric), default=0), curve.budget)
        if u < 0.1:
            return Verdict(Action.STOP, "no chance", Phase.DIVERGED if u < 0.03 else Phase.PLATEAU)
        return Verdict(Action.PAUSE if u < 0.3 else Action.CONTINUE, "so it is")

    def choose_trial_to_resume(self, paused: Sequence[str]) -> str | None:
        attempts = sum(curve.attempt for curve in self.history.curves.values())
        chosen = sorted(paused)[int(_drawn(self.seed, sorted(paused), attempts) * len(paused))]
        return chosen if attempts < 60 and _drawn(self.seed, chosen, attempts) < 0.6 else None


class AnyWorld(SimulatedSweep):
    """Scores at random."""

    def scores(self, job: EvalJob) -> tuple[float, Scores]:
        return 0.0, {"transfer/score": (_drawn(job.trial, job.step), 0.01)}


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_rule_says_and_wherever_the_driver_dies_no_branch_is_left_hanging(seed: int):
    choose = random.Random(seed)
    definition = Sweep(
        name="any",
        space={"steps": grid(*choose.sample([20, 40, 60, 80, 160], 3)), "learning_rate": loguniform(1e-4, 1e-2)},
        search={"algorithm": choose.choice(["random", "optuna-tpe"]), "trials_per_cell": 3},
        trainer={"lr_scheduler_type": choose.choice(["wsd", "constant"]), "warmup_steps": 2},
        evaluation={"at": {"every": choose.choice([5, 10, 20])}},
    )
    plan, rows, controller = Plan(definition), list[Row](), None
    for moments in (choose.randint(1, 60), choose.randint(1, 60), 10_000):
        journal = MemoryJournal([*rows, LeaseRow(plan.sweep_id, since="2026-01-01 00:00:00 UTC")])
        controller = SweepController(plan, journal, AnyVerdict(definition, seed), home="memory://")
        world = AnyWorld(controller, 2)
        while moments and world.advance():
            moments -= 1
        rows = journal.rows()
        rows = rows[: len(rows) - choose.randint(0, 5)] if not controller.state.done else rows
    assert controller is not None
    assert controller.state.done
    state = SweepState(controller.journal.rows())
    assert len(state.trials) == plan.total == 9
    assert {t.id: t.status for t in state.trials.values()} == {t.id: t.status for t in controller.state.trials.values()}
    for trial in state.trials.values():
        assert trial.ended
        if not trial.attempt:
            assert trial.curve.reason.startswith(f"ended with its trunk {trial.parent}, which was ")
