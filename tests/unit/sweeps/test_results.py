"""Results in Python: the rows, the frames, and that they agree with the report."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.run_sweep import run
from sweeps import InputError, Sweep, grid, load
from sweeps.journal.writer import SweepJournal
from sweeps.replies import KeptReply, ReplyWriter
from sweeps.results import CurvePoint
from tests.support.fakes import FakeTrainer, fake_evaluate
from tests.support.report_journals import SWEEP, demo_stories, journal, story


def write(storage, rows, name=SWEEP):
    with SweepJournal(storage / name) as log:
        for row in rows:
            log.append(replace(row, sweep=name))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    storage = tmp_path_factory.mktemp("runs")
    write(storage, journal(demo_stories()))
    return load(storage / SWEEP)


def test_the_best_is_a_setting_and_a_trial_is_its_example(results):
    assert results.best.rank == 1
    assert results.best_trial.id in results.best.trials
    assert results.best.metrics["transfer/score"].change.low < results.best.metrics["transfer/score"].change.high


def test_every_score_is_a_row_with_the_base_at_step_zero(results):
    trial = results.trials[0].trial
    points = [p for p in results.curves("general/score") if p.trial == trial]
    assert [p.step for p in points] == [0, 5, 10, 20, 40, 80, 120, 160, 200, 300, 400]
    assert points[0] == CurvePoint(trial, results.trials[0].label, "general/score", 0, 0.98, 0.0099, 200)
    assert {p.metric for p in results.curves()} > {"general/score", "train/loss", "length/mean"}


def test_frames_hold_what_the_rows_hold(results):
    frame = results.trials.to_pandas()
    assert list(frame["trial"]) == [t.trial for t in results.trials]
    assert set(frame["config.data"]) == {"verified-long-cot", "answer-only", "corrupted-cot"}
    scores = results.scores().to_pandas()
    best = scores[(scores["setting"] == results.best.id) & (scores["metric"] == "transfer/score")]
    assert float(best["value"].iloc[0]) == results.best.metrics["transfer/score"].value
    wide = results.curves("transfer/score").to_pandas().pivot(index="step", columns="label", values="value")
    assert wide.loc[0].nunique() == 1, "one base for all"
    assert results.verdicts().where(lambda v: v.verdict == "never").to_pandas().empty


def test_verdicts_decisions_and_costs_are_those_of_the_report(results):
    assert len(results.verdicts()) == sum(len(s.verdicts) for s in results.settings)
    assert [d.action for d in results.decisions()] == ["STOP", "PAUSE"]
    total = results.summary.costs
    assert sum(c.training_cpu_s for c in results.costs()) == pytest.approx(total.training.cpu_s)


def test_the_replies_behind_a_score_are_rows_too(tmp_path):
    write(tmp_path, journal([story()]))
    results = load(tmp_path / SWEEP)
    best = results.best_trial.id
    reply = KeptReply(
        "safety", "safety/harm", 0, "how to …?", "", "I cannot help with that.", 9, False, {"safety/refusal": 1.0}
    )
    ReplyWriter(results.path, "all", best, 400, 1)([reply], 1, "mini@1")
    (found,) = results.replies()
    assert (found.trial, found.step, found.answer) == (best, 400, "I cannot help with that.")
    assert list(results.replies(role="safety").to_pandas()["outcomes.safety/refusal"]) == [1.0]
    with pytest.raises(InputError, match="kept are steps 400"):
        results.replies(best, 5)


def test_a_running_sweep_can_be_read_again(tmp_path):
    rows = journal([story()])
    write(tmp_path, rows[:3])
    results = load(tmp_path / SWEEP)
    assert results.best is None
    assert results.answer[0] == "No trial is complete yet; 1 still open."
    write(tmp_path, rows[3:])
    assert results.best is None, "nothing changes unless it is asked to"
    assert results.refresh().trials[0].state == "completed"


def test_it_shows_itself_in_a_notebook_and_hides_what_users_wrote(tmp_path):
    write(tmp_path, journal([story("<script>alert(1)</script>")]))
    results = load(tmp_path / SWEEP)
    page = results._repr_html_() + results.trials._repr_html_()
    assert "<script>" not in page
    assert "<table>" in page
    assert repr(results).splitlines()[0].endswith(SWEEP)
    assert repr(results.trials).startswith("1 x TrialRow(trial, label, state")


def test_what_is_no_sweep_is_refused_with_what_there_is(tmp_path, results):
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "none")
    write(tmp_path, journal([story()]))
    with pytest.raises(InputError, match=f"is no sweep; it holds {SWEEP}: give one of them"):
        load(tmp_path)
    with pytest.raises(InputError, match="no trial 't-none'; there are t-"):
        results.trial("t-none")


def test_a_run_returns_its_results(tmp_path):
    sweep = Sweep(name="r", space={"replay": grid(0.0, 0.1)}, trainer={"steps": 64})
    results = run(
        sweep,
        storage=tmp_path,
        backend="in-process",
        train=FakeTrainer(),
        evaluate=fake_evaluate,
        say=lambda line: None,
    )
    assert results.best is not None
    assert str(results) == str(tmp_path / sweep.id)
    assert (results / "spec.yaml").is_file()
    assert results.report == str(tmp_path / sweep.id / "report" / "index.html")


def test_neither_ray_nor_pandas_comes_with_the_import(results):
    code = f"""
import sys
from pathlib import Path
from sweeps import load
r = load({str(results.path)!r})
r.curves(), r.scores(), r.verdicts()
print([m for m in ("ray", "torch", "pandas") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[3] / "docs" / "how-to" / "reading-a-report.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S)
    (tmp_path / "runs").mkdir()
    write(tmp_path / "runs", journal(demo_stories()), name="first-1a2b3c4d")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "Best by transfer/score" in capsys.readouterr().out
