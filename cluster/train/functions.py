"""What runs in other processes: training and scoring, with imports of their own, so that these processes load little else."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.train.inputs import verify_model
from sweeps.checkpoints.manifest import STATE, verify
from sweeps.config.trial import EvalSpec, Hooks, KeepReplies, ModelSource, Saved, TrialSpec
from sweeps.errors import naming
from sweeps.garbage_collection import collection_paused
from sweeps.plugins import TRAINERS

if TYPE_CHECKING:  # a training process needs neither the queue of evaluations nor an executor
    from evaluators.scores import Scores
    from sweeps.config.eval_job import EvalJob
    from sweeps.executors.local import Scored
    from sweeps.storage.base import Where


def train_model(trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, **rank: Any) -> None:
    """`trainers.loop.train`, imported where it trains: torch takes seconds, and neither a driver nor Tune's actor needs it."""
    with collection_paused():
        from trainers.loop import train

    train(trial, hooks, folder=folder, resume=resume, **rank)


def _holds(manifest: bytes) -> bool:
    """True when a training process has in memory what a checkpoint's manifest names; it is not copied then."""
    from trainers.snapshot import SNAPSHOTS

    return SNAPSHOTS.holds(manifest)


train_model.reuse = True  # type: ignore[attr-defined]  # its process may run another attempt after it
train_model.holds = _holds  # type: ignore[attr-defined]


def score_job(
    job: EvalJob,
    scores: Where,
    home: str = "",
    keep: KeepReplies = "none",
    keep_network: bool = False,
    beside_training: bool = False,
) -> Scored:
    """Scores one checkpoint with the sweep's suite; what was scored before, in any sweep of this storage, is looked up.

    Args:
        scores: where scores are kept. home: the sweep, beside which replies are kept. keep: how many of them.
        keep_network: this process does nothing else. beside_training: it trains on the device on which it scores.

    Raises:
        DamagedCheckpoint: its files are not those that the sweep wrote there.
        InputsChanged: its base model is another now than the sweep began with.
    """
    with collection_paused():
        from evaluators.cache import ScoreCache
        from evaluators.digest import folder_digest
        from evaluators.evaluate import evaluate
        from sweeps.replies import ReplyWriter

    folder = _base_folder(job.model, job.path, job.evaluation, home) if job.step == 0 else Path(job.path)
    digest = ""
    if job.digest:
        files = verify(folder, lambda name: name != STATE, job.digest).files
        digest = folder_digest(folder, {name: sha256 for name, (_, sha256) in files.items()})
    base = _base_scores(job.model, job.early.base, job.evaluation, scores, home, beside_training) if job.early else None
    writer = ReplyWriter(home, keep, job.trial, job.step, job.attempt) if home else None
    return evaluate(
        folder,
        job.evaluation,
        cache=ScoreCache(scores),
        digest=digest,
        early=job.early,
        base=base,
        keep=writer,
        keep_network=keep_network,
        beside_training=beside_training,
    )


@functools.cache
def _base_scores(
    model: str, path: str, evaluation: EvalSpec, scores: Where, home: str, beside_training: bool
) -> Scores:
    """Looks the base model's scores up, once a process; they are there, since a sweep scores its base models first."""
    from evaluators.cache import ScoreCache
    from evaluators.evaluate import evaluate

    folder = _base_folder(model, path, evaluation, home)
    return evaluate(folder, evaluation, cache=ScoreCache(scores), beside_training=beside_training)


def _base_folder(model: str, path: str, evaluation: EvalSpec, home: str) -> Path:
    """Returns where a base model lies on this machine; with `home`, the model that this sweep began with and no other."""
    from trainers.model.load import model_folder

    source = ModelSource(path, chat_template=evaluation.chat_template)
    if home:
        verify_model(home, model, source)
    return model_folder(model, source)


@dataclass(frozen=True)
class PluginTrain:
    """A training loop that a package adds, by its name: a worker imports it where it trains.

    It is handed the trial with the settings that ship, and its own settings as keyword arguments. A checkpoint from which it
    is to go on is compared with what was saved there before.
    """

    name: str

    @property
    def reuse(self) -> bool:
        """Whether its process may run another attempt after it."""
        return bool(getattr(TRAINERS.load(self.name), "reuse", False))

    def __call__(self, trial: TrialSpec, hooks: Hooks, *, folder: Path, resume: Saved | None, **rank: Any) -> None:
        from sweeps.config.blocks import TrialSettings
        from sweeps.config.checks.plugin_settings import TRAIN_KEYWORDS, checked_settings, settings_model

        if resume is not None and resume.digest:
            verify(resume.path, digest=resume.digest)
        train = TRAINERS.load(self.name)
        shipped = TrialSettings.from_config(trial.config).model_dump(exclude={"loop"})
        own = {name: value for name, value in trial.config.items() if name not in {"loop", *shipped}}
        settings = checked_settings(settings_model(train, 2, TRAIN_KEYWORDS), own)
        parameters = inspect.signature(train).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            rank = {name: value for name, value in rank.items() if any(p.name == name for p in parameters)}
        plugin = TRAINERS.find(self.name)
        with naming(str(plugin), plugin.entry.module if plugin is not None else ""):
            train(replace(trial, config=shipped), hooks, folder=folder, resume=resume, **rank, **settings)
