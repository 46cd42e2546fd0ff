"""What rows say of a sweep: one fold, read alike by the controller, the command line, the metrics, export and gc."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from cluster.cli.render import kept_checkpoint, state_of, status_text, sweep_line
from cluster.observe.metrics import SweepMetrics
from cluster.run_sweep import write_spec
from sweeps import Sweep, grid
from sweeps.checkpoints.gc import collect
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.errors import InputError
from sweeps.failures import Failure, FailureKind
from sweeps.journal import state as state_module
from sweeps.journal.codec import parse
from sweeps.journal.rows import ControlRow, EndRow
from sweeps.journal.state import SweepState
from sweeps.journal.vocabulary import ControlAction, SweepStatus, TrialStatus
from sweeps.journal.writer import MemoryJournal, SweepJournal, read_rows
from sweeps.report import summarize
from sweeps.stopping import NeverStop
from sweeps.storage.factory import open_store
from tests.support.rows import make_row

SWEEP = Sweep(name="s", space={"replay": grid(0.1)}, trainer={"steps": 8, "learning_rate": 1e-3})


def controller(journal=None) -> SweepController:
    return SweepController(Plan(SWEEP), journal or MemoryJournal(), NeverStop(SWEEP.goal))


def launched(driver: SweepController) -> tuple[str, int]:
    launch = driver.next()
    assert launch is not None
    return launch.spec.id, launch.attempt


def told_everywhere(driver: SweepController) -> set[str]:
    """Returns the state of the only trial by everyone who tells it."""
    rows = driver.journal.rows()
    (trial,) = driver.state.trials
    metrics = SweepMetrics(SWEEP)
    for row in rows:
        metrics.apply(row)
    samples = {s.labels["state"]: s.value for s in metrics.samples() if s.name == "dipsweep_trials"}
    return {
        str(driver.state.trials[trial].status),
        str(driver.history.curves[trial].state),
        *(each["state"] for each in state_of(SWEEP, SweepState(rows))["each"]),
        *(state for state, number in samples.items() if number),
        str(summarize(rows).trials[0].state),
    }


def test_a_trial_stands_the_same_for_everyone_at_every_moment_of_its_life():
    driver = controller()
    trial, attempt = launched(driver)
    assert told_everywhere(driver) == {"running"}
    driver.failed(trial, attempt, Failure(FailureKind.WORKER_LOST, "lost", "node died"))
    assert told_everywhere(driver) == {"waiting"}  # a retry is a row like others
    trial, attempt = launched(driver)
    driver.suspended(trial, attempt, "its node is taken away")
    assert told_everywhere(driver) == {"waiting"}
    trial, attempt = launched(driver)
    driver.saved(trial, attempt, Saved(8, "/x/8", "sha256:8"))
    driver.trained(trial, attempt)
    assert told_everywhere(driver) == {"scoring"}
    driver.stop(trial, "ana")
    assert told_everywhere(driver) == {"pruned"}


def test_a_driver_that_takes_over_finds_what_ran_waiting(tmp_path: Path):
    with SweepJournal(tmp_path / "s") as journal:
        launched(controller(journal))
        assert SweepState(journal.rows()).with_status(TrialStatus.RUNNING)
    with SweepJournal(tmp_path / "s") as journal:
        state = SweepState(journal.rows())
        assert [t.status for t in state.trials.values()] == [TrialStatus.WAITING]
        again = controller(journal)
        assert again.next_trials()
        assert told_everywhere(again) == {"waiting"}


def test_what_asks_does_not_write():
    driver = controller()
    trial, attempt = launched(driver)
    before = len(driver.journal.rows())
    for question in (
        lambda: driver.is_busy,
        lambda: driver.is_paused,
        lambda: driver.is_current_attempt(trial, attempt),
        driver.queues,
        driver.spent,
        lambda: driver.over_limit(1.0),
        lambda: driver.checkpoint(trial),
        lambda: driver.state.status,
    ):
        question()
    assert len(driver.journal.rows()) == before


def test_the_fold_knows_neither_who_decides_nor_who_stops():
    source = inspect.getsource(state_module)
    assert "sweeps.controller" not in source
    assert "sweeps.stopping" not in source


# ---- checkpoints --------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, str]:
    """A sweep whose trial has checkpoints at 2, 4 and 6: 2 was deleted and 6 is damaged."""
    home = tmp_path / SWEEP.id
    with SweepJournal(home) as journal:
        write_spec(SWEEP, home)
        driver = SweepController(Plan(SWEEP), journal, NeverStop(SWEEP.goal), home=home)
        trial, attempt = launched(driver)
        for step in (2, 4, 6):
            folder = home / f"trials/{trial}/attempt-1/step-{step:06d}"
            folder.mkdir(parents=True)
            (folder / "state").write_text("x")
            driver.saved(trial, attempt, Saved(step, str(folder), f"sha256:{step}"))
        driver.checkpoint_deleted(trial, Saved(2, str(home / f"trials/{trial}/attempt-1/step-000002")))
        driver.failed(trial, attempt, Failure(FailureKind.WORKER_LOST, "lost"))
        launch = driver.next()
        assert launch is not None
        assert launch.resume is not None
        assert launch.resume.step == 6
        driver.failed(
            trial,
            launch.attempt,
            Failure(FailureKind.BAD_CHECKPOINT, "bad-checkpoint", "it has changed"),
        )
        last = driver.checkpoint(trial)
        assert last is not None
        assert last.step == 4
        driver.stop(trial, "ana")
    return home, trial


def test_export_takes_the_last_good_checkpoint(damaged: tuple[Path, str]):
    home, trial = damaged
    assert kept_checkpoint(open_store(home), trial, "last").path.endswith("step-000004")
    assert kept_checkpoint(open_store(home), trial, "4").path.endswith("step-000004")
    for step in ("2", "6", "8", "first"):
        with pytest.raises(InputError, match=f"got step '{step}'; expected best, last or one that is kept: 4$"):
            kept_checkpoint(open_store(home), trial, step)


def test_export_takes_the_best_checkpoint_of_a_branch_from_its_trunk_and_one_that_meets_the_constraints(tmp_path: Path):
    definition = Sweep(
        name="branches",
        space={"steps": grid(10, 20)},
        trainer={"learning_rate": 1e-3, "lr_scheduler_type": "wsd", "warmup_steps": 2},
        evaluation={"at": [2, 4, 6]},
        objective={"at": "best"},
        constraints=[{"metric": "safety/score", "at_least": 0.8}],
    )
    home = tmp_path / definition.id
    with SweepJournal(home) as journal:
        write_spec(definition, home)
        driver = SweepController(Plan(definition), journal, NeverStop(definition.goal), home=home)
        for _ in range(2):
            launch = driver.next()
            assert launch is not None
            for step in sorted(s for s in launch.spec.saves if launch.resume is None or s > launch.resume.step):
                folder = home / f"trials/{launch.spec.id}/attempt-1/step-{step:06d}"
                driver.saved(launch.spec.id, 1, Saved(step, str(folder), "d"))
            driver.trained(launch.spec.id, 1)
        jobs = list(iter(driver.next_eval, None))
        for job in sorted(jobs, key=lambda job: job.trial != launch.spec.id):  # the branch has ended before its trunk
            score, safety = {2: (0.7, 0.9), 4: (0.9, 0.1)}.get(job.step, (0.5, 0.9))
            metrics = {"transfer/score": score, "safety/score": safety}
            driver.scored(job, metrics, se={}, n={}, suite="s@1", cost={})
    trunk, branch = (next(t.id for t in Plan(definition).known_trials() if t.steps == steps) for steps in (20, 10))
    for trial, step, taken in (
        (trunk, "best", f"{trunk}/attempt-1/step-000002"),
        (branch, "best", f"{trunk}/attempt-1/step-000002"),
        (branch, "4", f"{trunk}/attempt-1/step-000004"),
        (branch, "last", f"{branch}/attempt-1/step-000010"),
    ):
        assert kept_checkpoint(open_store(home), trial, step).path.endswith(taken)
    with pytest.raises(InputError, match="got step '20'"):
        kept_checkpoint(open_store(home), branch, "20")


def test_gc_removes_what_was_deleted_or_is_damaged_and_keeps_the_rest(damaged: tuple[Path, str]):
    home, trial = damaged
    found = {garbage.what.rsplit("-", 1)[1]: garbage.why for garbage in collect(home, apply=True)}
    assert found["000006"] == "damaged"
    assert "its removal was cut off" in found["000002"]
    assert sorted(p.name for p in (home / f"trials/{trial}/attempt-1").iterdir()) == ["step-000004"]


# ---- the sweep ----------------------------------------------------------------------------------------------------------


def test_pausing_and_paused_are_told_apart():
    driver = controller()
    trial, attempt = launched(driver)
    driver.control(ControlAction.PAUSE, "ana")
    told = state_of(SWEEP, SweepState(driver.journal.rows()))
    assert (told["status"], told["saving"]) == ("pausing", 1)
    assert "1 running; pausing (1 trial saving)" in sweep_line(told)
    assert "pausing (1 trial saving)" in status_text(told)
    driver.trained(trial, attempt, asked=True)
    told = state_of(SWEEP, SweepState(driver.journal.rows()))
    assert sweep_line(told).endswith("1 trials: 1 waiting; paused")
    driver.control(ControlAction.RESUME, "ana")
    assert sweep_line(state_of(SWEEP, SweepState(driver.journal.rows()))).endswith("1 waiting")


def test_stopping_stopped_and_taken_over_again():
    lease = make_row("lease", "s")
    rows = [lease, make_row("trial", "s", "t", number=0), make_row("attempt", "s", "t", 1, 0)]
    assert SweepState(rows).status is SweepStatus.RUNNING
    rows.append(make_row("control", "s", who="ana", action="stop"))
    assert SweepState(rows).status is SweepStatus.STOPPING
    rows.append(make_row("control", "s", who="ana", action="interrupt"))
    state = SweepState(rows)
    assert (state.status, state.trial_status("t")) == (SweepStatus.STOPPED, TrialStatus.WAITING)
    assert state.interrupts == [""]
    assert SweepState([*rows, lease]).status is SweepStatus.RUNNING


def test_a_refused_request_changes_nothing():
    refused = make_row("control", "s", who="ana", action="pause refused", request="r-1")
    state = SweepState([refused])
    assert (state.status, state.requests) == (SweepStatus.RUNNING, {"r-1"})


def test_costs_are_of_all_attempts_and_evaluations_and_nothing_counts_twice():
    rows = [make_row("trial", "s", "t", number=0), make_row("attempt", "s", "t", 1, 0)]
    rows += [make_row("report", "s", "t", 1, step, cost={"gpu_s": 10.0 * step}) for step in (1, 2, 3)]
    rows += [make_row("attempt", "s", "t", 2, 1), make_row("report", "s", "t", 2, 2, cost={"gpu_s": 10.0})]
    rows += [make_row("report", "s", "t", 2, 2, metrics={"a/b": 1.0}, cost={"gpu_s": 10.0})]  # the same attempt's sum
    rows += [make_row("eval", "s", "t", 2, 1, cost={"gpu_s": 5.0}, status=status) for status in ("failed", "done")]
    rows += [make_row("eval", "s", "base-m", 0, 0, cost={"gpu_s": 1.0}, status="done")]
    costs = SweepState(rows).costs
    assert costs.training_of("t") == {"gpu_s": 40.0}  # what the first attempt did beyond step 1 was lost, and was paid
    assert (costs.scoring_of("t"), costs.scoring_of("base-m")) == ({"gpu_s": 10.0}, {"gpu_s": 1.0})
    assert costs.total() == {"gpu_s": 51.0}


def test_live_and_after_a_restart_the_same_is_known(damaged: tuple[Path, str]):
    home, trial = damaged
    state = SweepState(read_rows(home))
    again = SweepState()
    for row in read_rows(home):
        again.apply(row)
    assert state.trials == again.trials
    assert state.files == again.files
    assert list(state.trials[trial].kept()) == [4]


@pytest.mark.parametrize(
    ("row", "counts"),
    [
        ({"reason": "lost", "detail": "node died"}, (1, 0, 0)),
        ({"reason": "oom"}, (1, 0, 1)),
        ({"reason": "preempted", "preempted": True}, (0, 1, 0)),
        ({"reason": "out of memory", "failure": "oom"}, (1, 0, 1)),
        ({"reason": "drained", "failure": "node-preempted"}, (0, 1, 0)),
        ({"reason": "oom", "failure": "worker-crashed"}, (1, 0, 0)),
    ],
)
def test_a_retry_counts_by_its_kind_of_failure_and_in_old_journals_by_flag_and_word(row, counts):
    driver = controller()
    trial, attempt = launched(driver)
    old = {
        "v": 1,
        "kind": "control",
        "sweep": SWEEP.id,
        "trial": trial,
        "attempt": attempt,
        "who": "driver",
        "action": "retry",
    }
    driver.state.apply(parse({**old, **row}))
    known = driver.state.trials[trial]
    assert (known.lost, known.preempted, known.out_of_memory) == counts


def test_the_kind_of_a_failure_stands_in_the_journal():
    driver = controller()
    trial, attempt = launched(driver)
    driver.failed(trial, attempt, Failure(FailureKind.NODE_PREEMPTED, "preempted"))
    trial, attempt = launched(driver)
    driver.failed(trial, attempt, Failure(FailureKind.USER, "diverged", "loss nan at step 3"))
    kinds = [row.failure for row in driver.journal.rows() if isinstance(row, ControlRow | EndRow)]
    assert kinds == [FailureKind.NODE_PREEMPTED, FailureKind.USER]
