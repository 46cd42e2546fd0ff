"""What anybody's training and evaluation code may tell: numbers are numbers, and what is none never gets into a log."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cluster.run_sweep import run
from sweeps import Sweep, grid
from sweeps.config.trial import Saved
from sweeps.errors import InputError, JournalError
from sweeps.journal.history import History
from sweeps.journal.rows import EvalRow, ReportRow
from sweeps.journal.writer import SweepJournal, read_rows
from sweeps.reported import checked_report, checked_saved, checked_scores
from sweeps.statistics import pack, packed_replies, unpack
from tests.support.fakes import FakeTrainer, fake_evaluate

SWEEP = Sweep(
    name="s", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 8, "learning_rate": 1e-3}, limits={"retries": 0}
)
NO_NUMBERS = [None, "0.5", b"1", [1], {}, 1j, 10**400, print, np.array([0.5, 0.6]), torch.zeros(2)]


@pytest.mark.parametrize("value", [np.float32(0.5), torch.tensor(0.5), Fraction(1, 2), Decimal("0.5"), np.float16(0.5)])
def test_numbers_of_any_library_become_pythons_own(value: Any):
    told = checked_report(np.int64(4), {"a": value}, {"b": value}, {"c": value})
    assert told == (4, {"a": 0.5}, {"b": 0.5}, {"c": 0.5})
    assert all(type(number) is float for number in (told.metrics["a"], told.progress["b"], told.cost["c"]))
    assert type(told.step) is int


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number_is_named(value: Any):
    for given in (({"x": value}, {}, {}), ({}, {"x": value}, {}), ({}, {}, {"x": value})):
        with pytest.raises(
            InputError, match=r"report at step 4: (metrics|progress|cost)\.x: got .*; expected a number"
        ):
            checked_report(4, *given)
    with pytest.raises(InputError, match="expected text"):
        checked_report(4, {1: 0.5}, {}, {})  # type: ignore[dict-item]


def test_only_metrics_may_be_infinite_and_nothing_is_given_back():
    assert math.isnan(checked_report(4, {"x": math.nan}, {}, {}).metrics["x"])
    for value in (math.nan, math.inf, 1e308):
        with pytest.raises(InputError, match="expected a finite number"):
            checked_report(4, {}, {"x": value}, {})
        with pytest.raises(InputError, match="expected a finite number"):
            checked_report(4, {}, {}, {"x": value})
    with pytest.raises(InputError, match="expected 0 or more"):
        checked_report(4, {}, {}, {"gpu_s": -1.0})


@pytest.mark.parametrize("step", [1.5, "2", None, True, -1, 10**30])
def test_a_step_is_a_whole_number(step: Any):
    with pytest.raises(InputError, match="expected a whole number"):
        checked_report(step, {}, {}, {})
    with pytest.raises(InputError, match="expected a whole number"):
        checked_saved(Saved(step, "/c/4"))


def test_a_checkpoints_path_may_be_a_path_and_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert checked_saved(Saved(4, "out/step-4")).path == str(tmp_path / "out/step-4")
    assert checked_saved(Saved(4, "s3://bucket/step-4")).path == "s3://bucket/step-4"
    assert checked_saved(Saved(np.int64(4), tmp_path, "sha256:0")) == Saved(4, str(tmp_path), "sha256:0")  # type: ignore[arg-type]
    for wrong in (Saved(4, None), Saved(4, "/c/4", None), "/c/4"):  # type: ignore[arg-type]
        with pytest.raises(InputError, match="checkpoint"):
            checked_saved(wrong)  # type: ignore[arg-type]


class Telling(FakeTrainer):
    """Reports one number more than it should."""

    def __init__(self, **more: Any) -> None:
        super().__init__()
        self.more = more

    def __call__(self, trial: Any, hooks: Any, **how: Any) -> None:
        def report(step: Any, metrics: Any, *, progress: Any, cost: Any) -> None:
            told = {"step": step, "metrics": metrics, "progress": progress, "cost": cost}
            told |= {key: value if key == "step" else {**told[key], **value} for key, value in self.more.items()}
            hooks.report(told.pop("step"), told.pop("metrics"), **told)

        rest = {name: getattr(hooks, name) for name in ("saved", "waiting", "stop_asked")}
        super().__call__(trial, SimpleNamespace(report=report, **rest), **how)


@pytest.mark.parametrize(
    "more", [{"progress": {"x": None}}, {"progress": {"x": math.nan}}, {"cost": {"cpu_s": math.inf}}, {"step": 1.5}]
)
def test_a_trainer_that_tells_nonsense_fails_its_trial_and_the_log_stays_readable(tmp_path: Path, more: dict[str, Any]):
    run(SWEEP, storage=tmp_path, backend="in-process", train=Telling(**more), evaluate=fake_evaluate, say=str)
    trials = History(read_rows(tmp_path / SWEEP.id)).trials()
    assert [(t.state, t.detail.startswith("InputError: report at step")) for t in trials] == [("failed", True)] * 2


def changed(**wrong: Any) -> Any:
    def scoring(job: Any) -> Any:
        good = fake_evaluate(job)
        names = ("metrics", "se", "n", "suite", "cost", "outcomes", "parts")
        return SimpleNamespace(**({name: getattr(good, name) for name in names} | wrong))

    return scoring


@pytest.mark.parametrize(
    "scoring",
    [
        lambda job: None,
        changed(metrics=None),
        changed(se={"x": math.nan}),
        changed(n={"x": 1.5}),
        changed(cost={"gpu_s": None}),
        changed(metrics={"x": "0.5"}),
        changed(suite=None),
        changed(suite=""),
        changed(asked={"items": 3}),
        changed(asked={"items": 9, "of": 3}),
        changed(asked={"items": 0, "of": 3}),
        changed(asked=["x"]),
        changed(outcomes={"x": [True, False]}),
        changed(outcomes={"x": "right"}),
        changed(outcomes={"x": "q12345"}),
        changed(outcomes={"x": "f"}, n={"x": 5}),
    ],
)
def test_an_evaluation_that_gives_no_scores_has_failed_and_ends_no_driver(tmp_path: Path, scoring: Any):
    """The trials fail for want of scores, and not of an error of their own; the report is made all the same."""
    run(SWEEP, storage=tmp_path, backend="in-process", train=FakeTrainer(), evaluate=scoring, say=str)
    rows = read_rows(tmp_path / SWEEP.id)
    failed = [row.reason for row in rows if isinstance(row, EvalRow)]
    assert failed
    assert {reason.partition(": ")[0] for reason in failed} == {"InputError"}
    assert {(t.state, t.reason) for t in History(rows).trials()} == {("failed", "no-metrics")}


def test_scores_of_numpy_are_scores():
    given = SimpleNamespace(
        metrics={"a": np.float32(0.5)}, se={"a": np.float64(0.25)}, n={"a": np.int64(3)}, suite="mini@1",
        cost={}, outcomes={"a": "a"}, parts={"a": ("b",)}, asked={"items": np.int64(3), "of": 9, "clear": "below"},
    )  # fmt: skip
    found = checked_scores(given)
    assert found[:4] == ({"a": 0.5}, {"a": 0.25}, {"a": 3}, "mini@1")
    assert (found.items, found.parts, found.cached) == ({"a": "a"}, {"a": ["b"]}, False)
    assert found.asked == {"items": 3, "of": 9, "clear": "below"}
    assert type(found.asked["items"]) is int


@pytest.mark.parametrize("outcomes", [[], [1, 0, 1], [1, 0, 1, 1, 0], [0.25, 1.0, 0.5]])
def test_outcomes_as_they_are_packed_have_room_for_each_reply_and_are_taken(outcomes: list[float]):
    packed = pack(outcomes)
    room = packed_replies(packed)
    assert room is not None
    assert len(outcomes) <= room < len(outcomes) + 4
    assert unpack(packed, len(outcomes)) == pytest.approx(outcomes, abs=1e-4)


def test_what_could_not_be_read_back_is_never_written(tmp_path: Path):
    with SweepJournal(tmp_path / SWEEP.id, beating=False) as journal:
        with pytest.raises(JournalError, match="got progress"):
            journal.append(ReportRow(SWEEP.id, "t-1", 1, 4, progress={"tokens": None}))  # type: ignore[dict-item]
        journal.append(ReportRow(SWEEP.id, "t-1", 1, 4, progress={"tokens": 8.0}))
    assert [row.kind for row in read_rows(tmp_path / SWEEP.id)] == ["lease", "report"]
