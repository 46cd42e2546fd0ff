"""Whatever happens to a sweep, in whatever order: what the journal says stays true.

Workers report, commit, break; drivers die, fall silent, are overtaken; the storage fails; the dead speak on. After every
move the log is read anew, as a stranger would.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sweeps import Sweep, grid
from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved
from sweeps.controller.controller import SweepController
from sweeps.controller.launch import Launch
from sweeps.errors import Fenced, JournalError, StorageError, Unreachable
from sweeps.failures import Failure, FailureKind
from sweeps.journal.rows import Row
from sweeps.journal.writer import SweepJournal, read_rows
from sweeps.stopping.base import Action, Phase
from sweeps.stopping.dip_aware import DipAware
from sweeps.storage.memory import MemoryStore
from tests.support.crash import finished_stay_finished, no_row_twice, verdicts_replay
from tests.support.faulty_store import Calls, FaultyStore, out_of_reach
from tests.support.rows import make_row

SWEEP = Sweep(name="model", space={"replay": grid(0.0, 0.1, 0.2, 0.3)}, trainer={"steps": 24, "learning_rate": 1e-3},
              stopping={"rule": "dip-aware", "top": 1}, limits={"retries": 3})  # fmt: skip
Y = SWEEP.goal.metric
SLOTS = 2
PROTECTED = {str(Phase.DIP), str(Phase.RECOVERY)}
scores = st.floats(0, 1).map(lambda v: round(v, 2))


@dataclass(repr=False)
class Worker:
    """One attempt on a machine. It may outlive its driver, and speaks to whoever listens."""

    launch: Launch
    step: int

    def __repr__(self) -> str:
        return f"{self.trial}#{self.launch.attempt} at {self.step}"

    @property
    def trial(self) -> str:
        return self.launch.spec.id


class NeverLose(RuleBasedStateMachine):
    """One sweep, its drivers alive and dead, its workers wanted and superseded."""

    @initialize()
    def begin(self) -> None:
        self.home = MemoryStore() / SWEEP.id
        self.workers: list[Worker] = []
        self.zombies: list[Worker] = []
        self.fenced: list[SweepController] = []
        self.jobs: list[EvalJob] = []
        self.seen: list[Row] = []
        self.drive()

    def drive(self) -> None:
        """A new driver takes the sweep; what ran before runs on unheard."""
        self.calls = Calls()
        store = FaultyStore(self.home, self.calls)
        self.journal = SweepJournal(store, lease_s=0, beating=False)
        self.controller = SweepController(Plan(SWEEP), self.journal, DipAware(SWEEP.goal))
        self.zombies += self.workers
        self.workers, self.jobs = [], []

    # ---- what goes well -------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.workers) < SLOTS)
    @rule()
    def start_an_attempt(self) -> None:
        launch = self.controller.next()
        if launch is not None:
            assert all(w.trial != launch.spec.id for w in self.workers)
            self.workers.append(Worker(launch, launch.resume.step if launch.resume else 0))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), steps=st.integers(1, 6))
    def train(self, data: st.DataObject, steps: int) -> None:
        """So many steps, each with its report and its checkpoint where one is due; at the budget training is over."""
        worker = data.draw(st.sampled_from(self.workers))
        spec, attempt = worker.launch.spec, worker.launch.attempt
        for _ in range(steps):
            if worker not in self.workers or not self.controller.is_current_attempt(spec.id, attempt):
                break
            worker.step += 1
            self.controller.report(spec.id, attempt, worker.step, {"train/loss": 1.0 / worker.step})
            if worker.step in spec.saves:
                self.controller.saved(spec.id, attempt, Saved(worker.step, f"/{spec.id}/{attempt}/{worker.step}", "d"))
            if worker.step == spec.steps:
                self.controller.trained(spec.id, attempt)
                self.workers.remove(worker)
        self.workers = [w for w in self.workers if self.controller.is_current_attempt(w.trial, w.launch.attempt)]

    @rule()
    def take_a_checkpoint_to_score(self) -> None:
        job = self.controller.next_eval()
        if job is not None:
            self.jobs.append(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), score=scores, times=st.integers(1, 2))
    def score_arrives_maybe_twice(self, data: st.DataObject, score: float, times: int) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        self.jobs.remove(job)
        for _ in range(times):
            self.controller.scored(job, {Y: score}, se={Y: 0.02}, n={Y: 100}, suite="s@1", cost={"cpu_s": 1.0})
        self.workers = [w for w in self.workers if self.controller.is_current_attempt(w.trial, w.launch.attempt)]

    # ---- what goes wrong ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def evaluation_breaks(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        self.jobs.remove(job)
        self.controller.eval_failed(job, Failure(FailureKind.USER, "error", "the judge is out"))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), how=st.sampled_from(sorted(FailureKind)))
    def worker_breaks(self, data: st.DataObject, how: FailureKind) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        self.workers.remove(worker)
        self.zombies.append(worker)
        self.controller.failed(worker.trial, worker.launch.attempt, Failure(how, how.value, "gone"))

    @rule()
    def driver_dies_and_another_goes_on(self) -> None:
        self.drive()

    @rule()
    def driver_falls_silent_and_is_overtaken(self) -> None:
        self.fenced.append(self.controller)
        self.drive()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), calls=st.integers(1, 3), moment=st.sampled_from(["before", "after"]))
    def storage_fails_under_the_driver(self, data: st.DataObject, calls: int, moment: str) -> None:
        """The driver cannot write any more, and knows not whether its last row is there: it ends, another goes on."""
        self.calls.at, self.calls.moment = len(self.calls.log) + calls, moment  # type: ignore[assignment]
        self.calls.error = out_of_reach
        worker = data.draw(st.sampled_from(self.workers))
        try:
            for more in range(5):
                self.controller.report(
                    worker.trial, worker.launch.attempt, worker.step + 1, {f"train/sign_of_life_{more}": 1.0}
                )
        except (Unreachable, JournalError):
            with pytest.raises(StorageError):
                self.journal.append(make_row("control", SWEEP.id))
        self.drive()

    @precondition(lambda self: self.zombies)
    @rule(data=st.data())
    def the_dead_speak(self, data: st.DataObject) -> None:
        """A worker whose attempt is over reports and commits; nobody writes it down."""
        zombie = data.draw(st.sampled_from(self.zombies))
        attempt = zombie.launch.attempt
        if self.controller.is_current_attempt(zombie.trial, attempt):
            return
        before = len(self.journal.rows())
        self.controller.report(zombie.trial, attempt, zombie.step + 1, {"train/loss": -1.0})
        self.controller.trained(zombie.trial, attempt)
        self.controller.failed(zombie.trial, attempt, Failure(FailureKind.WORKER_LOST, "lost"))
        assert len(self.journal.rows()) == before

    @precondition(lambda self: self.fenced)
    @rule(data=st.data())
    def an_overtaken_driver_wakes(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.fenced))
        before = read_rows(self.home)
        with pytest.raises((Fenced, JournalError)):
            old.control("pause", "a ghost")
        assert read_rows(self.home) == before

    # ---- what holds -----------------------------------------------------------------------------------------------

    @invariant()
    def the_log_only_grows_and_is_what_the_driver_believes(self) -> None:
        rows = read_rows(self.home)
        assert rows[: len(self.seen)] == self.seen
        assert rows == self.journal.rows()
        assert [r.seq for r in rows] == list(range(len(rows)))
        self.seen = rows

    @invariant()
    def nothing_is_said_twice_and_what_ended_stays_ended(self) -> None:
        no_row_twice(self.seen, retrained=True)
        finished_stay_finished(self.seen)

    @invariant()
    def commits_grow_and_nothing_of_a_superseded_attempt_is_written(self) -> None:
        latest, committed = Counter[str](), Counter[tuple[str, int]]()
        for row in self.seen:
            if row.kind == "attempt":
                assert row.attempt == latest[row.trial] + 1
                latest[row.trial] = row.attempt
            elif row.kind == "commit" and not (row.dropped or row.damaged):
                assert row.attempt == latest[row.trial]
                assert row.step is not None
                assert row.step > committed[row.trial, row.attempt]
                committed[row.trial, row.attempt] = row.step

    @invariant()
    def no_verdict_falls_in_a_protected_window(self) -> None:
        for row in self.seen:
            if row.kind == "verdict" and row.action != Action.CONTINUE:
                assert row.phase not in PROTECTED, row.line()

    def teardown(self) -> None:
        if not hasattr(self, "seen"):
            return
        verdicts_replay(self.seen, DipAware(SWEEP.goal))
        self.finish()

    def finish(self) -> None:
        """From wherever it stands, the sweep comes to its end."""
        self.drive()
        for _ in range(400):
            if self.controller.finish_if_done():
                break
            while (job := self.controller.next_eval()) is not None:
                self.controller.scored(job, {Y: 0.5}, se={Y: 0.02}, n={Y: 100}, suite="s@1", cost={})
            if (launch := self.controller.next()) is not None:
                spec, attempt = launch.spec, launch.attempt
                for step in sorted(s for s in spec.saves if s > (launch.resume.step if launch.resume else 0)):
                    self.controller.saved(spec.id, attempt, Saved(step, f"/{spec.id}/{attempt}/{step}", "d"))
                self.controller.trained(spec.id, attempt)
        assert self.controller.finish_if_done()
        rows = read_rows(self.home)
        no_row_twice(rows, retrained=True)
        finished_stay_finished(rows)
        ends = Counter(r.trial for r in rows if r.kind == "end" and r.trial and r.of == "scoring")
        assert set(ends.values()) == {1}
        assert set(ends) == {t.id for t in Plan(SWEEP).known_trials()}


COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}
TestQuick = NeverLose.TestCase
TestQuick.settings = settings(max_examples=15, stateful_step_count=30, **COMMON)


class Long(NeverLose):
    """The same, for longer."""


@pytest.mark.chaos
@pytest.mark.timeout(1200)
class TestLong(Long.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(max_examples=150, stateful_step_count=60, **COMMON)
