"""Curves for TensorBoard, MLflow and W&B: what a tracker is told, and what TensorBoard's files then hold."""

from __future__ import annotations

import importlib.util
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.observe.trackers import feed, track, tracker_for
from sweeps import Sweep
from sweeps.errors import InputError
from tests.support.rows import make_row

SWEEP = Sweep(name="s")
ROWS = [
    make_row("sweep", SWEEP.id),
    make_row("report", SWEEP.id, "base-tiny-s", 0, 0, metrics={"transfer/score": 0.9}),
    make_row("trial", SWEEP.id, "t-1", budget=8, config={"learning_rate": 1e-3}),
    make_row("attempt", SWEEP.id, "t-1", 1, 0),
    make_row("report", SWEEP.id, "t-1", 1, 4, metrics={"train/loss": 1.5}),
    make_row("report", SWEEP.id, "t-1", 1, 2, metrics={"transfer/score": 0.4}),
    make_row("end", SWEEP.id, "t-1", 1, 8, extra={"of": "training", "status": "completed"}),
    make_row("end", SWEEP.id, "t-1", 1, 8, extra={"of": "scoring", "status": "pruned"}),
]


class Heard:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def trial(self, trial: str, config: Mapping[str, Any]) -> None:
        self.told.append(("trial", trial, dict(config)))

    def log(self, trial: str, step: int, metrics: Mapping[str, float]) -> None:
        self.told.append(("log", trial, step, dict(metrics)))

    def end(self, trial: str, status: str) -> None:
        self.told.append(("end", trial, status))

    def close(self) -> None:
        self.told.append(("close",))


TOLD = [
    ("trial", "t-1", {"learning_rate": 1e-3}), ("log", "t-1", 4, {"train/loss": 1.5}), ("log", "t-1", 2, {"transfer/score": 0.4}),
    ("end", "t-1", "pruned"),
]  # fmt: skip


def test_a_tracker_hears_each_fact_once_and_a_trial_ends_when_its_scores_are_in():
    heard = Heard()
    feed(ROWS, heard)
    assert heard.told == TOLD


def test_a_growing_journal_is_followed_without_telling_anything_twice():
    heard, lengths = Heard(), iter([3, 5, 8])
    number = track(lambda: ROWS[: next(lengths)], heard, follow=True, over=lambda rows: len(rows) == 8, every_s=0)
    assert number == 8
    assert heard.told == [*TOLD, ("close",)]


def test_an_unknown_tracker_and_a_missing_library_say_what_would_do():
    with pytest.raises(InputError, match="did you mean 'wandb'"):
        tracker_for("wandbb", SWEEP)
    with pytest.raises(InputError, match="tensorboard:FOLDER"):
        tracker_for("tensorboard", SWEEP)
    if importlib.util.find_spec("mlflow") is None:
        with pytest.raises(InputError, match="pip install mlflow"):
            tracker_for("mlflow", SWEEP)


def test_tensorboards_files_hold_the_curves(tmp_path: Path):
    tracker = tracker_for(f"tensorboard:{tmp_path}", SWEEP)
    feed(ROWS, tracker)
    tracker.close()
    (file,) = (tmp_path / SWEEP.id / "t-1").glob("events*")
    assert {("train/loss", 4, 1.5), ("transfer/score", 2, 0.4)} <= set_of(file)


def test_tensorboards_own_view_of_hyperparameters_understands_them(tmp_path: Path):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    tracker = tracker_for(f"tensorboard:{tmp_path}", SWEEP)
    feed(ROWS, tracker)
    tracker.close()
    (file,) = (tmp_path / SWEEP.id / "t-1").glob("events*")
    said = {
        value.tag: HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in events_of(file)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "hparams"
    }
    start = said["_hparams_/session_start_info"].session_start_info
    assert start.hparams["learning_rate"].number_value == 1e-3
    (metric,) = said["_hparams_/experiment"].experiment.metric_infos
    assert metric.name.tag == SWEEP.objective.metric, "a tag of the scalars above"
    assert "_hparams_/session_end_info" in said


def set_of(file: Path) -> Any:
    """Returns (name, step, value) of every scalar in an event file."""
    return {
        (value.tag, event.step, round(value.simple_value, 6))
        for event in events_of(file)
        for value in event.summary.value
        if value.HasField("simple_value")
    }


def events_of(file: Path) -> Iterator[Any]:
    """Yields the events of an event file: records of length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_a_trial_that_is_tried_again_after_its_end_goes_on_in_the_same_run_of_wandb(monkeypatch: pytest.MonkeyPatch):
    begun, logged, ended = list[str](), list[dict[str, float]](), list[int]()

    class Run(SimpleNamespace):
        def define_metric(self, name: str, **how: str) -> None: ...

        def log(self, numbers: dict[str, float]) -> None:
            logged.append(numbers)

        def finish(self, exit_code: int = 0) -> None:
            ended.append(exit_code)

    def init(**how: Any) -> Run:
        begun.append(how["id"])
        return Run(summary={})

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    tracker = tracker_for("wandb", SWEEP)
    tracker.trial("t-1", {"steps": 8})
    tracker.end("t-1", "failed")
    tracker.log("t-1", 4, {"train/loss": 0.5})
    tracker.end("t-1", "completed")
    assert begun == [f"{SWEEP.id}-t-1"] * 2
    assert (logged, ended) == ([{"step": 4, "train/loss": 0.5}], [1, 0])
