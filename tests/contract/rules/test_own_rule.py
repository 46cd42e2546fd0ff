"""The page on own stop rules: its rule, as it stands there, runs a sweep; an own search does too."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.run_sweep import run
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.controller.searcher import Result, Suggestion
from sweeps.errors import StrategyError
from sweeps.journal.history import History
from sweeps.journal.reader import read_rows
from sweeps.journal.rows import EndRow, VerdictRow
from sweeps.stopping import Action, StopRule, Verdict
from tests.support.fakes import FakeTrainer, fake_evaluate

PAGE = Path(__file__).parents[3] / "docs/how-to/own-stop-rule.md"
SWEEP = Sweep(name="own", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 8}, evaluation={"at": {"every": 1}})


def floor(sweep: Sweep):
    names: dict = {}
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert code is not None
    exec(code[1], names)
    return names["Floor"](sweep.goal)


def go(tmp_path: Path, **more):
    return run(SWEEP, storage=tmp_path, backend="in-process", say=lambda line: None, train=FakeTrainer(),
               evaluate=fake_evaluate, **more)  # fmt: skip


def test_the_rule_of_the_page_decides(tmp_path: Path):
    reasons = [row.reason for row in go(tmp_path, rule=floor(SWEEP)).decisions()]
    assert reasons
    assert all(
        r == "above the floor" or re.fullmatch(r"transfer/score 0\.\d\d is below 0\.30 at report \d+", r)
        for r in reasons
    )


class Answers(StopRule):
    """Answers as it is told to."""

    def __init__(self, said: Callable[[], Any], resumes: str = "") -> None:
        super().__init__(SWEEP.goal)
        self.said, self.resumes = said, resumes

    def decide(self, trial: str) -> Any:
        return self.said()

    def choose_trial_to_resume(self, paused: Sequence[str]) -> str | None:
        return self.resumes or paused[0]


def test_evidence_of_any_numbers_is_read_back_as_jsons_own(tmp_path: Path):
    given = {
        "n": np.int64(3),
        "x": np.float32(0.5),
        "lost": math.nan,
        "each": np.array([1.0, math.inf]),
        "ok": np.bool_(True),
    }
    given |= {"torch": torch.tensor(2), "by": {1: (2, 3)}, "path": Path("/a"), "none": None}
    go(tmp_path, rule=Answers(lambda: Verdict(Action.CONTINUE, "fine", evidence=given)))
    found = next(row for row in read_rows(tmp_path / SWEEP.id) if isinstance(row, VerdictRow))
    assert found.evidence == {
        "n": 3, "x": 0.5, "each": [1.0, None], "ok": True, "torch": 2, "by": {"1": [2, 3]}, "path": "/a", "none": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "resumes", "why"),
    [
        (lambda: {}["x"], "", "KeyError: 'x'"),
        (lambda: None, "", "got None; expected a Verdict"),
        (lambda: Verdict("halt", "no"), "", "'halt' is not a valid Action"),
        (lambda: Verdict(Action.STOP, 5), "", "expected a reason, which is text"),
        (lambda: Verdict(Action.PAUSE, "later"), "t-1", "returned 't-1'; expected one of them, or None"),
    ],
)
def test_what_a_rule_stumbles_over_is_told_as_its_fault_fails_no_trial_and_costs_no_sweep(tmp_path, said, resumes, why):
    with pytest.raises(StrategyError) as told:
        go(tmp_path, rule=Answers(said, resumes))
    assert str(told.value).startswith("stop rule 'Answers': ")
    assert why in str(told.value)
    assert not [row for row in read_rows(tmp_path / SWEEP.id) if isinstance(row, EndRow)]
    mended = go(tmp_path, rule=Answers(lambda: Verdict(Action.CONTINUE, "fine")))
    assert len(mended.trials) == 2
    assert {curve.state for curve in History(read_rows(tmp_path / SWEEP.id)).trials()} == {"completed"}


class Once:
    """Proposes the second cell of the grid, once."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.given = plan, False

    def ask(self) -> Suggestion | None:
        if self.given:
            return None
        self.given = True
        return Suggestion(0, self.plan.config(self.plan.cells[1], {}, 0))

    def restore(self, suggestion: Suggestion) -> None:
        self.given = True

    def tell(self, number: int, result: Result) -> None:
        """Learns nothing."""


def test_a_search_of_ones_own_proposes_the_trials(tmp_path: Path):
    done = go(tmp_path, searcher=Once(Plan(SWEEP)))
    assert [trial.config["replay"] for trial in done.trials] == [0.1]


class Forgets(Once):
    """Cannot be told how its trial ended."""

    def tell(self, number: int, result: Result) -> None:
        raise KeyError(number)


class Raises(Once):
    """Has nothing to propose."""

    def ask(self) -> Suggestion | None:
        raise RuntimeError("no more disk for my model")


class Odd(Once):
    """Proposes a number that no trial's id can be made of."""

    def ask(self) -> Suggestion | None:
        found = super().ask()
        return None if found is None else Suggestion(0, {**found.config, "seed": np.int64(3)})


class Lost(Once):
    """Proposes a trial without a budget."""

    def ask(self) -> Suggestion | None:
        found = super().ask()
        return (
            None if found is None else Suggestion(0, {name: v for name, v in found.config.items() if name != "steps"})
        )


@pytest.mark.parametrize("search", [Forgets, Raises, Odd, Lost])
def test_what_a_search_stumbles_over_is_told_as_its_fault_and_a_mended_one_goes_on(tmp_path: Path, search: type[Once]):
    with pytest.raises(StrategyError, match=f"^search '{search.__name__}': (KeyError|RuntimeError|TypeError): "):
        go(tmp_path, searcher=search(Plan(SWEEP)))
    assert [trial.config["replay"] for trial in go(tmp_path, searcher=Once(Plan(SWEEP))).trials] == [0.1]
    assert {curve.state for curve in History(read_rows(tmp_path / SWEEP.id)).trials()} == {"completed"}
