"""A sweep's journal into TensorBoard, MLflow or Weights & Biases, by their own libraries: `dipsweep track ID --to …`.

It reads the journal, so it works while a sweep runs and after it has ended, from any machine that reaches the storage;
the driver never waits for a tracking server, and that server's credentials never come near a cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from sweeps.config.schema import Sweep
from sweeps.errors import InputError, nearest
from sweeps.journal.rows import BASE_PREFIX, EndRow, ReportRow, Row, TrialRow
from sweeps.journal.vocabulary import EndOf


class Tracker(Protocol):
    """The interface of a tracking library. A trial is one run of it; steps are optimizer steps."""

    def trial(self, trial: str, config: Mapping[str, Any]) -> None:
        """A trial exists, with these hyperparameters."""

    def log(self, trial: str, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers were measured at a step; steps may come out of order, scores are late."""

    def end(self, trial: str, status: str) -> None:
        """A trial has `completed`, was `pruned`, or has `failed`."""

    def close(self) -> None:
        """Nothing more will come."""


def feed(rows: Iterable[Row], tracker: Tracker) -> None:
    """Sends rows to a tracker. Step 0 of a base model belongs to no run and is left out."""
    for row in rows:
        if not row.trial or row.trial.startswith(BASE_PREFIX):
            continue
        if isinstance(row, TrialRow):
            tracker.trial(row.trial, row.config)
        elif isinstance(row, ReportRow) and row.step is not None and row.metrics:
            tracker.log(row.trial, row.step, row.metrics)
        elif isinstance(row, EndRow) and row.of is not EndOf.TRAINING:
            tracker.end(row.trial, row.status)


def track(
    reader: Callable[[], list[Row]],
    tracker: Tracker,
    *,
    follow: bool,
    over: Callable[[list[Row]], bool],
    every_s: float = 2.0,
) -> int:
    """Feeds a tracker from a journal, with `follow` until `over`; returns the number of rows."""
    seen = 0
    try:
        while True:
            rows = reader()
            feed(rows[seen:], tracker)
            seen = len(rows)
            if not follow or over(rows):
                return seen
            time.sleep(every_s)
    finally:
        tracker.close()


class TensorBoard:
    """Event files, one folder a trial; the hparams plugin shows hyperparameters beside the objective.

    Args:
        folder: `tensorboard --logdir` of it. sweep: its id.
    """

    def __init__(self, folder: str, sweep: Sweep) -> None:
        self._writer = _library("tensorboardX", "tensorboard", "tensorboardX").SummaryWriter
        self._folder, self._objective = Path(folder) / sweep.id, sweep.objective.metric
        self._open: dict[str, Any] = {}

    def _of(self, trial: str) -> Any:
        if trial not in self._open:
            self._open[trial] = self._writer(str(self._folder / trial))
        return self._open[trial]

    def trial(self, trial: str, config: Mapping[str, Any]) -> None:
        self._of(trial).add_text("config", "\n".join(f"    {k}: {v}" for k, v in config.items()))
        experiment, start, _ = self._hparams(config)
        for summary in (experiment, start):
            self._of(trial).file_writer.add_summary(summary)

    def _hparams(self, config: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """The plugin's summaries of an experiment, of a session's start and of its end; it knows numbers, texts, yes and no."""
        hparams = _library("tensorboardX.summary", "tensorboard", "tensorboardX").hparams
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in config.items()}
        found: tuple[Any, Any, Any] = hparams(plain, {self._objective: 0.0})
        return found

    def log(self, trial: str, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._of(trial).add_scalar(name, value, step)

    def end(self, trial: str, status: str) -> None:
        self._of(trial).add_text("status", status)
        self._of(trial).file_writer.add_summary(self._hparams({})[2])
        self._open.pop(trial).close()

    def close(self) -> None:
        for writer in self._open.values():
            writer.close()


class MLflow:
    """An experiment a sweep, a run a trial.

    Args:
        uri: of the tracking server or folder; empty takes MLFLOW_TRACKING_URI. sweep: whose.
    """

    ENDS: Final = {"completed": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}

    def __init__(self, uri: str, sweep: Sweep) -> None:
        mlflow = _library("mlflow", "mlflow", "mlflow")
        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient(tracking_uri=uri or None)
        found = self._client.get_experiment_by_name(sweep.id)
        self._experiment = found.experiment_id if found else self._client.create_experiment(sweep.id)
        self._runs: dict[str, str] = {}

    def trial(self, trial: str, config: Mapping[str, Any]) -> None:
        before = self._client.search_runs([self._experiment], f"tags.mlflow.runName = '{trial}'")
        if before:  # told before, by an earlier call: MLflow keeps a metric's every value, so a run starts clean
            self._client.delete_run(before[0].info.run_id)
        run = self._client.create_run(self._experiment, run_name=trial)
        self._runs[trial] = run.info.run_id
        for name, value in config.items():
            self._client.log_param(run.info.run_id, name, value)

    def log(self, trial: str, step: int, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        safe = {name.replace("@", "_at_").replace(",", "_").replace("=", "_"): v for name, v in metrics.items()}
        self._client.log_batch(self._runs[trial], metrics=[self._metric(n, v, now, step) for n, v in safe.items()])

    def end(self, trial: str, status: str) -> None:
        self._client.set_terminated(self._runs[trial], status=self.ENDS.get(status, "FAILED"))

    def close(self) -> None: ...


class WandB:
    """A group a sweep, a run a trial; the step is a metric of its own, because scores come late.

    Hyperparameters are the run's config and the objective's best is in its summary: W&B's parallel coordinates and
    parameter importance read both.

    Args:
        project: its name; empty means `dipsweep`. sweep: whose.
    """

    def __init__(self, project: str, sweep: Sweep) -> None:
        self._wandb = _library("wandb", "wandb", "wandb")
        self._project, self._sweep, self._objective = project or "dipsweep", sweep.id, sweep.objective
        self._runs: dict[str, Any] = {}
        self._configs: dict[str, Mapping[str, Any]] = {}

    def trial(self, trial: str, config: Mapping[str, Any]) -> None:
        run = self._wandb.init(
            project=self._project,
            group=self._sweep,
            name=trial,
            id=f"{self._sweep}-{trial}",
            config=dict(config),
            resume="allow",
            reinit="create_new",
        )
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        best = "max" if self._objective.goal == "maximize" else "min"
        run.define_metric(self._objective.metric, step_metric="step", summary=best)
        self._runs[trial], self._configs[trial] = run, config

    def _of(self, trial: str) -> Any:
        if trial not in self._runs:  # it had ended, and is tried again
            self.trial(trial, self._configs[trial])
        return self._runs[trial]

    def log(self, trial: str, step: int, metrics: Mapping[str, float]) -> None:
        self._of(trial).log({"step": step, **metrics})

    def end(self, trial: str, status: str) -> None:
        run = self._of(trial)
        del self._runs[trial]
        run.summary["status"] = status
        run.finish(exit_code=1 if status == "failed" else 0)

    def close(self) -> None:
        for run in self._runs.values():
            run.finish()


TRACKERS: Final[Mapping[str, Callable[[str, Sweep], Tracker]]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}


def tracker_for(target: str, sweep: Sweep) -> Tracker:
    """Returns the tracker for `tensorboard:FOLDER`, `mlflow[:URI]` or `wandb[:PROJECT]`.

    Raises:
        InputError: there is no such tracker, or its library is not installed.
    """
    name, _, where = target.partition(":")
    if name not in TRACKERS:
        raise InputError(
            f"--to: got '{target}'; expected tensorboard:FOLDER, mlflow:URI or wandb:PROJECT{nearest(name, TRACKERS)}"
        )
    if name == "tensorboard" and not where:
        raise InputError("--to: tensorboard needs a folder: tensorboard:FOLDER")
    return TRACKERS[name](where, sweep)


def _library(module: str, name: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise InputError(f"--to {name} needs the package {package}: pip install {package}") from e
