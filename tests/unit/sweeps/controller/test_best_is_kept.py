"""Where bests count, the checkpoint that the report names is there, in whatever order things happen."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.config.trial import Saved, TrialSpec
from sweeps.controller.controller import SweepController
from sweeps.failures import Failure, FailureKind
from sweeps.journal.state import SweepState
from sweeps.journal.writer import MemoryJournal
from sweeps.report import summarize
from sweeps.stopping import Action, StopRule, Verdict

SPACES: dict[str, dict[str, Any]] = {
    "wsd": {"steps": grid(20, 40), "decay": grid(0.1, 0.5)},
    "constant": {"steps": grid(20, 40), "learning_rate": grid(1e-3, 2e-3)},
}


def drawn(*key: object) -> float:
    return random.Random(repr(key)).random()


class AtRandom(StopRule):
    """Stops, pauses and resumes trials, by nothing but their id and their last step."""

    def decide(self, trial: str) -> Verdict:
        x = drawn(trial, max(self.history.curves[trial].points, default=0))
        return Verdict(Action.STOP if x < 0.05 else Action.PAUSE if x < 0.12 else Action.CONTINUE, "at random")

    def choose_trial_to_resume(self, paused: Any) -> str | None:
        return paused[0] if drawn(*paused) < 0.7 else None


class Driver:
    """A sweep whose events come in an order drawn by a seed; drivers and workers die, checkpoints are deleted at once."""

    def __init__(self, sweep: Sweep, seed: int) -> None:
        self.plan, self.journal, self.random = Plan(sweep), MemoryJournal(), random.Random(seed)
        self.gone = set[str]()
        self.begin()

    def begin(self) -> None:
        self.controller = SweepController(self.plan, self.journal, AtRandom(self.plan.sweep.goal))
        self.live: dict[str, tuple[int, int, TrialSpec]] = {}

    def run(self) -> None:
        events = [self.begin, self.start, self.lose, self.train, self.score, self.delete]
        for _ in range(5000):
            (event,) = self.random.choices(events, [2, 25, 2, 40, 25, 30])
            event()
            if not self.live and self.controller.finish_if_done():
                return self.delete()
        raise AssertionError("it did not end")

    def start(self) -> None:
        launch = self.controller.next() if len(self.live) < 2 else None
        if launch is not None:
            assert launch.resume is None or launch.resume.path not in self.gone
            self.live[launch.spec.id] = launch.attempt, launch.resume.step if launch.resume else 0, launch.spec

    def lose(self) -> None:
        for trial, (attempt, _, _) in list(self.live.items())[:1]:
            del self.live[trial]
            kind = self.random.choice([FailureKind.NODE_PREEMPTED, FailureKind.WORKER_LOST])
            self.controller.failed(trial, attempt, Failure(kind, "lost"))

    def train(self) -> None:
        for trial in self.random.sample(sorted(self.live), min(1, len(self.live))):
            attempt, done, spec = self.live.pop(trial)
            later = [s for s in sorted(spec.saves) if s > done]
            if not self.controller.is_current_attempt(trial, attempt):
                continue
            if not later:
                self.controller.trained(trial, attempt)
                continue
            self.live[trial] = attempt, later[0], spec
            path = f"/{trial}/{attempt}/{later[0]}"
            self.gone.discard(path)
            self.controller.saved(trial, attempt, Saved(later[0], path, "d"))

    def score(self) -> None:
        job = self.controller.next_eval()
        if job is not None:
            assert job.path not in self.gone
            metrics = {name: drawn(job.trial, job.step, name) for name in ("transfer/score", "safety/score")}
            self.controller.scored(job, metrics, se={"transfer/score": 0.05}, n={}, suite="s@1", cost={})

    def delete(self) -> None:
        for trial, checkpoint in self.controller.checkpoints_to_delete(keep=1):
            self.controller.checkpoint_deleted(trial, checkpoint)
            self.gone.add(str(checkpoint.path))


@pytest.mark.parametrize("constraints", [[], [{"metric": "safety/score", "at_least": 0.5}]])
@pytest.mark.parametrize("schedule", SPACES)
def test_the_best_checkpoint_of_the_report_is_kept_and_nothing_begins_from_a_deleted_one(schedule, constraints):
    definition = Sweep(
        name="best",
        space=SPACES[schedule],
        trainer={"learning_rate": 1e-3, "lr_scheduler_type": schedule, "warmup_steps": 2},
        objective={"at": "best"},
        constraints=constraints,
        evaluation={"at": {"every": 4}},
    )
    for seed in range(10):
        driver = Driver(definition, seed)
        driver.run()
        state = SweepState(driver.journal.rows())
        picked = [t for t in summarize(driver.journal.rows()).trials if t.picked is not None]
        assert picked
        for trial in picked:
            assert trial.picked is not None
            kept, limit = set[int](), trial.budget or 0
            for run in state.line(trial.id):
                kept |= {s for s in run.kept() if s <= limit}
                limit = min(limit, run.fork_step)
            assert trial.picked.step in kept, (seed, trial.id)
