"""Where the speed of each kind of trial is from: what journals tell of it, else what they tell of one worker, else published."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.preflight.cost import speeds_for
from sweeps import Sweep
from sweeps.config.plan import Plan
from sweeps.journal.rows import Row
from sweeps.planning.speeds import GROUP_START_S, PUBLISHED_ERROR, Speed
from tests.support.rows import make_row

ONE_STEP_S, TOKENS = 2.0, 1536.0


def of_two() -> Sweep:
    return Sweep(name="s", models={"tiny-s": {"workers": 2}})


def journal(workers: int, reports: int, before: float = 9.0) -> Iterator[Row]:
    """An attempt of so many workers: its start took `before` seconds until it trained, and it reported so many steps."""
    (spec,) = Plan(of_two()).known_trials()
    yield make_row("trial", "p", "t-1", config=spec.config)
    yield make_row("attempt", "p", "t-1", 1, 0, extra={"workers": workers})
    for step in range(1, reports + 1):
        told = {"perf/start_up_s": before, "perf/reused_processes": 0.0} if step == 1 else {"train/loss": 1.0}
        cost = {"cpu_s": step * ONE_STEP_S * workers}
        yield make_row("report", "p", "t-1", 1, step, metrics=told, progress={"tokens": step * TOKENS}, cost=cost)


def planned(*journals: Iterator[Row]) -> Speed:
    (speed,) = speeds_for(Plan(of_two()), gpu="H100", journals=[list(rows) for rows in journals]).values()
    return speed


def test_starts_of_several_workers_leave_the_steps_of_one_to_tell_how_long_theirs_take():
    alone = planned(journal(1, 9))
    assert alone.step.source.endswith("of one worker")
    both = planned(journal(2, 1), journal(1, 9))
    assert both.step == alone.step
    assert both.step.error == PUBLISHED_ERROR
    assert "of one worker" not in planned(journal(2, 1)).step.source  # published: no step was measured at all
    assert both.start_up.seconds == pytest.approx(9.0)  # their own starts, as they were
    assert alone.start_up.seconds == pytest.approx(9.0 + GROUP_START_S)


def test_steps_of_several_workers_go_before_those_of_one():
    own = planned(journal(2, 9))
    assert planned(journal(2, 9), journal(1, 9)).step == own.step
    assert "of one worker" not in own.step.source


def on_one(gpus: float) -> Plan:
    return Plan(Sweep(name="s", models={"tiny-s": {"gpus_per_worker": gpus}}))


def ran_on(device: str) -> list[Row]:
    """A sweep that trained and scored on one kind of device."""
    spec = on_one(0).known_trials()[0]
    rows = [
        make_row("sweep", "p", extra={"spec": {"evaluation": {"suite": "mini", "items": 20}}}),
        make_row("trial", "p", "t-1", config=spec.config),
    ]
    rows += [make_row("attempt", "p", "t-1", 1, 0, extra={"workers": 1})]
    for step in range(1, 10):
        cost = {f"{device}_s": step * ONE_STEP_S}
        rows.append(
            make_row(
                "report",
                "p",
                "t-1",
                1,
                step,
                metrics={"train/loss": 1.0},
                progress={"tokens": step * TOKENS},
                cost=cost,
            )
        )
    return [*rows, make_row("eval", "p", "t-1", 1, 9, cost={f"{device}_s": 77.0}, extra={"status": "done"})]


@pytest.mark.parametrize(("gpus", "same", "other"), [(0, "cpu", "gpu"), (1, "gpu", "cpu")])
def test_what_ran_on_the_other_kind_of_device_tells_nothing(gpus, same, other):
    def speed(*journals):
        (found,) = speeds_for(on_one(gpus), gpu="H100", journals=journals).values()
        return found

    published, measured = speed(), speed(ran_on(same))
    assert measured.step.seconds == pytest.approx(ONE_STEP_S * measured.tokens / TOKENS)
    assert measured.step.seconds > 10 * published.step.seconds
    assert measured.evaluation.source == "evaluations: earlier sweeps here"
    assert speed(ran_on(other)) == published
    assert speed(ran_on(same), ran_on(other)) == measured


def test_scores_that_were_looked_up_say_nothing_of_how_long_an_evaluation_takes():
    measured = ran_on("cpu")
    looked_up = make_row("eval", "p", "t-1", 1, 8, cost={"cpu_s": 0.02}, extra={"status": "done", "cached": True})
    (speed,) = speeds_for(on_one(0), gpu="H100", journals=[[*measured, looked_up, looked_up]]).values()
    (alone,) = speeds_for(on_one(0), gpu="H100", journals=[measured]).values()
    assert speed == alone
