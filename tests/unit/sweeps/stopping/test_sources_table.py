"""The table of sources: without rivals it says nothing of them, with rivals it compares."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.stopping.sources import main
from benchmarks.stopping.worlds import METRIC, generate

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
