"""What to run next: a sweep file that validates, with the reason and the settings that the findings name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sweeps import Sweep
from sweeps import load as load_results
from sweeps.config.plan import Plan
from sweeps.config.sweep_file.yaml import load
from sweeps.journal.writer import SweepJournal
from sweeps.report import render_html, summarize
from sweeps.report.next_sweep import NextSweep, next_sweep
from tests.support.report_journals import BASE, definition, dip, journal, story
from tests.unit.sweeps.report.test_report_elsewhere import dipsweep


def curve(*changes):
    return {"transfer/score": lambda share: changes[min(int(share * len(changes)), len(changes) - 1)]}


def followed(*stories, axes=None, tmp_path, **spec):
    """The follow-up of a sweep, written to a file and read back as a user's own."""
    spec = definition(axes or {"replay": [s.config["replay"] for s in stories]}, constraints=[], **spec)
    found = next_sweep(summarize(journal(stories, spec=spec)))
    (tmp_path / "next.yaml").write_text(found.yaml("cost: not known"))
    sweep = load(tmp_path / "next.yaml")
    assert sweep.id == found.sweep.id
    plan = Plan(sweep)
    return found, plan


@pytest.fixture(autouse=True)
def base(monkeypatch):
    monkeypatch.setitem(BASE, "transfer/score", 0.6)


def test_one_that_still_rises_runs_longer(tmp_path):
    rising = story(curves={"transfer/score": dip(0.5, 0.62)})
    found, plan = followed(rising, story(replay=0.0, curves=curve(-0.5)), tmp_path=tmp_path)
    assert found.kind == "longer"
    assert "still rises at step 400" in found.why
    assert 400 < found.sweep.trainer.steps <= 1600
    assert plan.total == 2, "one setting, two seeds"
    assert found.sweep.seed == 1, "other seeds than those that ran"


def test_an_own_budget_each_where_budgets_are_an_axis(tmp_path):
    one = story(steps=400, curves={"transfer/score": dip(0.5, 0.62)})
    two = story("answer-only", steps=200, curves={"transfer/score": lambda share: dip(0.5, 0.62)(2 * share)})
    axes = {"data": ["verified-long-cot", "answer-only"], "steps": [400, 200]}
    found, plan = followed(one, two, axes=axes, tmp_path=tmp_path)
    configs = [plan.config(plan.cells[i], {}, 0) for i in range(len(plan.cells))]
    assert found.kind == "longer"
    assert {c["data"] for c in configs} == {"verified-long-cot", "answer-only"}
    assert all(c["steps"] > {"verified-long-cot": 400, "answer-only": 200}[c["data"]] for c in configs)


def test_one_past_its_best_runs_shorter(tmp_path):
    found, _ = followed(story(curves=curve(0.1, 0.3, 0.3, 0.0, 0.0)), tmp_path=tmp_path)
    assert found.kind == "shorter"
    assert found.sweep.trainer.steps < 400


def test_ties_run_again_on_other_seeds(tmp_path):
    found, plan = followed(
        story(replay=0.1, curves=curve(0.2)), story(replay=0.2, curves=curve(0.2)), story(replay=0.0, curves=curve(-0.5)),
        tmp_path=tmp_path,
    )  # fmt: skip
    assert found.kind == "seeds"
    assert {cell["replay"] for cell in plan.cells} == {0.1, 0.2}
    assert 3 <= found.sweep.search.repeats <= 8


def test_a_clear_best_is_confirmed(tmp_path):
    found, plan = followed(
        story(replay=0.1, curves=curve(0.1, 0.2, 0.3)), story(replay=0.0, curves=curve(-0.5)), tmp_path=tmp_path
    )
    assert (found.kind, plan.total) == ("confirm", 3)


def test_of_several_that_differ_in_two_axes_each_keeps_its_own_pair(tmp_path):
    a, b = story(replay=0.1, curves=curve(0.2)), story("answer-only", replay=0.2, curves=curve(0.2))
    axes = {"data": ["verified-long-cot", "answer-only"], "replay": [0.1, 0.2]}
    _, plan = followed(a, b, axes=axes, tmp_path=tmp_path)
    assert {(c["data"], c["replay"]) for c in plan.cells} == {("verified-long-cot", 0.1), ("answer-only", 0.2)}


def test_sampled_axes_become_the_values_that_were_drawn(tmp_path):
    a = story(config={"learning_rate": 0.00123}, curves=curve(0.3))
    spec = definition({}, constraints=[])
    spec["space"] = {"learning_rate": {"loguniform": [1e-5, 1e-2]}}
    found = next_sweep(summarize(journal([a], spec=spec)))
    assert found.sweep.to_json()["space"] == {"learning_rate": {"grid": [0.00123]}}


def test_an_evaluation_schedule_in_steps_goes_on_to_the_new_end(tmp_path):
    evaluation = {"suite": "mini", "at": [10, 100, 400]}
    found, _ = followed(story(curves={"transfer/score": dip(0.5, 0.62)}), tmp_path=tmp_path, evaluation=evaluation)
    at = found.sweep.evaluation.at
    assert at[:3] == [10, 100, 400]
    assert at[-1] == found.sweep.trainer.steps


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_of_a_metric_whose_direction_has_to_be_said_it_is_said(goal, tmp_path):
    sweep = Sweep(name="short-replies", objective={"metric": "length/truncated", "goal": goal})
    (tmp_path / "next.yaml").write_text(NextSweep("confirm", "again", sweep).yaml())
    assert load(tmp_path / "next.yaml").objective == sweep.objective


def test_nothing_is_proposed_while_it_runs_or_where_nothing_fits():
    assert next_sweep(summarize(journal([story(until=0.5, end="running")]))) is None
    assert next_sweep(summarize([])) is None
    failed = journal([story(until=0.1, end="failed")], spec=definition({}))
    assert next_sweep(summarize(failed)) is None


def test_a_sweep_of_another_version_has_a_page_all_the_same():
    spec = definition({"replay": [0.1]}, constraints=[], gone_since="v0")
    page = render_html(summarize(journal([story(curves=curve(0.3))], spec=spec)))
    assert 'id="next"' not in page


def test_the_command_prints_a_file_that_validates_with_its_planned_cost(tmp_path):
    spec = definition({"replay": [0.1, 0.0]}, constraints=[])
    rows = journal([story(curves=curve(0.3)), story(replay=0.0, curves=curve(-0.5))], spec=spec)
    with SweepJournal(tmp_path / "runs" / "fake-1a2b3c4d") as log:
        for row in rows:
            log.append(replace(row, sweep="fake-1a2b3c4d"))
    done = dipsweep("next", "fake", "--storage", tmp_path / "runs")
    assert done.exit_code == 0, done.output
    assert "of device time" in done.stdout
    (tmp_path / "next.yaml").write_text(done.stdout)
    assert dipsweep("validate", tmp_path / "next.yaml").exit_code == 0
    assert dipsweep("plan", tmp_path / "next.yaml").exit_code == 0
    assert load_results(tmp_path / "runs" / "fake-1a2b3c4d").best is not None
