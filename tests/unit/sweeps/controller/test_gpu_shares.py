"""A share of a GPU costs a share: trials and evaluators write down what they reserve; limits, reports and plans agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.trial import Hooks, ModelSource, Saved, TrialSpec
from sweeps.controller.controller import SweepController
from sweeps.controller.launch import Launch
from sweeps.executors.local import InProcess
from sweeps.failures import Failure, FailureKind
from sweeps.journal.rows import AttemptRow, EvalRow, ReportRow, Row
from sweeps.journal.state import SweepState, reserved
from sweeps.journal.writer import MemoryJournal
from sweeps.planning.estimate import Estimate, estimate
from sweeps.planning.speeds import Figure, Key, Speed, key_of, measured_speeds
from sweeps.planning.work import planned_work
from sweeps.report.analysis.costs.ledger import ledger, ledger_text
from sweeps.report.analysis.summarize import summarize
from sweeps.stopping import NeverStop
from tests.support.fakes import FakeScores, FakeTrainer

STEPS, STEP_S, SCORE_S, BASE_S, TOKENS = 40, 2.0, 30.0, 45.0, 1000


def sweep(share: float = 0.5, evaluator: float = 0.5, **more: Any) -> Sweep:
    """Two trials of one worker, scored once each, on the built-in model as if it trained on a GPU."""
    fields: dict[str, Any] = {
        "models": {"tiny-s": {"gpus_per_worker": share, **more.pop("model", {})}},
        "space": {"replay": grid(0.1, 0.2)},
        "trainer": {"steps": STEPS, "batch_tokens": TOKENS},
        "evaluation": {"at": [STEPS], "gpus_per_worker": evaluator, "items": 20},
    }
    return Sweep(name="shares", **{**fields, **more})


class Driven:
    """A sweep whose workers and evaluators are this test; all trials train side by side, by one clock."""

    def __init__(self, definition: Sweep, workers: int | None = None) -> None:
        self.plan, self.journal = Plan(definition), MemoryJournal()
        self.controller = SweepController(self.plan, self.journal, NeverStop(definition.goal))
        self.workers = workers

    @property
    def rows(self) -> list[Row]:
        return self.journal.rows()

    @property
    def gpu_s(self) -> float:
        return self.controller.spent().get("gpu_s", 0.0)

    def start(self) -> list[Launch]:
        return [self.controller.launch(spec.id, self.workers) for spec in self.controller.next_trials(2)]

    def report(self, launch: Launch, step: int, seconds: float, unit: str = "gpu_s") -> None:
        """The workers of a trial have computed for so many seconds, each of them."""
        self.controller.report(
            launch.spec.id,
            launch.attempt,
            step,
            {"train/loss": 1 / step},
            progress={"tokens": float(step * TOKENS)},
            cost={unit: seconds * launch.workers},
        )

    def whole(self, unit: str = "gpu_s", seconds: float = STEP_S) -> Driven:
        """Trains and scores all of it."""
        launches = self.start()
        for step in range(10, STEPS + 1, 10):
            for launch in launches:
                self.report(launch, step, step * seconds, unit)
        for launch in launches:
            self.controller.saved(launch.spec.id, launch.attempt, Saved(STEPS, f"{launch.spec.id}/{STEPS}"))
            self.controller.trained(launch.spec.id, launch.attempt)
        while (job := self.controller.next_eval()) is not None:
            took = BASE_S if job.step == 0 else SCORE_S
            cost = {"cpu_s": took, **({"gpu_s": took} if unit == "gpu_s" else {})}
            gpus = self.plan.sweep.evaluation.gpus_per_worker
            self.controller.scored(
                job, {"transfer/score": 0.5}, se={}, n={}, suite="mini", cost=reserved(cost, gpus), seconds=cost.get("gpu_s")
            )  # fmt: skip
        assert self.controller.finish_if_done()
        return self


def learnt(rows: list[Row], plan: Plan, like: Speed | None = None) -> dict[Key, Speed]:
    """Speeds of a plan as a journal tells them."""
    nothing = Figure(0.0, 0.0, "assumed")
    found: dict[Key, Speed] = {}
    for item in planned_work(plan):
        guess = like or Speed(nothing, nothing, nothing, TOKENS, nothing)
        measured = measured_speeds([rows], "mini", source="here")[key_of(item.config, item.workers)]
        each = item.gpus / item.workers
        found[key_of(item.config, item.workers)] = measured.over(guess, devices=item.devices, each=each)
    return found


def test_two_trials_of_half_a_gpu_cost_together_what_the_device_was_held_for():
    driven = Driven(sweep())
    for launch in driven.start():
        driven.report(launch, 10, 1800.0)
        driven.report(launch, 20, 3600.0)  # both in the same hour
    assert driven.gpu_s == pytest.approx(3600.0)
    assert [row.gpus for row in driven.rows if isinstance(row, AttemptRow)] == [0.5, 0.5]
    assert [row.cost for row in driven.rows if isinstance(row, ReportRow)] == [{"gpu_s": 900.0}, {"gpu_s": 1800.0}] * 2


def test_a_limit_of_gpu_hours_is_reached_when_the_device_was_held_for_so_long():
    driven = Driven(sweep(limits={"gpu_hours": 1.0}))
    launches = driven.start()
    for step, seconds, over in ((10, 1800.0, False), (20, 3599.0, False), (30, 3601.0, True)):
        for launch in launches:
            driven.report(launch, step, seconds)
        assert bool(driven.controller.over_limit(0.0)) is over, seconds


@pytest.mark.parametrize(
    ("model", "workers", "held"),
    [
        ({"gpus_per_worker": 1.0, "workers": 2}, None, 2.0),
        ({"gpus_per_worker": 2.0}, None, 2.0),
        ({"gpus_per_worker": 0.25, "workers": 4}, None, 1.0),
        ({"gpus_per_worker": 1.0, "workers": [1, 4]}, 3, 3.0),  # elastic, on fewer than it would like
    ],
)
def test_workers_and_the_gpus_of_each_count(model: dict[str, Any], workers: int | None, held: float):
    driven = Driven(sweep(model=model), workers)
    launch = driven.start()[0]
    driven.report(launch, 10, 100.0)
    assert driven.gpu_s == pytest.approx(100.0 * held)


def test_a_further_attempt_on_other_machines_counts_what_it_holds_itself():
    driven = Driven(sweep(model={"gpus_per_worker": 0.5, "workers": [1, 2]}))
    launch = driven.start()[0]
    driven.report(launch, 10, 100.0)
    driven.controller.failed(launch.spec.id, 1, Failure(FailureKind.WORKER_LOST, "lost"))
    again = driven.controller.launch(launch.spec.id, 1)
    driven.report(again, 10, 100.0)
    assert driven.gpu_s == pytest.approx(100.0 * 2 * 0.5 + 100.0 * 0.5)


def test_what_a_loop_says_it_spent_of_gpus_that_nothing_reserves_is_taken_as_it_is():
    driven = Driven(sweep(share=0.0))
    driven.report(driven.start()[0], 10, 100.0)
    assert driven.gpu_s == 100.0
    assert [row.gpus for row in driven.rows if isinstance(row, AttemptRow)] == [None, None]


def test_a_run_in_one_process_holds_a_whole_gpu_whatever_its_trials_would_reserve(tmp_path: Path):
    plan, journal = Plan(sweep(space={"replay": grid(0.1)})), MemoryJournal()
    controller = SweepController(plan, journal, NeverStop(plan.sweep.goal))

    def train(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None:
        assert trial.model.gpus_per_worker == 1.0  # against whose memory the loop holds what it needs
        hooks.report(1, {"train/loss": 1.0}, progress={}, cost={"gpu_s": 100.0})
        FakeTrainer()(trial, hooks, folder=folder, resume=resume)

    InProcess(controller, train, lambda job: FakeScores({"transfer/score": 0.5}, cost={"gpu_s": 7.0}), tmp_path).run()
    costs = controller.state.costs
    assert (costs.training["gpu_s"], costs.scoring["gpu_s"]) == (100.0, 14.0)
    assert [row.gpus for row in journal.rows() if isinstance(row, AttemptRow)] == [1.0]
    assert [ModelSource(gpus_per_worker=n).alone.gpus(1) for n in (0.0, 0.5, 2.0)] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("share", "evaluator", "gpus"),
    [(0.5, 0.5, 1.0), (1.0, 1.0, 3.0), (0.25, 0.0, 1.0), (0.0, 0.5, 1.0), (2.0, 0.25, 5.0)],
)
def test_the_plan_the_journal_and_the_report_say_the_same_number(share: float, evaluator: float, gpus: float):
    """A plan by the times of a sweep costs what that sweep cost; on as many GPUs as all of it takes, it is as long."""
    definition = sweep(share, evaluator, limits={"usd": 1e6, "usd_per_gpu_hour": 3.0})
    driven = Driven(definition).whole("gpu_s" if share else "cpu_s")
    rows, plan = driven.rows, driven.plan
    if not share:  # evaluators on a GPU beside trials on CPUs
        rows = [replace(r, cost={"gpu_s": r.cost["cpu_s"] * evaluator}, seconds=r.cost["cpu_s"]) if isinstance(r, EvalRow) else r
                for r in rows]  # fmt: skip
    training = 2 * STEPS * STEP_S * share
    scoring = (2 * SCORE_S + BASE_S) * evaluator
    spent = SweepState(rows).costs.total().get("gpu_s", 0.0)
    assert spent == pytest.approx(training + scoring)

    found: Estimate = estimate(plan, learnt(rows, plan), [gpus])
    later = (BASE_S - SCORE_S) * evaluator  # a plan has a base's evaluation as long as others
    assert found.gpu_hours.value * 3600 == pytest.approx(spent - later)
    assert found.usd is not None
    assert found.usd.value == pytest.approx(found.gpu_hours.value * 3.0)
    assert sum(m.training.value for m in found.models) == pytest.approx(training or 2 * STEPS * STEP_S)

    account = ledger(rows, summarize(rows))
    assert account.total.training + account.total.scoring == pytest.approx(spent)
    assert f"{spent / 3600:.3g} GPU hours" in ledger_text(account, 3.0)


def test_trials_that_share_a_gpu_take_as_long_in_a_plan_as_they_took():
    driven = Driven(sweep(0.5, evaluation={"at": [STEPS], "items": 20, "workers": 3})).whole()
    speeds = learnt(driven.rows, driven.plan)
    (speed,) = speeds.values()
    assert speed.step.seconds == pytest.approx(STEP_S)
    together, half = (estimate(driven.plan, speeds, [gpus]).wall for gpus in (1.0, 0.5))
    assert together is not None
    assert half is not None
    assert half.value - together.value == pytest.approx(STEPS * STEP_S)  # one after the other, on half a GPU


def as_before(rows: list[Row]) -> list[Row]:
    """The same rows as early journals hold them: each process on a GPU counts as one."""
    share = {row.trial: row.gpus_each for row in rows if isinstance(row, AttemptRow)}
    found: list[Row] = []
    for row in rows:
        if isinstance(row, AttemptRow):
            row = replace(row, gpus=None)
        elif isinstance(row, ReportRow) and "gpu_s" in row.cost:
            row = replace(row, cost={"gpu_s": row.cost["gpu_s"] / share[row.trial]})
        elif isinstance(row, EvalRow) and row.seconds is not None:
            row = replace(row, cost={**row.cost, "gpu_s": row.seconds}, seconds=None)
        found.append(row)
    return found


@pytest.mark.parametrize("model", [{}, {"gpus_per_worker": 0.25, "workers": 2}, {"gpus_per_worker": 2.0}])
def test_a_journal_of_version_0_1_is_read_as_it_was_written_and_tells_the_same_speeds(model: dict[str, Any]):
    driven = Driven(sweep(model=model)).whole()
    old = as_before(driven.rows)
    workers = model.get("workers", 1)
    assert SweepState(old).costs.total()["gpu_s"] == pytest.approx(
        2 * STEPS * STEP_S * workers + 2 * SCORE_S + BASE_S
    )  # as was said then
    now, then = learnt(driven.rows, driven.plan), learnt(old, driven.plan)
    assert now == then
    (speed,) = now.values()
    assert (speed.step.seconds, speed.evaluation.seconds) == (pytest.approx(STEP_S), SCORE_S)


def test_of_another_share_than_was_measured_a_plan_is_no_surer_than_the_shares_are_apart():
    driven = Driven(sweep(1.0)).whole()
    (half,) = learnt(driven.rows, Plan(sweep(0.5))).values()
    assert half.step.seconds == pytest.approx(2 * STEP_S)  # two on one GPU, each half as fast
    assert half.step.error == pytest.approx(1.0)
    assert half.step.source.endswith("of workers with 1 GPU each")
    (same,) = learnt(driven.rows, Plan(sweep(1.0))).values()
    assert same.step.error == pytest.approx(0.25)


@pytest.mark.parametrize("cpus", [0.5, 1.0, 4.0])
def test_cpu_seconds_are_what_processes_computed_whatever_cpus_they_reserve(cpus: float):
    """A worker of four CPUs computes on four at once, two of half a CPU take turns."""
    definition = sweep(0.0, 0.0, model={"cpus_per_worker": cpus})
    driven = Driven(definition).whole("cpu_s")
    spent = driven.controller.state.costs.training["cpu_s"]
    assert spent == pytest.approx(2 * STEPS * STEP_S)
    found = learnt(driven.rows, driven.plan)
    (speed,) = found.values()
    assert speed.step.seconds == pytest.approx(STEP_S / cpus)
    (model,) = estimate(driven.plan, found).models
    assert model.training.value == pytest.approx(spent)
    assert model.gpu_seconds.value == 0.0
