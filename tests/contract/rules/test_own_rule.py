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
from sweeps.controller.controller import SweepController
from sweeps.controller.searcher import Result, Suggestion
from sweeps.errors import InputError, StrategyError
from sweeps.executors.simulated import Recording, simulate
from sweeps.journal.history import History
from sweeps.journal.reader import read_rows
from sweeps.journal.rows import EndRow, EvalRow, ReportRow, Row, TrialRow, VerdictRow
from sweeps.journal.state import SweepState
from sweeps.journal.vocabulary import SweepStatus
from sweeps.journal.writer import MemoryJournal
from sweeps.stopping import Action, NeverStop, StopRule, Verdict
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
    given = {"say": lambda line: None, "train": FakeTrainer(), "evaluate": fake_evaluate, **more}
    return run(SWEEP, storage=tmp_path, backend="in-process", **given)


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


def last_interrupt(tmp_path: Path) -> str:
    """What the journal says last of why the sweep ended early."""
    state = SweepState(read_rows(tmp_path / SWEEP.id))
    assert state.status is SweepStatus.STOPPED
    return state.interrupts[-1]


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
    assert str(told.value).startswith(f"stop rule 'Answers' ({__name__}.Answers): ")
    assert why in str(told.value)
    assert last_interrupt(tmp_path) == str(told.value)
    assert not [row for row in read_rows(tmp_path / SWEEP.id) if isinstance(row, EndRow)]
    mended = go(tmp_path, rule=Answers(lambda: Verdict(Action.CONTINUE, "fine")))
    assert len(mended.trials) == 2
    assert {curve.state for curve in History(read_rows(tmp_path / SWEEP.id)).trials()} == {"completed"}


class Nameless(Answers):
    """Cannot say what it is called."""

    @property
    def name(self) -> str:  # type: ignore[override]
        raise RuntimeError("my name is not known yet")


class Unready(Answers):
    """Has nothing yet to choose trials with."""

    @property
    def choose_trial_to_resume(self) -> Any:  # type: ignore[override]
        raise RuntimeError("my model is not loaded yet")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Nameless(lambda: {}["x"]), "KeyError: 'x'"),
        (Unready(lambda: Verdict(Action.PAUSE, "later")), "my model is not loaded yet"),
    ],
)
def test_what_a_rule_raises_when_its_own_attributes_are_read_is_its_fault_too(tmp_path: Path, rule: Answers, why: str):
    with pytest.raises(StrategyError) as told:
        go(tmp_path, rule=rule)
    assert str(told.value).startswith(f"stop rule '{type(rule).__name__}' ({__name__}.{type(rule).__name__}): ")
    assert why in str(told.value)
    assert last_interrupt(tmp_path) == str(told.value)


class Rung(StopRule):
    """Looks at a trial at one step alone, as halving rules do."""

    def __init__(self, breaks: bool) -> None:
        super().__init__(SWEEP.goal)
        self.breaks = breaks

    def decide(self, trial: str) -> Verdict:
        curve = self.history.curves[trial]
        if curve.last_step != 4 or SWEEP.goal.metric not in curve.points[4].metrics:
            return Verdict(Action.CONTINUE, "no rung")
        if self.breaks:
            raise KeyError("x")
        return Verdict(Action.STOP, "worst at its rung")


def test_the_report_at_which_a_rule_stumbled_is_judged_once_it_is_mended(tmp_path: Path):
    def stops(folder: str) -> list[tuple[str, int | None, str]]:
        verdicts = [row for row in read_rows(tmp_path / folder / SWEEP.id) if isinstance(row, VerdictRow)]
        return [(row.trial, row.step, row.reason) for row in verdicts if row.action is Action.STOP]

    go(tmp_path / "whole", rule=Rung(breaks=False))
    with pytest.raises(StrategyError):
        go(tmp_path / "mended", rule=Rung(breaks=True))
    assert not stops("mended")
    go(tmp_path / "mended", rule=Rung(breaks=False))
    assert stops("mended") == stops("whole")
    assert len(stops("whole")) == 2


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("breaks", [1, 2])
def test_what_comes_after_the_report_at_which_a_rule_stumbled_does_not_hide_it(breaks: int, interrupted: bool):
    """On Ray trials report on while their processes are asked to save, maybe since somebody pressed Ctrl-C; each report is judged
    as if nothing had come after it."""
    journal, metric = MemoryJournal(), SWEEP.goal.metric
    controller = SweepController(Plan(SWEEP), journal, Rung(breaks=True))
    trials = [launch.spec.id for launch in (controller.next(), controller.next()) if launch is not None]
    if interrupted:
        controller.interrupt("user", "Ctrl-C")
    for trial in trials:
        controller.report(trial, 1, 4, {metric: 0.5})
        controller.report(trial, 1, 5, {"train/loss": 1.0})
    for left in reversed(range(breaks)):
        with pytest.raises(StrategyError):
            controller.raise_if_broken()
        controller.report(trials[0], 1, 6, {metric: 0.6})
        controller = SweepController(Plan(SWEEP), journal, Rung(breaks=left > 0))
    rows = journal.rows()
    stops = [row for row in rows if isinstance(row, VerdictRow) and row.action is Action.STOP]
    assert [(row.trial, row.step) for row in stops] == [(trial, 4) for trial in trials]
    seen = [rows[row.seen or 0] for row in stops]
    assert [(row.trial, row.step) for row in seen if isinstance(row, ReportRow)] == [(trial, 4) for trial in trials]
    assert {curve.state for curve in controller.history.trials()} == {"pruned"}
    assert controller.broken is None


class Watches(StopRule):
    """Does something else with the third score that it sees."""

    def __init__(self, does: Callable[[Any, Row], Any]) -> None:
        super().__init__(SWEEP.goal)
        self.does, self.seen = does, 0

    def observe(self, row: Row) -> bool:
        self.seen += isinstance(row, ReportRow)
        return self.does(self, row) if self.seen == 3 else super().observe(row)

    def decide(self, trial: str) -> Verdict:
        return Verdict(Action.CONTINUE, f"{len(self.history.curves[trial].points)} points")


def raises_before(rule: Watches, row: Row) -> bool:
    raise KeyError("x")


def raises_after(rule: Watches, row: Row) -> bool:
    StopRule.observe(rule, row)
    raise KeyError("x")


def returns_nothing(rule: Watches, row: Row) -> bool:
    StopRule.observe(rule, row)
    return None  # type: ignore[return-value]


def keeps_it(rule: Watches, row: Row) -> bool:
    return True


def loses_it(rule: Watches, row: Row) -> bool:
    rule.history = History()
    return StopRule.observe(rule, row)


def exits(rule: Watches, row: Row) -> bool:
    raise SystemExit(3)


def swallowing(trial: Any, hooks: Any, *, folder: Path, resume: Any) -> None:
    """A training loop that goes on whatever its hooks raise."""
    try:
        FakeTrainer()(trial, hooks, folder=folder, resume=resume)
    except Exception:
        return


@pytest.mark.parametrize("train", [FakeTrainer(), swallowing])
@pytest.mark.parametrize(
    ("does", "why"),
    [
        (raises_before, r"KeyError: 'x' \(test_own_rule\.py:\d+\)"),
        (raises_after, "KeyError: 'x'"),
        (returns_nothing, "observe returned None; expected True or False"),
        (keeps_it, "observe did not hand its row on"),
        (loses_it, "observe put something else in place of self.history"),
        (exits, "SystemExit: 3"),
    ],
)
def test_what_a_rule_makes_of_a_row_is_told_as_its_fault_and_no_row_is_lost(tmp_path: Path, does, why, train):
    with pytest.raises(StrategyError, match=f"^stop rule 'Watches' .*{why}"):
        go(tmp_path, rule=Watches(does), train=train)
    assert re.search(why, last_interrupt(tmp_path))
    rows = read_rows(tmp_path / SWEEP.id)
    assert not [row for row in rows if isinstance(row, EndRow)]
    assert sum(isinstance(row, ReportRow) for row in rows) >= 3
    go(tmp_path, rule=Watches(lambda rule, row: StopRule.observe(rule, row)), train=train)
    assert {curve.state for curve in History(read_rows(tmp_path / SWEEP.id)).trials()} == {"completed"}


class Bare(StopRule):
    """Has no history."""

    def __init__(self) -> None:
        """Makes nothing."""

    def decide(self, trial: str) -> Verdict:
        raise AssertionError


def test_a_rule_without_a_history_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(InputError, match=r"Bare: got history None; expected its __init__ to call super"):
        go(tmp_path, rule=Bare())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("does", [raises_before, lambda rule, row: StopRule.observe(rule, row)])
def test_a_replay_names_the_rule_that_stumbles(does):
    start = TrialRow("s", "t-1", budget=4, config={"model": "m"})
    reports = tuple(ReportRow("s", "t-1", 1, step, metrics={"transfer/score": 0.5}, suite="m") for step in (1, 2, 3, 4))
    recording, rule = Recording("t-1", start, reports, (1.0,) * 4), Watches(does)
    if does is raises_before:
        with pytest.raises(StrategyError, match=r"^stop rule 'Watches' .*KeyError: 'x'"):
            simulate([recording], rule)
    else:
        assert simulate([recording], rule).completed("t-1")


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


class Empty(Once):
    """Counts what is left of it, which is nothing yet."""

    def __len__(self) -> int:
        return 0


class Stops(Answers):
    """Likewise."""

    def __len__(self) -> int:
        return 0


def test_a_rule_and_a_search_that_count_nothing_yet_are_used_all_the_same(tmp_path: Path):
    rule = Stops(lambda: Verdict(Action.STOP, "enough"))
    done = go(tmp_path, searcher=Empty(Plan(SWEEP)), rule=rule)
    assert [(trial.config["replay"], trial.reason) for trial in done.trials] == [(0.1, "enough")]


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


class Unnumbered(Once):
    """Proposes a trial without a number, of which it would never hear again."""

    def ask(self) -> Suggestion | None:
        found = super().ask()
        return None if found is None else Suggestion(None, found.config)  # type: ignore[arg-type]


class Unwritable(Once):
    """Wants kept what no row can hold."""

    def ask(self) -> Suggestion | None:
        found = super().ask()
        return None if found is None else Suggestion(0, found.config, {"at": Path()})


class ForEver(Once):
    """Proposes the same for ever."""

    def ask(self) -> Suggestion | None:
        return Suggestion(0, self.plan.config(self.plan.cells[1], {}, 0))


@pytest.mark.parametrize("search", [Forgets, Raises, Odd, Lost, Unnumbered, Unwritable, ForEver])
def test_what_a_search_stumbles_over_is_told_as_its_fault_and_a_mended_one_goes_on(tmp_path: Path, search: type[Once]):
    errors = "KeyError|RuntimeError|TypeError|InputError"
    with pytest.raises(
        StrategyError, match=rf"^search '{search.__name__}' \(.*{search.__name__}\): ({errors}): "
    ) as told:
        go(tmp_path, searcher=search(Plan(SWEEP)))
    assert last_interrupt(tmp_path) == str(told.value)
    assert [trial.config["replay"] for trial in go(tmp_path, searcher=Once(Plan(SWEEP))).trials] == [0.1]
    assert {curve.state for curve in History(read_rows(tmp_path / SWEEP.id)).trials()} == {"completed"}


def test_a_search_that_cannot_be_given_more_trials_ends_the_sweep_with_a_sentence(tmp_path: Path):
    class Fixed(Once):
        @property
        def plan(self) -> Plan:
            return Plan(SWEEP)

        @plan.setter
        def plan(self, plan: Plan) -> None:
            if hasattr(self, "given"):
                raise RuntimeError("my plan is fixed")

    controller = SweepController(Plan(SWEEP), MemoryJournal(), NeverStop(SWEEP.goal), Fixed(Plan(SWEEP)))
    controller.control("add", "ana", args={"trials": 2}, request="1")
    assert controller.next_trials(2) == []
    assert not controller.finish_if_done()
    with pytest.raises(StrategyError, match=r"^search 'Fixed' .*my plan is fixed"):
        controller.raise_if_broken()


def broken_training(trial: Any, hooks: Any, **keywords: Any) -> None:
    raise KeyError("weights")


def broken_evaluation(job: Any) -> Any:
    raise KeyError("items") if job.step else ZeroDivisionError


def test_an_error_of_ones_own_training_or_evaluation_stands_in_the_journal_with_its_name_and_its_line(tmp_path: Path):
    done = go(tmp_path / "a", train=broken_training)
    assert {trial.state for trial in done.trials} == {"failed"}
    (told,) = {row.detail for row in read_rows(tmp_path / "a" / SWEEP.id) if isinstance(row, EndRow) and row.trial}
    assert re.fullmatch(
        rf"KeyError: 'weights' \(raised by training function {__name__}\.broken_training, test_own_rule\.py:\d+\)", told
    )
    go(tmp_path / "b", evaluate=broken_evaluation)
    (told,) = {row.reason for row in read_rows(tmp_path / "b" / SWEEP.id) if isinstance(row, EvalRow) and row.step}
    assert re.search(rf"KeyError: 'items' \(raised by evaluation {__name__}\.broken_evaluation, test_own_rule", told)


class Printer:
    """Cannot print the fourth line, nor itself."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) == 4:
            raise KeyError(line)

    def __repr__(self) -> str:
        raise RuntimeError("has no text")


def test_a_callback_that_raises_ends_nothing_and_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def progress(now: Any) -> None:
        raise KeyError("bar")

    printer = Printer()
    done = go(tmp_path, say=printer, on_progress=progress)
    assert {trial.state for trial in done.trials} == {"completed"}
    assert len(printer.lines) > 4
    (said,) = (record.message for record in caplog.records)
    assert re.match(rf"{__name__}\.Printer raised KeyError: .* \(test_own_rule\.py:\d+\); lines", said)
    (line,) = (line for line in printer.lines if line.startswith("progress is unknown"))
    assert re.search(r"progress raised KeyError: 'bar' \(test_own_rule\.py:\d+\)", line)
