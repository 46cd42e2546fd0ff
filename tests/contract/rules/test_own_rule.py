"""The page on own stop rules: its rule, as it stands there, runs a sweep; an own search does too."""

from __future__ import annotations

import re
from pathlib import Path

from cluster.run_sweep import run
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.controller.searcher import Result, Suggestion
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
