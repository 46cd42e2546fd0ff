"""Small real stand-ins for the parts that take minutes: a trainer that writes files, an evaluator that computes a curve."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.checkpoints.manifest import seal
from sweeps.config.eval_job import EvalJob
from sweeps.config.trial import Hooks, Saved, TrialSpec
from sweeps.errors import TrialFailed
from sweeps.stopping import Action, StopRule, Verdict


@dataclass(frozen=True)
class FakeScores:
    metrics: Mapping[str, float]
    se: Mapping[str, float] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)
    suite: str = "fake@1"
    cost: Mapping[str, float] = field(default_factory=lambda: {"cpu_s": 0.1})
    outcomes: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)


def dip_curve(step: int, budget: int, depth: float, end: float) -> float:
    """0.9 at step 0, falls by `depth` until an eighth of the budget, then climbs to `end`."""
    x = step / budget
    if x <= 0.125:
        return 0.9 - depth * x / 0.125
    low = 0.9 - depth
    return low + (end - low) * (x - 0.125) / 0.875


class FakeTrainer:
    """Writes a number per step; what it did is in `log`. A trial whose lr is 666 raises, 667 diverges, 668 is silent."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int, int]] = []
        self.die_at: tuple[str, int] | None = None

    def __call__(self, trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None) -> None:
        lr = trial.config["learning_rate"]
        if lr == 666:
            raise RuntimeError("this learning rate is cursed")
        for step in range(resume.step + 1 if resume else 1, trial.steps + 1):
            if hooks.stop_asked():
                return
            if self.die_at == (trial.id, step):
                self.die_at = None
                raise KeyboardInterrupt
            self.log.append((trial.id, folder.name.count("attempt"), step))
            if lr == 667 and step == 3:
                hooks.report(step, {"train/loss": float("nan")}, progress={}, cost={})
                raise TrialFailed("diverged", "loss nan at step 3")
            if step in trial.snapshots and lr != 668:
                hooks.report(
                    step, {"train/loss": 1 / step}, progress={"tokens": step * 10}, cost={"cpu_s": float(step)}
                )
            if step in trial.saves and lr != 668:
                where = folder / f"step-{step:06d}"
                where.mkdir(parents=True, exist_ok=True)
                (where / "state").write_text(f"{trial.config['replay']} {trial.steps}")
                hooks.saved(Saved(step, str(where), f"sha256:{trial.id}{step}"))


class Paced:
    """The hooks of a trainer whose steps take so many seconds, so that processes can be shot in mid-trial."""

    def __init__(self, hooks: Hooks, pace_s: float = 0.0) -> None:
        self.hooks, self.pace_s, self.report = hooks, pace_s, hooks.report

    def saved(self, checkpoint: Saved) -> None:
        self.hooks.saved(checkpoint)

    def stop_asked(self) -> bool:
        time.sleep(self.pace_s)
        return self.hooks.stop_asked()


class Sealing(Paced):
    """Such hooks that give every checkpoint its manifest, as real trainers do."""

    def saved(self, checkpoint: Saved) -> None:
        self.hooks.saved(seal(Path(checkpoint.path), checkpoint.step))


class SealingTrainer:
    """FakeTrainer whose checkpoints have a manifest; one that goes on must find its own trial's state at hand."""

    def __init__(self, pace_s: float = 0.0) -> None:
        self.fake, self.pace_s = FakeTrainer(), pace_s
        self.resumed: list[tuple[int, str]] = []

    def __call__(
        self, trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, rank: int = 0, world: int = 1
    ) -> None:
        if resume is not None:
            state = (Path(resume.path) / "state").read_text()
            assert state == f"{trial.config['replay']} {trial.steps}"
            self.resumed.append((resume.step, state))
        self.fake(trial, Sealing(hooks, self.pace_s), folder=folder, resume=resume)


def fake_evaluate(job: EvalJob) -> FakeScores:
    if job.step == 0:
        score = 0.9
    else:
        replay, budget = (Path(job.path) / "state").read_text().split()
        score = dip_curve(job.step, int(budget), depth=0.5, end=0.95 if float(replay) > 0.05 else 0.3)
    return FakeScores(
        {"transfer/score": score, "safety/refusal": 1 - score / 2}, {"transfer/score": 0.02}, {"transfer/score": 300}
    )


def by_trial(rows: list[Any], kind: str) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = {}
    for row in rows:
        if row.kind == kind:
            out.setdefault(row.trial, []).append(row)
    return out


class StopAtOnce(StopRule):
    """Stops a trial at its first row."""

    def decide(self, trial: str) -> Verdict:
        return Verdict(Action.STOP, "stopped for the test")
