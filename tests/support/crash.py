"""A sweep in this process that can be killed anywhere: at each call of its storage, at each step, score and deletion.

A `World` is what outlives a driver: the storage, the checkpoints, the people who ask for things, and what really ran.
`World.drive` is one life of a driver. `check` holds what must be true of every sweep that was killed and resumed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps import Sweep, grid, loguniform
from sweeps.config.eval_job import EvalJob
from sweeps.config.plan import Plan
from sweeps.config.trial import Hooks, Saved, TrialSpec
from sweeps.controller.controller import SweepController
from sweeps.controller.request_handler import POLL_S, RequestHandler
from sweeps.controller.requests import Request, post
from sweeps.errors import DamagedCheckpoint
from sweeps.executors.local import InProcess
from sweeps.journal.history import ENDED, History
from sweeps.journal.rows import Row
from sweeps.journal.writer import SweepJournal, read_rows
from sweeps.stopping import Action, Goal, NeverStop, Phase, StopRule, Verdict
from sweeps.stopping.dip_aware import DipAware
from sweeps.stopping.registry import make_rule
from sweeps.storage.base import Store
from tests.support.fakes import FakeScores, FakeTrainer, Paced, fake_evaluate
from tests.support.faulty_store import Calls, Died, FaultyStore

Y = "transfer/score"
OF_START_UPS = frozenset({
    "perf/start_up_s", "perf/start_up/process_s", "perf/start_up/imports_s", "perf/start_up/cpu_s", "perf/reused_processes",
})  # fmt: skip
"""What each attempt on Ray tells of its own start: seconds of this machine, and whether its processes are new ones."""


class PausingDipAware(DipAware):
    """DipAware that also pauses every trial once, at its first score from step 4 on, and resumes them in order."""

    def __init__(self, goal: Goal) -> None:
        super().__init__(goal)
        self.rested: set[str] = set()

    def observe(self, row: Row) -> bool:
        if row.kind == "verdict" and row.action == "PAUSE":
            self.rested.add(row.trial)
        return super().observe(row)

    def decide(self, trial: str) -> Verdict:
        curve = self.history.curves[trial]
        if trial not in self.rested and max(curve.steps(Y), default=0) >= 4 and curve.config["replay"] == 0.0:
            return Verdict(Action.PAUSE, "one rest for everybody", Phase.UNKNOWN)
        return super().decide(trial)

    def choose_trial_to_resume(self, paused: Any) -> str | None:
        return paused[0] if paused else None


@dataclass(frozen=True)
class Case:
    """One kind of sweep to be killed: what runs, who prunes, what goes wrong by itself, what people ask."""

    sweep: Sweep
    rule: Callable[[Goal], StopRule]
    asks: Mapping[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)  # look number -> action, arguments
    damages: bool = False  # after each crash the newest checkpoint of every open trial is found damaged
    bad_scores: bool = False  # every third evaluation breaks at its first try

    @property
    def timed(self) -> bool:
        """What becomes of a wish depends on how far a trial has come when it is heard, so on the moment of a crash."""
        return bool(self.asks)


WSD = {"learning_rate": 1e-3, "lr_scheduler_type": "wsd", "warmup_steps": 2}
CASES: dict[str, Case] = {
    "grid on shared trunks, median": Case(
        Sweep(name="trunk", space={"replay": grid(0.0, 0.1, 0.2), "steps": grid(8, 16)}, trainer=WSD,
              stopping={"rule": "median"}),
        lambda goal: make_rule("median", goal)),
    "search with dip-aware and pauses": Case(
        Sweep(name="search", space={"learning_rate": loguniform(1e-4, 1e-2), "replay": grid(0.0, 0.1)},
              search={"algorithm": "optuna-tpe", "trials_per_cell": 2}, trainer={"steps": 12}, stopping={"rule": "dip-aware"}),
        lambda goal: PausingDipAware(goal)),
    "people ask": Case(
        Sweep(name="asked", space={"replay": grid(0.0, 0.1)}, trainer={**WSD, "steps": 10}),
        NeverStop,
        asks={7: ("extend", {"steps": 16}), 9: ("clone", {"set": {"learning_rate": 5e-4}, "warm": True}),
              11: ("stop", {}), 13: ("limits", {"set": {"gpu_hours": 9.0}})}),
    "damaged checkpoints, broken evaluations, failing trials": Case(
        Sweep(name="damage", space={"learning_rate": grid(666.0, 667.0, 1e-3), "replay": grid(0.0, 0.1)}, trainer={"steps": 8}),
        NeverStop, damages=True, bad_scores=True),
    "asha": Case(
        Sweep(name="asha", space={"replay": grid(0.0, 0.1, 0.2, 0.02)}, trainer={"steps": 16, "learning_rate": 1e-3},
              stopping={"rule": "asha", "grace": 2}),
        lambda goal: make_rule("asha", goal, grace=2)),
}  # fmt: skip


class DyingJournal(SweepJournal):
    """A journal whose process may die before a row, in the middle of one (`tear`, in a folder), or after it."""

    def __init__(self, home: Store, calls: Calls) -> None:
        self.calls = calls
        super().__init__(home, lease_s=0, beating=False)

    def _write(self) -> None:
        if self.store.local() is None:
            super()._write()  # its store dies by itself
            return
        if self._file is not None and self.calls.tear and len(self.calls.log) + 1 == self.calls.at:
            data = b"".join(self._pending)
            self._file.append(data[: len(data) // 2])
        self.calls.run("row", "", super()._write, writes=True)

    def close(self) -> None:
        if not self.calls.dead:
            super().close()
            return
        for held in (self._file, self._lock):  # what the kernel does; a dead driver gives nothing back
            if held is not None:
                held.close()


class World:
    """Everything that a dead driver leaves behind, and a record of what was really done."""

    def __init__(self, case: Case, store: Store, files: Path) -> None:
        self.case, self.store, self.files = case, store, files
        self.calls = Calls()
        self.plan = Plan(case.sweep)
        self.home = store / self.plan.sweep_id
        self.trainer = FakeTrainer()
        self.ran = Counter[tuple[str, int]]()  # (trial, step) -> how often it was trained
        self.ran_after_end: list[tuple[str, int]] = []
        self.looks = 0
        self.asked: set[int] = set()
        self.damaged: set[str] = set()
        self.broken: set[tuple[str, int]] = set()
        self.lives = 0

    def drive(self, calls: Calls) -> bool:
        """One life of a driver, until the sweep is done (True) or the process dies (False)."""
        self.lives += 1
        self.calls = calls
        journal = None
        try:
            journal = DyingJournal(self.home if self.home.local() else FaultyStore(self.home, calls), calls)
            return self._go_on(journal)
        except Died:
            return False
        finally:
            with contextlib.suppress(Died):
                if journal is not None:
                    journal.close()

    def _go_on(self, journal: SweepJournal) -> bool:
        self.controller = SweepController(self.plan, journal, self.case.rule(self.case.sweep.goal))
        clock = [0.0]
        steering = RequestHandler(self.controller, FaultyStore(self.store, self.calls), clock=lambda: clock[0])

        def look() -> None:
            clock[0] += POLL_S
            self._ask()
            steering()

        InProcess(self.controller, self._train, self._evaluate, str(self.files), keep=self._keep, steer=look).run()
        return self.controller.finish_if_done()

    def _ask(self) -> None:
        """People ask once each, when the sweep has come so far; a dead driver does not make them ask again."""
        self.looks += 1
        first = self.plan.known_trials()[0].id if self.case.asks else ""
        for at, (action, args) in self.case.asks.items():
            if self.looks >= at and at not in self.asked:
                self.asked.add(at)
                about = "" if action == "limits" else first
                post(self.store, self.plan.sweep_id, Request(action, about, args, who="ana"))  # type: ignore[arg-type]

    def _train(self, trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None:
        if resume is not None and resume.path in self.damaged:
            raise DamagedCheckpoint("its sha256 does not match")
        ended = self.ended()
        world = self

        class Mortal(Paced):
            def stop_asked(self) -> bool:
                world.calls.run("step", trial.id, lambda: None, writes=False)
                return super().stop_asked()

        before = len(self.trainer.log)
        try:
            self.trainer(trial, Mortal(hooks), folder=folder, resume=resume)
        finally:
            for _, _, step in self.trainer.log[before:]:
                self.ran[trial.id, step] += 1
                if trial.id in ended:
                    self.ran_after_end.append((trial.id, step))

    def _evaluate(self, job: EvalJob) -> FakeScores:
        self.calls.run("score", job.trial, lambda: None, writes=False)
        if self.case.bad_scores and job.step % 3 == 0 and job.step and (job.trial, job.step) not in self.broken:
            self.broken.add((job.trial, job.step))
            raise RuntimeError("the judge is out")
        return fake_evaluate(job)

    def _keep(self) -> None:
        for trial, checkpoint in self.controller.checkpoints_to_delete():
            self.calls.run("remove", checkpoint.path, lambda path=checkpoint.path: shutil.rmtree(path, ignore_errors=True),
                           writes=True)  # fmt: skip
            self.controller.checkpoint_deleted(trial, checkpoint)

    def rows(self) -> list[Row]:
        return read_rows(self.home)

    def ended(self) -> set[str]:
        return {c.trial for c in History(self.rows()).trials() if c.state in ENDED}

    def damage(self) -> None:
        """Bits flip in the newest checkpoint of every trial that is under way, as long as it has an older one too."""
        newest: dict[str, dict[int, str]] = {}
        for row in self.rows():
            if row.kind == "commit" and row.step is not None:
                newest.setdefault(row.trial, {})[row.step] = str(row.path)
        for trial, saved in newest.items():
            if trial not in self.ended() and len(saved) > 1:
                self.damaged.add(saved[max(saved)])


def run_whole(case: Case, store: Store, files: Path) -> World:
    """Runs a case without any fault."""
    world = World(case, store, files)
    assert world.drive(Calls())
    return world


def run_killed(case: Case, store: Store, files: Path, calls: Calls, most: int = 4) -> World:
    """Runs a case through one death, and resumes it until it is done."""
    world = World(case, store, files)
    if world.drive(calls):
        return world
    if case.damages and world.home.list("log"):
        world.damage()
    for _ in range(most):
        if world.drive(Calls()):
            return world
    raise AssertionError("the sweep does not end")


# ---- what must hold ---------------------------------------------------------------------------------------------------


def check(world: World, whole: World) -> None:
    """Holds a killed and resumed sweep against its journal, against what really ran, and against an undisturbed one."""
    rows = world.rows()
    assert [r.seq for r in rows] == list(range(len(rows)))
    no_row_twice(rows, retrained=world.case.damages)
    verdicts_replay(rows, world.case.rule(world.case.sweep.goal))
    finished_stay_finished(rows)
    assert world.ran_after_end == []
    assert asked(rows) == asked(whole.rows())
    assert outcome(rows).keys() == outcome(whole.rows()).keys()
    if not world.case.timed:
        assert outcome(rows) == outcome(whole.rows())
        assert verdicts(rows) == verdicts(whole.rows())
    if not world.case.damages:
        again = {key: n for key, n in world.ran.items() if n > whole.ran[key]}
        assert all(n <= whole.ran[key] + world.lives - 1 for key, n in again.items()), again


def no_row_twice(rows: list[Row], *, retrained: bool = False) -> None:
    """No two rows say the same of (trial, attempt, step, metric); nothing is scored twice; one end of each sort.

    Steps that were `retrained` after a damaged checkpoint are scored anew, once.
    """
    said = Counter((r.trial, r.attempt, r.step, m) for r in rows if r.kind == "report" for m in r.metrics)
    assert not [key for key, n in said.items() if n > 1]
    scored = Counter((r.trial, r.attempt * retrained, r.step) for r in rows if r.kind == "report" and r.suite)
    assert not [key for key, n in scored.items() if n > 1]
    ends = Counter((r.trial, r.of) for r in rows if r.kind == "end")
    assert not [key for key, n in ends.items() if n > 1], ends
    trials = Counter(r.trial for r in rows if r.kind == "trial")
    assert not [key for key, n in trials.items() if n > 1]


def verdicts_replay(rows: list[Row], rule: StopRule) -> None:
    """A fresh rule that reads the journal up to a verdict comes to the same verdict."""
    for row in rows:
        if row.kind == "verdict":
            assert rule.history.seq == row.seq - 1
            assert row.seen <= row.seq - 1
            again = rule.decide(row.trial)
            said = (row.action, row.phase, row.reason)
            assert (str(again.action), str(again.phase), again.reason) == said, f"row {row.seq}"
        rule.observe(row)


def finished_stay_finished(rows: list[Row]) -> None:
    over: set[str] = set()
    for row in rows:
        if row.trial in over:
            dropped = row.kind == "commit" and (row.dropped or row.damaged)
            late = row.kind in ("eval", "control") or dropped
            assert late, f"row {row.seq} after the end: {row.line()}"
        if row.kind == "end" and row.trial and row.of == "scoring":
            over.add(row.trial)


def outcome(rows: list[Row]) -> dict[str, Any]:
    """How every trial ended, with its whole curve: all of its metrics but those of the starts of processes."""

    def measured(metrics: Mapping[str, float]) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if name not in OF_START_UPS}

    return {
        c.trial: (c.state, c.reason, {s: measured(p.metrics) for s, p in sorted(c.points.items())})
        for c in History(rows).trials()
    }


def verdicts(rows: list[Row]) -> list[tuple[Any, ...]]:
    """All verdicts in order, each once: a step that is trained again is judged again, and alike."""
    return list(dict.fromkeys((r.trial, r.step, r.action, r.phase, r.reason) for r in rows if r.kind == "verdict"))


def asked(rows: list[Row]) -> list[tuple[str, str]]:
    """What people asked for, and what became of it."""
    mine = [r for r in rows if r.kind == "control" and r.who == "ana"]
    return [(str(r.action), r.trial) for r in mine]
