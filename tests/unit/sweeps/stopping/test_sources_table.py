"""The table of sources: without rivals it says nothing of them, with rivals it compares."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.stopping.recorded import spared
from benchmarks.stopping.sources import main, sources
from benchmarks.stopping.worlds import METRIC, generate
from tests.support.rows import make_row

STOPPING = Path(__file__).parents[4] / "benchmarks" / "stopping"


@pytest.mark.parametrize("rivals", [True, False])
def test_a_table_without_rivals_has_no_numbers_of_them(
    rivals: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = generate("published", 3, trials=8)
    rows = [*sweep.shared, *(row for r in sweep.recordings for row in (r.start, *r.base, *r.reports))]
    (tmp_path / "curves.jsonl").write_text("".join(row.line() for row in rows))
    asked = ["--metric", METRIC, "--rules", "median", "--draws", "1"]
    main([str(tmp_path / "curves.jsonl"), *asked, *([] if rivals else ["--no-rivals"])])
    told = capsys.readouterr().out
    assert "nan" not in told
    assert ("rival" in told) is rivals
    assert told.splitlines()[-1].startswith("median, 1 sweeps: lost")


def test_curves_without_a_sweep_to_judge_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(STOPPING / "published.jsonl"), "--no-rivals"])
    assert "no sweep with more than 3 trials" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metric", "up"),
    [("answer/score", True), ("power", True), ("valid/wer", False), ("val_loss", False), ("train/loss", False)],
)
def test_less_is_better_where_a_whole_word_of_the_metric_says_so(metric: str, up: bool) -> None:
    rows = [
        make_row("report", "s", f"t-{i}", step=10 * j, budget=30, metrics={metric: 0.1 * i})
        for i in range(5)
        for j in range(1, 4)
    ]
    (source,) = sources(rows, metric)
    assert source.goal.maximize is up


def test_a_branch_that_never_began_is_none_of_the_runs_that_fell() -> None:
    rows = [make_row("report", "s", "base-", step=0, metrics={METRIC: 0.5}, se={METRIC: 0.01})]
    rows += [make_row("attempt", "s", trial, attempt=1, step=0) for trial in ("long", "other")]
    for trial, inherited in (("long", ""), ("other", ""), ("branch", "long")):
        keys = {"budget": 60, **({"inherited": inherited} if inherited else {})}
        rows += [
            make_row("report", "s", trial, attempt=1, step=10 * j, metrics={METRIC: 0.1}, se={METRIC: 0.01}, **keys)
            for j in range(1, 7)
        ]
    assert spared(rows, "none", METRIC, top=1).left == 2 * 50
